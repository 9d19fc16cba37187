import itertools
import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from protocols.numerics.mechanism import Mechanism, Rounding
from protocols.numerics.rounding import (
    MAX_DRAWS,
    poisson_sample,
    round_contributions,
    round_each,
    round_sparse,
)

ROUNDED = Mechanism(
    phase="train", rounds=1, dimension=3, clip_norm=2, scale=10, noise_std=3, patients_bound=100
)
WHOLE = ROUNDED.model_copy(update={"rounding": Rounding.INTEGER})


def always(word: int) -> Callable[[int], bytes]:
    """Return an entropy source whose every 64-bit word is `word`."""
    return lambda size: word.to_bytes(8, "little") * (size // 8)


INWARD, OUTWARD = always(2**64 - 1), always(0)


def squares(integers: NDArray[np.int64]) -> list[int]:
    """Return squared norms in Python integers, as an independent computation."""
    return [sum(int(v) ** 2 for v in row) for row in integers]


def test_exact_multiples_are_not_changed() -> None:
    vectors = np.array([[0.1, -0.2, 0.3], [1.0, 1.0, -1.0]])
    scaled = np.rint(vectors * 10).astype(int)
    exact = scaled / 10 * 10 == scaled
    assert exact.all()
    assert round_each(vectors, ROUNDED, entropy=INWARD).tolist() == scaled.tolist()


def test_a_fraction_goes_inward_or_outward_by_chance_alone() -> None:
    vectors = np.array([[0.125, -0.125, 0.0]])
    assert round_each(vectors, ROUNDED, entropy=INWARD).tolist() == [[1, -1, 0]]
    assert round_each(vectors, ROUNDED, entropy=OUTWARD).tolist() == [[2, -2, 0]]


@pytest.mark.parametrize("tiny", [1e-20, -1e-20, 5e-324, -5e-324])
def test_a_tiny_value_is_nearly_always_zero_on_either_side(tiny: float) -> None:
    """Rounded down, -1e-20 would have a fraction of one in floating point."""
    vectors = np.array([[tiny, 0.0, 0.0]])
    assert round_each(vectors, ROUNDED, entropy=always(2**62)).tolist() == [[0, 0, 0]]


def test_a_word_below_the_fraction_rounds_up_and_one_at_it_does_not() -> None:
    vectors = np.array([[0.125, 0.0, 0.0]])  # scaled: 1.25
    quarter = 2**62
    assert round_each(vectors, ROUNDED, entropy=always(quarter - 1))[0, 0] == 2
    assert round_each(vectors, ROUNDED, entropy=always(quarter))[0, 0] == 1


@pytest.mark.parametrize("length", [2.1, 20, 1e10, 1e200, 1e308])
def test_a_long_vector_is_shortened_and_keeps_its_direction(length: float) -> None:
    vectors = np.array([[length, 0, 0], [0, -length, 0]])
    assert round_each(vectors, ROUNDED).tolist() == [[20, 0, 0], [0, -20, 0]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mechanism", [ROUNDED, WHOLE], ids=["conditional", "integer"])
def test_a_patient_that_is_not_finite_contributes_zero_and_others_are_unchanged(
    bad: float, mechanism: Mechanism
) -> None:
    vectors = np.array([[bad, 1, 0], [1.0, 0, 0], [bad, bad, -bad]])
    assert round_each(vectors, mechanism).tolist() == [[0, 0, 0], [10, 0, 0], [0, 0, 0]]


def test_a_norm_beyond_the_bound_is_drawn_again() -> None:
    """All outward is 3·12² = 432, beyond the bound; all inward is 3·11² = 363, within it."""
    assert 363 <= ROUNDED.squared_sensitivity < 432
    draws = itertools.chain([OUTWARD(24)] * 3, itertools.repeat(INWARD(24)))
    rounded = round_each(np.full((1, 3), 1.15), ROUNDED, entropy=lambda _: next(draws))
    assert rounded.tolist() == [[11, 11, 11]]


def test_after_many_draws_a_patient_contributes_zero() -> None:
    count = itertools.count()

    def counted(size: int) -> bytes:
        next(count)
        return OUTWARD(size)

    rounded = round_each(np.full((1, 3), 1.15), ROUNDED, entropy=counted)
    assert rounded.tolist() == [[0, 0, 0]]
    assert next(count) == MAX_DRAWS


@pytest.mark.parametrize(
    ("scaled", "outward", "kept"),
    [([14.5, 13.5, 0], [15, 14, 0], True), ([18.5, 5.5, 4.5], [19, 6, 5], False)],
    ids=["at-the-bound", "one-beyond"],
)
def test_the_bound_is_exact(scaled: list[float], outward: list[int], *, kept: bool) -> None:
    over = squares(np.array([outward]))[0] - ROUNDED.squared_sensitivity
    assert over == (0 if kept else 1)
    rounded = round_each(np.array([scaled]) / 10, ROUNDED, entropy=OUTWARD)
    assert rounded.tolist() == [outward if kept else [0, 0, 0]]


def test_only_the_patients_beyond_the_bound_are_drawn_again() -> None:
    vectors = np.array([[0.05, 0, 0], [1.15, 1.15, 1.15]])
    draws = iter([OUTWARD(48), INWARD(24)])
    rounded = round_each(vectors, ROUNDED, entropy=lambda _: next(draws))
    assert rounded.tolist() == [[1, 0, 0], [11, 11, 11]]


def test_integers_are_scaled_and_nothing_else() -> None:
    vectors = np.array([[1, 0, -1], [0, 2, 0], [0, 0, 0]], np.float64)
    assert round_each(vectors, WHOLE).tolist() == [[10, 0, -10], [0, 20, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    "vector",
    [[2, 1, 0], [0.5, 0, 0], [1.5, 0, 0], [3, 0, 0], [1e300, 0, 0], [2, 2, 2], [-2, 0, 1]],
    ids=str,
)
def test_integers_beyond_their_declared_bound_contribute_zero(vector: list[float]) -> None:
    assert not round_each(np.array([vector]), WHOLE).any()


def test_an_integer_norm_counts_every_coordinate_even_where_64_bits_would_wrap() -> None:
    wide = Mechanism(
        phase="count", rounds=1, dimension=2**10, clip_norm=2.0**14, scale=2**16, noise_std=3,
        patients_bound=1, rounding=Rounding.INTEGER,
    )  # fmt: skip
    vector = np.full((1, 2**10), 2.0**14)
    assert (2**30) ** 2 * 2**10 % 2**64 == 0, "in 64 bits this norm reads zero"
    assert not round_each(vector, wide).any()


def test_norms_on_large_lattices_are_exact() -> None:
    fine = Mechanism(
        phase="train", rounds=1, dimension=2, clip_norm=2.0**19, scale=2**20, noise_std=3,
        patients_bound=1,
    )  # fmt: skip
    vectors = np.array([[2.0**19, 2.0**19], [0.0, -(2.0**19)]])
    rounded = round_each(vectors, fine)
    assert all(square <= fine.squared_sensitivity for square in squares(rounded))
    assert rounded.any(axis=1).all()


def test_the_sum_is_that_of_the_patients_in_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocols.numerics.rounding.BLOCK_VALUES", 7)
    vectors = np.tile([[1.0, -0.5, 0.0]], (11, 1))
    assert round_contributions(vectors, ROUNDED).tolist() == [110, -55, 0]


def test_no_patients_contribute_zero() -> None:
    assert round_contributions(np.zeros((0, 3)), ROUNDED).tolist() == [0, 0, 0]
    assert round_contributions(np.zeros((0, 3)), WHOLE).tolist() == [0, 0, 0]


def test_seeding_other_generators_changes_nothing() -> None:
    def drawn() -> list[int]:
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        return round_each(np.full((200, 3), 0.05), ROUNDED).ravel().tolist()

    assert drawn() != drawn()


def test_everyone_is_in_a_sample_at_rate_one() -> None:
    assert poisson_sample(1000, 1.0, entropy=INWARD).all()


def test_a_sample_has_the_patients_whose_random_word_is_below_the_rate() -> None:
    quarter = 2**62
    assert poisson_sample(3, 0.25, entropy=always(quarter - 1)).all()
    assert not poisson_sample(3, 0.25, entropy=always(quarter)).any()


def test_a_sample_may_be_empty_or_of_no_patients() -> None:
    assert poisson_sample(0, 0.5).shape == (0,)
    assert not poisson_sample(10, 0.5, entropy=INWARD).any()


def test_each_patient_has_its_own_word() -> None:
    words = itertools.cycle([0, 2**64 - 1])
    sample = poisson_sample(
        6, 0.5, entropy=lambda size: b"".join(
            next(words).to_bytes(8, "little") for _ in range(size // 8)
        )
    )  # fmt: skip
    assert sample.tolist() == [True, False] * 3


class WordsOfValues:
    """Random words, the same for the same seed, placed at the coordinates of the values."""

    def __init__(self, seed: int, at: list[int], size: int) -> None:
        self.generator = random.Random(seed)  # noqa: S311 (repeatable)
        self.at, self.size, self.draws = at, size, 0

    def __call__(self, size: int) -> bytes:
        assert size == 8 * self.size
        self.draws += 1
        words = [0] * self.size
        for place in self.at:
            words[place] = self.generator.getrandbits(64)
        return b"".join(word.to_bytes(8, "little") for word in words)


class TestSparse:
    """`round_sparse` does for few coordinates what `round_contributions` does for all."""

    MECHANISM = ROUNDED.model_copy(update={"dimension": 50})

    def dense(self, values: NDArray[np.float64], at: NDArray[np.int64]) -> NDArray[np.float64]:
        vectors = np.zeros((len(values), 50))
        vectors[np.arange(len(values))[:, None], at] = values
        return vectors

    @pytest.mark.parametrize("entropy", [INWARD, OUTWARD], ids=["inward", "outward"])
    @pytest.mark.parametrize("size", [0.1, 1.3, 50.0])
    def test_the_sum_is_that_of_the_dense_vectors(
        self, entropy: Callable[[int], bytes], size: float
    ) -> None:
        generator = np.random.default_rng(0)
        values = size * generator.normal(size=(200, 3))
        at = np.array([generator.permutation(50)[:3] for _ in range(200)])
        sparse = round_sparse(values, at, self.MECHANISM, entropy=entropy)
        dense = round_contributions(self.dense(values, at), self.MECHANISM, entropy=entropy)
        assert sparse.tolist() == dense.tolist()

    def test_a_vector_that_is_not_finite_counts_as_zero(self) -> None:
        values = np.array([[1.0, np.nan], [np.inf, 0.0], [1.0, 0.0]])
        at = np.array([[0, 1], [0, 1], [0, 1]])
        assert round_sparse(values, at, self.MECHANISM).tolist() == [10, *[0] * 49]

    def test_rounding_is_unbiased_and_within_the_norm(self) -> None:
        values, at = np.full((20_000, 2), 0.037), np.tile([3, 7], (20_000, 1))
        total = round_sparse(values, at, self.MECHANISM)
        assert total[[3, 7]] == pytest.approx([7_400, 7_400], abs=5 * math.sqrt(20_000) / 2)
        longest = np.full((50, 2), math.sqrt(2))
        for row in longest[:, None]:
            parts = round_sparse(row, np.array([[0, 1]]), self.MECHANISM)
            assert int((parts**2).sum()) <= self.MECHANISM.squared_sensitivity

    @pytest.mark.parametrize("at", [[4, 4], [0, 50], [-1, 1]], ids=str)
    @pytest.mark.parametrize("rounding", [Rounding.CONDITIONAL, Rounding.INTEGER])
    def test_a_patient_with_a_repeated_or_unknown_coordinate_counts_as_zero(
        self, at: list[int], rounding: Rounding
    ) -> None:
        """Each value is within the norm, and both in one coordinate would be beyond it."""
        mechanism = self.MECHANISM.model_copy(update={"rounding": rounding})
        values = np.full((2, 2), mechanism.clip_norm / 2 if rounding is Rounding.CONDITIONAL else 1)
        total = round_sparse(values.astype(float), np.array([at, [3, 1]]), mechanism)
        alone = round_sparse(values[:1].astype(float), np.array([[3, 1]]), mechanism)
        assert total.tolist() == alone.tolist()
        assert (alone != 0).sum() == 2

    def test_draws_and_rejections_are_those_of_the_dense_vectors(self) -> None:
        """With the same random words for each value, where rounding outward exceeds the bound."""
        small = self.MECHANISM.model_copy(update={"dimension": 4, "clip_norm": 1.5, "scale": 3})
        at = [3, 0, 2]
        values, whole = np.full((1, 3), 0.8), np.zeros((1, 4))
        whole[0, at] = values
        draws = []
        for seed in range(200):
            for_sparse, for_dense = WordsOfValues(seed, [0, 1, 2], 3), WordsOfValues(seed, at, 4)
            sparse = round_sparse(values, np.array([at]), small, entropy=for_sparse)
            dense = round_contributions(whole, small, entropy=for_dense)
            assert sparse.tolist() == dense.tolist()
            assert for_sparse.draws == for_dense.draws
            draws.append(for_sparse.draws)
        assert max(draws) > min(draws) == 1

    def test_no_patients_give_zeros(self) -> None:
        nobody = round_sparse(np.zeros((0, 2)), np.zeros((0, 2), np.int64), self.MECHANISM)
        assert nobody.tolist() == [0] * 50
