from datetime import timedelta
from pathlib import Path

import pytest

from governance.errors import DocumentFault
from governance.officer.errors import OfficerFault
from governance.officer.home import Settings
from governance.officer.trust_store import TrustStore
from governance.trust.ceremony import Draft
from governance.trust.layout import FIRST_ROOT
from protocols.wire.encoding import digest
from tests.support.documents import DAY, NOW, Papers, agreement, node_keys, study

ROOT_FILE = "root.json"


def settings(papers: Papers, root_digest: str | None = None) -> Settings:
    key = papers.officers["DK"].public.to_text()
    return Settings(country="DK", authority="A", document_key=key, root_digest=root_digest)


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path / "papers")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "trust"


def draft_of(papers: Papers) -> Draft:
    return Draft.from_canonical(papers.store.draft(papers.agreed, papers.now))


def test_without_a_published_agreement_there_is_no_root(papers: Papers, folder: Path) -> None:
    with pytest.raises(OfficerFault, match="not published yet"):
        TrustStore(folder, settings(papers)).view(papers.store.read, NOW)


def test_the_root_of_the_draft_that_was_signed_is_trusted(papers: Papers, folder: Path) -> None:
    trust = TrustStore(folder, settings(papers))
    trust.keep_draft(draft_of(papers))
    papers.sign("DK", "EE", "NO")
    papers.publish()
    assert trust.view(papers.store.read, NOW).agreement == papers.agreed


def test_a_root_other_than_the_signed_one_is_refused(papers: Papers, folder: Path) -> None:
    """Three others may publish without this officer, who does not accept that automatically."""
    trust = TrustStore(folder, settings(papers))
    trust.keep_draft(draft_of(papers))
    papers.now += timedelta(minutes=1)
    draft_of(papers)
    papers.sign("EE", "NO", "PT")
    papers.publish()
    with pytest.raises(OfficerFault, match="another root than the one you know") as fault:
        trust.view(papers.store.read, papers.now)
    assert "call the officers" in fault.value.fix


def test_the_root_of_the_invitation_is_trusted(papers: Papers, folder: Path) -> None:
    papers.begin()
    known = settings(papers, digest(papers.pinned))
    assert TrustStore(folder, known).view(papers.store.read, NOW).agreement == papers.agreed


def test_a_root_other_than_that_of_the_invitation_is_refused(papers: Papers, folder: Path) -> None:
    papers.begin()
    known = settings(papers, "sha256:" + "0" * 64)
    with pytest.raises(OfficerFault, match="another root than the one you know"):
        TrustStore(folder, known).view(papers.store.read, NOW)


def test_no_root_is_trusted_without_a_digest_to_compare(papers: Papers, folder: Path) -> None:
    papers.begin()
    with pytest.raises(OfficerFault, match="nothing to compare") as fault:
        TrustStore(folder, settings(papers)).view(papers.store.read, NOW)
    assert "new invitation" in fault.value.fix
    assert not (folder / ROOT_FILE).exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b"[]"])
def test_a_malformed_root_is_refused(papers: Papers, folder: Path, content: bytes) -> None:
    trust = TrustStore(folder, settings(papers))
    trust.keep_draft(draft_of(papers))
    with pytest.raises(OfficerFault, match="another root"):
        trust.view({FIRST_ROOT: content}.get, NOW)


def test_a_root_with_the_right_text_and_too_few_signatures_is_refused(
    papers: Papers, folder: Path
) -> None:
    """The signed part is the draft's, but its signatures are still counted."""
    trust = TrustStore(folder, settings(papers))
    draft = draft_of(papers)
    trust.keep_draft(draft)
    papers.sign("DK", "EE", "NO")
    papers.publish()
    unsigned = draft.root().to_bytes()

    def fetch(name: str) -> bytes | None:
        return unsigned if name == FIRST_ROOT else papers.store.read(name)

    with pytest.raises(DocumentFault, match="cannot be trusted"):
        trust.view(fetch, NOW)
    assert not (folder / ROOT_FILE).exists()


