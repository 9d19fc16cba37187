"""A run ends once, and its attempts are numbered."""

import secrets
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from governance.runtime.database import open_database
from server.errors import CoordinatorFault
from server.runs.store import RunState, RunStore
from server.state.tables import MIGRATIONS
from tests.support.examples import examples
from tests.support.narrowing import present

RUN, OTHER = "a" * 32, "b" * 32
STUDY = "sha256:" + "5" * 64
ENDINGS = [state for state in RunState if state.over]
SECOND = timedelta(seconds=1)


@pytest.fixture
def store(engine: Engine) -> RunStore:
    return RunStore(engine)


@pytest.fixture
def launched(store: RunStore, moment: datetime) -> RunStore:
    store.create(RUN, STUDY, moment)
    return store


def state_of(store: RunStore, run: str = RUN) -> RunState:
    return RunState(store.get(run).state)


def test_four_states_end_a_run() -> None:
    assert {state.value for state in ENDINGS} == {"finished", "void", "failed", "stopped"}


def test_a_new_run_is_launched_and_has_no_progress(launched: RunStore) -> None:
    row = launched.get(RUN)
    assert (row.state, row.study, row.round, row.reason) == ("launched", STUDY, 0, "")
    assert (row.flower_run, row.attempt, row.begun) == (None, 1, 0)
    assert [one.run_id for one in launched.unfinished()] == [RUN]


def test_each_next_attempt_has_the_next_number_and_is_logged_with_it(
    launched: RunStore, moment: datetime
) -> None:
    noted: list[int] = []
    for number in (2, 3):
        later = moment + number * SECOND
        assert launched.next_attempt(RUN, later, lambda n, _: noted.append(n)) == number
        row = launched.get(RUN)
        assert (row.attempt, row.begun, row.fruitless, row.resumed) == (number, 0, number, later)
    assert noted == [2, 3]


def test_an_attempt_that_cannot_be_logged_is_not_created(
    launched: RunStore, moment: datetime
) -> None:
    def fails(*_: object) -> None:
        raise CoordinatorFault("the log cannot be written")

    before = launched.get(RUN)
    with pytest.raises(CoordinatorFault, match="log"):
        launched.next_attempt(RUN, moment + SECOND, fails)
    with pytest.raises(CoordinatorFault, match="log"):
        launched.create(OTHER, STUDY, moment, fails)
    assert launched.get(RUN) == before
    assert len(launched.all()) == 1


@pytest.mark.parametrize("state", ENDINGS)
def test_a_run_that_is_over_has_no_next_attempt(
    launched: RunStore, moment: datetime, state: RunState
) -> None:
    launched.move(RUN, state, moment, "reason")
    before = launched.get(RUN)
    with pytest.raises(CoordinatorFault, match="is over"):
        launched.next_attempt(RUN, moment + SECOND)
    assert launched.get(RUN) == before


def test_a_run_that_nobody_launched_is_not_found(store: RunStore, moment: datetime) -> None:
    for act in (lambda: store.next_attempt(RUN, moment), lambda: store.get(RUN)):
        with pytest.raises(CoordinatorFault, match="There is no run"):
            act()


def test_a_run_finishes_once_with_one_entry(launched: RunStore, moment: datetime) -> None:
    noted: list[int] = []
    for _ in range(2):
        launched.finish(RUN, moment, lambda _: noted.append(1))
    assert (state_of(launched), noted) == (RunState.FINISHED, [1])


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("after", list(RunState))
def test_a_run_that_is_over_stays_as_it_ended(
    launched: RunStore, moment: datetime, ending: RunState, after: RunState
) -> None:
    launched.move(RUN, ending, moment, "as it was")
    launched.move(RUN, after, moment + SECOND, "later")
    row = launched.get(RUN)
    assert (row.state, row.reason, row.updated) == (ending.value, "as it was", moment)
    assert launched.unfinished() == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(30))
@given(st.lists(st.sampled_from(list(RunState)), max_size=6))
def test_the_first_ending_counts_whatever_follows(
    store: RunStore, moment: datetime, moves: list[RunState]
) -> None:
    run = secrets.token_hex(16)
    store.create(run, STUDY, moment)
    for move in moves:
        store.move(run, move, moment)
    expected = next((m for m in moves if m.over), moves[-1] if moves else RunState.LAUNCHED)
    assert state_of(store, run) is expected


def test_a_new_state_of_one_run_changes_no_other_run(launched: RunStore, moment: datetime) -> None:
    launched.create(OTHER, STUDY, moment)
    launched.move(RUN, RunState.FAILED, moment, "x")
    assert state_of(launched, OTHER) is RunState.LAUNCHED
    launched.next_attempt(OTHER, moment)
    assert state_of(launched) is RunState.FAILED


def test_the_newest_run_of_a_study_is_found(store: RunStore, moment: datetime) -> None:
    assert store.latest_of(STUDY) is None
    store.create(OTHER, STUDY, moment + SECOND)
    store.create(RUN, STUDY, moment)
    store.create("c" * 32, "sha256:" + "6" * 64, moment + 2 * SECOND)
    assert present(store.latest_of(STUDY)).run_id == OTHER


def test_the_flower_run_is_stored(launched: RunStore, tmp_path: Path) -> None:
    launched.set_flower_run(RUN, 2**63 + 5)
    again = RunStore(open_database(tmp_path / "state.db", MIGRATIONS))
    assert again.get(RUN).flower_run == str(2**63 + 5)


def test_a_model_is_not_read_with_every_row(launched: RunStore) -> None:
    assert not hasattr(launched.get(RUN), "model")
