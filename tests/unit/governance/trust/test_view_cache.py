"""A cached view is never stale, expired or of another federation."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

import pytest

from governance.documents.permit import PermitConditions
from governance.errors import DocumentFault
from governance.trust import view_cache
from governance.trust.bundle import own_country
from governance.trust.high_water import TrustHighWater
from governance.trust.view import TrustedView
from governance.trust.view_cache import CountryCache, ViewCache
from keys.identity import VerifyKey
from tests.support.documents import (
    DAY,
    NOW,
    FederationDocuments,
    LyingCoordinator,
    permit,
    raw_key,
    study,
    withdrawal,
)

SECOND = timedelta(seconds=1)


class Reader:
    """A reader with a cache that counts how often everything was verified."""

    def __init__(self, documents: FederationDocuments, monkeypatch: pytest.MonkeyPatch) -> None:
        self.documents, self.memory = documents, ViewCache()
        self.files = dict(documents.view().files)
        self.high_water = documents.view().high_water
        self.verified = 0
        real = TrustedView.load

        def counted(*given: object) -> TrustedView:
            self.verified += 1
            return real(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(TrustedView, "load", counted)

    def look(self, now: datetime = NOW, **other: object) -> TrustedView:
        given = {"pinned_root": self.documents.pinned, "high_water": self.high_water} | other
        return self.memory.view(self.files.get, given["pinned_root"], now, given["high_water"])  # type: ignore[arg-type]


@pytest.fixture
def reader(full: FederationDocuments, monkeypatch: pytest.MonkeyPatch) -> Reader:
    full.propose(study(full.agreed))
    return Reader(full, monkeypatch)


@pytest.fixture
def forever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only expiry times end a cached view."""
    monkeypatch.setattr(view_cache, "LONGEST", 10_000 * DAY)


def test_unchanged_files_are_not_verified_again(reader: Reader) -> None:
    first, second = reader.look(NOW), reader.look(NOW + SECOND)
    assert reader.verified == 1
    assert (first.now, second.now) == (NOW, NOW + SECOND)
    assert vars(second) == vars(first) | {"now": NOW + SECOND}


def test_everything_is_verified_once_a_minute(reader: Reader) -> None:
    reader.look(NOW)
    reader.look(NOW + view_cache.LONGEST - SECOND)
    assert reader.verified == 1
    reader.look(NOW + view_cache.LONGEST)
    assert reader.verified == 2


@pytest.mark.usefixtures("forever")
def test_no_view_outlives_the_timestamp(reader: Reader) -> None:
    """A coordinator that shows nothing new is detected when its timestamp expires."""
    expires = reader.look().expires
    assert reader.look(expires - SECOND).agreement
    assert reader.verified == 1
    for late in (expires, expires + SECOND, expires + DAY):
        with pytest.raises(DocumentFault, match="expired"):
            reader.look(late)
    with pytest.raises(DocumentFault):
        reader.look(expires + 2 * DAY)


