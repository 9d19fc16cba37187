"""Which documents the exchange serves, and which submissions it accepts from whom."""

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from governance.documents.rotation import extended
from governance.errors import DocumentFault, FileFault, StorageFault
from governance.trust.ceremony import Draft, sign_draft
from keys.certificates import Peer, Role
from keys.errors import PratiqueError
from protocols.proto.exchange_pb2 import SubmitRequest
from server.errors import CoordinatorFault
from server.exchange.documents import DRAFT, ExchangeDocuments
from tests.support.documents import NOW, FederationDocuments, node_keys, raw_key
from tests.support.examples import examples

BUNDLE, SIGNATURES = SubmitRequest.COUNTRY_BUNDLE, SubmitRequest.DRAFT_SIGNATURES


def officer(country: str) -> Peer:
    return Peer("nordic-heart", country, Role.OFFICER, 1, NOW + timedelta(days=1))


class ServedDocuments:
    """The exchange's documents over a store, and the changes that it reported."""

    def __init__(self, documents: FederationDocuments) -> None:
        self.documents, self.changes = documents, list[str]()
        self.exchange_documents = ExchangeDocuments(
            documents.store,
            document_key=documents.document_key,
            online_key=documents.online_key,
            clock=lambda: documents.now,
            on_change=self.changes.append,
        )

    def refused(self, country: str, kind: int, content: bytes) -> PratiqueError:
        before = self.documents.snapshot_of_store()
        with pytest.raises(PratiqueError) as caught:
            self.exchange_documents.submit(officer(country), kind, content)
        assert self.documents.snapshot_of_store() == before
        assert not self.changes
        return caught.value


@pytest.fixture
def drafted(tmp_path: Path) -> ServedDocuments:
    documents = FederationDocuments(tmp_path)
    documents.store.draft(documents.agreed, documents.now)
    return ServedDocuments(documents)


@pytest.fixture(scope="module")
def agreed(tmp_path_factory: pytest.TempPathFactory) -> ServedDocuments:
    """A federation with a signed agreement, which no test changes."""
    return ServedDocuments(
        FederationDocuments(tmp_path_factory.mktemp("agreed")).publish_agreement()
    )


def signatures(documents: FederationDocuments, country: str) -> bytes:
    draft = documents.store.current_draft()
    assert draft is not None
    key = documents.officers[country]
    return sign_draft(Draft.from_canonical(draft), key, previous_root=None, now=documents.now)


def test_a_draft_is_served_until_it_is_published(drafted: ServedDocuments) -> None:
    assert drafted.exchange_documents.fetch(DRAFT) == drafted.documents.store.current_draft()
    for country in ("DK", "EE", "NO", "PT"):
        content = signatures(drafted.documents, country)
        drafted.exchange_documents.submit(officer(country), SIGNATURES, content)
    assert drafted.exchange_documents.fetch(DRAFT) is None
    assert drafted.exchange_documents.fetch("metadata/1.root.json")
    assert drafted.changes


def test_a_half_signed_draft_is_not_published(drafted: ServedDocuments) -> None:
    drafted.exchange_documents.submit(
        officer("DK"), SIGNATURES, signatures(drafted.documents, "DK")
    )
    assert drafted.exchange_documents.fetch("metadata/1.root.json") is None
    assert not drafted.changes


PATHS = [
    "", "/", ".", "..", "draft.json", "../draft.json", "signatures.json", "metadata/",
    "metadata/../draft.json", "metadata/%2e%2e/draft.json", "targets/../../DK/keys",
    "/etc/passwd", "metadata//1.root.json", "metadata/1.root.json/", "METADATA/1.ROOT.JSON",
    "metadata/1.root.json\x00", "metadata/1.root.json\n", "metadata\\1.root.json",
    "x" * 100_000, "metadata/0.root.json", "metadata/01.root.json", "metadata/１.root.json",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=lambda path: repr(path[:30]))
def test_only_published_files_are_served(agreed: ServedDocuments, path: str) -> None:
    assert agreed.exchange_documents.fetch(path) is None


