"""How the difference of two clocks is measured and said."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.wire.exchange_clock import TIME_KEY, TOLERATED, ExchangeClock, in_words

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
SHORT, LONG = timedelta(seconds=0.1), timedelta(seconds=60)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


def stated(offset: timedelta) -> list[tuple[str, object]]:
    return [("other", b"x"), (TIME_KEY, (NOW + offset).isoformat())]


def measured(offset: timedelta) -> ExchangeClock:
    clock = ExchangeClock(lambda: NOW)
    clock.note(stated(offset), SHORT)
    return clock


def test_an_unknown_difference_changes_nothing() -> None:
    clock = ExchangeClock(lambda: NOW)
    assert (clock.offset, clock.now(), clock.difference()) == (None, NOW, "")
    assert clock.is_tolerated


@pytest.mark.parametrize(
    ("offset", "says"),
    [
        (10 * SECOND, "this machine's clock is 10 seconds behind the exchange's"),
        (-10 * SECOND, "this machine's clock is 10 seconds ahead of the exchange's"),
        (4 * MINUTE, "this machine's clock is about 4 minutes behind the exchange's"),
        (-4 * MINUTE, "this machine's clock is about 4 minutes ahead of the exchange's"),
        (timedelta(hours=5), "this machine's clock is about 5 hours behind the exchange's"),
        (timedelta(days=-800), "this machine's clock is about 800 days ahead of the exchange's"),
        (5 * SECOND, ""),
        (-5 * SECOND, ""),
    ],
)
def test_a_difference_is_said_in_words(offset: timedelta, says: str) -> None:
    assert measured(offset).difference() == says
    assert measured(offset).now() == NOW + offset


@pytest.mark.parametrize("sign", [1, -1])
def test_five_minutes_are_tolerated(sign: int) -> None:
    assert measured(sign * TOLERATED).is_tolerated
    assert not measured(sign * (TOLERATED + SECOND)).is_tolerated


def test_a_long_call_is_measured_only_if_nothing_is_known() -> None:
    clock = ExchangeClock(lambda: NOW)
    clock.note(stated(-MINUTE), LONG)
    assert clock.offset == -MINUTE
    clock.note(stated(-SECOND), SHORT)
    clock.note(stated(-MINUTE), LONG)
    assert clock.offset == -SECOND


@pytest.mark.parametrize(
    "metadata",
    [None, [], [(TIME_KEY, "soon")], [(TIME_KEY, "2026-11-30T12:00:00")], [("x", "y")]],
)
def test_what_is_no_time_is_ignored(metadata: list[tuple[str, object]] | None) -> None:
    clock = measured(MINUTE)
    clock.note(metadata, SHORT)
    assert clock.offset == MINUTE


@pytest.mark.parametrize(
    "text",
    [
        "9999-12-31T23:59:59-23:59",
        "9999-12-31T23:59:59+00:00",
        "0001-01-01T00:00:00+23:59",
        "1969-12-31T23:59:59+00:00",
    ],
)
def test_a_time_that_nothing_can_be_computed_with_is_ignored(text: str) -> None:
    clock = ExchangeClock(lambda: NOW)
    clock.note([(TIME_KEY, text)], SHORT)
    assert (clock.offset, clock.now()) == (None, NOW)


@given(st.text(max_size=40))
def test_no_text_of_an_exchange_ends_a_call(text: str) -> None:
    clock = ExchangeClock(lambda: NOW)
    clock.note([(TIME_KEY, text)], SHORT)
    assert clock.offset is None or in_words(abs(clock.offset))


@given(st.timedeltas(min_value=timedelta(), max_value=timedelta(days=4000)))
def test_the_words_are_right_to_a_half_of_their_unit(span: timedelta) -> None:
    words = in_words(span).removeprefix("about ").split()
    unit = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}[words[1]]
    assert abs(int(words[0]) * unit - span.total_seconds()) <= unit / 2 + 0.5
