"""Exact draws of the discrete Gaussian, many at a time.

Rejection sampling as in Canonne, Kamath, Steinke 2020 (Algorithms 1 to 3), with the two rejections
of their Laplace and Gaussian steps made one. Propose |y| = u + σ·v, u uniform below σ and v
geometric with chances ∝ e^(-v), and a sign; accept with chance e^(-x),

    x = u/σ + (u + σv - σ)²/(2σ²),   since   e^(-v) · e^(-x) = e^(-1/2) · e^(-y²/(2σ²)).

A chance is compared with a uniform number of unlimited length, of which 64 bits are drawn first.
Where floating point is sure of the answer, it is taken; if it is not (once in 2^39 comparisons)
the answer is worked out from exact fractions and as many further bits and digits as it takes. So
every draw follows the exact law, modulo 2^64, whatever the machine's rounding: nothing is added to
δ for it. What is assumed is that the cipher's stream cannot be distinguished from uniform bits.

*What floating point gets wrong.* Let ρ = 2^-53, and let `np.exp` be right to 4 units in its last
place, an error of 2^-51 at most, as no chance exceeds 1. With w = u/σ + v - 1 and x = u/σ + w²/2,
the parts of x are rounded by at most 2ρ·(u/σ), ρ·(v + 2)·|w| and 2ρ·w², and the sum by ρ·x, which
moves e^(-x) by e^(-x) times as much. As |w| ≤ v + 1, w ≥ v - 1 and u/σ < 1, that is at most
ρ·(2 + (v + 2)(v + 1) + 2w² + x)·e^(-x) < 16ρ = 2^-49, the most being at v = 2. The word as a number
is off by ρ and by the bits not drawn, 2^-64. Together: less than 2^-48; the tests look for worse.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

Entropy = Callable[[int], bytes]
"""Returns that many bytes of the operating system's generator."""
Words = NDArray[np.uint64]

KEY_BYTES, WORD_BITS = 32, 64
UNSURE = 2.0**-40
"""Floating point is trusted no nearer than this to the truth; its error is below 2^-48."""
MORE_BITS = 256
SPARE_DIGITS = 60
"""Digits of e^(-x) beyond the bits that it is compared with, for the errors on the way there."""
NEARLY = Decimal(10) ** -30
"""Far above those errors, 3·10^-59 units of the last of these bits."""
LARGEST_STD = 2**40
DEEPEST = 38
"""No larger v is found but by exact arithmetic: their chances are far below `UNSURE`."""
THRESHOLDS = np.exp(-np.arange(1.0, DEEPEST + 1))[::-1].copy()
ACCEPTED = 0.45
"""A little less than the part of proposals that is accepted."""
PIECE = 2**17
"""Draws worked on at a time: some 40 MB of memory."""


@dataclass(frozen=True)
class Proposals:
    """Many u, v, signs, and the uniform words that decide about them."""

    below: NDArray[np.int64]
    steps: NDArray[np.int64]
    negative: NDArray[np.bool_]
    usable: NDArray[np.bool_]
    deciding: Words


