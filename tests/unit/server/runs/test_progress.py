"""Each step of a run is stored completely or not at all, and only by the current attempt."""

import json
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, event

from governance.audit.log import AuditLog
from protocols.private_sum.coordinator_round import OpenedSum, VoidRound
from server.errors import CoordinatorFault
from server.runs.progress import RunProgress, StoredRun, Superseded
from server.runs.rounds import RoundRecord, RoundReport
from server.runs.store import RunState, RunStore
from tests.support.documents import raw_key

RUN = "a" * 32
STUDY = "sha256:" + "5" * 64
ENDINGS = [state for state in RunState if state.over]
SECOND = timedelta(seconds=1)
REPLIES = {"bundle": {"AT": b"a", "BE": b"b"}, "encapsulate": {"AT": b"c"}, "confirm": {"BE": b""}}
OPENED = OpenedSum(values=np.array([1, 2]), countries=("AT", "BE"), variance=4, unopenable=())
VOID = VoidRound(reason="too few", missing=("CZ",))
VERSIONS = {"root": 1, "targets": 2, "countries": {"AT": 3}}
GROUND = {"agreement": "sha256:" + "6" * 64, "identities": {"AT": "a key"}, **VERSIONS}


def audit_log(engine: Engine) -> AuditLog:
    return AuditLog(engine, "pratique/danube/coordinator", raw_key(4))


def attempt(engine: Engine, number: int, run: str = RUN) -> RunProgress:
    return RunProgress(engine, run, number, audit_log(engine))


def logged(engine: Engine) -> list[dict[str, Any]]:
    return [json.loads(entry) for entry in audit_log(engine).entries()]


@pytest.fixture
def store(engine: Engine, moment: datetime) -> RunStore:
    new_store = RunStore(engine)
    new_store.create(RUN, STUDY, moment)
    return new_store


@pytest.fixture
def progress(engine: Engine, store: RunStore, moment: datetime) -> RunProgress:
    first_attempt = attempt(engine, 1)
    first_attempt.begin(moment)
    return first_attempt


def report(
    number: int, outcome: OpenedSum | VoidRound = OPENED, phase: str = "train"
) -> RoundReport:
    return RoundReport(number, phase, 0.5, outcome, {"CZ": "late"} if outcome is VOID else {})


def everything(engine: Engine, progress: RunProgress) -> tuple[object, StoredRun, object]:
    return RunStore(engine).get(RUN), progress.load(), logged(engine)


def test_an_attempt_begins_once(engine: Engine, progress: RunProgress, moment: datetime) -> None:
    assert RunStore(engine).get(RUN).state == RunState.SETTING_UP
    for number in (0, 1, 2):
        with pytest.raises(Superseded) as caught:
            attempt(engine, number).begin(moment)
        assert "attempt 1 is its current one" in caught.value.why


@pytest.mark.parametrize("state", ENDINGS)
def test_a_run_that_is_over_is_not_begun(
    engine: Engine, store: RunStore, moment: datetime, state: RunState
) -> None:
    store.move(RUN, state, moment)
    before = store.get(RUN)
    with pytest.raises(Superseded, match="may not execute") as caught:
        attempt(engine, 1).begin(moment + SECOND)
    assert state.value in caught.value.why
    assert store.get(RUN) == before


def test_a_run_that_nobody_launched_is_not_begun(engine: Engine, moment: datetime) -> None:
    with pytest.raises(CoordinatorFault, match="There is no run"):
        attempt(engine, 1, "b" * 32).begin(moment)


