"""Many like decisions: the first ones whole, then a number, however long it goes on."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from client.state.log_throttle import (
    LONGEST,
    ONE_BY_ONE,
    SHORTEST,
    LogAction,
    LogThrottle,
)
from governance.audit.events import EventKind
from protocols.errors import ReasonCode

NOW = datetime(2026, 9, 1, tzinfo=UTC)
STALE = (EventKind.REQUEST_REFUSED, ReasonCode.STALE)
PAUSED = (EventKind.REQUEST_REFUSED, ReasonCode.PAUSED)
SECOND = timedelta(seconds=1)


def test_the_first_are_whole_and_then_counting_begins_once() -> None:
    tally = LogThrottle()
    said = [tally.note(STALE, NOW) for _ in range(ONE_BY_ONE + 3)]
    assert said[:ONE_BY_ONE] == [LogAction.WHOLE] * ONE_BY_ONE
    assert said[ONE_BY_ONE:] == [LogAction.COUNTING_BEGINS, LogAction.NOTHING, LogAction.NOTHING]


def test_another_kind_has_a_window_of_its_own() -> None:
    tally = LogThrottle()
    for _ in range(ONE_BY_ONE + 3):
        tally.note(STALE, NOW)
    assert tally.note(PAUSED, NOW) is LogAction.WHOLE


def test_a_window_that_is_over_tells_its_number_once() -> None:
    tally = LogThrottle()
    for _ in range(ONE_BY_ONE + 3):
        tally.note(STALE, NOW)
    assert tally.settled(NOW + SHORTEST - SECOND) == []
    (counted,) = tally.settled(NOW + SHORTEST)
    assert (counted.kind, counted.number) == (STALE, 3)
    assert (counted.since, counted.until) == (NOW, NOW + SHORTEST)
    assert tally.settled(NOW + SHORTEST) == []


def test_a_window_in_which_nothing_was_counted_says_nothing() -> None:
    tally = LogThrottle()
    tally.note(STALE, NOW)
    assert tally.settled(NOW + SHORTEST) == []
    assert tally.settled(NOW + 3 * SHORTEST) == []
    assert tally._windows == {}


def test_the_end_of_the_daemon_ends_every_window() -> None:
    tally = LogThrottle()
    for _ in range(ONE_BY_ONE + 1):
        tally.note(STALE, NOW)
    assert [counted.number for counted in tally.settled(NOW, ending=True)] == [1]


def test_a_clock_set_back_ends_a_window() -> None:
    tally = LogThrottle()
    for _ in range(ONE_BY_ONE + 1):
        tally.note(STALE, NOW)
    assert [counted.number for counted in tally.settled(NOW - SHORTEST)] == [1]


def test_windows_grow_to_an_hour_while_it_goes_on_and_shrink_when_it_stops() -> None:
    tally, now, lengths = LogThrottle(), NOW, []
    for _ in range(9):
        for _ in range(ONE_BY_ONE + 1):
            tally.note(STALE, now)
        lengths.append(tally._windows[STALE].length)
        now += lengths[-1]
        tally.settled(now)
    assert lengths == [min(2**n * SHORTEST, LONGEST) for n in range(9)]
    tally.note(STALE, now)
    now += LONGEST
    tally.settled(now)
    assert tally._windows[STALE].length == SHORTEST


def test_a_day_of_a_thousand_a_minute_is_a_few_hundred_entries() -> None:
    tally, written = LogThrottle(), 0
    for minute in range(24 * 60):
        now = NOW + minute * SHORTEST
        for _ in range(1_000):
            written += len(tally.settled(now))
            written += tally.note(STALE, now) is not LogAction.NOTHING
    assert written < 30 * (ONE_BY_ONE + 2)


@given(st.lists(st.tuples(st.integers(0, 200), st.sampled_from([STALE, PAUSED])), max_size=300))
def test_no_decision_is_lost(asked: list[tuple[int, tuple[EventKind, ReasonCode]]]) -> None:
    tally, now, whole, counted = LogThrottle(), NOW, 0, 0
    for seconds, kind in asked:
        now += seconds * SECOND
        counted += sum(each.number for each in tally.settled(now))
        whole += tally.note(kind, now) is LogAction.WHOLE
    counted += sum(each.number for each in tally.settled(now, ending=True))
    assert whole + counted == len(asked)
