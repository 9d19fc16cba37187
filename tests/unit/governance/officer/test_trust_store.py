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
from tests.support.documents import DAY, NOW, FederationDocuments, agreement, node_keys, study

ROOT_FILE = "root.json"


def settings(documents: FederationDocuments, root_digest: str | None = None) -> Settings:
    key = documents.officers["DK"].public.to_text()
    return Settings(country="DK", authority="A", document_key=key, root_digest=root_digest)


@pytest.fixture
def documents(tmp_path: Path) -> FederationDocuments:
    return FederationDocuments(tmp_path / "documents")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "trust"


def draft_of(documents: FederationDocuments) -> Draft:
    return Draft.from_canonical(documents.store.draft(documents.agreed, documents.now))


def test_without_a_published_agreement_there_is_no_root(
    documents: FederationDocuments, folder: Path
) -> None:
    with pytest.raises(OfficerFault, match="not published yet"):
        TrustStore(folder, settings(documents)).view(documents.store.read, NOW)


def test_the_root_of_the_draft_that_was_signed_is_trusted(
    documents: FederationDocuments, folder: Path
) -> None:
    trust = TrustStore(folder, settings(documents))
    trust.keep_draft(draft_of(documents))
    documents.sign("DK", "EE", "NO")
    documents.publish()
    assert trust.view(documents.store.read, NOW).agreement == documents.agreed


def test_a_root_other_than_the_signed_one_is_refused(
    documents: FederationDocuments, folder: Path
) -> None:
    """Three others may publish without this officer, who does not accept that automatically."""
    trust = TrustStore(folder, settings(documents))
    trust.keep_draft(draft_of(documents))
    documents.now += timedelta(minutes=1)
    draft_of(documents)
    documents.sign("EE", "NO", "PT")
    documents.publish()
    with pytest.raises(OfficerFault, match="another root than the one you know") as fault:
        trust.view(documents.store.read, documents.now)
    assert "call the officers" in fault.value.fix


def test_the_root_of_the_invitation_is_trusted(
    documents: FederationDocuments, folder: Path
) -> None:
    documents.publish_agreement()
    known = settings(documents, digest(documents.pinned))
    assert TrustStore(folder, known).view(documents.store.read, NOW).agreement == documents.agreed


def test_a_root_other_than_that_of_the_invitation_is_refused(
    documents: FederationDocuments, folder: Path
) -> None:
    documents.publish_agreement()
    known = settings(documents, "sha256:" + "0" * 64)
    with pytest.raises(OfficerFault, match="another root than the one you know"):
        TrustStore(folder, known).view(documents.store.read, NOW)


def test_no_root_is_trusted_without_a_digest_to_compare(
    documents: FederationDocuments, folder: Path
) -> None:
    documents.publish_agreement()
    with pytest.raises(OfficerFault, match="nothing to compare") as fault:
        TrustStore(folder, settings(documents)).view(documents.store.read, NOW)
    assert "new invitation" in fault.value.fix
    assert not (folder / ROOT_FILE).exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b"[]"])
def test_a_malformed_root_is_refused(
    documents: FederationDocuments, folder: Path, content: bytes
) -> None:
    trust = TrustStore(folder, settings(documents))
    trust.keep_draft(draft_of(documents))
    with pytest.raises(OfficerFault, match="another root"):
        trust.view({FIRST_ROOT: content}.get, NOW)


def test_a_root_with_the_right_text_and_too_few_signatures_is_refused(
    documents: FederationDocuments, folder: Path
) -> None:
    """The signed part is the draft's, but its signatures are still counted."""
    trust = TrustStore(folder, settings(documents))
    draft = draft_of(documents)
    trust.keep_draft(draft)
    documents.sign("DK", "EE", "NO")
    documents.publish()
    unsigned = draft.root().to_bytes()

    def fetch(name: str) -> bytes | None:
        return unsigned if name == FIRST_ROOT else documents.store.read(name)

    with pytest.raises(DocumentFault, match="cannot be trusted"):
        trust.view(fetch, NOW)
    assert not (folder / ROOT_FILE).exists()


def test_a_pinned_first_root_is_never_fetched_again(
    documents: FederationDocuments, folder: Path
) -> None:
    documents.publish_agreement()
    trust = TrustStore(folder, settings(documents, digest(documents.pinned)))
    trust.view(documents.store.read, NOW)
    requested: list[str] = []

    def fetch(name: str) -> bytes | None:
        requested.append(name)
        return documents.store.read(name)

    trust.view(fetch, NOW)
    assert FIRST_ROOT not in requested
    assert (folder / ROOT_FILE).read_bytes() == documents.pinned


