"""What a node erases by itself; a fault in one run does not prevent it for another one."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from client.node import Node
from client.state.covered_rows import LIVE_RUNS, changing
from client.state.log_head import LogHeadGuard
from client.state.run_expiry import UNREADABLE
from client.state.runs import RunStore, _associated
from client.state.tables import runs
from governance.documents.study import Study
from governance.errors import StorageFault
from governance.runtime.database import transaction
from keys.sealing import seal
from protocols.errors import ReasonCode
from tests.support.node_federation import (
    NodeFederation,
    Run,
    code_of,
    last_refusal,
    log_lines,
)

QUIET = timedelta(days=1, hours=12)
Damage = Callable[[Node, Run], None]


def write(node: Node, run: Run, state: bytes) -> None:
    """Store a state that this program cannot read, as another version or other keys leave one."""
    with transaction(node.parts.engine) as connection, changing(connection, LIVE_RUNS):
        connection.execute(update(runs).where(runs.c.run_id == run.id).values(state=state))


def changed(node: Node, run: Run) -> None:
    """Flip a bit of the sealed state."""
    sealed = bytearray(sealed_of(node, run))
    sealed[-1] ^= 1
    write(node, run, bytes(sealed))


def cut(node: Node, run: Run) -> None:
    write(node, run, b"short")


def of_another_release(node: Node, run: Run) -> None:
    record = node.parts.runs.live(run.id)
    with transaction(node.parts.engine) as connection:
        node.parts.runs.replace(replace(record, state=b'{"run":"AA==","old_field":1}'), connection)


def without_fields(node: Node, run: Run) -> None:
    study = node.parts.runs.live(run.id).study
    associated = _associated(run.id, study)
    write(node, run, seal(node.parts.runs._sealing_key(run.id), b"{}", associated))


def of_another_type(value: object) -> Damage:
    """SQLite keeps values of any type in any column."""

    def damage(node: Node, run: Run) -> None:
        with transaction(node.parts.engine) as connection, changing(connection, LIVE_RUNS):
            connection.exec_driver_sql(
                "UPDATE runs SET state = ? WHERE run_id = ?", (value, run.id)
            )

    return damage


OTHER_TYPES = [of_another_type(value) for value in ("text", 7, 1.5, 10**15)]
UNREADABLES = [changed, cut, of_another_release, without_fields, *OTHER_TYPES]


def sealed_of(node: Node, run: Run) -> bytes:
    query = select(runs.c.state).where(runs.c.run_id == run.id)
    with transaction(node.parts.engine) as connection:
        found: bytes = connection.execute(query).scalar_one()
    return found


def round_of(node: Node, run: Run) -> Any:
    return json.loads(node.parts.runs.live(run.id).state)["open_round"]


def live(node: Node) -> set[str]:
    return {one.run for one in node.parts.runs.summaries(live=True)}


def ends(node: Node) -> list[dict[str, Any]]:
    entries = [json.loads(line)["entry"] for line in log_lines(node)]
    return [entry for entry in entries if entry["kind"] == "run-ended"]


class Two:
    """DK in two runs: `open` waits for its answer; `other` began later, and is listed first."""

    def __init__(self, federation: NodeFederation, study: Study) -> None:
        self.federation, self.study = federation, study
        self.open = federation.ready(study)
        self.round = self.open.contributed(1, "histogram")
        federation.documents.now += timedelta(minutes=5)
        self.other = federation.ready(federation.approved(id="another-study"))
        self.node = federation.nodes["DK"]

    def later(self, pause: timedelta) -> None:
        """Let time pass, and the node do its upkeep."""
        self.federation.later(pause)
        self.node.do_upkeep()


@pytest.fixture
def two(federation: NodeFederation, study: Study) -> Two:
    return Two(federation, study)


@pytest.mark.parametrize("damage", UNREADABLES)
def test_a_run_unreadable_for_a_day_ends_with_the_reason_in_the_log(
    two: Two, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    damage(two.node, two.other)
    two.later(timedelta(minutes=1))
    assert live(two.node) == {two.open.id, two.other.id}
    two.later(QUIET)
    assert live(two.node) == {two.open.id}
    (ended,) = ends(two.node)
    assert (ended["run"], ended["reason"]) == (two.other.id, UNREADABLE)
    (line,) = (one for one in caplog.records if one.message.startswith("a run cannot be read"))
    assert vars(line)["run"] == two.other.id


def use(node: Node, runs: RunStore) -> None:
    node.parts.run_expiry._runs = node.parts.keys._runs = runs


def test_a_start_with_the_wrong_keys_ends_no_run(
    two: Two, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does a start with another program version; a run continues after the correction."""
    right, wrong = two.node.parts.runs, RunStore(two.node.parts.engine, bytes(32))
    use(two.node, wrong)
    for _ in range(3):
        two.later(timedelta(minutes=1))
    reported_runs = [
        vars(one)["run"] for one in caplog.records if one.message.startswith("a run cannot")
    ]
    assert sorted(reported_runs) == sorted([two.open.id, two.other.id])
    assert not [one for one in caplog.records if one.message.startswith("state not tidied")]
    use(two.node, right)
    two.node.do_upkeep()
    assert live(two.node) == {two.open.id, two.other.id}
    two.open.agreed(two.round)
    assert code_of(two.node.handle(two.round.answer_request("DK"))) is None


