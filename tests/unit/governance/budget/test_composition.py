"""How training and evaluation add up: exact laws of small cases, and calibrated schedules."""

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import logsumexp

from governance.budget.accounting import epsilon, rdp_micro
from governance.budget.composition import (
    LARGER,
    SUM,
    accounting_sentence,
    branches,
    calibrate_schedule,
    schedule_epsilon,
    schedule_rdp_micro,
)
from protocols.numerics.mechanism import Mechanism, Rounding, Scope
from protocols.tasks.schedule import COHORT_FLOOR, EVALUATE, TRAIN
from tests.support.patients import FEATURES, glm

ORDER, DELTA = 8, 1e-4
GRID = np.arange(-70, 90)
Numbers = NDArray[np.float64]


def counting(phase: str, noise_std: int) -> Mechanism:
    """Return the release of one count, in which each patient is 0 or 1."""
    return Mechanism(
        phase=phase,
        rounds=1,
        dimension=1,
        clip_norm=1.0,
        scale=1,
        noise_std=noise_std,
        patients_bound=10,
        rounding=Rounding.INTEGER,
    )


def law(noise_std: int, shift: int) -> Numbers:
    """Return the probabilities of a shifted discrete Gaussian on the grid."""
    weights = np.exp(-((GRID - shift) ** 2) / (2 * noise_std**2))
    return np.asarray(weights / np.exp(-(np.arange(-400, 401) ** 2) / (2 * noise_std**2)).sum())


def joint(patients: Sequence[int], splits: Sequence[Sequence[bool]]) -> Numbers:
    """Return the exact joint law of training, then evaluation, over equally likely splits.

    `splits` say who trains. Evaluation depends on what training released: if that is odd, each
    held-out patient counts as the opposite.
    """
    total = np.zeros((len(GRID), len(GRID)))
    for trains in splits:
        training = sum(x for x, chosen in zip(patients, trains, strict=True) if chosen)
        held = [x for x, chosen in zip(patients, trains, strict=True) if not chosen]
        even, odd = sum(held), sum(1 - x for x in held)
        rows = np.where((GRID % 2 == 0)[:, None], law(EVALUATED, even), law(EVALUATED, odd))
        total += law(TRAINED, training)[:, None] * rows
    return np.asarray(total / len(splits))


def all_splits(patients: int) -> list[tuple[bool, ...]]:
    return list(product([True, False], repeat=patients))


def renyi(p: Numbers, q: Numbers) -> float:
    return float(logsumexp(ORDER * np.log(p) - (ORDER - 1) * np.log(q)) / (ORDER - 1))


def hockey_stick(p: Numbers, q: Numbers, eps: float) -> float:
    return float(np.maximum(p - math.exp(eps) * q, 0).sum())


TRAINED, EVALUATED = 4, 8
SCHEDULE = (counting(TRAIN, TRAINED), counting(EVALUATE, EVALUATED))
CASES = [([1, 0], [0]), ([1, 1, 0], [1, 0]), ([0, 1, 1], [1, 1]), ([1, 1, 1], [1, 1])]
"""Patients with and without the first one. With row numbers, the others get other ids: since all
splits are equally likely, the law is the same."""


@pytest.mark.parametrize(("more", "fewer"), CASES)
def test_a_patient_costs_the_larger_of_training_and_evaluation(
    more: list[int], fewer: list[int]
) -> None:
    stated = schedule_rdp_micro(SCHEDULE, LARGER, 1, ORDER) / 1e6
    eps = schedule_epsilon(SCHEDULE, LARGER, 1, DELTA)
    with_one, without = joint(more, all_splits(len(more))), joint(fewer, all_splits(len(fewer)))
    for p, q in ((with_one, without), (without, with_one)):
        assert renyi(p, q) <= stated
        assert hockey_stick(p, q, eps) <= DELTA


def test_a_patient_who_is_known_to_train_costs_all_of_it() -> None:
    """A public split by real ids: the first patient trains, the second is held out."""
    p, q = joint([1, 0], [(True, False)]), joint([0], [(False,)])
    assert renyi(p, q) <= schedule_rdp_micro(SCHEDULE, LARGER, 1, ORDER) / 1e6
    assert renyi(p, q) > 0.5 * schedule_rdp_micro(SCHEDULE, LARGER, 1, ORDER) / 1e6


def test_charging_only_the_evaluation_would_be_too_little() -> None:
    p, q = joint([1, 0], [(True, False)]), joint([0], [(False,)])
    only = rdp_micro(SCHEDULE[1], 1, ORDER) / 1e6
    assert renyi(p, q) > only
    assert hockey_stick(p, q, epsilon(SCHEDULE[1:], 1, DELTA)) > DELTA


def test_row_numbers_with_a_known_split_would_cost_more() -> None:
    """Who follows the removed patient changes sides, if the split of the numbers is known."""
    known = (True, False) * 5
    more, fewer = [0, 1] * 4, [1, 0] * 3 + [1]
    p = joint(more, [known[: len(more)]])
    q = joint(fewer, [known[: len(fewer)]])
    assert max(renyi(p, q), renyi(q, p)) > schedule_rdp_micro(SCHEDULE, LARGER, 1, ORDER) / 1e6


