"""Packs integers into lanes of 64-bit words, which are then masked and summed as whole words.

A word is Σ v_l · 2^(k·l) modulo 2^64, with the lanes l as signed digits. The sum of packed words is
the packed sum, and it can be unpacked if every summed coordinate fits its lane. If one does not,
other lanes of that word are wrong too, and nothing else happens.
"""

import numpy as np
from numpy.typing import NDArray

WORD_BITS = 64


def lanes(lane_bits: int) -> int:
    """Return how many coordinates a word holds: 3 of 21 bits, 2 of 32 or 1 of 64."""
    return WORD_BITS // lane_bits


def words_for(size: int, lane_bits: int) -> int:
    """Return how many words `size` coordinates need."""
    return -(-size // lanes(lane_bits))


def pack(values: NDArray[np.int64], lane_bits: int, size: int) -> NDArray[np.uint64]:
    """Return the words of `size` coordinates: `values` (m,), and zeros after them.

    Lane l of word i holds coordinate l·words + i, so that slices are contiguous, which is fast.
    """
    count = words_for(size, lane_bits)
    words = np.zeros(count, np.uint64)
    for lane in range(lanes(lane_bits)):
        part = values[lane * count : (lane + 1) * count].view(np.uint64)
        words[: part.size] += part << np.uint64(lane * lane_bits)
    return words


def unpack(words: NDArray[np.uint64], lane_bits: int) -> NDArray[np.int64]:
    """Return the coordinates of a sum of packed words, (words · lanes,), padding included."""
    rest = words.view(np.int64).copy()
    shift, width = np.int64(WORD_BITS - lane_bits), np.int64(lane_bits)
    opened = np.empty((lanes(lane_bits), words.size), np.int64)
    for low in opened[:-1]:
        np.left_shift(rest, shift, out=low)
        np.right_shift(low, shift, out=low)
        np.subtract(rest, low, out=rest)
        np.right_shift(rest, width, out=rest)
    opened[-1] = rest
    return opened.reshape(-1)
