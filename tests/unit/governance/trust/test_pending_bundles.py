"""Documents under a country's next key are pending until the agreement names that key."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from governance.documents.rotation import extended
from governance.errors import DocumentFault
from governance.trust.bundle import CountryBundle
from governance.trust.pending_bundles import PendingBundles, announced_key
from governance.trust.signing import OfficerDocuments
from governance.trust.state import PublishedState
from tests.support.documents import NOW, FederationDocuments, node_keys, raw_key

NEXT = raw_key(777)


@pytest.fixture
def documents(tmp_path: Path) -> FederationDocuments:
    documents = FederationDocuments(tmp_path / "documents").publish_agreement()
    documents.folders["DK"].set_node(node_keys("DK"))
    documents.sign_and_submit("DK")
    return documents


@pytest.fixture
def pending(tmp_path: Path) -> PendingBundles:
    return PendingBundles(tmp_path)


def next_bundle(documents: FederationDocuments) -> bytes:
    """Return DK's documents, signed by the key that succeeds its key in force."""
    folder: OfficerDocuments = documents.folders["DK"]
    folder.set_history(extended(None, "DK", documents.officers["DK"], NEXT, documents.now))
    documents.sign_and_submit("DK")
    return folder.sign_next(documents.now, NEXT)


def state_with(documents: FederationDocuments, named: bool) -> PublishedState:
    """Return the published state, under an agreement that does or does not name DK's next key."""
    state = PublishedState.read(documents.store.read)
    assert state is not None
    agreed = documents.agreed.with_officer_keys({"DK": NEXT.public.to_text()} if named else {})
    return replace(state, agreement=agreed)


def store(pending: PendingBundles, data: bytes) -> None:
    pending.store(CountryBundle.from_canonical(data), NEXT.public)


def test_documents_under_the_key_in_force_are_not_signed_by_a_next_one(
    documents: FederationDocuments,
) -> None:
    bundle = documents.sign_and_submit("DK")
    assert announced_key(CountryBundle.from_canonical(bundle), documents.agreed) is None


def test_documents_of_a_stranger_are_not_signed_by_a_next_key(
    documents: FederationDocuments,
) -> None:
    bundle = documents.folders["DK"].sign(documents.now, raw_key(5))
    assert announced_key(CountryBundle.from_canonical(bundle), documents.agreed) is None


def test_documents_under_the_next_key_are_stored_and_not_replaced_by_older_ones(
    documents: FederationDocuments, pending: PendingBundles
) -> None:
    older = next_bundle(documents)
    newer = documents.folders["DK"].sign_next(documents.now, NEXT)
    assert announced_key(CountryBundle.from_canonical(newer), documents.agreed) == NEXT.public
    store(pending, newer)
    store(pending, newer)  # a call whose answer was lost is repeated
    with pytest.raises(DocumentFault, match="not newer"):
        store(pending, older)


def test_pending_documents_are_published_with_the_agreement_that_names_the_key(
    documents: FederationDocuments, pending: PendingBundles
) -> None:
    store(pending, next_bundle(documents))
    _, files = pending.with_pending(state_with(documents, named=False), None, documents.now)
    assert not files
    _, files = pending.with_pending(state_with(documents, named=True), None, documents.now)
    assert any("country-DK" in name for name in files)


def test_pending_documents_that_expired_are_left_out(
    documents: FederationDocuments, pending: PendingBundles
) -> None:
    store(pending, next_bundle(documents))
    later = NOW + timedelta(days=30)
    _, files = pending.with_pending(state_with(documents, named=True), None, later)
    assert not files
