"""Replies leave at few moments, and none earlier than before."""

from math import log2

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from client.border.reply_timing import MOST_RUNS
from tests.support.slot_clock import left, made


@pytest.mark.parametrize(
    ("worked", "leaves"),
    [(0.0, 0.05), (0.001, 0.05), (0.049, 0.05), (0.051, 0.1), (0.101, 0.2), (1.234, 1.6)],
)
def test_a_reply_leaves_at_a_slot_twice_as_late_as_the_one_before(
    worked: float, leaves: float
) -> None:
    assert left(*made(), worked) == pytest.approx(leaves)


@given(st.lists(st.floats(0, 20), min_size=1, max_size=8))
@example([0.05])
def test_few_moments_are_left_at_and_none_before_an_earlier_one(worked: list[float]) -> None:
    time, slots = made()
    leaves = [left(time, slots, each) for each in worked]
    assert leaves == pytest.approx(sorted(leaves))
    assert all(after >= each - 1e-6 for after, each in zip(leaves, worked, strict=True))
    assert all(log2(each / 0.05) == pytest.approx(round(log2(each / 0.05))) for each in leaves)
    assert leaves[-1] <= max(0.05, 2 * max(worked)) + 1e-6


def test_a_run_and_phase_keep_their_longest_slot_to_themselves() -> None:
    time, slots = made()
    leaves = [
        left(time, slots, worked, place)
        for worked, place in [
            (0.3, ("r", 1)),
            (0.0, ("r", 1)),
            (0.0, ("r", 2)),
            (0.07, ("r", 2)),
            (0.0, ("r", 1)),
            (0.0, ("s", 1)),
        ]
    ]
    assert leaves == pytest.approx([0.4, 0.4, 0.05, 0.1, 0.4, 0.05])


def test_the_runs_that_are_remembered_are_bounded_the_oldest_forgotten_first() -> None:
    time, slots = made()
    left(time, slots, 0.11)
    for number in range(MOST_RUNS - 1):
        slots.know(str(number))
    assert left(time, slots, 0.0) == pytest.approx(0.2)
    slots.know("one more")
    assert left(time, slots, 0.0) == pytest.approx(0.05)
    assert len(slots._longest) == MOST_RUNS


def test_made_up_runs_that_are_refused_at_once_make_none_forgotten() -> None:
    time, slots = made()
    left(time, slots, 0.3)
    for number in range(200):
        left(time, slots, 0.01, (f"made up {number}", 1))
    assert left(time, slots, 0.0) == pytest.approx(0.4)


def test_made_up_runs_make_no_run_forgotten_and_are_not_remembered() -> None:
    time, slots = made()
    assert left(time, slots, 0.11, ("r", 1)) == pytest.approx(0.2)
    for number in range(2 * MOST_RUNS):
        assert left(time, slots, 0.06, (f"made up {number}", 1)) == pytest.approx(0.1)
    assert left(time, slots, 0.0, ("r", 1)) == pytest.approx(0.2)
    assert left(time, slots, 0.0, ("made up 1", 1)) == pytest.approx(0.05)
