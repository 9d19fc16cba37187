"""New documents are imported and logged with each new decision; invalid files are set aside."""

import json
import os
from typing import Any

import pytest

from client.documents.updates import DocumentUpdates
from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.trust.bundle import CountryBundle
from tests.support.documents import DAY, withdrawal
from tests.support.node_federation import NodeFederation, log_lines


@pytest.fixture
def updates(federation: NodeFederation) -> DocumentUpdates:
    return federation.nodes["DK"].parts.updates


def entries(federation: NodeFederation, since: int) -> list[dict[str, Any]]:
    lines = log_lines(federation.nodes["DK"])[since:]
    return [json.loads(line)["entry"] for line in lines]


def withdrawn(federation: NodeFederation, study: Study) -> bytes:
    folder = federation.documents.folders["DK"]
    folder.withdraw(withdrawal(study, "DK"))
    return folder.sign(federation.clock(), federation.documents.officers["DK"])


def test_a_delivery_is_logged_with_its_new_decisions_and_the_officer_as_actor(
    federation: NodeFederation, updates: DocumentUpdates, study: Study
) -> None:
    before = federation.nodes["DK"].parts.log.size()
    own = updates.deliver(withdrawn(federation, study))
    assert own.withdrawal(study.digest)
    accepted, decision = entries(federation, before)
    assert (accepted["kind"], decision["kind"]) == ("documents-accepted", "withdrawal-accepted")
    assert decision["study"] == study.digest
    officer = federation.documents.officers["DK"].public.fingerprint
    assert accepted["actor"] == decision["actor"] == officer


def test_the_same_decisions_signed_again_are_not_logged_again(
    federation: NodeFederation, updates: DocumentUpdates
) -> None:
    before = federation.nodes["DK"].parts.log.size()
    updates.deliver(federation.documents.sign_and_submit("DK"))
    assert [entry["kind"] for entry in entries(federation, before)] == ["documents-accepted"]


def test_documents_of_another_country_are_refused_and_logged(
    federation: NodeFederation, updates: DocumentUpdates
) -> None:
    before = federation.nodes["DK"].parts.log.size()
    with pytest.raises(DocumentFault):
        updates.deliver(federation.documents.sign_and_submit("EE"))
    (entry,) = entries(federation, before)
    assert (entry["kind"], entry["outcome"]) == ("documents-refused", "refused")


def test_files_of_the_officer_are_collected_in_order_and_removed(
    federation: NodeFederation, updates: DocumentUpdates, study: Study
) -> None:
    folder = federation.home("DK").officer
    (folder / "1.json").write_bytes(federation.documents.sign_and_submit("DK"))
    (folder / "2.json").write_bytes(withdrawn(federation, study))
    (folder / "notes.txt").write_text("not ours")
    updates.collect()
    assert [file.name for file in folder.iterdir()] == ["notes.txt"]
    own = updates.own()
    assert own is not None
    assert own.withdrawal(study.digest)


def test_an_invalid_file_is_set_aside_and_the_next_one_is_imported(
    federation: NodeFederation, updates: DocumentUpdates, study: Study
) -> None:
    folder = federation.home("DK").officer
    (folder / "1.json").write_bytes(b"{}")
    (folder / "2.json").write_bytes(withdrawn(federation, study))
    updates.collect()
    assert [file.name for file in folder.iterdir()] == ["1.refused"]
    own = updates.own()
    assert own is not None
    assert own.withdrawal(study.digest)


def test_a_pipe_or_a_huge_file_is_set_aside_and_not_waited_for(
    federation: NodeFederation, updates: DocumentUpdates, study: Study
) -> None:
    folder = federation.home("DK").officer
    os.mkfifo(folder / "1.json")
    (folder / "2.json").touch()
    os.truncate(folder / "2.json", CountryBundle.most_bytes + 1)
    (folder / "3.json").write_bytes(withdrawn(federation, study))
    updates.collect()
    assert sorted(file.name for file in folder.iterdir()) == ["1.refused", "2.refused"]
    own = updates.own()
    assert own is not None
    assert own.withdrawal(study.digest)


def test_expired_documents_do_not_count(
    federation: NodeFederation, updates: DocumentUpdates
) -> None:
    assert updates.own() is not None
    federation.documents.now += 30 * DAY
    assert updates.own() is None