@given(st.text(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_name_reaches_a_file_that_is_not_published(agreed: ServedDocuments, path: str) -> None:
    assert agreed.exchange_documents.fetch(path) is None


def test_a_file_that_cannot_be_read_is_logged_and_not_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    served = ServedDocuments(FederationDocuments(tmp_path).publish_agreement())
    file = tmp_path / "store" / "public" / "metadata" / "timestamp.json"
    file.unlink()
    file.mkdir()
    assert served.exchange_documents.fetch("metadata/timestamp.json") is None
    assert served.exchange_documents.fetch("metadata/1.root.json")
    assert "a published file cannot be read" in caplog.text


def test_an_officer_submits_the_documents_of_its_country(tmp_path: Path) -> None:
    served = ServedDocuments(FederationDocuments(tmp_path).publish_agreement())
    documents = served.documents
    documents.folders["DK"].set_node(node_keys("DK"))
    bundle = documents.folders["DK"].sign(documents.now, documents.officers["DK"])
    fault = served.refused("EE", BUNDLE, bundle)
    assert isinstance(fault, DocumentFault)
    assert "EE submitted documents of DK" in fault.what
    served.exchange_documents.submit(officer("DK"), BUNDLE, bundle)
    assert "DK" in served.changes[0]
    assert documents.view().node_keys("DK") == node_keys("DK")


def test_documents_that_another_key_signed_are_refused(agreed: ServedDocuments) -> None:
    documents = agreed.documents
    forged = documents.folders["NO"].sign(documents.now, documents.officers["EE"])
    assert agreed.refused("NO", BUNDLE, forged).what


@pytest.mark.parametrize("kind", [0, 3, 99, -1])
def test_an_unknown_kind_of_submission_is_refused(agreed: ServedDocuments, kind: int) -> None:
    assert isinstance(agreed.refused("DK", kind, b"x"), CoordinatorFault)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60))
@given(kind=st.sampled_from([BUNDLE, SIGNATURES]), content=st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_in_plain_words(
    agreed: ServedDocuments, kind: int, content: bytes
) -> None:
    assert agreed.refused("DK", kind, content).what


@pytest.mark.parametrize("kind", [BUNDLE, SIGNATURES])
@pytest.mark.parametrize(
    "content",
    [b"{}", b"[]", b"null", b"[" * 100_000, b'{"country":"DK"}', b'{"country":1}', b"\x80\x04."],
    ids=lambda content: repr(content[:20]),
)
def test_json_of_another_shape_is_refused(
    agreed: ServedDocuments, kind: int, content: bytes
) -> None:
    assert agreed.refused("DK", kind, content).what


@pytest.fixture(scope="module")
def signed(agreed: ServedDocuments) -> bytes:
    documents = agreed.documents
    return documents.folders["PT"].sign(documents.now, documents.officers["PT"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60))
@given(where=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_damaged_documents_are_refused(
    agreed: ServedDocuments, signed: bytes, where: float, change: int
) -> None:
    bundle = bytearray(signed)
    bundle[int(where * len(bundle))] ^= change
    agreed.refused("PT", BUNDLE, bytes(bundle))


def test_before_the_agreement_no_documents_are_accepted(drafted: ServedDocuments) -> None:
    documents = drafted.documents
    bundle = documents.folders["DK"].sign(documents.now, documents.officers["DK"])
    assert drafted.refused("DK", BUNDLE, bundle).fix


# ---- a country's new key


def announced(documents: FederationDocuments) -> bytes:
    """Return documents of DK in which its key signs the next one."""
    folder, former = documents.folders["DK"], documents.officers["DK"]
    folder.set_history(extended(None, "DK", former, raw_key(200), documents.now))
    return folder.sign(documents.now, former)


@pytest.fixture
def fresh(tmp_path: Path) -> ServedDocuments:
    return ServedDocuments(FederationDocuments(tmp_path / "fresh").publish_agreement())


def test_an_announced_key_is_put_into_a_draft_to_be_signed(fresh: ServedDocuments) -> None:
    fresh.exchange_documents.submit(officer("DK"), BUNDLE, announced(fresh.documents))
    draft = fresh.exchange_documents.fetch(DRAFT)
    assert draft is not None
    laid_out = Draft.from_canonical(draft).agreement
    party = laid_out.party("DK")
    assert party is not None
    assert party.officer_key == raw_key(200).public.to_text()
    assert laid_out.digest == fresh.documents.agreed.digest


def test_an_announced_key_does_not_replace_a_draft_that_is_being_signed(
    fresh: ServedDocuments,
) -> None:
    before = fresh.documents.store.draft(fresh.documents.agreed, fresh.documents.now)
    fresh.documents.sign("EE")
    fresh.exchange_documents.submit(officer("DK"), BUNDLE, announced(fresh.documents))
    assert fresh.exchange_documents.fetch(DRAFT) == before
    status = fresh.documents.store.draft_status()
    assert status is not None
    assert status.signed == ("EE",)


def test_an_announced_key_is_not_proposed_again_within_a_day(fresh: ServedDocuments) -> None:
    fresh.exchange_documents.submit(officer("DK"), BUNDLE, announced(fresh.documents))
    draft = fresh.exchange_documents.fetch(DRAFT)
    again = fresh.documents.folders["DK"].sign(fresh.documents.now, fresh.documents.officers["DK"])
    fresh.exchange_documents.submit(officer("DK"), BUNDLE, again)
    assert fresh.exchange_documents.fetch(DRAFT) == draft


def test_a_country_cannot_submit_the_new_key_of_another_country(fresh: ServedDocuments) -> None:
    assert (
        "only the documents of its country"
        in fresh.refused("EE", BUNDLE, announced(fresh.documents)).why
    )


def test_a_refresh_signs_a_timestamp_once_there_is_an_agreement(
    drafted: ServedDocuments, caplog: pytest.LogCaptureFixture
) -> None:
    drafted.exchange_documents.refresh()
    assert drafted.exchange_documents.not_renewed == ""
    assert not caplog.records
    drafted.documents.sign("DK", "EE", "NO")
    drafted.exchange_documents.publish()
    before = drafted.documents.view().high_water.timestamp
    drafted.exchange_documents.refresh()
    assert drafted.documents.view().high_water.timestamp == before + 1


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (FileFault("The file x cannot be written", why="it is gone"), "x cannot be written; it is"),
        (KeyError("sha256"), "KeyError"),
    ],
    ids=["disk", "file", "anything"],
)
def test_a_failed_refresh_is_said_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception, says: str
) -> None:
    served = ServedDocuments(FederationDocuments(tmp_path).publish_agreement())

    def fails(*_: object, **__: object) -> None:
        raise fault

    with monkeypatch.context() as broken:
        broken.setattr(served.documents.store, "refresh", fails)
        served.exchange_documents.refresh()
    assert says in served.exchange_documents.not_renewed
    served.exchange_documents.refresh()
    assert served.exchange_documents.not_renewed == ""


