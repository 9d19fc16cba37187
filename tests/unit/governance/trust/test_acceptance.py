"""A country's documents are verified without the lock, and published only if that still holds."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from governance.documents.rotation import extended
from governance.errors import DocumentFault
from governance.runtime.files import one_writer
from governance.trust.acceptance import CountrySubmission
from governance.trust.bundle import CountryBundle
from governance.trust.ceremony import Draft, sign_draft
from governance.trust.layout import withdrawal_path
from governance.trust.repository import MOST_ATTEMPTS
from governance.trust.state import PublishedState
from tests.support.documents import (
    FederationDocuments,
    agreement,
    country_metadata,
    permit,
    raw_key,
    study,
    withdrawal,
)

NEXT = raw_key(777)


def accept(documents: FederationDocuments, bundle: bytes, **how: Any) -> int | None:
    return documents.store.accept_country(
        bundle, documents.now, online_key=documents.online_key, **how
    )


def interrupted(
    monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], times: int = 1
) -> list[str]:
    """Let `act` happen after the verification, before the lock is taken, so many times."""
    original, verified = CountrySubmission.verify, list[str]()

    def verify(self: CountrySubmission, state: PublishedState) -> None:
        original(self, state)
        verified.append(self.country)
        if verified.count("DK") <= times and self.country == "DK":
            act()

    monkeypatch.setattr(CountrySubmission, "verify", verify)
    return verified


def test_verification_holds_no_lock(
    full: FederationDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_the_lock_elsewhere() -> None:
        def take() -> None:
            with one_writer(full.home / "store"):
                taken.set()

        thread = threading.Thread(target=take)
        thread.start()
        thread.join(5)

    taken = threading.Event()
    interrupted(monkeypatch, take_the_lock_elsewhere)
    full.sign_and_submit("DK")
    assert taken.is_set()


def test_another_country_s_change_meanwhile_costs_no_second_verification(
    full: FederationDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = interrupted(monkeypatch, lambda: full.sign_and_submit("EE"))
    full.sign_and_submit("DK")
    assert verified == ["DK", "EE"]
    assert full.view().versions.countries == {"DK": 2, "EE": 2, "NO": 1, "PT": 1}


def test_an_amendment_meanwhile_is_verified_against(
    full: FederationDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new agreement no longer names the key that signed the documents."""

    def amend() -> None:
        parties = [party.model_dump() for party in full.agreed.parties]
        parties[0]["officer_key"] = raw_key(200).public.to_text()
        full.store.draft(agreement(parties=parties), full.now)
        full.sign("DK", "EE", "NO")
        full.store.add_signatures(signed_by_new_key())
        full.publish()

    def signed_by_new_key() -> bytes:
        draft = Draft.from_canonical(full.store.current_draft() or b"")
        return sign_draft(
            draft,
            raw_key(200),
            previous_root=full.store.read("metadata/1.root.json"),
            now=full.now,
        )

    verified = interrupted(monkeypatch, amend)
    with pytest.raises(DocumentFault, match="not published"):
        full.sign_and_submit("DK")
    assert verified == ["DK"]
    assert "DK" in full.view().absent


