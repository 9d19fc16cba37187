"""Which countries are in the model and in the figures, and how often one was left out."""

from protocols.tasks.schedule import EVALUATE, TRAIN
from server.runs.participation import participation_of
from server.runs.rounds import RoundRecord

ROSTER = ("DK", "EE", "NO", "PT")


def record(number: int, countries: tuple[str, ...], phase: str = TRAIN) -> RoundRecord:
    return RoundRecord(number, phase, countries, "" if countries else "void", {})


def test_a_run_with_everyone_leaves_nobody_out() -> None:
    part = participation_of(
        [record(1, ROSTER), record(2, ROSTER), record(3, ROSTER, EVALUATE)], ROSTER
    )
    assert part.countries == part.figures_over == ROSTER
    assert (part.rounds_opened, part.left_out, part.rounds_void) == ({4: 2}, {}, 0)


def test_rounds_without_a_country_are_counted_for_it() -> None:
    part = participation_of(
        [record(1, ROSTER), record(2, ROSTER[:3]), record(3, ROSTER[:3])], ROSTER
    )
    assert part.countries == ROSTER
    assert part.left_out == {"PT": 2}
    assert part.rounds_opened == {4: 1, 3: 2}


def test_a_country_may_be_in_the_figures_and_not_in_the_model() -> None:
    part = participation_of([record(1, ROSTER[:3]), record(2, ROSTER, EVALUATE)], ROSTER)
    assert part.countries == ROSTER
    assert part.left_out == {"PT": 1}
    assert part.figures_over == ROSTER


def test_void_rounds_open_nothing_and_leave_nobody_out() -> None:
    part = participation_of([record(1, ()), record(2, ROSTER)], ROSTER)
    assert (part.rounds_void, part.left_out, part.rounds_opened) == (1, {}, {4: 1})


def test_a_table_has_figures_and_no_training() -> None:
    part = participation_of([record(1, ROSTER[:3], "histogram")], ROSTER)
    assert part.countries == part.figures_over == ROSTER[:3]
    assert part.rounds_opened == {}