def test_everything_that_is_stored_is_read_back(
    engine: Engine, store: RunStore, progress: RunProgress, moment: datetime
) -> None:
    assert progress.load() == StoredRun(STUDY, None, {}, (), b"", None)
    progress.keep_documents(GROUND)
    progress.keep_set_up(REPLIES, moment)
    assert store.get(RUN).state == RunState.RUNNING
    progress.keep_round(report(1, VOID), b"one", moment)
    progress.keep_round(report(2), b"two", moment)
    progress.keep_round(report(3, phase="evaluate"), b"model", moment, {"findings": {"x": 1}})
    assert store.get(RUN).round == 3
    store.next_attempt(RUN, moment)
    again = attempt(engine, 2)
    again.begin(moment)
    assert store.get(RUN).state == RunState.RUNNING
    assert again.load() == StoredRun(
        study=STUDY,
        documents=GROUND,
        replies=REPLIES,
        rounds=(
            RoundRecord(1, "train", (), reason="too few", causes={"CZ": "late"}),
            RoundRecord(2, "train", ("AT", "BE"), reason="", causes={}),
            RoundRecord(3, "evaluate", ("AT", "BE"), reason="", causes={}),
        ),
        model=b"model",
        outcome={"findings": {"x": 1}},
    )


def test_a_closed_round_is_known_to_later_attempts_until_the_round_ends(
    engine: Engine, store: RunStore, progress: RunProgress, moment: datetime
) -> None:
    progress.keep_set_up(REPLIES, moment)
    progress.keep_closed(1, ("AT", "BE"), moment)
    assert progress.load().closed == {1: ("AT", "BE")}
    store.next_attempt(RUN, moment)
    again = attempt(engine, 2)
    again.begin(moment)
    assert again.load().closed == {1: ("AT", "BE")}
    again.keep_round(report(1), b"one", moment)
    assert again.load().closed == {}


def test_closing_a_round_does_not_reset_the_fruitless_attempts(
    store: RunStore, progress: RunProgress, moment: datetime
) -> None:
    """A run whose process dies each time after a round was closed must end."""
    progress.keep_closed(1, ("AT", "BE"), moment)
    assert store.get(RUN).fruitless == 1


def test_rounds_are_listed_in_order_with_their_results(
    store: RunStore, progress: RunProgress, moment: datetime
) -> None:
    progress.keep_round(report(2, VOID), b"", moment)
    progress.keep_round(report(1), b"", moment)
    first, second = store.rounds_of(RUN)
    assert first.model_dump(mode="json") == {
        "round": 1, "phase": "train", "outcome": "opened", "seconds": 0.5,
        "opened": ["AT", "BE"], "causes": {}, "reason": "",
    }  # fmt: skip
    assert (second.outcome, second.opened, second.causes) == ("void", (), {"CZ": "late"})


def test_no_opened_value_is_stored_with_a_round(
    store: RunStore, progress: RunProgress, moment: datetime
) -> None:
    values = np.array([123456789, 987654321])
    progress.keep_round(report(1, OpenedSum(values, ("AT",), 1, ())), b"", moment)
    assert "123456789" not in str(store.rounds_of(RUN))


def test_a_round_is_stored_once(progress: RunProgress, engine: Engine, moment: datetime) -> None:
    progress.keep_round(report(1), b"first", moment)
    before = everything(engine, progress)
    with pytest.raises(Exception, match="UNIQUE"):
        progress.keep_round(report(1), b"second", moment)
    assert everything(engine, progress) == before


def test_each_round_is_logged_with_its_document_versions(
    engine: Engine, progress: RunProgress, moment: datetime
) -> None:
    progress.keep_documents(GROUND)
    progress.keep_round(report(1, VOID), b"one", moment)
    progress.keep_round(report(2), b"two", moment + SECOND)
    void, opened = logged(engine)
    assert [void.pop(name) for name in ("v", "origin", "index", "at")][1:3] == [
        "pratique/danube/coordinator",
        0,
    ]
    common = {"actor": "coordinator", "outcome": "done", "study": STUDY, "run": RUN}
    assert void == common | {
        "kind": "round-void",
        "round": 1,
        "reason": "too few",
        "documents": VERSIONS,
        "policies": [],
    }
    assert (opened["kind"], opened["round"]) == ("round-opened", 2)
    assert datetime.fromisoformat(opened["at"]) == moment + SECOND
    assert "reason" not in opened


