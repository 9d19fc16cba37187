"""Changes in other threads while a message is answered: a withdrawal, a pause, the end of a run."""

import json
from collections.abc import Callable
from datetime import timedelta
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import event, select

from client.border.failpoints import Failpoint
from client.border.recheck import PermissionRecheck
from client.node import Node
from client.state.reply_journal import ReplyJournal
from client.state.tables import cohort_counts, journal, runs
from governance.documents.permit import PermitConditions
from governance.documents.study import Study
from governance.runtime.database import transaction
from protocols.errors import ReasonCode
from tests.support.documents import DAY
from tests.support.node_federation import (
    NodeFederation,
    Run,
    code_of,
    last_refusal,
    log_lines,
    records,
)

PHASE = "histogram"
UNLOCKED = [
    Failpoint.DOOR_PERMITTED,
    Failpoint.DOOR_PREPARED,
    Failpoint.DOOR_CHARGED,
    Failpoint.DOOR_SUMMED,
    Failpoint.DOOR_NOISED,
    Failpoint.OUTBOX_MADE,
]
"""Points at which no transaction is open, so that other threads may write."""


def once(at: Failpoint, act: Callable[[], object]) -> Callable[[str], None]:
    """Return a failpoint hook that calls `act` when the point `at` is first reached."""
    waiting = [act]

    def reach(step: str) -> None:
        if step == at and waiting:
            waiting.pop()()

    return reach


def entries(node: Node) -> list[dict[str, Any]]:
    return [json.loads(line)["entry"] for line in log_lines(node)]


def kinds(node: Node) -> list[str]:
    return [entry["kind"] for entry in entries(node)]


def state_of(node: Node, run: Run) -> bytes | None:
    query = select(runs.c.state).where(runs.c.run_id == run.id)
    with transaction(node.parts.engine) as connection:
        found: bytes | None = connection.execute(query).scalar_one()
    return found


def answered(node: Node) -> set[str]:
    """Return the phases that have a reply in the journal."""
    with transaction(node.parts.engine) as connection:
        return set(connection.execute(select(journal.c.phase)).scalars())


def first_request(run: Run) -> bytes:
    """Return the request to DK in the first round."""
    return run.coordinator.begin_round(1, PHASE, b"").contribute_request("DK")


@pytest.mark.parametrize("tended", [False, True])
@pytest.mark.parametrize("at", UNLOCKED)
def test_a_withdrawal_stops_a_reply_that_is_being_computed(
    federation: NodeFederation, study: Study, at: Failpoint, *, tended: bool
) -> None:
    run = federation.ready(study)

    def withdraw() -> None:
        federation.withdraw("DK", study)
        if tended:
            federation.nodes["DK"].do_upkeep()

    node = federation.restart("DK", failpoint=once(at, withdraw))
    assert code_of(node.handle(first_request(run))) is ReasonCode.NO_PERMIT
    assert "contribute" not in answered(node)
    assert "sum-contributed" not in kinds(node)
    node.do_upkeep()
    assert state_of(node, run) is None
    assert kinds(node).count("run-ended") == 1


def test_a_stopped_reply_stays_charged_and_is_logged_as_not_sent(
    federation: NodeFederation, study: Study
) -> None:
    run = federation.ready(study)
    withdraw = once(Failpoint.DOOR_SUMMED, lambda: federation.withdraw("DK", study))
    node = federation.restart("DK", failpoint=withdraw)
    node.handle(first_request(run))
    assert [entry.phase for entry in node.parts.ledger.entries(run=run.id)] == [PHASE]
    accepted, refused = entries(node)[-2:]
    assert accepted["kind"] == "withdrawal-accepted"
    assert (refused["kind"], refused["code"]) == ("request-refused", "no-permit")
    assert (refused["run"], refused["round"], refused["phase"]) == (run.id, 1, "contribute")
    assert "withdrawn; nothing was sent; what was charged stays charged" in refused["reason"]
    assert last_refusal(node)["clause"] == "node/permitted-no-longer"


