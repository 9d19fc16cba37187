"""Counts which countries took part in a released result, from the rounds of its run."""

from collections import Counter
from collections.abc import Sequence

from governance.results.result import ResultPart
from protocols.tasks.schedule import TRAIN
from server.runs.rounds import RoundRecord


def participation_of(rounds: Sequence[RoundRecord], roster: Sequence[str]) -> ResultPart:
    """Return which countries are in the model and in the figures that these rounds computed."""
    opened = [finished for finished in rounds if finished.opened]
    trained = [set(finished.countries) for finished in opened if finished.phase == TRAIN]
    figures = [finished.countries for finished in opened if finished.phase != TRAIN]
    without = {country: sum(country not in each for each in trained) for country in roster}
    return ResultPart(
        countries=tuple(sorted({country for each in opened for country in each.countries})),
        figures_over=figures[-1] if figures else (),
        rounds_opened=Counter(map(len, trained)),
        left_out={country: times for country, times in without.items() if times},
        rounds_void=len(rounds) - len(opened),
    )