def test_the_log_contains_no_value_and_no_number_of_a_round(
    engine: Engine, progress: RunProgress, moment: datetime
) -> None:
    values = np.array([123456789, 987654321])
    progress.keep_round(report(1, OpenedSum(values, ("AT",), 424242, ())), b"weights", moment)
    (entry,) = logged(engine)
    expected = {"kind", "at", "actor", "outcome", "study", "run", "round", "policies"}
    assert entry.keys() == expected | {"v", "origin", "index"}


def test_a_round_is_logged_once_even_if_another_attempt_stores_it(
    engine: Engine, store: RunStore, progress: RunProgress, moment: datetime
) -> None:
    progress.keep_round(report(1), b"first", moment)
    store.next_attempt(RUN, moment)
    again = attempt(engine, 2)
    again.begin(moment)
    for late in (progress, again):
        with pytest.raises(Exception, match=r"UNIQUE|may not execute"):
            late.keep_round(report(1), b"second", moment)
    assert [entry["kind"] for entry in logged(engine)] == ["round-opened"]


def test_a_stored_step_resets_the_number_of_fruitless_attempts(
    store: RunStore, engine: Engine, moment: datetime
) -> None:
    for _ in range(3):
        store.next_attempt(RUN, moment)
    fourth = attempt(engine, 4)
    fourth.begin(moment)
    fourth.note_end_of_attempt("the disk was full", moment)
    row = store.get(RUN)
    assert (row.fruitless, row.reason, row.state) == (4, "the disk was full", "setting-up")
    fourth.keep_set_up(REPLIES, moment)
    assert (store.get(RUN).fruitless, store.get(RUN).reason) == (0, "")
    store.next_attempt(RUN, moment)
    assert store.get(RUN).fruitless == 1


def acts(progress: RunProgress, moment: datetime) -> dict[str, object]:
    return {
        "ground": lambda: progress.keep_documents(GROUND),
        "set up": lambda: progress.keep_set_up(REPLIES, moment),
        "closed": lambda: progress.keep_closed(1, ("AT", "BE"), moment),
        "round": lambda: progress.keep_round(report(1), b"model", moment, {"x": 1}),
        "end": lambda: progress.end(RunState.FAILED, moment, "because"),
        "lose": lambda: progress.note_end_of_attempt("because", moment),
    }


ACTS = ["ground", "set up", "closed", "round", "end", "lose"]


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("how", ["another attempt", "stopped", "not begun"])
def test_an_attempt_that_is_not_current_changes_nothing(
    engine: Engine, store: RunStore, moment: datetime, act: str, how: str
) -> None:
    old = attempt(engine, 1)
    if how != "not begun":
        old.begin(moment)
    if how == "another attempt":
        store.next_attempt(RUN, moment)
    if how == "stopped":
        store.move(RUN, RunState.STOPPED, moment)
    before = everything(engine, old)
    with pytest.raises(Superseded):
        acts(old, moment + SECOND)[act]()  # type: ignore[operator]
    assert everything(engine, old) == before


@pytest.mark.parametrize("act", ACTS)
def test_each_write_is_stored_completely_or_not_at_all(
    engine: Engine, progress: RunProgress, moment: datetime, act: str
) -> None:
    """Stop before each statement: nothing of the write is stored, and it can be repeated."""
    before = everything(engine, progress)
    for step in range(1, 100):
        left = [step]

        def count(*_: object, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise RuntimeError("killed")

        event.listen(engine, "before_cursor_execute", count)
        try:
            acts(progress, moment)[act]()  # type: ignore[operator]
        except RuntimeError:
            event.remove(engine, "before_cursor_execute", count)
            assert everything(engine, progress) == before
        else:
            event.remove(engine, "before_cursor_execute", count)
            assert everything(engine, progress) != before
            return
    pytest.fail("every step was broken off")


def test_a_run_that_is_over_deletes_its_set_up(
    engine: Engine, store: RunStore, progress: RunProgress, moment: datetime
) -> None:
    progress.keep_set_up(REPLIES, moment)
    progress.end(RunState.VOID, moment, "too many void rounds")
    assert progress.load().replies == {}
    assert (store.get(RUN).state, store.get(RUN).reason) == ("void", "too many void rounds")