def test_everybody_s_releases_are_in_each_branch_and_earlier_studies_have_one() -> None:
    count = counting(COHORT_FLOOR, 20).model_copy(update={"scope": Scope.LOCAL})
    schedule = (count, *SCHEDULE)
    assert branches(schedule, SUM) == (schedule,)
    assert set(branches(schedule, LARGER)) == {(count, SCHEDULE[0]), (count, SCHEDULE[1])}
    assert branches((count,), LARGER) == ((count,),)
    added = sum(rdp_micro(mechanism, 3, ORDER) for mechanism in schedule)
    assert schedule_rdp_micro(schedule, SUM, 3, ORDER) == added
    larger = rdp_micro(count, 3, ORDER) + rdp_micro(SCHEDULE[0], 3, ORDER)
    assert schedule_rdp_micro(schedule, LARGER, 3, ORDER) == larger


@pytest.mark.parametrize("counted", [True, False], ids=["pays its count", "does not"])
def test_each_part_is_calibrated_to_the_whole_budget(counted: bool) -> None:
    task = glm()
    templates, fractions = task.schedule(FEATURES), task.cost_fractions()
    if not counted:
        templates, fractions = templates[1:], fractions[1:]
    terms = 3, 1.0, 1e-5
    added = calibrate_schedule(templates, fractions, SUM, *terms)
    larger = calibrate_schedule(templates, fractions, LARGER, *terms)
    assert [m.phase for m in larger] == [m.phase for m in templates]
    for branch in branches(larger, LARGER):
        assert 0.985 <= epsilon(branch, 3, 1e-5) <= 1.0
    noise = {m.phase: (one.noise_std, m.noise_std) for one, m in zip(added, larger, strict=True)}
    assert noise[TRAIN][1] < 0.95 * noise[TRAIN][0]
    assert noise[EVALUATE][1] < 0.6 * noise[EVALUATE][0]


@pytest.mark.parametrize("noise", [(4, 8), (8, 4), (5, 5)])
@pytest.mark.parametrize("trains", all_splits(3))
def test_a_split_that_is_known_costs_the_larger_with_ids_of_their_own(
    trains: tuple[bool, ...], noise: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first patient is removed, and everybody else stays on the same side."""
    schedule = use(noise, monkeypatch)
    stated = schedule_rdp_micro(schedule, LARGER, 1, ORDER) / 1e6
    eps = schedule_epsilon(schedule, LARGER, 1, DELTA)
    for others in product([0, 1], repeat=2):
        p, q = joint([1, *others], [trains]), joint(others, [trains[1:]])
        for one, other in ((p, q), (q, p)):
            assert renyi(one, other) <= stated
            assert hockey_stick(one, other, eps) <= DELTA


@pytest.mark.parametrize("noise", [(4, 8), (8, 4)])
def test_a_patient_who_changes_sides_within_a_run_costs_both(
    noise: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The split changes between training and evaluation, and the first patient is in both."""
    schedule = use(noise, monkeypatch)
    p, q = (np.outer(law(noise[0], here), law(noise[1], here)) for here in (1, 0))
    assert renyi(p, q) > schedule_rdp_micro(schedule, LARGER, 1, ORDER) / 1e6 * 0.8
    both = sum(ORDER / (2 * std**2) for std in noise)
    assert renyi(p, q) == pytest.approx(both, rel=1e-3)
    assert both > max(ORDER / (2 * std**2) for std in noise)


def test_row_numbers_with_one_split_for_two_versions_would_cost_more() -> None:
    """The first of 41 patients is removed between two runs, or was never there.

    Everybody after the first has another row in the second run. Each second one counts as 1. With
    one split for both runs, other patients train in the second one, if the first patient was there,
    and the same ones, if not. With a split for each run, both laws are equal but for one patient.
    """
    std, others = 3, 40
    chosen = np.array([math.comb(others // 2, k) for k in range(others // 2 + 1)]) / 2**20
    near = slice(30, 130)  # further out, the laws of two runs together underflow
    sums = np.stack([law(std, k)[near] for k in range(others // 2 + 2)])
    once, one_more = chosen @ sums[:-1], np.convolve(chosen, [0.5, 0.5]) @ sums
    apart, together = np.outer(once, once), np.einsum("k,kx,ky->xy", chosen, sums[:-1], sums[:-1])
    stated = 2 * rdp_micro(counting(TRAIN, std), 1, ORDER) / 1e6
    assert max(renyi(apart, together), renyi(together, apart)) > stated
    with_first = np.outer(one_more, once)
    assert max(renyi(with_first, apart), renyi(apart, with_first)) <= stated


def test_costs_are_explained_in_one_sentence() -> None:
    phases = [COHORT_FLOOR, TRAIN, EVALUATE]
    assert "the larger of training and evaluation, not their sum" in accounting_sentence(phases, 2)
    assert "added up" in accounting_sentence(phases, 1)
    for accounting in (SUM, LARGER):
        assert "every release" in accounting_sentence(phases[:2], accounting)


def use(noise: tuple[int, int], patch: pytest.MonkeyPatch) -> tuple[Mechanism, Mechanism]:
    """Let training and evaluation have this noise, and return their schedule."""
    for name, std in zip(("TRAINED", "EVALUATED"), noise, strict=True):
        patch.setitem(globals(), name, std)
    return counting(TRAIN, noise[0]), counting(EVALUATE, noise[1])
