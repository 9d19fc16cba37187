"""Documents under a country's next key are pending until the agreement names that key."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from governance.documents.rotation import extended
from governance.errors import DocumentFault
from governance.trust.pending_bundles import PendingBundles
from governance.trust.signing import OfficerDocuments
from governance.trust.state import PublishedState
from tests.support.documents import NOW, Papers, node_keys, raw_key

NEXT = raw_key(777)


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    papers = Papers(tmp_path / "papers").begin()
    papers.folders["DK"].set_node(node_keys("DK"))
    papers.give("DK")
    return papers


@pytest.fixture
def pending(tmp_path: Path) -> PendingBundles:
    return PendingBundles(tmp_path)


def next_bundle(papers: Papers) -> bytes:
    """Return DK's documents, signed by the key that succeeds its key in force."""
    folder: OfficerDocuments = papers.folders["DK"]
    folder.set_history(extended(None, "DK", papers.officers["DK"], NEXT, papers.now))
    papers.give("DK")
    return folder.sign_next(papers.now, NEXT)


def state_with(papers: Papers, named: bool) -> PublishedState:
    """Return the published state, under an agreement that does or does not name DK's next key."""
    state = PublishedState.read(papers.store.read)
    assert state is not None
    agreed = papers.agreed.with_officer_keys({"DK": NEXT.public.to_text()} if named else {})
    return replace(state, agreement=agreed)


def test_documents_under_the_key_in_force_are_not_pending(
    papers: Papers, pending: PendingBundles
) -> None:
    assert not pending.store_if_next_key(papers.give("DK"), papers.agreed, papers.now)


def test_documents_of_a_stranger_are_not_pending(papers: Papers, pending: PendingBundles) -> None:
    bundle = papers.folders["DK"].sign(papers.now, raw_key(5))
    assert not pending.store_if_next_key(bundle, papers.agreed, papers.now)


def test_documents_under_the_next_key_are_pending_and_not_replaced_by_older_ones(
    papers: Papers, pending: PendingBundles
) -> None:
    older = next_bundle(papers)
    newer = papers.folders["DK"].sign_next(papers.now, NEXT)
    assert pending.store_if_next_key(newer, papers.agreed, papers.now)
    with pytest.raises(DocumentFault):
        pending.store_if_next_key(older, papers.agreed, papers.now)


def test_pending_documents_are_published_with_the_agreement_that_names_the_key(
    papers: Papers, pending: PendingBundles
) -> None:
    pending.store_if_next_key(next_bundle(papers), papers.agreed, papers.now)
    _, files = pending.with_pending(state_with(papers, named=False), None, papers.now)
    assert not files
    _, files = pending.with_pending(state_with(papers, named=True), None, papers.now)
    assert any("country-DK" in name for name in files)


def test_pending_documents_that_expired_are_left_out(
    papers: Papers, pending: PendingBundles
) -> None:
    pending.store_if_next_key(next_bundle(papers), papers.agreed, papers.now)
    later = NOW + timedelta(days=30)
    _, files = pending.with_pending(state_with(papers, named=True), None, later)
    assert not files
