"""Careless opt-out lists and one bad record, on whole nodes: who opted out stays out, and no reply
says anything about a record."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from client.status.summary import LinkStatus
from client.status.text import status_lines
from governance.documents.study import Study
from protocols.errors import ReasonCode
from protocols.private_sum.coordinator_round import OpenedSum
from tests.support.node_federation import NodeFederation, code_of, records

UP = LinkStatus(connected=True)
UNREADABLE = ["id,reason\np1,by letter\n", "p1#12\n", "\u200bp1\n"]
ELSEWHERE = ["P1\n", "p01\n", "p１\n"]
BAD_RECORDS = {
    "one unlisted code": lambda text: text.replace("p7,47,F,0", "p7,47,X,0"),
    "a patient on two lines": lambda text: text + "p7,47,F,0\n",
    "a field too many": lambda text: text.replace("p7,47,F,0", "p7,47,F,0,"),
    "an open quotation mark": lambda text: text.replace("p7,47,F,0", 'p7,47,F,"0'),
}


@pytest.fixture
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeFederation]:
    made = NodeFederation(tmp_path_factory.mktemp("opt-outs") / "federation")
    made.approved()
    yield made
    made.close()


@pytest.fixture
def study(federation: NodeFederation) -> Study:
    return federation.study()


def opted_out(federation: NodeFederation, text: str) -> Path:
    """Let DK's node have a list, which it reads now."""
    assert federation.nodes["DK"]
    path = federation.home("DK").path / "opt-out.txt"
    path.write_text(text, encoding="utf-8", newline="")
    settings = federation.settings("DK", opt_out=path)
    federation.restart("DK", settings=settings)
    return path


def change(federation: NodeFederation, path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="")
    federation.nodes["DK"].do_upkeep()


def patients(federation: NodeFederation) -> set[str]:
    return set(federation.nodes["DK"].parts.record_store.records().ids)


def replies(federation: NodeFederation, study: Study) -> ReasonCode | None:
    frame = federation.run(study).request("bundle", "DK")
    return code_of(federation.nodes["DK"].handle(frame))


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_list_that_becomes_unreadable_stops_every_reply(
    federation: NodeFederation, study: Study, text: str
) -> None:
    path = opted_out(federation, "p1\n")
    assert "p1" not in patients(federation)
    change(federation, path, text)
    assert replies(federation, study) is ReasonCode.DECLINED
    change(federation, path, "p1\np2\n")
    assert {"p1", "p2"}.isdisjoint(patients(federation))
    assert replies(federation, study) is None


@pytest.mark.parametrize("text", ELSEWHERE)
def test_a_list_that_later_matches_nobody_is_a_fault_and_decides_no_reply(
    federation: NodeFederation, study: Study, text: str
) -> None:
    path = opted_out(federation, "p1\n")
    node = federation.nodes["DK"]
    assert node.status(UP).data.unmatched_opt_outs == 0
    change(federation, path, text)
    node = federation.nodes["DK"]
    assert node.status(UP).data.unmatched_opt_outs == 1
    lines = "\n".join(status_lines(node.status(UP)))
    assert "FAIL: 1 entry of the opt-out list matches no patient" in lines
    assert replies(federation, study) is None


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_one_bad_record_changes_no_reply(
    federation: NodeFederation, study: Study, name: str
) -> None:
    """The coordinator sees the same with the record and without it, in the middle of a run too."""
    node = federation.nodes["DK"]
    text = records()
    bad = BAD_RECORDS[name](text)
    assert bad != text
    run = federation.ready(study)
    federation.put_records("DK", bad)
    node.do_upkeep()
    assert node.parts.record_store.fault is not None
    opened = run.sum(1, "histogram")
    assert isinstance(opened, OpenedSum)
    assert node.status(UP).data.patients == 80


def test_a_patient_who_opts_out_beside_a_bad_record_is_out_at_once(
    federation: NodeFederation, study: Study
) -> None:
    path = opted_out(federation, "p1\n")
    federation.put_records("DK", records() + "p7,47,F,0\n")
    change(federation, path, "p1\np2\n")
    assert federation.nodes["DK"].parts.record_store.fault is not None
    assert patients(federation) == {f"p{n}" for n in range(80)} - {"p1", "p2"}
    assert replies(federation, study) is None