@pytest.mark.parametrize("patients", [80, 10])
def test_a_withdrawal_during_the_count_hides_its_decision(
    federation: NodeFederation, patients: int
) -> None:
    study = federation.approved(id="another-study")
    federation.put_records("DK", records(patients))
    withdraw = once(Failpoint.FLOOR_COUNTED, lambda: federation.withdraw("DK", study))
    node = federation.restart("DK", failpoint=withdraw)
    reply = node.handle(federation.run(study).request("bundle", "DK"))
    assert code_of(reply) is ReasonCode.NO_PERMIT
    with transaction(node.parts.engine) as connection:
        assert connection.execute(select(cohort_counts)).all() == []


FORBIDDING = '@id("dk/none") forbid (principal, action, resource);'


def forbid(federation: NodeFederation, _: Study) -> None:
    federation.documents.folders["DK"].set_policy(FORBIDDING)
    federation.hand_over("DK")


def permit_less(federation: NodeFederation, study: Study) -> None:
    conditions = PermitConditions(
        expires=federation.documents.now + 60 * DAY, epsilon_at_most=0.001
    )
    federation.permit("DK", study, conditions=conditions)


def permit_fewer_features(federation: NodeFederation, study: Study) -> None:
    conditions = PermitConditions(expires=federation.documents.now + 60 * DAY, features=("age",))
    federation.permit("DK", study, conditions=conditions)


OTHER_CHANGES = [
    (forbid, ReasonCode.POLICY),
    (permit_less, ReasonCode.NO_PERMIT),
    (permit_fewer_features, ReasonCode.NO_PERMIT),
]
"""Changes of permit or policy, each with the reason code that the gate gives for it."""


@pytest.mark.parametrize("at", UNLOCKED)
@pytest.mark.parametrize(("no", "final"), OTHER_CHANGES)
def test_a_changed_permit_or_policy_stops_a_reply_in_progress(
    federation: NodeFederation,
    study: Study,
    no: Callable[[NodeFederation, Study], None],
    final: ReasonCode,
    at: Failpoint,
) -> None:
    run = federation.ready(study)
    node = federation.restart("DK", failpoint=once(at, lambda: no(federation, study)))
    frame = first_request(run)
    assert code_of(node.handle(frame)) is ReasonCode.DOCUMENTS_BEHIND
    assert "contribute" not in answered(node)
    assert last_refusal(node)["clause"] == "node/permitted-otherwise"
    assert "nothing was sent; what was charged stays charged" in entries(node)[-1]["reason"]
    assert [entry.phase for entry in node.parts.ledger.entries(run=run.id)] == [PHASE]
    assert code_of(node.handle(frame)) is final


def test_a_coordinator_that_asks_again_gets_what_the_new_permit_allows(
    federation: NodeFederation, study: Study
) -> None:
    run = federation.ready(study)
    federation.documents.now += timedelta(minutes=1)
    renew = once(Failpoint.DOOR_SUMMED, lambda: federation.permit("DK", study))
    node, frame = federation.restart("DK", failpoint=renew), first_request(run)
    assert code_of(node.handle(frame)) is ReasonCode.DOCUMENTS_BEHIND
    assert code_of(node.handle(frame)) is None
    assert [entry.phase for entry in node.parts.ledger.entries(run=run.id)] == [PHASE]


def test_renewed_documents_with_the_same_decisions_stop_no_reply(
    federation: NodeFederation, study: Study
) -> None:
    """An officer's agent renews them regularly."""
    run = federation.ready(study)
    renew = once(Failpoint.DOOR_SUMMED, lambda: federation.hand_over("DK"))
    assert code_of(federation.restart("DK", failpoint=renew).handle(first_request(run))) is None


@pytest.mark.parametrize(("no", "final"), OTHER_CHANGES)
def test_a_count_made_under_another_permit_or_policy_is_not_used(
    federation: NodeFederation, no: Callable[[NodeFederation, Study], None], final: ReasonCode
) -> None:
    study = federation.approved(id="another-study")
    act = once(Failpoint.FLOOR_COUNTED, lambda: no(federation, study))
    node = federation.restart("DK", failpoint=act)
    frame = federation.run(study).request("bundle", "DK")
    assert code_of(node.handle(frame)) is ReasonCode.DOCUMENTS_BEHIND
    with transaction(node.parts.engine) as connection:
        assert connection.execute(select(cohort_counts)).all() == []
    assert code_of(node.handle(frame)) is final


