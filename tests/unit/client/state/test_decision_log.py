"""Decisions are logged; refusals are kept in full for the operator."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from client.border.request_handler import _readable
from client.state.decision_log import KEPT, DecisionLog, Subject
from governance.audit.events import EventKind
from governance.audit.log import AuditLog
from governance.audit.log_throttle import ONE_BY_ONE, SHORTEST
from governance.errors import StorageFault
from governance.runtime.database import transaction
from protocols.errors import ReasonCode, Refusal
from protocols.proto.round_pb2 import PHASE_CONTRIBUTE, ContributeRequest, RequestBody, Signed
from protocols.proto.round_pb2 import Request as Envelope
from protocols.wire.document_versions import DocumentVersions
from protocols.wire.encoding import digest
from tests.support.ledger_and_log import STUDY, audit_log, node_state

NOW = datetime(2026, 9, 1, tzinfo=UTC)
ABOUT = Subject(study=STUDY, run="ab" * 16, round=2, phase="contribute", body=digest(b"asked"))


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return audit_log(node_state(tmp_path))


@pytest.fixture
def decisions(log: AuditLog) -> DecisionLog:
    return DecisionLog(log, lambda: NOW, "DK")


def entries(log: AuditLog) -> list[dict[str, Any]]:
    return [json.loads(entry) for entry in log.entries()]


def test_an_allowed_step_is_logged_with_its_policies_and_documents(
    decisions: DecisionLog, log: AuditLog
) -> None:
    versions = DocumentVersions(1, 2, {"DK": 3})
    decisions.event(
        EventKind.SUM_CONTRIBUTED, ABOUT, policies=("base",), documents=versions, reply=b"said"
    )
    (entry,) = entries(log)
    assert entry["kind"] == "sum-contributed"
    assert entry["policies"] == ["base"]
    assert entry["documents"] == {"root": 1, "targets": 2, "countries": {"DK": 3}}
    assert entry["body"] == digest(b"said")
    assert (entry["study"], entry["run"], entry["round"]) == (STUDY, "ab" * 16, 2)


def test_an_entry_is_stored_only_if_its_transaction_commits(
    decisions: DecisionLog, log: AuditLog
) -> None:
    def broken() -> None:
        with transaction(log._engine) as connection:
            decisions.event(EventKind.BUDGET_CHARGED, ABOUT, connection=connection)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert entries(log) == []


def test_a_refusal_is_logged_with_code_clause_and_reason(
    decisions: DecisionLog, log: AuditLog
) -> None:
    refusal = Refusal(ReasonCode.POLICY, "No", why="Because", fix="Ask", clause="Article 4")
    decisions.refused(refusal, ABOUT)
    (entry,) = entries(log)
    assert entry["kind"] == "request-refused"
    assert (entry["code"], entry["clause"]) == ("policy", "Article 4")
    assert entry["reason"] == "No; Because"
    assert entry["outcome"] == "refused"
    (shown,) = decisions.refusals()
    assert (shown.what, shown.why, shown.fix) == ("No", "Because", "Ask")


def test_a_refused_budget_has_its_own_kind(decisions: DecisionLog, log: AuditLog) -> None:
    decisions.refused(Refusal(ReasonCode.BUDGET, "No"), ABOUT)
    assert entries(log)[0]["kind"] == "budget-refused"


def test_a_reason_of_any_length_is_logged(decisions: DecisionLog, log: AuditLog) -> None:
    decisions.refused(Refusal(ReasonCode.POLICY, "x" * 5_000, clause="y" * 5_000), ABOUT)
    assert len(entries(log)[0]["reason"]) == 600
    assert len(entries(log)[0]["clause"]) == 600


def test_the_newest_refusals_are_kept(decisions: DecisionLog) -> None:
    for number in range(KEPT + 5):
        decisions.refused(Refusal(ReasonCode.STALE, str(number)), ABOUT)
    reasons = [refusal.what for refusal in decisions.refusals()]
    assert reasons == [str(number) for number in range(KEPT + 4, 4, -1)]


def test_many_refusals_become_a_few_entries_and_a_number(log: AuditLog) -> None:
    clock = [NOW]
    decisions = DecisionLog(log, lambda: clock[0], "DK")
    for _ in range(500):
        decisions.refused(Refusal(ReasonCode.STALE, "No"), ABOUT)
    decisions.refused(Refusal(ReasonCode.PAUSED, "No"), ABOUT)
    assert [entry["kind"] for entry in entries(log)] == [
        *["request-refused"] * ONE_BY_ONE,
        "requests-counted",
        "request-refused",
    ]
    clock[0] += SHORTEST
    decisions.settle()
    number = entries(log)[-1]
    assert (number["kind"], number["code"], number["subject"]) == (
        "requests-counted",
        "stale",
        "request-refused",
    )
    assert number["reason"].startswith(f"{500 - ONE_BY_ONE} more of them were counted between 2026")
    assert number["outcome"] == "refused"


def test_many_repetitions_become_a_few_entries_and_a_number(
    decisions: DecisionLog, log: AuditLog
) -> None:
    for _ in range(500):
        decisions.repeated(ABOUT)
    decisions.settle(ending=True)
    assert len(entries(log)) == ONE_BY_ONE + 2
    assert entries(log)[0]["kind"] == "request-repeated"
    assert entries(log)[-1]["outcome"] == "allowed"


def test_a_number_is_logged_before_the_refusal_that_ends_its_window(log: AuditLog) -> None:
    clock = [NOW]
    decisions = DecisionLog(log, lambda: clock[0], "DK")
    for _ in range(ONE_BY_ONE + 1):
        decisions.refused(Refusal(ReasonCode.STALE, "No"), ABOUT)
    clock[0] += SHORTEST
    decisions.refused(Refusal(ReasonCode.STALE, "No"), ABOUT)
    assert [entry["kind"] for entry in entries(log)[-2:]] == ["requests-counted", "request-refused"]
    assert entries(log)[-2]["reason"].startswith("1 more of them")


def test_a_repetition_that_cannot_be_logged_is_a_fault(
    decisions: DecisionLog, log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise StorageFault("The disk is full")

    monkeypatch.setattr(log, "append", full)
    with pytest.raises(StorageFault):
        decisions.repeated(ABOUT)


def test_a_refusal_holds_although_the_log_cannot_be_written(
    decisions: DecisionLog, log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise StorageFault("The disk is full")

    monkeypatch.setattr(log, "append", full)
    decisions.refused(Refusal(ReasonCode.STALE, "No"), ABOUT)
    assert decisions.refusals()[0].what == "No"


@pytest.mark.parametrize(
    ("kind", "actor"),
    [
        (EventKind.REQUEST_ALLOWED, "coordinator"),
        (EventKind.REQUEST_REPEATED, "coordinator"),
        (EventKind.SUM_CONTRIBUTED, "DK"),
        (EventKind.BUDGET_CHARGED, "DK"),
    ],
)
def test_an_entry_names_who_acted(
    decisions: DecisionLog, log: AuditLog, kind: EventKind, actor: str
) -> None:
    decisions.event(kind, ABOUT)
    decisions.event(kind, ABOUT, actor="SHA256:abcd")
    assert [entry["actor"] for entry in entries(log)] == [actor, "SHA256:abcd"]


def test_an_unreadable_frame_is_identified_by_its_digest() -> None:
    assert Subject.of(b"garbage", None) == Subject(body=digest(b"garbage"))


def asked_for(**fields: Any) -> bytes:
    """Return a frame that anybody could have made up."""
    body = RequestBody(run_id=b"r" * 16, **fields)
    signed = Signed(phase=PHASE_CONTRIBUTE, body=body.SerializeToString())
    return bytes(Envelope(signed=signed).SerializeToString())


@pytest.mark.parametrize(
    "frame",
    [
        asked_for(study=f"{STUDY}\n", contribute=ContributeRequest(round=1)),
        asked_for(study=STUDY, contribute=ContributeRequest(round=2**53)),
        asked_for(study=STUDY, contribute=ContributeRequest(round=2**64 - 1)),
    ],
)
def test_no_content_of_a_request_keeps_its_refusal_out_of_the_log(
    decisions: DecisionLog, log: AuditLog, frame: bytes
) -> None:
    """Content that no entry can hold is left out; the entry has the frame's digest."""
    refusal, request = Refusal(ReasonCode.STALE, "No", why="\x00\n\u202e"), _readable(frame)
    decisions.refused(refusal, Subject.of(frame, request))
    (entry,) = entries(log)
    assert entry["body"] == digest(frame)
    assert "study" not in entry
    assert ("round" in entry) == (request is not None)


def test_a_refusal_holds_although_its_entry_cannot_be_encoded(decisions: DecisionLog) -> None:
    decisions.refused(Refusal(ReasonCode.STALE, "No"), Subject(round=2**60))
    assert decisions.refusals()[0].what == "No"