def test_unused_files_that_cannot_be_removed_do_not_stop_a_refresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    served = ServedDocuments(FederationDocuments(tmp_path).publish_agreement())

    def fails() -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(served.documents.store, "remove_unused", fails)
    served.exchange_documents.refresh()
    assert served.exchange_documents.not_renewed == ""
    assert "unused files were not removed" in caplog.text


def test_the_same_bundle_again_is_reported_once(tmp_path: Path) -> None:
    served = ServedDocuments(FederationDocuments(tmp_path).publish_agreement())
    bundle = served.documents.folders["DK"].sign(NOW, served.documents.officers["DK"])
    for _ in range(3):
        served.exchange_documents.submit(officer("DK"), BUNDLE, bundle)
    assert served.changes == ["documents of DK, version 1"]


def test_a_publication_that_could_not_be_logged_is_logged_with_the_next_one(
    tmp_path: Path,
) -> None:
    served = ServedDocuments(FederationDocuments(tmp_path).publish_agreement())
    full = [StorageFault("The disk is full", why="SQLite says: database or disk is full")]

    def log(change: str) -> None:
        if full:
            raise full.pop()
        served.changes.append(change)

    served.exchange_documents._on_change = log
    folders, keys = served.documents.folders, served.documents.officers
    bundles = {country: folders[country].sign(NOW, keys[country]) for country in ("DK", "EE")}
    with pytest.raises(CoordinatorFault, match="cannot store documents now"):
        served.exchange_documents.submit(officer("DK"), BUNDLE, bundles["DK"])
    served.exchange_documents.submit(officer("EE"), BUNDLE, bundles["EE"])
    assert served.changes == ["documents of DK, version 1", "documents of EE, version 1"]
