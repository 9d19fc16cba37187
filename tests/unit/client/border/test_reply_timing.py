"""Replies leave at few fixed moments, and never after a shorter delay than before."""

from math import log2

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from client.border.reply_timing import MAX_RUNS
from tests.support.slot_clock import new_slots, seconds_until_reply


@pytest.mark.parametrize(
    ("worked", "leaves"),
    [(0.0, 0.05), (0.001, 0.05), (0.049, 0.05), (0.051, 0.1), (0.101, 0.2), (1.234, 1.6)],
)
def test_each_slot_is_twice_as_late_as_the_one_before(worked: float, leaves: float) -> None:
    assert seconds_until_reply(*new_slots(), worked) == pytest.approx(leaves)


@given(st.lists(st.floats(0, 20), min_size=1, max_size=8))
@example([0.05])
def test_replies_use_few_slots_and_never_a_shorter_one_later(worked: list[float]) -> None:
    time, slots = new_slots()
    leaves = [seconds_until_reply(time, slots, each) for each in worked]
    assert leaves == pytest.approx(sorted(leaves))
    assert all(after >= each - 1e-6 for after, each in zip(leaves, worked, strict=True))
    assert all(log2(each / 0.05) == pytest.approx(round(log2(each / 0.05))) for each in leaves)
    assert leaves[-1] <= max(0.05, 2 * max(worked)) + 1e-6


def test_the_longest_slot_counts_only_for_its_run_and_phase() -> None:
    time, slots = new_slots()
    leaves = [
        seconds_until_reply(time, slots, worked, place)
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


def test_a_bounded_number_of_runs_is_remembered_and_the_oldest_dropped() -> None:
    time, slots = new_slots()
    seconds_until_reply(time, slots, 0.11)
    for number in range(MAX_RUNS - 1):
        slots.know(str(number))
    assert seconds_until_reply(time, slots, 0.0) == pytest.approx(0.2)
    slots.know("one more")
    assert seconds_until_reply(time, slots, 0.0) == pytest.approx(0.05)
    assert len(slots._longest) == MAX_RUNS


def test_refused_made_up_runs_displace_no_run() -> None:
    time, slots = new_slots()
    seconds_until_reply(time, slots, 0.3)
    for number in range(200):
        seconds_until_reply(time, slots, 0.01, (f"made up {number}", 1))
    assert seconds_until_reply(time, slots, 0.0) == pytest.approx(0.4)


def test_made_up_runs_displace_no_run_and_are_not_remembered() -> None:
    time, slots = new_slots()
    assert seconds_until_reply(time, slots, 0.11, ("r", 1)) == pytest.approx(0.2)
    for number in range(2 * MAX_RUNS):
        assert seconds_until_reply(time, slots, 0.06, (f"made up {number}", 1)) == pytest.approx(
            0.1
        )
    assert seconds_until_reply(time, slots, 0.0, ("r", 1)) == pytest.approx(0.2)
    assert seconds_until_reply(time, slots, 0.0, ("made up 1", 1)) == pytest.approx(0.05)
