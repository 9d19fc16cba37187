"""A run begins once and ends once, and says what came of each round."""

import secrets
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from governance.database import open_database
from protocols.private_sum.opening import OpenedSum, VoidRound
from server.errors import OperationFault
from server.rounds import RoundReport
from server.runs import RunState, RunStore
from server.state import MIGRATIONS

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


def test_which_states_are_endings() -> None:
    assert {state.value for state in ENDINGS} == {"finished", "void", "failed", "stopped"}


def test_a_new_run_is_launched_and_nothing_else(launched: RunStore) -> None:
    row = launched.get(RUN)
    assert (row.state, row.study, row.round, row.reason) == ("launched", STUDY, 0, "")
    assert (row.flower_run, row.model) == (None, None)
    assert [one.run_id for one in launched.unfinished()] == [RUN]


def test_a_run_begins_once(launched: RunStore, moment: datetime) -> None:
    assert launched.begin(RUN, moment) == STUDY
    assert state_of(launched) is RunState.SETTING_UP
    with pytest.raises(OperationFault) as caught:
        launched.begin(RUN, moment)
    assert "not begun again" in caught.value.what
    assert "setting-up" in caught.value.why
    assert caught.value.fix


@pytest.mark.parametrize("state", [state for state in RunState if state is not RunState.LAUNCHED])
def test_only_a_launched_run_begins(launched: RunStore, moment: datetime, state: RunState) -> None:
    """A stranger who submits its bundle again changes nothing about it."""
    launched.move(RUN, state, moment, "reason")
    before = launched.get(RUN)
    with pytest.raises(OperationFault):
        launched.begin(RUN, moment + SECOND)
    assert launched.get(RUN) == before


def test_a_run_that_nobody_launched_does_not_begin(store: RunStore, moment: datetime) -> None:
    for act in (lambda: store.begin(RUN, moment), lambda: store.get(RUN)):
        with pytest.raises(OperationFault, match="There is no run"):
            act()


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


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
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


def test_moving_one_run_moves_no_other(launched: RunStore, moment: datetime) -> None:
    launched.create(OTHER, STUDY, moment)
    launched.move(RUN, RunState.FAILED, moment, "x")
    assert state_of(launched, OTHER) is RunState.LAUNCHED
    launched.begin(OTHER, moment)
    assert state_of(launched) is RunState.FAILED


def test_the_newest_run_of_a_study_is_found(store: RunStore, moment: datetime) -> None:
    assert store.latest_of(STUDY) is None
    store.create(OTHER, STUDY, moment + SECOND)
    store.create(RUN, STUDY, moment)
    store.create("c" * 32, "sha256:" + "6" * 64, moment + 2 * SECOND)
    assert store.latest_of(STUDY).run_id == OTHER


OPENED = OpenedSum(values=np.array([1, 2]), countries=("AT", "BE"), variance=4, unopenable=())
VOID = VoidRound(reason="too few", missing=("CZ",))


def test_rounds_are_kept_in_order_with_what_came_of_them(
    launched: RunStore, moment: datetime
) -> None:
    reports = [
        RoundReport(2, "train", 0.5, VOID, {"CZ": "no reply in time"}),
        RoundReport(1, "train", 0.25, OPENED, {}),
        RoundReport(3, "evaluate", 0.125, OPENED, {"BE": "refused (declined)"}),
    ]
    for report in reports:
        launched.note_round(RUN, report, moment)
    first, second, third = launched.rounds_of(RUN)
    assert first == {
        "round": 1, "phase": "train", "outcome": "opened", "seconds": 0.25,
        "opened": ["AT", "BE"], "causes": {},
    }  # fmt: skip
    assert (second["outcome"], second["opened"]) == ("void", [])
    assert second["causes"] == {"CZ": "no reply in time"}
    assert third["phase"] == "evaluate"
    assert launched.get(RUN).round == 3


def test_no_opened_value_is_kept_with_a_round(launched: RunStore, moment: datetime) -> None:
    values = np.array([123456789, 987654321])
    report = RoundReport(1, "count", 0.1, OpenedSum(values, ("AT",), 1, ()), {})
    launched.note_round(RUN, report, moment)
    assert "123456789" not in str(launched.rounds_of(RUN))


def test_model_and_carrier_are_kept(launched: RunStore, engine: Engine, tmp_path: Path) -> None:
    launched.carried_by(RUN, 2**63 + 5)
    launched.keep_model(RUN, b"weights")
    again = RunStore(open_database(tmp_path / "state.db", MIGRATIONS))
    assert (again.get(RUN).flower_run, again.get(RUN).model) == (str(2**63 + 5), b"weights")