def test_an_older_state_than_the_one_seen_is_refused(
    documents: FederationDocuments, folder: Path
) -> None:
    documents.publish_agreement()
    old = dict(documents.snapshot_of_store())
    trust = TrustStore(folder, settings(documents, digest(documents.pinned)))
    documents.propose(study(documents.agreed))
    trust.view(documents.store.read, NOW)
    with pytest.raises(DocumentFault, match="cannot be trusted"):
        trust.view(old.get, NOW)
    assert len(trust.view(documents.store.read, NOW).studies) == 1


def test_expired_documents_are_refused(documents: FederationDocuments, folder: Path) -> None:
    documents.publish_agreement()
    trust = TrustStore(folder, settings(documents, digest(documents.pinned)))
    with pytest.raises(DocumentFault, match="expired"):
        trust.view(documents.store.read, NOW + 3 * DAY)


def test_a_clock_set_back_does_not_make_expired_documents_valid(
    documents: FederationDocuments, folder: Path
) -> None:
    documents.publish_agreement()
    trust = TrustStore(folder, settings(documents, digest(documents.pinned)))
    stale = dict(documents.snapshot_of_store())
    documents.now += 2 * DAY
    documents.refresh()
    trust.view(documents.store.read, documents.now)
    with pytest.raises(DocumentFault):
        trust.view(stale.get, NOW)


@pytest.mark.parametrize("content", [b"", b"{}x", b'{"root": -1}', b'{"surprise": 1}'])
def test_a_damaged_high_water_file_is_reported(
    documents: FederationDocuments, folder: Path, content: bytes
) -> None:
    documents.publish_agreement()
    trust = TrustStore(folder, settings(documents, digest(documents.pinned)))
    trust.view(documents.store.read, NOW)
    (folder / "floor.json").write_bytes(content)
    with pytest.raises(DocumentFault, match="cannot be read"):
        trust.view(documents.store.read, NOW)


def test_the_document_key_of_the_officer_s_country_is_pinned_from_the_start(
    tmp_path: Path, folder: Path
) -> None:
    """If a root gives the country another key, its documents count as absent."""
    documents = FederationDocuments(tmp_path / "documents").publish_agreement()
    documents.folders["DK"].set_node(node_keys("DK"))
    documents.sign_and_submit("DK")
    other = Settings(
        country="DK",
        authority="A",
        document_key=documents.document_key.public.to_text(),
        root_digest=digest(documents.pinned),
    )
    view = TrustStore(folder, other).view(documents.store.read, NOW)
    assert view.country("DK") is None
    assert "key of DK has changed" in view.absent["DK"]


def test_a_draft_counts_as_signed_only_after_it_was_marked(
    documents: FederationDocuments, folder: Path
) -> None:
    trust = TrustStore(folder, settings(documents))
    first = draft_of(documents)
    other_draft = Draft(version=1, drafted=NOW + DAY, agreement=agreement())
    assert not trust.has_signed(first)
    trust.keep_draft(first)
    assert not trust.has_signed(first)
    trust.mark_signed(first)
    assert trust.has_signed(first)
    assert not trust.has_signed(other_draft)
    assert trust.draft() == first


def test_a_stored_draft_that_was_changed_is_refused(
    documents: FederationDocuments, folder: Path
) -> None:
    trust = TrustStore(folder, settings(documents))
    trust.keep_draft(draft_of(documents))
    path = folder / "draft.json"
    path.write_bytes(path.read_bytes().replace(b'"honest":2', b'"honest":3 '))
    with pytest.raises(DocumentFault):
        trust.draft()


def test_an_officer_fetches_only_what_has_changed(
    documents: FederationDocuments, folder: Path
) -> None:
    trust = TrustStore(folder, settings(documents))
    trust.keep_draft(draft_of(documents))
    documents.sign("DK", "EE", "NO")
    documents.publish()
    documents.propose(study(documents.agreed))
    fetched: list[str] = []

    def fetch(name: str) -> bytes | None:
        fetched.append(name)
        return documents.store.read(name)

    first = trust.view(fetch, NOW)
    assert any("studies" in name for name in fetched)
    fetched.clear()
    later = TrustStore(folder, settings(documents)).view(fetch, NOW)  # the next command
    assert sorted(fetched) == ["metadata/2.root.json", "metadata/timestamp.json"]
    assert later.studies == first.studies
    fetched.clear()
    documents.folders["EE"].set_node(node_keys("EE"))
    documents.sign_and_submit("EE")
    assert trust.view(fetch, NOW).node_keys("EE") == node_keys("EE")
    assert not [name for name in fetched if "studies" in name or "coordinator" in name]
