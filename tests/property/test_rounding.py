"""Rounding and packing under Hypothesis: the bound holds for all records."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from protocols.numerics.mechanism import Mechanism, Rounding
from protocols.numerics.packing import pack, unpack
from protocols.numerics.rounding import round_contributions, round_each
from tests.support.examples import examples

MECHANISMS = st.builds(
    Mechanism,
    phase=st.just("train"),
    rounds=st.just(1),
    dimension=st.integers(1, 12),
    clip_norm=st.floats(2**-10, 1e6),
    scale=st.integers(1, 2**24),
    noise_std=st.just(3),
    patients_bound=st.just(1000),
    rounding=st.sampled_from([Rounding.CONDITIONAL, Rounding.INTEGER]),
)
ANY_FLOAT = st.floats(width=64) | st.integers(-3, 3).map(float)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Mechanism, NDArray[np.float64]]:
    mechanism = draw(MECHANISMS)
    shape = (draw(st.integers(0, 6)), mechanism.dimension)
    return mechanism, draw(arrays(np.float64, shape, elements=ANY_FLOAT))


@settings(deadline=None, max_examples=examples(500))
@given(cases())
def test_no_patient_exceeds_the_bound_whatever_the_vector(
    case: tuple[Mechanism, NDArray[np.float64]],
) -> None:
    mechanism, vectors = case
    rounded = round_each(vectors, mechanism)
    assert rounded.shape == vectors.shape
    assert rounded.dtype == np.int64
    for row in rounded:
        assert sum(int(value) ** 2 for value in row) <= mechanism.squared_sensitivity


@settings(deadline=None)
@given(cases())
def test_one_patient_moves_the_sum_by_no_more_than_the_bound(
    case: tuple[Mechanism, NDArray[np.float64]],
) -> None:
    """Rows are rounded one by one, so that a neighbour changes no other patient's integers."""
    mechanism, vectors = case
    even = (2**63).to_bytes(8, "little")
    fixed = {"entropy": lambda size: even * (size // 8)}
    whole = round_contributions(vectors, mechanism, **fixed)
    for left_out in range(len(vectors)):
        rest = round_contributions(np.delete(vectors, left_out, axis=0), mechanism, **fixed)
        moved = [int(a) - int(b) for a, b in zip(whole, rest, strict=True)]
        assert sum(v**2 for v in moved) <= mechanism.squared_sensitivity


@settings(deadline=None)
@given(
    st.integers(1, 8),
    st.sampled_from([1, 64, 1000]),
    arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.floats(-9, 9)),
)
def test_rounding_moves_no_coordinate_by_a_whole_step(
    norm: int, scale: int, vectors: NDArray[np.float64]
) -> None:
    mechanism = Mechanism(
        phase="train",
        rounds=1,
        dimension=vectors.shape[1],
        clip_norm=norm,
        scale=scale,
        noise_std=3,
        patients_bound=10,
    )
    rounded = round_each(vectors, mechanism)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    clipped = vectors / np.maximum(lengths / norm, 1)
    included = rounded.any(axis=1)
    assert (np.abs(rounded[included] - clipped[included] * scale) < 1 + 1e-6).all()


@given(
    st.sampled_from([21, 32, 64]),
    st.integers(0, 6),
    st.lists(st.integers(-(2**17), 2**17 - 1), min_size=1, max_size=40),
    st.integers(1, 6),
)
def test_packing_is_linear_and_loses_nothing(
    bits: int, padding: int, values: list[int], copies: int
) -> None:
    given_values = np.array(values, np.int64)
    words = pack(given_values, bits, len(values) + padding)
    total = unpack(words * np.uint64(copies), bits)
    assert total[: len(values)].tolist() == [copies * value for value in values]
    assert not total[len(values) :].any()
