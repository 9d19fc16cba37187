"""Which countries are in what a run releases, counted from its rounds."""

from collections import Counter
from collections.abc import Sequence

from protocols.tasks.schedule import TRAIN
from server.learning.release import ResultPart
from server.runs.rounds import RoundRecord


def part_taken(rounds: Sequence[RoundRecord], roster: Sequence[str]) -> ResultPart:
    """Return who is in the model and in the figures that these rounds of a run made."""
    opened = [one for one in rounds if one.opened]
    trained = [set(one.countries) for one in opened if one.phase == TRAIN]
    figures = [one.countries for one in opened if one.phase != TRAIN]
    without = {country: sum(country not in one for one in trained) for country in roster}
    return ResultPart(
        countries=tuple(sorted({country for one in opened for country in one.countries})),
        figures_over=figures[-1] if figures else (),
        rounds_opened=Counter(map(len, trained)),
        left_out={country: times for country, times in without.items() if times},
        rounds_void=len(rounds) - len(opened),
    )
