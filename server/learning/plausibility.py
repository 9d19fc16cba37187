"""Checks that an opened sum is one that honest countries could have sent.

The public bounds of a study limit every sum: each patient has a bounded part, and there are at most
so many patients. Noise may add to that. A sum beyond both was made by a country that did not follow
the protocol, or the study's `patients_bound` is too small. Masks hide what each country sent, so
only the figure can be named.

A linear figure a·x has noise that exceeds z·σ·|a| with probability at most 2·e^(-z²/2): shares of
discrete Gaussian noise have the moments of `Mechanism.lane_bits`. The length of the noise vector
exceeds σ·(√d + z) with probability at most e^(-z²/2) (Hsu, Kakade, Zhang 2012, Theorem 2.1, for
√(d + 2√(dt) + 2t) ≤ √d + √(2t) with t = z²/2). `_z` chooses z so that all tests of one honest sum
together fail with probability at most 2^-40, and Poisson samples with at most as much once more.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocols.numerics.mechanism import Mechanism, Scope
from protocols.tasks import CountByFeature, CountPatients, Feature, Training
from protocols.tasks.error_table import TARGET_WEIGHT, ErrorTable
from protocols.tasks.features import FloatArray
from protocols.tasks.local import most_sampled
from protocols.tasks.schedule import EVALUATE
from protocols.tasks.score_table import PLACE_WEIGHT, ScoreTable

FALSE_ALARM_BITS = 40
"""An honest sum counts as an impossible one with probability at most 2^-40, twice."""
PLACES = (
    "the room between the sum of the places of scores in a bin and the number of patients in it"
)
SQUARES = "the same room for the squares of these places"
BEYOND = "the sum is beyond what its public bounds and its noise allow"
WHOSE = "`patients_bound` is too small, or a country sent wrong numbers; masks hide which country"


@dataclass(frozen=True)
class Figures:
    """Linear figures of a sum that share one name and one pair of limits.

    `terms` is the sum of the squares of the coordinates' weights: their number, if they are only
    added and subtracted. Values and limits are in units of the lattice; `unit` of them are one of
    what the name counts.
    """

    name: str
    values: FloatArray
    terms: float
    low: float
    high: float
    unit: float

    def beyond(self, noise: float) -> str:
        """Return the figure that is furthest beyond its limits and `noise`; empty if none is."""
        margin = noise * math.sqrt(self.terms)
        excess = np.maximum(self.low - margin - self.values, self.values - self.high - margin)
        worst = int(excess.argmax())
        if excess[worst] <= 0:
            return ""
        numbers = (self.low, float(self.values[worst]), self.high, margin)
        low, value, high, reach = (_shown(number / self.unit) for number in numbers)
        limits = high if low == high else f"{low} to {high}"
        return f"{self.name} is {value}; the bounds allow {limits}, and noise at most {reach} more"


def impossible_figure(
    task: Training | CountPatients | CountByFeature,
    features: Sequence[Feature],
    mechanism: Mechanism,
    opened: NDArray[np.int64],
    *,
    countries: int,
) -> str:
    """Return why no honest countries can have sent this sum, in words; empty if they can.

    `opened` is the lattice sum over `countries` contributions.
    """
    if mechanism.scope is Scope.DERIVED:
        return _sentence(_of_updates(mechanism, opened, countries).beyond(0.0))
    figures = list(_figures(task, features, mechanism, opened.astype(np.float64)))
    spread = mechanism.noise_std * math.sqrt(countries)
    noise = spread * _z(sum(each.values.size for each in figures) + 1)
    named = next(filter(None, (each.beyond(noise) for each in figures)), "")
    if not named and isinstance(task, Training) and mechanism.phase != EVALUATE:
        # the length of the noise is σ·√d more than the z·σ of one linear figure
        length = spread * math.sqrt(mechanism.dimension) + noise
        named = _length(mechanism, opened.astype(np.float64)).beyond(length)
    return _sentence(named)


def _shown(number: float) -> str:
    """Return a number in words: whole if it is large, else with three digits."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"  # noqa: PLR2004


def _z(tests: int) -> float:
    """Return z at which this many two-sided tests together fail with probability ≤ 2^-40."""
    return math.sqrt(2 * (math.log(2 * tests) + FALSE_ALARM_BITS * math.log(2)))


def _sentence(named: str) -> str:
    return f"{BEYOND}: {named}. {WHOSE}" if named else ""


def _figures(
    task: Training | CountPatients | CountByFeature,
    features: Sequence[Feature],
    mechanism: Mechanism,
    values: FloatArray,
) -> Iterator[Figures]:
    if not isinstance(task, Training):
        yield from _of_table(mechanism, values)
    elif mechanism.phase == EVALUATE:
        yield from _of_evaluation(task, features, mechanism, values)
    else:
        yield _of_gradients(mechanism, values)


def _of_updates(mechanism: Mechanism, opened: NDArray[np.int64], countries: int) -> Figures:
    """A country clips each coordinate of its update, noise of its steps included."""
    reach, unit = float(countries * mechanism.reach), float(mechanism.scale)
    name = "a coordinate of the update, in clip norms,"
    return Figures(name, opened.astype(np.float64), 1, -reach, reach, unit)


def _largest_sum(mechanism: Mechanism) -> float:
    """Return the length of the sum if every patient has the longest part, in one direction."""
    return most_sampled(mechanism.patients_bound, mechanism.sampling_rate) * mechanism.sensitivity


def _of_gradients(mechanism: Mechanism, values: FloatArray) -> Figures:
    reach, name = _largest_sum(mechanism), "a coordinate of the training sum, in clip norms,"
    return Figures(name, values, 1, -reach, reach, mechanism.sensitivity)


