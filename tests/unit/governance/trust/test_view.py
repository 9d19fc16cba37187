from datetime import timedelta

import pytest

from governance.documents.models import UtcTime
from governance.errors import DocumentFault
from governance.trust import signing
from governance.trust.bundle import CountryDocuments, own_country
from governance.trust.client import NOWHERE
from governance.trust.high_water import TrustHighWater
from governance.trust.view import TrustedView
from protocols.wire.document_versions import DocumentVersions
from tests.support.documents import (
    COUNTRIES,
    DAY,
    NOW,
    FederationDocuments,
    LyingCoordinator,
    country_metadata,
    node_keys,
    permit,
    raw_key,
    study,
    withdrawal,
)
from tests.support.narrowing import present


def verified_own(
    documents: FederationDocuments, bundle: bytes, country: str = "DK"
) -> CountryDocuments:
    return own_country(bundle, country, documents.officers[country].public, documents.now)


def test_verifying_keeps_no_file_and_reads_none(
    full: FederationDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of a killed process would stay in the temporary folder permanently."""

    def nowhere(path: str, *_: object, **__: object) -> None:
        assert path.startswith(NOWHERE)
        raise NotADirectoryError

    def nothing(*_: object, **__: object) -> None:
        raise AssertionError("a file was made")

    files, pinned = full.snapshot_of_store(), full.pinned
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", nowhere)
        for function in ("os.open", "os.mkdir", "os.symlink", "tempfile.mkdtemp"):
            patch.setattr(function, nothing)
        view = TrustedView.load(files.get, pinned, full.now, TrustHighWater())
    assert view.agreement == full.agreed


def test_a_view_has_the_documents_of_all_parties(full: FederationDocuments) -> None:
    proposed = study(full.agreed)
    full.propose(proposed)
    full.folders["DK"].approve(permit(full.agreed, proposed))
    full.sign_and_submit("DK")
    view = full.view()
    assert view.agreement == full.agreed
    assert view.study(proposed.digest) == proposed
    assert list(view.studies.values()) == [proposed]
    assert present(view.country("DK")).permit(proposed.digest) is not None
    assert present(view.country("NO")).permit(proposed.digest) is None
    assert view.node_keys("NO") == node_keys("NO")
    assert view.node_keys("SE") is None
    assert view.versions == DocumentVersions(1, 1, {"DK": 2, "EE": 1, "NO": 1, "PT": 1})
    assert view.expires == NOW + timedelta(hours=24)
    assert not view.absent
    assert not view.ignored


def test_missing_documents_are_absent(documents: FederationDocuments) -> None:
    view = documents.view()
    assert view.study("sha256:" + "0" * 64) is None
    assert view.country("DK") is None
    assert set(view.absent) == set(COUNTRIES)
    assert not view.studies


def test_a_view_can_be_rebuilt_from_its_files(full: FederationDocuments) -> None:
    full.propose(study(full.agreed))
    view = full.view()
    again = TrustedView.load(view.files.get, full.pinned, NOW, view.high_water)
    assert again.versions == view.versions
    assert again.studies == view.studies
    assert again.high_water == view.high_water


def test_a_view_after_an_amendment_can_be_rebuilt_from_its_files(full: FederationDocuments) -> None:
    pinned = full.pinned
    full.store.draft(full.agreed, NOW)
    full.sign("EE", "NO", "PT")
    full.publish()
    view = full.view()
    assert TrustedView.load(view.files.get, pinned, NOW, view.high_water).versions.root == 2


def test_the_high_water_mark_remembers_versions_keys_and_time(full: FederationDocuments) -> None:
    high_water = full.view().high_water
    assert (high_water.root, high_water.targets) == (1, 1)
    assert high_water.countries == dict.fromkeys(COUNTRIES, 1)
    assert high_water.keys == {c: full.officers[c].public.to_text() for c in COUNTRIES}
    assert high_water.latest == NOW
    assert TrustHighWater.model_validate_json(high_water.model_dump_json()) == high_water


def test_time_is_the_clock_or_the_latest_signed_time_seen(full: FederationDocuments) -> None:
    high_water = full.view().high_water
    early = TrustedView.load(full.store.read, full.pinned, NOW - 30 * DAY, high_water)
    assert early.now == NOW
    assert full.view(high_water).now == NOW


def test_this_country_s_documents_come_from_its_officer(full: FederationDocuments) -> None:
    proposed = study(full.agreed)
    full.folders["DK"].withdraw(withdrawal(proposed))
    newest = full.folders["DK"].sign(NOW, full.officers["DK"])
    view = full.view()
    assert present(view.country("DK")).withdrawal(proposed.digest) is None
    with_own = view.with_own(verified_own(full, newest))
    assert present(with_own.country("DK")).withdrawal(proposed.digest) is not None
    assert with_own.versions.countries["DK"] == 2
    assert with_own.high_water.countries["DK"] == 2
    assert with_own.country("NO") == view.country("NO")


def test_this_country_s_documents_may_be_known_before_they_are_published(
    documents: FederationDocuments,
) -> None:
    bundle = documents.folders["DK"].sign(NOW, documents.officers["DK"])
    view = documents.view().with_own(verified_own(documents, bundle))
    assert set(view.countries) == {"DK"}
    assert "DK" not in view.absent


def test_a_node_that_is_behind_its_own_officer_stops(full: FederationDocuments) -> None:
    old = present(full.folders["DK"].bundle())
    full.sign_and_submit("DK")
    with pytest.raises(DocumentFault, match="signed version 2; this node has 1"):
        full.view().with_own(verified_own(full, old))


def test_a_country_outside_the_agreement_has_no_own_documents(
    full: FederationDocuments, tmp_path: object
) -> None:
    del tmp_path
    bundle = present(full.folders["DK"].bundle())
    from_elsewhere = verified_own(full, bundle)
    stranger = CountryDocuments(**{**vars(from_elsewhere), "country": "SE"})
    with pytest.raises(DocumentFault, match="another document key for SE"):
        full.view().with_own(stranger)


def test_a_high_water_mark_rises_and_never_falls() -> None:
    high_water = TrustHighWater().with_country("DK", 5, NOW)
    lower = high_water.with_country("DK", 3, NOW - DAY)
    assert lower.countries == {"DK": 5}
    assert lower.latest == NOW
    assert high_water.later_of(NOW - DAY) == NOW
    assert high_water.later_of(NOW + DAY) == NOW + DAY
    assert TrustHighWater().later_of(NOW) == NOW


def test_approving_a_key_replaces_the_one_that_was_seen() -> None:
    high_water = TrustHighWater(keys={"DK": raw_key(1).public.to_text()})
    assert high_water.with_approved_key("DK", raw_key(2).public).keys == {
        "DK": raw_key(2).public.to_text()
    }


@pytest.mark.parametrize(
    "change", [{"root": -1}, {"keys": {"DK": "none"}}, {"latest": "noon"}, {"more": 1}]
)
def test_a_damaged_high_water_mark_is_refused(change: dict[str, UtcTime]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        TrustHighWater.model_validate(change)


def lapsed(full: FederationDocuments, monkeypatch: pytest.MonkeyPatch) -> FederationDocuments:
    """Let PT's second documents expire after a minute."""
    with monkeypatch.context() as patch:
        patch.setattr(signing, "COUNTRY_LIFE", timedelta(minutes=1))
        full.sign_and_submit("PT")
    full.now += timedelta(minutes=2)
    return full


@pytest.mark.parametrize("seen_before", [True, False])
def test_expired_documents_are_absent_and_their_version_is_known(
    full: FederationDocuments, monkeypatch: pytest.MonkeyPatch, *, seen_before: bool
) -> None:
    before = full.view().high_water if seen_before else TrustHighWater()
    view = lapsed(full, monkeypatch).view(before)
    assert view.country("PT") is None
    assert "PT" not in view.versions.countries
    assert view.verified == DocumentVersions(1, 1, {"DK": 1, "EE": 1, "NO": 1, "PT": 2})
    assert view.high_water.countries["PT"] == 2


def test_expired_documents_are_not_replaced_by_older_ones(
    full: FederationDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = LyingCoordinator(full)._state().roles["country-PT"]
    high_water = lapsed(full, monkeypatch).view().high_water
    liar = LyingCoordinator(full)
    liar.put("country-PT", old)
    view = liar.view(high_water)
    assert "version 1, but 2 was seen" in view.absent["PT"]
    assert view.verified.countries["PT"] == 2


def test_a_version_that_its_country_did_not_sign_is_not_known(full: FederationDocuments) -> None:
    liar = LyingCoordinator(full)
    forged, _ = country_metadata(raw_key(9), {}, version=9, life=timedelta(minutes=1))
    liar.put("country-PT", forged)
    full.now += timedelta(minutes=2)
    liar.date(full.now)
    view = liar.view()
    assert view.country("PT") is None
    assert "PT" not in view.verified.countries
    assert "PT" not in view.high_water.countries


def test_versions_under_another_key_and_of_strangers_are_not_compared(
    full: FederationDocuments,
) -> None:
    liar = LyingCoordinator(full)
    liar.hide("country-PT")
    high_water = full.view().high_water.with_country("XX", 4, NOW)
    assert liar.view(high_water).verified.countries == dict.fromkeys(COUNTRIES, 1)
    other = high_water.with_approved_key("PT", raw_key(9).public).with_country("PT", 5, NOW)
    assert "PT" not in liar.view(other).verified.countries
