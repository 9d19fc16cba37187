"""A run continues with the documents that it began with, unless one is no longer valid."""

from pathlib import Path

import pytest

from keys.composite import Suite
from keys.errors import KeyFault
from protocols.wire.document_versions import DocumentVersions
from protocols.wire.encoding import digest
from server.errors import CoordinatorFault
from server.runs.run_documents import RunDocuments, require_resumable
from tests.support.documents import FederationDocuments, node_keys, raw_key

BEGAN = RunDocuments(
    agreement=digest(b"agreement"),
    identities={"DK": raw_key(1).public.to_text(), "EE": raw_key(2).public.to_text()},
    root=1,
    targets=2,
    countries={"DK": 3, "EE": 4},
)


def test_a_run_is_based_on_the_published_documents(tmp_path: Path) -> None:
    documents = FederationDocuments(tmp_path).publish_agreement()
    for country in ("DK", "EE"):
        documents.folders[country].set_node(node_keys(country))
        documents.sign_and_submit(country)
    run_documents = RunDocuments.of(documents.view(), ("DK", "EE", "NO"))
    assert run_documents.agreement == documents.agreed.digest
    assert run_documents.identities == {
        country: node_keys(country).identity_key for country in ("DK", "EE")
    }
    assert RunDocuments.model_validate(run_documents.model_dump(mode="json")) == run_documents


def test_requests_claim_the_versions_of_the_documents_of_the_run() -> None:
    assert BEGAN.document_versions == DocumentVersions(1, 2, {"DK": 3, "EE": 4})


def test_messages_are_verified_with_the_keys_from_the_start_of_the_run() -> None:
    assert BEGAN.peers(Suite.ED25519)["DK"] == raw_key(1).public
    with pytest.raises(KeyFault):
        BEGAN.peers(Suite.COMPOSITE)


def test_newer_versions_and_new_keys_do_not_stop_a_run() -> None:
    newer = {"root": 2, "targets": 9, "countries": {"DK": 8, "EE": 8}}
    keys = {"identities": {c: raw_key(9).public.to_text() for c in ("DK", "EE", "NO")}}
    require_resumable(BEGAN, BEGAN.model_copy(update=newer | keys))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"agreement": digest(b"amended")}, "amended"),
        ({"identities": {"DK": raw_key(1).public.to_text()}}, "EE"),
    ],
)
def test_an_amendment_or_a_country_without_keys_stops_a_run(
    changes: dict[str, object], why: str
) -> None:
    with pytest.raises(CoordinatorFault) as fault:
        require_resumable(BEGAN, BEGAN.model_copy(update=changes))
    assert why in fault.value.why