def _length(mechanism: Mechanism, values: FloatArray) -> Figures:
    length, name = np.array([np.linalg.norm(values)]), "the length of the training sum"
    unit = mechanism.sensitivity
    return Figures(f"{name}, in clip norms,", length, 1, 0.0, _largest_sum(mechanism), unit)


def _of_table(mechanism: Mechanism, values: FloatArray) -> Iterator[Figures]:
    """Every patient is counted in one cell."""
    unit = float(mechanism.scale)
    most = mechanism.patients_bound * unit
    yield Figures("a cell of the table", values, 1, 0.0, most, unit)
    total = np.array([values.sum()])
    yield Figures("the number of patients in the table", total, values.size, 0.0, most, unit)


def _of_evaluation(
    task: Training, features: Sequence[Feature], mechanism: Mechanism, values: FloatArray
) -> Iterator[Figures]:
    table, unit = task.score_table(features), float(mechanism.scale)
    held_out = task.evaluation.held_out if task.evaluation else 1.0
    most = most_sampled(mechanism.patients_bound, held_out) * unit
    if isinstance(table, ErrorTable):
        yield from _of_errors(table, values, unit, most)
    else:
        yield from _of_scores(table, values, unit, most)


def _counted(
    counts: FloatArray, patients: FloatArray, cells: int, unit: float, most: float
) -> Iterator[Figures]:
    """Every held-out patient is in one cell; `patients` are sums of `cells` cells each."""
    yield Figures("a cell of the evaluation", counts.reshape(-1), 1, 0.0, most, unit)
    yield Figures("the number of patients in the evaluation", patients, cells, 0.0, most, unit)


def _of_scores(
    table: ScoreTable, values: FloatArray, unit: float, most: float
) -> Iterator[Figures]:
    """Every held-out patient is counted once for each class, and once as wrong or right."""
    counts = table.counts_of(values)
    cells = table.bins * table.label_bins
    in_group = counts.sum(axis=(2, 3))
    yield from _counted(counts, in_group.sum(axis=1), table.groups * cells, unit, most)
    if table.placed:
        yield from _of_places(table, values, counts, unit, most)
    if table.classes == 1:
        return
    right = table.right_by_group(values)
    yield Figures("a cell of the evaluation", right.reshape(-1), 1, 0.0, most, unit)
    name = "the difference between the numbers of patients of two classes"
    differences = (in_group[1:] - in_group[0]).reshape(-1)
    yield Figures(name, differences, 2 * cells, 0.0, 0.0, unit)
    name = "the difference between predictions, right and wrong, and patients"
    yield Figures(name, right.sum(axis=1) - in_group[0], 2 + cells, 0.0, 0.0, unit)
    name = "the difference between the patients of all levels and all patients"
    of_levels = counts[..., 1].sum(axis=(0, 2))
    yield Figures(name, of_levels - in_group[0], table.classes * table.bins, 0.0, 0.0, unit)


def _of_places(
    table: ScoreTable, values: FloatArray, counts: FloatArray, unit: float, most: float
) -> Iterator[Figures]:
    """A place is from -1 to 1, and its square minus 1/2 from -1/2 to 1/2, for each patient."""
    places = PLACE_WEIGHT * table.places_of(values)
    yield _at_most(PLACES, places, counts, PLACE_WEIGHT, (1, unit, most))
    squares = PLACE_WEIGHT * table.squares_of(values)
    yield _at_most(SQUARES, squares, counts.sum(axis=-1), PLACE_WEIGHT / 2, (2, unit, most))


def _at_most(
    name: str,
    sums: FloatArray,
    counts: FloatArray,
    limit: float,
    of: tuple[int, float, float],
) -> Figures:
    """Return how far sums, and their negatives, are below `limit` for each patient counted.

    `of` are the number of cells in one count, the unit, and the most patients. A patient's number
    is rounded to one of the two next whole ones, so the limit is the next whole number of units.
    """
    cells, unit, most = of
    weight = math.ceil(limit * unit) / unit
    below = np.concatenate([weight * counts - sums, weight * counts + sums], axis=None)
    return Figures(name, below, 1 + cells * weight**2, 0.0, 2 * weight * most, unit)


def _of_errors(
    table: ErrorTable, values: FloatArray, unit: float, most: float
) -> Iterator[Figures]:
    """Every held-out patient is counted in one cell; |r|, r², |y| are at most 1, r² at most |r|."""
    counts = table.counts_of(values)
    patients, cells = counts.sum(axis=(1, 2)), table.cells // table.groups
    yield from _counted(counts, np.array([patients.sum()]), table.cells, unit, most)
    moments = table.moments_of(values)
    sizes, squares = moments[:, :2], moments[:, 2]
    name = "a sum of errors or of their squares"
    yield Figures(name, moments[:, :3].reshape(-1), 1, 0.0, most, unit)
    name = "the room between the sum of absolute errors and the number of patients"
    room = (1 + 1 / unit) * patients - sizes.sum(axis=1)
    yield Figures(name, room, 2 + cells * (1 + 1 / unit) ** 2, 0.0, 2 * most, unit)
    name = "the room between the sum of squared errors and that of absolute errors"
    room = sizes.sum(axis=1) - squares + 2 / unit * patients
    yield Figures(name, room, 3 + cells * (2 / unit) ** 2, 0.0, 2 * most, unit)
    name = "the room between the sum of the targets' positions and the number of patients"
    positions = TARGET_WEIGHT * moments[:, 3]
    yield _at_most(name, positions, patients, TARGET_WEIGHT, (cells, unit, most))
    name = "the same room for the squares of these positions"
    around = TARGET_WEIGHT * moments[:, 4]
    yield _at_most(name, around, patients, TARGET_WEIGHT / 2, (cells, unit, most))