def test_expired_documents_of_the_officer_stop_a_reply_in_progress(
    federation: NodeFederation, study: Study
) -> None:
    run = federation.ready(study)

    def expire() -> None:
        federation.documents.now += timedelta(days=8)

    node = federation.restart("DK", failpoint=once(Failpoint.DOOR_SUMMED, expire))
    assert code_of(node.handle(first_request(run))) is ReasonCode.DOCUMENTS_EXPIRED
    assert "contribute" not in answered(node)


def test_a_pause_delays_a_reply_in_progress_and_loses_nothing(
    federation: NodeFederation, study: Study
) -> None:
    run = federation.ready(study)
    pause = once(
        Failpoint.OUTBOX_MADE, lambda: federation.nodes["DK"].pause("a flood in the cellar")
    )
    node, frame = federation.restart("DK", failpoint=pause), first_request(run)
    assert code_of(node.handle(frame)) is ReasonCode.PAUSED
    assert "contribute" not in answered(node)
    node.resume()
    assert code_of(node.handle(frame)) is None
    assert [entry.phase for entry in node.parts.ledger.entries(run=run.id)] == [PHASE]


def between(
    node: Node, other: Thread, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> Callable[..., None]:
    """Run another thread after a method, before the next transaction starts.

    Return a function that runs it now if no other transaction has started.
    """
    inner, waiting = getattr(owner, name), list[Thread]()

    def watched(*args: object) -> object:
        waiting.append(other)
        return inner(*args)

    def run_other(*_: object) -> None:
        if waiting:
            waiting.clear()
            other.start()
            other.join()

    monkeypatch.setattr(owner, name, watched)
    event.listen(node.parts.engine.pool, "checkout", run_other)
    return run_other


def test_no_withdrawal_comes_between_the_recheck_and_the_reply(
    federation: NodeFederation, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, node = federation.ready(study), federation.nodes["DK"]
    frame = first_request(run)
    withdraw = Thread(target=lambda: federation.withdraw("DK", study))
    between(node, withdraw, monkeypatch, PermissionRecheck, "require")
    assert code_of(node.handle(frame)) is None
    withdraw.join()
    kinds_before = kinds(node)
    assert kinds_before.index("sum-contributed") < kinds_before.index("withdrawal-accepted")


@pytest.mark.parametrize("at", UNLOCKED)
def test_a_run_that_expires_while_the_door_computes_stays_ended(
    federation: NodeFederation, study: Study, at: Failpoint
) -> None:
    run = federation.ready(study)
    federation.later(timedelta(days=8))
    federation.sync()

    def do_upkeep() -> None:
        federation.nodes["DK"].do_upkeep()

    node = federation.restart("DK", failpoint=once(at, do_upkeep))
    assert code_of(node.handle(first_request(run))) is ReasonCode.STALE
    assert "nothing was sent" in last_refusal(node)["why"]
    assert state_of(node, run) is None
    assert "contribute" not in answered(node)
    assert kinds(node).count("run-ended") == 1


@pytest.mark.parametrize("days", [1.5, 8])
def test_a_contribution_during_the_expiry_check_is_not_erased(
    federation: NodeFederation, study: Study, monkeypatch: pytest.MonkeyPatch, days: float
) -> None:
    """Either the contribution comes first and is kept, or the run ends and refuses it."""
    run, node = federation.ready(study), federation.nodes["DK"]
    federation.later(timedelta(days=days))
    federation.sync()
    frame, replies = first_request(run), list[bytes]()
    message = Thread(target=lambda: replies.append(node.handle(frame)))
    run_other = between(node, message, monkeypatch, ReplyJournal, "latest")
    node.parts.run_expiry.end_silent(federation.clock())
    run_other()
    left = code_of(replies[0]) is None
    assert left == (state_of(node, run) is not None)
    if left:
        opened = json.loads(node.parts.runs.live(run.id).state)["open_round"]
        assert opened["round_number"] == 1
