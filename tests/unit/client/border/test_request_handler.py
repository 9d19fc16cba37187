"""The reply to a frame is final or one reason code, leaves at a slot, and is never an error."""

from typing import Any

import pytest

from client.border.gate import Gate
from client.border.outbox import Outbox
from client.border.reply_timing import ReplySlots
from client.errors import RecordFault
from client.tasks.assignment import Assignment
from governance.documents.study import Study
from keys.errors import KeyFault
from protocols.errors import ReasonCode
from protocols.private_sum.messages import refusal_reply
from tests.support.node_federation import NodeFederation, code_of, last_refusal, log_lines
from tests.support.slot_clock import Time, new_slots


def test_each_round_of_a_run_waits_for_its_longest_slot_so_far(
    federation: NodeFederation, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    time, slots = new_slots()
    node = federation.restart("DK", slots=slots)
    run = federation.ready(study)
    frame = run.coordinator.begin_round(1, "histogram", b"").contribute_request("DK")
    inner = Assignment.lattice_sum

    def slow(*arguments: Any, **named: Any) -> Any:
        time.now += 0.3
        return inner(*arguments, **named)

    monkeypatch.setattr(Assignment, "lattice_sum", slow)
    spans = []
    for _ in range(2):
        arrived = time.now
        node.handle(frame)
        spans.append(time.now - arrived)
    assert spans == pytest.approx([0.4, 0.4])
    arrived = time.now
    node.handle(federation.run(study).request("bundle", "DK"))
    assert time.now - arrived == pytest.approx(0.05)


def test_replies_that_may_depend_on_records_leave_at_a_slot(
    federation: NodeFederation, study: Study
) -> None:
    time = Time()
    node = federation.restart("DK", slots=ReplySlots(0.05, time.monotonic, time.sleep))
    run = federation.run(study)
    waits = []
    for step in ("bundle", "encapsulation", "confirmation"):
        before = len(time.slept)
        for country in run.terms.roster:
            run.take(step, country, federation.nodes[country].handle(run.request(step, country)))
        waits.append(len(time.slept) - before)
    coordinator_round = run.coordinator.begin_round(1, "histogram", b"")
    before = len(time.slept)
    node.handle(coordinator_round.contribute_request("DK"))
    waits.append(len(time.slept) - before)
    assert waits == [1, 0, 0, 1]


def test_a_decline_leaves_at_a_slot_too(federation: NodeFederation, study: Study) -> None:
    time = Time()
    federation.put_records("DK", "no,records\n")
    node = federation.restart("DK", slots=ReplySlots(0.05, time.monotonic, time.sleep))
    assert code_of(node.handle(federation.run(study).request("bundle", "DK"))) is (
        ReasonCode.DECLINED
    )
    assert time.slept[1:] == [0.05]


SECRET = "patient 0815 has an age of 47"


@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET),
        KeyError(SECRET),
        MemoryError(SECRET),
        RecordFault(SECRET, why=SECRET),
        KeyFault("A key is missing"),
        ZeroDivisionError(SECRET),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_error_text_reaches_the_coordinator(
    federation: NodeFederation,
    study: Study,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = federation.ready(study)
    coordinator_round = run.coordinator.begin_round(1, "histogram", b"")

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(Assignment, "lattice_sum", fail)
    node = federation.nodes["DK"]
    assert node.handle(coordinator_round.contribute_request("DK")) == refusal_reply(
        ReasonCode.DECLINED
    )
    assert SECRET not in str(log_lines(node))
    assert SECRET not in caplog.text
    assert SECRET not in str(last_refusal(node))
    assert last_refusal(node)["fix"] or isinstance(error, KeyFault)


def test_every_reply_that_is_no_refusal_was_made_final_by_the_outbox(
    federation: NodeFederation, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the outbox, only reason codes are sent in any phase."""
    run = federation.run(study)
    node = federation.nodes["DK"]

    def lost(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    def refused(frame: bytes) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Outbox, "keep", lost)
            assert node.handle(frame) == refusal_reply(ReasonCode.DECLINED)

    for step in ("bundle", "encapsulation", "confirmation"):
        refused(run.request(step, "DK"))
        for country in run.terms.roster:
            run.take(step, country, federation.nodes[country].handle(run.request(step, country)))
    coordinator_round = run.coordinator.begin_round(1, "histogram", b"")
    refused(coordinator_round.contribute_request("DK"))
    for country in ("DK", "EE", "NO"):
        contribute_request = coordinator_round.contribute_request(country)
        coordinator_round.take_contribution(
            country, federation.nodes[country].handle(contribute_request)
        )
    coordinator_round.close()
    refused(coordinator_round.agree_request("DK"))
    run.agreed(coordinator_round)
    refused(coordinator_round.answer_request("DK"))


def test_the_gate_decides_about_every_phase(
    federation: NodeFederation, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = federation.run(study)
    frames: list[bytes] = []
    inner = Gate.admit

    def watched(gate: Gate, frame: bytes) -> Any:
        frames.append(frame)
        return inner(gate, frame)

    monkeypatch.setattr(Gate, "admit", watched)
    run.set_up()
    run.sum(1, "histogram", without={"PT"})
    assert len(frames) == 4 * 3 + 3 * 3


def test_an_interrupt_is_not_swallowed(
    federation: NodeFederation, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Gate, "admit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        federation.nodes["DK"].handle(b"")
