"""Run ids are used once; states are sealed, bound to their run, and erased at the end."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from client.state.runs import RunRecord, RunStore
from client.state.tables import runs
from governance.budget.period import period_of
from governance.runtime.database import transaction
from protocols.errors import ReasonCode, Refusal
from tests.support.ledger_and_log import node_state, terms

NOW = datetime(2026, 9, 1, tzinfo=UTC)
KEY = b"k" * 32
STUDY = "sha256:" + "5" * 64
SECRET = b"the pair secrets of this run"


def record(run: str = "ab" * 16, state: bytes = SECRET, study: str = STUDY) -> RunRecord:
    return RunRecord(run, study, ("DK", "EE", "NO"), "sha256:" + "d" * 64, state)


def book(folder: Path, *records: RunRecord, key: bytes = KEY) -> RunStore:
    store = RunStore(node_state(folder), key)
    for number, one in enumerate(records):
        with transaction(store._engine) as connection:
            store.enter(one, NOW + timedelta(minutes=number), connection)
    return store


def sealed(made: RunStore, run: str) -> bytes:
    with transaction(made._engine) as connection:
        found: bytes = connection.execute(
            select(runs.c.state).where(runs.c.run_id == run)
        ).scalar_one()
    return found


def refuses(made: RunStore, run: str, why: str) -> None:
    with pytest.raises(Refusal) as refusal:
        made.live(run)
    assert refusal.value.code is ReasonCode.STALE
    assert why in refusal.value.why


def refuses_unread(made: RunStore, run: str) -> None:
    with pytest.raises(Refusal, match="cannot be read") as refusal:
        made.live(run)
    assert refusal.value.code is ReasonCode.DECLINED


def test_a_record_is_read_back_unchanged(tmp_path: Path) -> None:
    store = book(tmp_path, record())
    assert store.live("ab" * 16) == record()


def test_a_run_id_is_used_once(tmp_path: Path) -> None:
    store = book(tmp_path, record())
    store.require_unused("cd" * 16)
    with pytest.raises(Refusal) as refusal:
        store.require_unused("ab" * 16)
    assert refusal.value.code is ReasonCode.STALE


def test_an_id_stays_used_after_the_end(tmp_path: Path) -> None:
    store = book(tmp_path, record())
    with transaction(store._engine) as connection:
        store.end("ab" * 16, NOW, connection)
    refuses(store, "ab" * 16, "ended")
    with pytest.raises(Refusal):
        store.require_unused("ab" * 16)


def test_the_reason_after_the_end_is_true_for_every_cause(tmp_path: Path) -> None:
    """The run may continue elsewhere; the country's officer may have ended it on this node."""
    store = book(tmp_path, record())
    with transaction(store._engine) as connection:
        store.end("ab" * 16, NOW, connection)
    with pytest.raises(Refusal) as refusal:
        store.live("ab" * 16)
    assert "this country has left the run" in refusal.value.why
    assert "the officer withdrew" in refusal.value.why
    assert refusal.value.fix == "do nothing here; a new launch needs a permit"


def test_a_run_never_entered_is_stale(tmp_path: Path) -> None:
    refuses(book(tmp_path), "ab" * 16, "not entered")


def test_the_secrets_are_not_in_the_database(tmp_path: Path) -> None:
    store = book(tmp_path, record())
    store._engine.dispose()
    for file in tmp_path.iterdir():
        assert SECRET not in file.read_bytes()


def test_another_key_unseals_no_state(tmp_path: Path) -> None:
    book(tmp_path, record())
    refuses_unread(book(tmp_path, key=b"o" * 32), "ab" * 16)


def test_a_state_moved_to_another_run_cannot_be_unsealed(tmp_path: Path) -> None:
    store = book(tmp_path, record(), record("cd" * 16, b"another"))
    with transaction(store._engine) as connection:
        connection.execute(
            update(runs)
            .where(runs.c.run_id == "cd" * 16)
            .values(state=sealed_of(store, connection))
        )
    refuses_unread(store, "cd" * 16)


def sealed_of(made: RunStore, connection: object) -> bytes:
    query = select(runs.c.state).where(runs.c.run_id == "ab" * 16)
    found: bytes = connection.execute(query).scalar_one()  # type: ignore[attr-defined]
    return found


def test_a_state_moved_to_another_study_cannot_be_unsealed(tmp_path: Path) -> None:
    store = book(tmp_path, record())
    with transaction(store._engine) as connection:
        connection.execute(update(runs).values(study="sha256:" + "6" * 64))
    refuses_unread(store, "ab" * 16)


def test_each_step_replaces_the_former_state(tmp_path: Path) -> None:
    store = book(tmp_path, record())
    before = sealed(store, "ab" * 16)
    with transaction(store._engine) as connection:
        store.replace(record(state=b"next"), connection)
    assert store.live("ab" * 16).state == b"next"
    assert sealed(store, "ab" * 16) != before


def test_sealing_the_same_state_twice_gives_other_bytes(tmp_path: Path) -> None:
    store = book(tmp_path, record())
    before = sealed(store, "ab" * 16)
    with transaction(store._engine) as connection:
        store.replace(record(), connection)
    assert sealed(store, "ab" * 16) != before


def test_summaries_list_the_newest_first_and_only_live_runs_on_request(tmp_path: Path) -> None:
    store = book(tmp_path, record(), record("cd" * 16))
    with transaction(store._engine) as connection:
        store.end("cd" * 16, NOW, connection)
    assert [one.run for one in store.summaries(live=False)] == ["cd" * 16, "ab" * 16]
    assert [one.run for one in store.summaries(live=True)] == ["ab" * 16]


def test_an_ended_run_gets_no_next_state(tmp_path: Path) -> None:
    store = book(tmp_path, record())
    with transaction(store._engine) as connection:
        assert store.end("ab" * 16, NOW, connection)
    with pytest.raises(Refusal) as refusal, transaction(store._engine) as connection:
        store.replace(record(state=b"next"), connection)
    assert refusal.value.code is ReasonCode.STALE
    refuses(store, "ab" * 16, "ended")


def test_a_run_ends_once(tmp_path: Path) -> None:
    store = book(tmp_path, record())
    for again, ended in ((0, True), (1, False)):
        with transaction(store._engine) as connection:
            rows = store.end("ab" * 16, NOW + timedelta(days=again), connection)
            assert bool(rows) is ended
    assert [one.ended for one in store.summaries(live=False)] == [NOW]


def test_the_runs_that_lived_on_after_the_beginning_of_a_period_are_carried_into_it(
    tmp_path: Path,
) -> None:
    names = ["ended before", "ended after", "lives on", "began in it"]
    ids = {name: f"{number:032x}" for number, name in enumerate(names)}
    store = book(tmp_path, *(record(run) for run in ids.values()))
    period_began = NOW + timedelta(minutes=2, seconds=30)
    with transaction(store._engine) as connection:
        store.end(ids["ended before"], period_began - timedelta(seconds=1), connection)
        store.end(ids["ended after"], period_began, connection)
    period = period_of(period_began, 1, period_began)
    agreed = terms(1, period=replace(period, since=period_began))
    carried = store.with_carried(agreed)
    assert carried == replace(agreed, carried=frozenset({ids["ended after"], ids["lives on"]}))
