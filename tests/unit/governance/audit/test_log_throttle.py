"""Many similar decisions: the first are logged one by one, the others as a count."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from governance.audit.events import EventKind
from governance.audit.log_throttle import (
    LONGEST,
    ONE_BY_ONE,
    SHORTEST,
    LogAction,
    LogThrottle,
)
from protocols.errors import ReasonCode

NOW = datetime(2026, 9, 1, tzinfo=UTC)
STALE = (EventKind.REQUEST_REFUSED, ReasonCode.STALE)
PAUSED = (EventKind.REQUEST_REFUSED, ReasonCode.PAUSED)
SECOND = timedelta(seconds=1)


def test_the_first_are_logged_one_by_one_and_then_counting_begins() -> None:
    throttle = LogThrottle[tuple[EventKind, ReasonCode]]()
    decisions = [throttle.note(STALE, NOW) for _ in range(ONE_BY_ONE + 3)]
    assert decisions[:ONE_BY_ONE] == [LogAction.WHOLE] * ONE_BY_ONE
    assert decisions[ONE_BY_ONE:] == [
        LogAction.COUNTING_BEGINS,
        LogAction.NOTHING,
        LogAction.NOTHING,
    ]


def test_another_kind_has_a_separate_window() -> None:
    throttle = LogThrottle[tuple[EventKind, ReasonCode]]()
    for _ in range(ONE_BY_ONE + 3):
        throttle.note(STALE, NOW)
    assert throttle.note(PAUSED, NOW) is LogAction.WHOLE


def test_a_window_that_has_ended_reports_its_count_once() -> None:
    throttle = LogThrottle[tuple[EventKind, ReasonCode]]()
    for _ in range(ONE_BY_ONE + 3):
        throttle.note(STALE, NOW)
    assert throttle.settled(NOW + SHORTEST - SECOND) == []
    (counted,) = throttle.settled(NOW + SHORTEST)
    assert (counted.kind, counted.number) == (STALE, 3)
    assert (counted.since, counted.until) == (NOW, NOW + SHORTEST)
    assert throttle.settled(NOW + SHORTEST) == []


def test_a_window_without_counted_decisions_reports_nothing() -> None:
    throttle = LogThrottle[tuple[EventKind, ReasonCode]]()
    throttle.note(STALE, NOW)
    assert throttle.settled(NOW + SHORTEST) == []
    assert throttle.settled(NOW + 3 * SHORTEST) == []
    assert throttle._windows == {}


def test_the_end_of_the_daemon_ends_every_window() -> None:
    throttle = LogThrottle[tuple[EventKind, ReasonCode]]()
    for _ in range(ONE_BY_ONE + 1):
        throttle.note(STALE, NOW)
    assert [counted.number for counted in throttle.settled(NOW, ending=True)] == [1]


def test_a_clock_set_back_ends_a_window() -> None:
    throttle = LogThrottle[tuple[EventKind, ReasonCode]]()
    for _ in range(ONE_BY_ONE + 1):
        throttle.note(STALE, NOW)
    assert [counted.number for counted in throttle.settled(NOW - SHORTEST)] == [1]


def test_windows_grow_to_an_hour_while_decisions_continue_and_shrink_afterwards() -> None:
    throttle, now, lengths = LogThrottle[tuple[EventKind, ReasonCode]](), NOW, []
    for _ in range(9):
        for _ in range(ONE_BY_ONE + 1):
            throttle.note(STALE, now)
        lengths.append(throttle._windows[STALE].length)
        now += lengths[-1]
        throttle.settled(now)
    assert lengths == [min(2**n * SHORTEST, LONGEST) for n in range(9)]
    throttle.note(STALE, now)
    now += LONGEST
    throttle.settled(now)
    assert throttle._windows[STALE].length == SHORTEST


def test_a_day_of_a_thousand_a_minute_is_a_few_hundred_entries() -> None:
    throttle, written = LogThrottle[tuple[EventKind, ReasonCode]](), 0
    for minute in range(24 * 60):
        now = NOW + minute * SHORTEST
        for _ in range(1_000):
            written += len(throttle.settled(now))
            written += throttle.note(STALE, now) is not LogAction.NOTHING
    assert written < 30 * (ONE_BY_ONE + 2)


@given(st.lists(st.tuples(st.integers(0, 200), st.sampled_from([STALE, PAUSED])), max_size=300))
def test_no_decision_is_lost(requests: list[tuple[int, tuple[EventKind, ReasonCode]]]) -> None:
    throttle, now, whole, counted = LogThrottle[tuple[EventKind, ReasonCode]](), NOW, 0, 0
    for seconds, kind in requests:
        now += seconds * SECOND
        counted += sum(each.number for each in throttle.settled(now))
        whole += throttle.note(kind, now) is LogAction.WHOLE
    counted += sum(each.number for each in throttle.settled(now, ending=True))
    assert whole + counted == len(requests)
