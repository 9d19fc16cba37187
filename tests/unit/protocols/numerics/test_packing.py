import numpy as np
import pytest

from protocols.numerics.packing import (
    lanes,
    pack,
    unpack,
    words_for,
)

WIDTHS = [21, 32, 64]


@pytest.mark.parametrize(("bits", "count"), [(21, 3), (32, 2), (64, 1)])
def test_a_word_holds_as_many_lanes_as_fit(bits: int, count: int) -> None:
    assert lanes(bits) == count
    assert words_for(count, bits) == 1
    assert words_for(count + 1, bits) == 2
    assert words_for(0, bits) == 0


def test_three_small_integers_share_a_word_as_signed_digits() -> None:
    words = pack(np.array([1, -1, 2]), 21, 3)
    assert words.tolist() == [(1 - 2**21 + 2 * 2**42) % 2**64]
    assert unpack(words, 21).tolist() == [1, -1, 2]


@pytest.mark.parametrize("bits", WIDTHS)
def test_the_extreme_values_of_a_lane_are_read_back(bits: int) -> None:
    top = 2 ** (bits - 1)
    values = np.array([top - 1, -top, -1, 0, 1, top - 1, -top], np.int64)
    assert unpack(pack(values, bits, 7), bits)[:7].tolist() == values.tolist()


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 100])
def test_missing_coordinates_are_zero(bits: int, size: int) -> None:
    values = np.full(size, -7)
    unpacked = unpack(pack(values, bits, size + 4), bits)
    assert unpacked.size == words_for(size + 4, bits) * lanes(bits)
    assert (unpacked[:size] == -7).all()
    assert not unpacked[size:].any()


@pytest.mark.parametrize("bits", WIDTHS)
def test_sums_of_words_are_words_of_sums(bits: int) -> None:
    rows = np.array([[5, -6, 7, -8], [-9, 10, -11, 12], [1, 1, 1, 1]])
    words = np.stack([pack(row, bits, 4) for row in rows]).sum(axis=0, dtype=np.uint64)
    assert unpack(words, bits)[:4].tolist() == rows.sum(axis=0).tolist()


def test_an_overflowing_lane_changes_its_word_only() -> None:
    values = np.zeros(6, np.int64)
    values[0] = 2**20
    unpacked = unpack(pack(values, 21, 6), 21)
    assert unpacked[0] == -(2**20)
    assert unpacked[2] == 1, "the carry goes to the next lane of the same word"
    assert not unpacked[[1, 3, 5]].any()


def test_unpacking_leaves_the_words_unchanged() -> None:
    words = pack(np.array([1, -2, 3, -4], np.int64), 21, 4)
    before = words.copy()
    unpack(words, 21)
    assert np.array_equal(words, before)