def test_a_state_that_changes_each_time_ends_in_a_refusal(
    full: FederationDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    def amend() -> None:
        full.store.draft_renewal(full.now)
        full.sign("DK", "EE", "NO")
        full.publish()

    verified = interrupted(monkeypatch, amend, times=MOST_ATTEMPTS)
    with pytest.raises(DocumentFault, match="changed each time"):
        full.sign_and_submit("DK")
    assert verified == ["DK"] * MOST_ATTEMPTS
    full.sign_and_submit("DK")


def test_of_two_versions_at_once_the_older_one_never_replaces_the_newer(
    full: FederationDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of a country's programs submit at the same time."""
    first = full.folders["DK"].sign(full.now, full.officers["DK"])
    second = full.folders["DK"].sign(full.now, full.officers["DK"])

    def publish_between() -> None:
        monkeypatch.undo()
        accept(full, first)

    interrupted(monkeypatch, publish_between)
    assert accept(full, second) == 3
    with pytest.raises(DocumentFault, match="not newer"):
        accept(full, first)


def test_a_permit_answers_a_published_study(full: FederationDocuments) -> None:
    asked = study(full.agreed)
    full.folders["DK"].approve(permit(full.agreed, asked))
    with pytest.raises(DocumentFault, match="1 study that the coordinator has not published") as no:
        full.sign_and_submit("DK")
    assert asked.digest in no.value.why
    full.propose(asked)
    full.sign_and_submit("DK")
    assert full.view().countries["DK"].permit(asked.digest)


def test_the_first_few_unpublished_studies_are_named(full: FederationDocuments) -> None:
    for number in range(5):
        full.folders["DK"].withdraw(withdrawal(study(full.agreed, id=f"number-{number}")))
    with pytest.raises(DocumentFault, match="5 studies") as no:
        full.sign_and_submit("DK")
    assert no.value.why.endswith("and 2 more")


def test_what_is_published_already_may_be_renewed(
    full: FederationDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier version accepted decisions on anything; its country must not lapse for that."""
    full.folders["DK"].withdraw(withdrawal(study(full.agreed)))
    with monkeypatch.context() as earlier:
        earlier.setattr("governance.trust.acceptance._require_answers", lambda *_: None)
        full.sign_and_submit("DK")
    full.sign_and_submit("DK")
    assert full.view().versions.countries["DK"] == 3


def test_documents_under_a_next_key_must_answer_studies_too(full: FederationDocuments) -> None:
    folder = full.folders["DK"]
    folder.set_history(extended(None, "DK", full.officers["DK"], NEXT, full.now))
    full.sign_and_submit("DK")
    assert accept(full, folder.sign_next(full.now, NEXT)) is None  # stored, not published
    folder.withdraw(withdrawal(study(full.agreed)))
    with pytest.raises(DocumentFault, match="not published"):
        accept(full, folder.sign_next(full.now, NEXT))


@pytest.mark.parametrize("announced", [False, True], ids=["key in force", "next key"])
def test_documents_beyond_the_allowance_are_refused_under_either_key(
    full: FederationDocuments, announced: bool
) -> None:
    folder, key = full.folders["DK"], full.officers["DK"]
    folder.set_history(extended(None, "DK", key, NEXT, full.now))
    published = CountryBundle.from_canonical(full.sign_and_submit("DK"))
    large = {withdrawal_path("DK", f"sha256:{n:064x}"): "x" * 250_000 for n in range(9)}
    texts = {**published.targets, **large}
    signer = NEXT if announced else key
    metadata, _ = country_metadata(
        signer, {path: text.encode() for path, text in texts.items()}, version=9
    )
    bundle = CountryBundle(country="DK", metadata=metadata.decode(), targets=texts)
    with pytest.raises(DocumentFault, match="bytes, and at most 2097152 count"):
        accept(full, bundle.canonical())


def test_a_country_submits_its_own_documents_only(full: FederationDocuments) -> None:
    bundle = full.folders["DK"].sign(full.now, full.officers["DK"])
    with pytest.raises(DocumentFault, match="EE submitted documents of DK"):
        accept(full, bundle, by="EE")
    assert accept(full, bundle, by="DK") == 2


def test_a_renewal_lists_what_is_published_and_is_signed_by_the_country(
    full: FederationDocuments,
) -> None:
    folder, key, store = full.folders["DK"], full.officers["DK"], full.store
    renewal = folder.sign(full.now, key)
    assert store.is_renewal(renewal, by="DK")
    assert not store.is_renewal(renewal, by="EE")
    read = CountryBundle.from_canonical(renewal)
    texts = {path: text.encode() for path, text in read.targets.items()}
    metadata, _ = country_metadata(NEXT, texts, version=9)
    forged = read.model_copy(update={"metadata": metadata.decode()})
    assert not store.is_renewal(forged.canonical(), by="DK")
    folder.withdraw(withdrawal(study(full.agreed)))
    assert not store.is_renewal(folder.sign(full.now, key), by="DK")