class Sampler:
    """Draws from one fresh AES-256-CTR stream of the system's generator."""

    def __init__(self, entropy: Entropy) -> None:
        key, first = entropy(KEY_BYTES), bytes(16)
        self._stream = Cipher(AES256(key), CTR(first)).encryptor()

    def draw(self, std: int, size: int) -> NDArray[np.int64]:
        """Return `size` draws with chances ∝ exp(-v²/(2·std²)); 1 ≤ std ≤ 2^40."""
        if not 1 <= std <= LARGEST_STD:
            raise ValueError(f"no noise of standard deviation {std} is drawn")
        parts: list[NDArray[np.int64]] = []
        missing = size
        while missing > 0:
            proposed = self._proposals(std, min(missing, PIECE))
            parts.append(self.accepted(std, proposed)[:missing])
            missing -= len(parts[-1])
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def accepted(self, std: int, proposed: Proposals) -> NDArray[np.int64]:
        """Return the accepted ones of some proposals, in their order."""
        magnitude = proposed.below + std * proposed.steps
        usable = proposed.usable & ~(proposed.negative & (magnitude == 0))
        kept = usable & self._passed(std, proposed)
        signed: NDArray[np.int64] = np.where(proposed.negative, -magnitude, magnitude)
        return np.asarray(signed[kept], dtype=np.int64)

    def steps(self, words: Words) -> NDArray[np.int64]:
        """Return v ≥ 0 with chances ∝ e^(-v): how often e^(-1) goes into a uniform number."""
        uniform = _fractions(words)
        steps = DEEPEST - np.searchsorted(THRESHOLDS, uniform, side="right")
        nearest = THRESHOLDS[np.minimum(np.searchsorted(THRESHOLDS, uniform), DEEPEST - 1)]
        below = THRESHOLDS[np.maximum(np.searchsorted(THRESHOLDS, uniform) - 1, 0)]
        unsure = np.minimum(np.abs(nearest - uniform), np.abs(below - uniform)) < UNSURE
        for place in np.flatnonzero(unsure):
            steps[place] = self._exact_steps(int(words[place]))
        return np.asarray(steps, dtype=np.int64)

    def _proposals(self, std: int, missing: int) -> Proposals:
        count = math.ceil(missing / ACCEPTED) + 16
        uniform, geometric, deciding, signs = (self._words(count) for _ in range(4))
        limit = 2**WORD_BITS // std * std  # above it, words do not fall evenly on 0..std-1
        return Proposals(
            below=(uniform % np.uint64(std)).astype(np.int64),
            steps=self.steps(geometric),
            negative=(signs & np.uint64(1)).astype(np.bool_),
            usable=uniform <= np.uint64(limit - 1),
            deciding=deciding,
        )

    def _passed(self, std: int, proposed: Proposals) -> NDArray[np.bool_]:
        distance = _rough_chances(std, proposed) - _fractions(proposed.deciding)
        passed = distance > 0
        for place in np.flatnonzero(np.abs(distance) < UNSURE):
            below, steps = int(proposed.below[place]), int(proposed.steps[place])
            exponent = Fraction(2 * std * below + (below + std * steps - std) ** 2, 2 * std * std)
            passed[place], _ = self._is_below((int(proposed.deciding[place]), WORD_BITS), exponent)
        return passed

    def _exact_steps(self, word: int) -> int:
        steps, bits = 0, (word, WORD_BITS)
        while True:
            below, bits = self._is_below(bits, Fraction(steps + 1))
            if not below:
                return steps
            steps += 1

    def _is_below(self, bits: tuple[int, int], exponent: Fraction) -> tuple[bool, tuple[int, int]]:
        """Say whether a number of which some first bits are known is below e^(-exponent).

        Draws further bits until it is clear; returns them too, as they belong to the number.
        """
        known, count = bits
        while True:
            low, high = _exact_bounds(exponent, count)
            if known < low:
                return True, (known, count)
            if known >= high:
                return False, (known, count)
            more = int.from_bytes(self._bytes(MORE_BITS // 8), "big")
            known, count = known << MORE_BITS | more, count + MORE_BITS

    def _words(self, count: int) -> Words:
        return np.frombuffer(self._bytes(count * WORD_BITS // 8), np.uint64)

    def _bytes(self, count: int) -> bytes:
        return self._stream.update(bytes(count))


def _fractions(words: Words) -> NDArray[np.float64]:
    return np.asarray(words * 2.0**-WORD_BITS, dtype=np.float64)


def _rough_chances(std: int, proposed: Proposals) -> NDArray[np.float64]:
    """Return e^(-x) of each proposal, as near as floating point comes."""
    part = proposed.below / std
    exponents = part + (part + proposed.steps - 1) ** 2 / 2
    return np.asarray(np.exp(-exponents), dtype=np.float64)


def _exact_bounds(exponent: Fraction, bits: int) -> tuple[int, int]:
    """Return the integers on both sides of 2^bits · e^(-exponent), in which `NEARLY` counts.

    Below the first a number of so many bits is surely below the chance, from the second on surely
    not. `Decimal.exp` is right in its last place.
    """
    exact = Context(prec=SPARE_DIGITS + math.ceil(bits * math.log10(2)))
    x = exact.divide(Decimal(exponent.numerator), Decimal(exponent.denominator))
    chance = exact.multiply(exact.exp(exact.minus(x)), Decimal(2**bits))
    return int(exact.subtract(chance, NEARLY)), int(exact.add(chance, NEARLY)) + 1
