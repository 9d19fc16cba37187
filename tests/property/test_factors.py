"""Rounded factors under Hypothesis: the bound holds for all inputs and all gradients."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from protocols.numerics.factored_rounding import (
    Factors,
    factored_scale,
    factored_sum,
    round_factors,
)
from protocols.numerics.keystream import Keystream
from protocols.numerics.mechanism import LARGEST_SCALE, Mechanism, Rounding
from tests.support.examples import examples

ANY_FLOAT = st.floats(width=64) | st.floats(-3, 3) | st.sampled_from([0.0, 1e-300, 1e154, -1e160])
CLIP = st.floats(2**-10, 1_000)
Case = tuple[Mechanism, list[Factors]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    widths = draw(st.lists(st.integers(1, 5), min_size=2, max_size=4))
    patients, clip = draw(st.integers(1, 5)), draw(CLIP)
    scale = draw(st.just(min(LARGEST_SCALE, factored_scale(clip, widths))) | st.integers(1, 1_000))
    mechanism = Mechanism(
        phase="train",
        rounds=1,
        dimension=sum((n + 1) * m for n, m in pairwise(widths)),
        clip_norm=clip,
        scale=scale,
        noise_std=3,
        patients_bound=1000,
        rounding=Rounding.FACTORED,
    )

    def random_values(width: int) -> NDArray[np.float64]:
        return draw(arrays(np.float64, (patients, width), elements=ANY_FLOAT))

    return mechanism, [Factors(random_values(n), random_values(m)) for n, m in pairwise(widths)]


def squares(mechanism: Mechanism, layers: list[Factors], seed: int) -> list[int]:
    """Return squared norms from full products in Python integers, as an independent computation."""
    words = Keystream(np.random.default_rng(seed).bytes)
    rounded = round_factors(layers, mechanism, words)
    squared_norms = []
    for i in range(len(layers[0].entered)):
        total = 0
        for layer in rounded:
            entered = [int(v) for v in [*layer.entered[i], layer.ones[i]]]
            total += sum((a * int(d)) ** 2 for a in entered for d in layer.returned[i])
        squared_norms.append(total)
    return squared_norms


@settings(deadline=None, max_examples=examples(400))
@given(cases(), st.integers(0, 2**32))
def test_no_patient_exceeds_the_bound_whatever_the_factors(case: Case, seed: int) -> None:
    mechanism, layers = case
    with np.errstate(all="ignore"):
        for square in squares(mechanism, layers, seed):
            assert square <= mechanism.squared_sensitivity


@settings(deadline=None, max_examples=examples(200))
@given(cases(), st.integers(0, 2**32))
def test_the_sum_is_finite_and_within_the_patients_bounds(case: Case, seed: int) -> None:
    mechanism, layers = case
    with np.errstate(all="ignore"):
        total = factored_sum(layers, mechanism, entropy=np.random.default_rng(seed).bytes)
    assert total.shape == (mechanism.dimension,)
    reach = len(layers[0].entered) * mechanism.sensitivity
    assert sum(int(v) ** 2 for v in total) <= reach**2 * (1 + 1e-12)


@settings(deadline=None, max_examples=examples(100))
@given(cases(), st.integers(0, 4))
def test_a_neighbour_changes_no_other_patient_s_clipping(case: Case, left_out: int) -> None:
    """Scaling looks at one patient at a time: without one patient the others stay as they were."""
    mechanism, layers = case
    still = _Still()
    with np.errstate(all="ignore"):
        whole = round_factors(layers, mechanism, still)  # type: ignore[arg-type]
        mask = np.arange(len(layers[0].entered)) != left_out
        fewer = [Factors(layer.entered[mask], layer.returned[mask]) for layer in layers]
        rest = round_factors(fewer, mechanism, still)  # type: ignore[arg-type]
    for before, after in zip(whole, rest, strict=True):
        assert np.array_equal(before.entered[mask], after.entered)
        assert np.array_equal(before.returned[mask], after.returned)


class _Still:
    def fractions(self, size: int) -> NDArray[np.float64]:
        return np.full(size, 0.5)