@pytest.mark.parametrize("damage", [changed, cut, without_fields])
def test_an_unreadable_run_is_refused_as_such_and_no_key_is_destroyed(
    two: Two, monkeypatch: pytest.MonkeyPatch, damage: Damage
) -> None:
    """If its state becomes readable again, it continues under the key that it began with."""
    forgotten: list[object] = []
    monkeypatch.setattr(two.node.parts.identities, "destroy_former_keys_except", forgotten.append)
    damage(two.node, two.open)
    two.later(timedelta(minutes=1))
    assert not forgotten
    two.open.agreed(two.round)
    assert code_of(two.node.handle(two.round.answer_request("DK"))) is ReasonCode.DECLINED
    assert "open the node's keys with which the run began" in last_refusal(two.node)["fix"]
    two.later(QUIET)
    assert forgotten


@pytest.mark.parametrize("damage", UNREADABLES)
def test_an_unreadable_run_does_not_prevent_the_erasure_of_a_round_of_another_run(
    two: Two, damage: Damage
) -> None:
    assert round_of(two.node, two.open)["masks"]
    damage(two.node, two.other)
    two.later(QUIET)
    assert round_of(two.node, two.open) is None


def test_a_fault_in_one_run_does_not_prevent_the_erasure_of_a_round_of_another_run(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = RunStore.erase_open_round

    def failing(self: RunStore, run: str, connection: Connection) -> None:
        if run == two.other.id:
            raise StorageFault("The disk does not read or write")
        inner(self, run, connection)

    monkeypatch.setattr(RunStore, "erase_open_round", failing)
    two.later(QUIET)
    assert round_of(two.node, two.open) is None
    assert live(two.node) == {two.open.id, two.other.id}


@pytest.mark.parametrize(("unreadable", "live"), [((), 0), (("a policy",), 1)])
def test_a_document_that_cannot_be_read_ends_no_run(
    federation: NodeFederation, study: Study, unreadable: tuple[str, ...], live: int
) -> None:
    """No permit counts while it cannot be read, which may pass; the keys of a run are for ever."""
    federation.ready(study)
    parts = federation.nodes["DK"].parts
    own = parts.documents.own(federation.clock())
    unclear = replace(own, permits={}, unreadable=unreadable)
    parts.run_expiry.end_forbidden(unclear, federation.clock())
    assert len(parts.runs.summaries(live=True)) == live


def test_a_withdrawal_ends_its_run_although_the_check_for_silence_fails(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, two.node.parts.journal, "forget_ended")
    two.federation.withdraw("DK", two.study)
    two.node.do_upkeep()
    assert live(two.node) == {two.other.id}


def fail(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    def failing(*_: object, **__: object) -> None:
        raise StorageFault("The disk does not read or write")

    monkeypatch.setattr(owner, name, failing)


@pytest.mark.parametrize("part", ["settle", "end runs"])
def test_a_failed_step_of_tidying_does_not_prevent_the_next_steps(
    two: Two, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """No copy of a former state stays in the write-ahead log, and the log's head moves on."""
    moved: list[int] = []
    monkeypatch.setattr(LogHeadGuard, "move", lambda _: moved.append(1))
    owner, name = {
        "settle": (two.node.parts.decisions, "settle"),
        "end runs": (two.node._upkeep, "_end_runs"),
    }[part]
    fail(monkeypatch, owner, name)
    log = two.federation.home("DK").database.with_name("state.db-wal")
    two.federation.withdraw("DK", two.study)
    assert log.stat().st_size > 0
    moved.clear()
    two.node._upkeep._tidy()
    assert log.stat().st_size == 0
    assert moved
    assert (two.open.id in live(two.node)) == (part == "end runs")


def test_a_quiet_run_without_an_open_round_is_not_written_again(two: Two) -> None:
    before = sealed_of(two.node, two.other)
    two.later(QUIET)
    assert sealed_of(two.node, two.other) == before
    given_up = sealed_of(two.node, two.open)
    two.node.do_upkeep()
    assert sealed_of(two.node, two.open) == given_up