def test_a_pinned_first_root_is_never_fetched_again(papers: Papers, folder: Path) -> None:
    papers.begin()
    trust = TrustStore(folder, settings(papers, digest(papers.pinned)))
    trust.view(papers.store.read, NOW)
    requested: list[str] = []

    def fetch(name: str) -> bytes | None:
        requested.append(name)
        return papers.store.read(name)

    trust.view(fetch, NOW)
    assert FIRST_ROOT not in requested
    assert (folder / ROOT_FILE).read_bytes() == papers.pinned


def test_an_older_state_than_the_one_seen_is_refused(papers: Papers, folder: Path) -> None:
    papers.begin()
    old = dict(papers.snapshot_of_store())
    trust = TrustStore(folder, settings(papers, digest(papers.pinned)))
    papers.propose(study(papers.agreed))
    trust.view(papers.store.read, NOW)
    with pytest.raises(DocumentFault, match="cannot be trusted"):
        trust.view(old.get, NOW)
    assert len(trust.view(papers.store.read, NOW).studies) == 1


def test_expired_documents_are_refused(papers: Papers, folder: Path) -> None:
    papers.begin()
    trust = TrustStore(folder, settings(papers, digest(papers.pinned)))
    with pytest.raises(DocumentFault, match="expired"):
        trust.view(papers.store.read, NOW + 3 * DAY)


def test_a_clock_set_back_does_not_make_expired_documents_valid(
    papers: Papers, folder: Path
) -> None:
    papers.begin()
    trust = TrustStore(folder, settings(papers, digest(papers.pinned)))
    stale = dict(papers.snapshot_of_store())
    papers.now += 2 * DAY
    papers.refresh()
    trust.view(papers.store.read, papers.now)
    with pytest.raises(DocumentFault):
        trust.view(stale.get, NOW)


@pytest.mark.parametrize("content", [b"", b"{}x", b'{"root": -1}', b'{"surprise": 1}'])
def test_a_damaged_high_water_file_is_reported(
    papers: Papers, folder: Path, content: bytes
) -> None:
    papers.begin()
    trust = TrustStore(folder, settings(papers, digest(papers.pinned)))
    trust.view(papers.store.read, NOW)
    (folder / "floor.json").write_bytes(content)
    with pytest.raises(DocumentFault, match="cannot be read"):
        trust.view(papers.store.read, NOW)


def test_the_document_key_of_the_officer_s_country_is_pinned_from_the_start(
    tmp_path: Path, folder: Path
) -> None:
    """If a root gives the country another key, its documents count as absent."""
    papers = Papers(tmp_path / "papers").begin()
    papers.folders["DK"].set_node(node_keys("DK"))
    papers.give("DK")
    other = Settings(
        country="DK",
        authority="A",
        document_key=papers.documents.public.to_text(),
        root_digest=digest(papers.pinned),
    )
    view = TrustStore(folder, other).view(papers.store.read, NOW)
    assert view.country("DK") is None
    assert "key of DK has changed" in view.absent["DK"]


def test_a_draft_counts_as_signed_only_after_it_was_marked(papers: Papers, folder: Path) -> None:
    trust = TrustStore(folder, settings(papers))
    first = draft_of(papers)
    other_draft = Draft(version=1, drafted=NOW + DAY, agreement=agreement())
    assert not trust.has_signed(first)
    trust.keep_draft(first)
    assert not trust.has_signed(first)
    trust.mark_signed(first)
    assert trust.has_signed(first)
    assert not trust.has_signed(other_draft)
    assert trust.draft() == first


def test_a_stored_draft_that_was_changed_is_refused(papers: Papers, folder: Path) -> None:
    trust = TrustStore(folder, settings(papers))
    trust.keep_draft(draft_of(papers))
    path = folder / "draft.json"
    path.write_bytes(path.read_bytes().replace(b'"honest":2', b'"honest":3 '))
    with pytest.raises(DocumentFault):
        trust.draft()