@pytest.mark.usefixtures("forever")
def test_a_country_s_documents_expire_on_time(
    full: FederationDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seven days end while the coordinator's timestamp is fresh."""
    full.now = NOW + 7 * DAY - timedelta(hours=1)
    full.refresh()
    reader = Reader(full, monkeypatch)
    before = reader.look(full.now)
    assert before.country("DK")
    assert before.unchanged_until < before.expires
    assert reader.look(before.unchanged_until - SECOND).country("DK")
    assert reader.verified == 1
    after = reader.look(before.unchanged_until)
    assert after.country("DK") is None
    assert "expired" in after.absent["DK"]


def test_a_view_without_a_country_is_never_cached(
    full: FederationDocuments, reader: Reader
) -> None:
    late = NOW + 7 * DAY
    full.now = late
    full.refresh()
    reader.files = dict(full.snapshot_of_store())
    assert reader.look(late).absent
    assert reader.look(late).absent
    assert reader.verified == 2


def test_everything_is_verified_again_if_the_clock_goes_back(reader: Reader) -> None:
    reader.look(NOW + SECOND)
    reader.look(NOW)
    assert reader.verified == 2


def test_a_clock_set_back_does_not_keep_documents_that_it_would_refuse(
    full: FederationDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signing time in the future is refused, also if it was accepted with a fast clock."""
    full.now = NOW + 3 * DAY
    full.refresh()
    reader = Reader(full, monkeypatch)
    early = {"high_water": TrustHighWater()}
    assert reader.look(full.now, **early).agreement
    with pytest.raises(DocumentFault, match="trusted"):
        reader.look(NOW, **early)


def test_the_latest_signed_time_counts_if_the_clock_is_behind(reader: Reader) -> None:
    """Expiry is compared with the latest signed time seen, not with the clock."""
    view = reader.look()
    ahead = reader.high_water.model_copy(update={"latest": view.expires + SECOND})
    with pytest.raises(DocumentFault):
        reader.look(NOW + SECOND, high_water=ahead)


CHANGES: dict[str, Callable[[TrustHighWater], TrustHighWater]] = {
    "root": lambda high_water: high_water.model_copy(update={"root": 2}),
    "targets": lambda high_water: high_water.model_copy(update={"targets": 9}),
    "snapshot": lambda high_water: high_water.model_copy(update={"snapshot": 99}),
    "timestamp": lambda high_water: high_water.model_copy(update={"timestamp": 99}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_risen_high_water_mark_refuses_a_cached_view(reader: Reader, what: str) -> None:
    reader.look()
    with pytest.raises(DocumentFault, match="trusted"):
        reader.look(NOW + SECOND, high_water=CHANGES[what](reader.high_water))
    assert reader.look(NOW + SECOND).agreement


def test_a_risen_high_water_mark_of_a_country_makes_it_absent(reader: Reader) -> None:
    assert reader.look().country("DK")
    risen = reader.high_water.with_country("DK", 9, NOW)
    assert reader.look(NOW + SECOND, high_water=risen).country("DK") is None


def test_a_cached_view_is_not_used_for_another_root(reader: Reader, tmp_path: object) -> None:
    reader.look()
    with pytest.raises(DocumentFault):
        reader.look(NOW + SECOND, pinned_root=b"{}")


def test_a_changed_byte_in_any_file_is_noticed(reader: Reader) -> None:
    reader.look()
    file_names = [name for name, data in reader.files.items() if data]
    for name in file_names:
        good = reader.files[name]
        reader.files[name] = good[:-2] + bytes([good[-2] ^ 1]) + good[-1:]
        verified = reader.verified
        try:
            view = reader.look(NOW + SECOND)
        except DocumentFault:
            view = None
        assert reader.verified == verified + 1, name
        assert view is None or view.absent, name
        reader.files[name] = good
        reader.look(NOW + SECOND)


def test_a_file_that_appears_is_noticed(full: FederationDocuments, reader: Reader) -> None:
    """Every check asks for the next root, in vain until it exists."""
    reader.look()
    reader.files["metadata/2.root.json"] = b"{}"
    with pytest.raises(DocumentFault):
        reader.look(NOW + SECOND)


def test_a_file_that_disappears_is_noticed(reader: Reader) -> None:
    reader.look()
    for name in list(reader.files):
        original = reader.files.pop(name)
        verified = reader.verified
        with suppress(DocumentFault):
            assert reader.look(NOW + SECOND).absent, name
        assert reader.verified == verified + 1, name
        reader.files[name] = original
        reader.look(NOW + SECOND)


def test_a_withdrawal_is_seen_at_the_next_check(full: FederationDocuments, reader: Reader) -> None:
    proposed = study(full.agreed)
    full.folders["DK"].approve(permit(full.agreed, proposed))
    full.sign_and_submit("DK")
    reader.files = dict(full.snapshot_of_store())
    assert reader.look().country("DK").permit(proposed.digest)  # type: ignore[union-attr]
    full.folders["DK"].withdraw(withdrawal(proposed))
    full.sign_and_submit("DK")
    reader.files = dict(full.snapshot_of_store())
    assert reader.look(NOW + SECOND).country("DK").withdrawal(proposed.digest)  # type: ignore[union-attr]


def test_an_older_state_that_is_shown_again_is_refused(
    full: FederationDocuments, reader: Reader
) -> None:
    old = dict(reader.files)
    reader.look()
    full.refresh()
    reader.files, reader.high_water = dict(full.snapshot_of_store()), full.view().high_water
    reader.look(NOW + SECOND)
    reader.files = old
    with pytest.raises(DocumentFault, match="older state"):
        reader.look(NOW + 2 * SECOND)


def test_files_signed_by_a_lying_coordinator_are_verified(
    full: FederationDocuments, reader: Reader
) -> None:
    reader.look()
    liar = LyingCoordinator(full)
    liar.hide("country-DK")
    assert reader.memory.view(liar.show, full.pinned, NOW, reader.high_water).country("DK") is None


def test_a_refusal_leaves_nothing_in_the_cache(reader: Reader) -> None:
    view = reader.look()
    with pytest.raises(DocumentFault):
        reader.look(view.expires)
    verified = reader.verified
    reader.look(NOW + SECOND)
    assert reader.verified == verified + 1


class OwnReader:
    def __init__(self, documents: FederationDocuments, monkeypatch: pytest.MonkeyPatch) -> None:
        self.memory, self.verified = CountryCache(), 0

        def counted(*given: object) -> object:
            self.verified += 1
            return own_country(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(view_cache, "own_country", counted)

    def look(self, bundle: bytes, key: VerifyKey, now: datetime, country: str = "DK") -> object:
        return self.memory.country(bundle, country, key, now)


@pytest.mark.usefixtures("forever")
def test_own_documents_are_cached_until_they_expire(
    full: FederationDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, key = OwnReader(full, monkeypatch), full.officers["DK"].public
    bundle = full.sign_and_submit("DK")
    own = reader.look(bundle, key, NOW)
    assert reader.look(bundle, key, NOW + 6 * DAY) is own
    assert reader.verified == 1
    with pytest.raises(DocumentFault, match="cannot be used"):
        reader.look(bundle, key, NOW + 7 * DAY)
    with pytest.raises(DocumentFault, match="cannot be used"):
        reader.look(bundle, key, NOW - 3 * DAY)


def test_cached_own_documents_are_not_used_for_another_key_country_or_content(
    full: FederationDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, key = OwnReader(full, monkeypatch), full.officers["DK"].public
    first = full.sign_and_submit("DK")
    reader.look(first, key, NOW)
    proposed = study(full.agreed)
    full.propose(proposed)
    conditions = PermitConditions(expires=NOW + DAY)
    full.folders["DK"].approve(permit(full.agreed, proposed, conditions=conditions))
    second = full.sign_and_submit("DK")
    assert reader.look(second, key, NOW).permit(proposed.digest)  # type: ignore[attr-defined]
    with pytest.raises(DocumentFault, match="not signed by the key"):
        reader.look(second, raw_key(77).public, NOW)
    with pytest.raises(DocumentFault):
        reader.look(second, key, NOW, "EE")
    assert reader.look(first, key, NOW).permit(proposed.digest) is None  # type: ignore[attr-defined]
    assert reader.verified == 5
