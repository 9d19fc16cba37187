"""The area under the ROC curve of noise-free sums is that of the clear scores, or near to it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.tasks.features import FloatArray
from server.learning.auc import _of_mean, _Ranks, auc, least_worth, too_coarse
from server.learning.score_figures import ScoreSums
from tests.support.intervals import require_wider
from tests.support.score_tables import people, sums


def plain_auc(score: FloatArray, label: FloatArray) -> float:
    order = score.argsort()
    below = np.cumsum(1 - label[order])
    return float((below * label[order]).sum() / (label.sum() * (1 - label).sum()))


def plain_auc_of_few(score: FloatArray, label: FloatArray) -> float:
    """Return the area of scores with ties, which count half."""
    yes, no = score[label == 1], score[label == 0]
    values = np.unique(score)
    won = [(yes > value).mean() + (yes == value).mean() / 2 for value in values]
    return float(np.dot(won, [(no == value).mean() for value in values]))


@pytest.mark.parametrize("seed", range(3))
def test_the_area_is_that_of_the_clear_scores(seed: int) -> None:
    score, label = people(seed)
    ends = auc(sums(score, label))
    assert float(ends.value) == pytest.approx(plain_auc(score, label), abs=2e-3)
    assert ends.low <= plain_auc(score, label) <= ends.high


def test_auc_is_one_for_separate_labels_and_zero_for_reversed_ones() -> None:
    score, _ = people(0, 2_000)
    label = (score > 0.05).astype(float)
    assert float(auc(sums(score, label)).value) == pytest.approx(1.0)
    assert float(auc(sums(score, 1 - label)).value) == pytest.approx(0.0)


def test_more_noise_and_fewer_patients_widen_an_interval() -> None:
    score, label = people(1)
    quiet, loud = auc(sums(score, label, 1.0)), auc(sums(score, label, 20.0))
    require_wider(quiet, loud, auc(sums(score[:4_000], label[:4_000], 1.0)))


def test_all_scores_in_one_bin_are_too_coarse_for_an_auc() -> None:
    draw = np.random.default_rng(0)
    score = draw.uniform(0.5, 1.0, 5_000)
    found = sums(score, (draw.random(5_000) < score).astype(float))
    assert too_coarse(found)
    assert np.isnan(auc(found).low)


def test_two_mirrored_classes_have_the_interval_of_one() -> None:
    score, label = people(2)
    one, other = sums(score, label), sums(score, label)
    np.testing.assert_allclose(_of_mean([np.array(0.04), np.array(0.04)]), 0.04)
    both = auc(one, other)
    alone = auc(one)
    assert float(both.high - both.low) == pytest.approx(float(alone.high - alone.low), rel=1e-3)


def test_an_area_between_two_scores_of_one_bin_is_in_the_interval() -> None:
    """A rare input separates two scores: places are worth less than if they were spread evenly."""
    score = np.repeat([0.12, 0.185, 0.3, 0.6], [20_000, 2_000, 12_000, 8_000])
    label = (np.arange(len(score)) % 1_000 < 1_000 * score).astype(float)
    exact, ends = plain_auc_of_few(score, label), auc(sums(score, label))
    assert ends.low <= exact <= ends.high
    assert float(ends.value) - exact > 0.003


def test_noise_of_places_moves_an_area_hardly_more_than_without_places() -> None:
    """With 160 patients and the noise of a small budget, the places say nothing."""
    score, label = people(3, 160)
    exact = sums(np.clip(score * 4, 0.0, 1.0), label)
    draw, shape = np.random.default_rng(5), (2_000, *exact.counts.shape)
    counts = exact.counts + draw.normal(0, 3.0, shape)
    squares = draw.normal(0, 12.0, shape[:-1])
    places = exact.placed + draw.normal(0, 12.0, shape)
    placed, plain = (
        ScoreSums(exact.edges, counts, 3.0, of_places, squares)
        for of_places in (places, np.zeros(shape))
    )
    assert np.std(_Ranks(placed).value) < 1.15 * np.std(_Ranks(plain).value)


@given(
    st.lists(
        st.tuples(st.floats(-1, 1), st.floats(0.01, 1)),
        min_size=2,
        max_size=6,
        unique_by=lambda p: p[0],
    )
)
def test_no_spread_of_places_is_worth_less_than_the_least(
    spread: list[tuple[float, float]],
) -> None:
    """A quarter of Gini's mean difference, divided by the variance."""
    places, weights = np.array(spread).T
    weights = weights / weights.sum()
    mean = weights @ places
    variance = weights @ (places - mean) ** 2
    difference = weights @ np.abs(places[:, None] - places) @ weights
    if variance > 1e-6:
        assert difference / (4 * variance) >= least_worth(mean, variance) * (1 - 1e-3)
