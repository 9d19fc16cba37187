"""Draws many exact samples of the discrete Gaussian distribution at a time.

Rejection sampling as in Canonne, Kamath, Steinke 2020 (Algorithms 1 to 3), with the rejections of
their Laplace and Gaussian steps combined. Propose |y| = u + σ·v, with u uniform below σ and v
geometric with probabilities ∝ e^(-v), and a random sign; accept with probability e^(-x),

    x = u/σ + (u + σv - σ)²/(2σ²),   since   e^(-v) · e^(-x) = e^(-1/2) · e^(-y²/(2σ²)).

A probability is compared with a uniform number of unlimited length, of which 64 bits are drawn
first. If floating point decides the comparison with certainty, its answer is used. If not (once in
2^39 comparisons), the answer is computed with exact fractions and as many further bits and digits
as needed. So every draw follows the exact distribution, modulo 2^64, whatever the machine's
rounding, and δ needs no addition for it. The only assumption is that the cipher's stream cannot be
distinguished from uniform bits.

*Errors of floating point.* Let ρ = 2^-53, and assume that `np.exp` is accurate to 4 units in its
last index: an error of 2^-51 at most, as no probability exceeds 1. With w = u/σ + v - 1 and
x = u/σ + w²/2, the parts of x have rounding errors of at most 2ρ·(u/σ), ρ·(v + 2)·|w| and 2ρ·w²,
and the sum one of ρ·x; they change e^(-x) by e^(-x) times as much. As |w| ≤ v + 1, w ≥ v - 1 and
u/σ < 1, that is at most ρ·(2 + (v + 2)(v + 1) + 2w² + x)·e^(-x) < 16ρ = 2^-49, largest at v = 2.
The uniform number has an error of ρ and of 2^-64, for the bits not drawn. All errors together are
below 2^-48; the tests search for larger ones.
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
"""`entropy(n)` returns n bytes of the operating system's generator."""
Words = NDArray[np.uint64]

KEY_BYTES, WORD_BITS = 32, 64
UNSURE = 2.0**-40
"""Closer comparisons are decided exactly; the error of floating point is below 2^-48."""
MORE_BITS = 256
SPARE_DIGITS = 60
"""Digits of e^(-x) beyond the bits that it is compared with, for rounding errors."""
NEARLY = Decimal(10) ** -30
"""Far above these errors, which are 3·10^-59 units of the last of these bits."""
LARGEST_STD = 2**40
DEEPEST = 38
"""Larger v are found by exact arithmetic only: their probabilities are far below `UNSURE`."""
THRESHOLDS = np.exp(-np.arange(1.0, DEEPEST + 1))[::-1].copy()
ACCEPTED = 0.45
"""Slightly less than the fraction of proposals that are accepted."""
PIECE = 2**17
"""Draws made at a time, in about 40 MB of memory."""


@dataclass(frozen=True)
class Proposals:
    """Many proposals u, v and sign, and the uniform words that accept or reject them."""

    below: NDArray[np.int64]
    steps: NDArray[np.int64]
    negative: NDArray[np.bool_]
    usable: NDArray[np.bool_]
    deciding: Words


class Sampler:
    """Draws from one AES-256-CTR stream, with a fresh key from the system's generator."""

    def __init__(self, entropy: Entropy) -> None:
        key, first = entropy(KEY_BYTES), bytes(16)
        self._stream = Cipher(AES256(key), CTR(first)).encryptor()

    def draw(self, std: int, size: int) -> NDArray[np.int64]:
        """Return `size` draws with probabilities ∝ exp(-v²/(2·std²)); 1 ≤ std ≤ 2^40."""
        if not 1 <= std <= LARGEST_STD:
            raise ValueError(f"the standard deviation {std} is not from 1 to 2^40")
        parts: list[NDArray[np.int64]] = []
        missing = size
        while missing > 0:
            proposed = self._proposals(std, min(missing, PIECE))
            parts.append(self.accepted(std, proposed)[:missing])
            missing -= len(parts[-1])
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def accepted(self, std: int, proposed: Proposals) -> NDArray[np.int64]:
        """Return the draws of the accepted proposals, in their order."""
        magnitude = proposed.below + std * proposed.steps
        usable = proposed.usable & ~(proposed.negative & (magnitude == 0))
        accepted = usable & self._passed(std, proposed)
        signed: NDArray[np.int64] = np.where(proposed.negative, -magnitude, magnitude)
        return np.asarray(signed[accepted], dtype=np.int64)

    def steps(self, words: Words) -> NDArray[np.int64]:
        """Return v ≥ 0 with probabilities ∝ e^(-v): how many e^(-1), e^(-2), … exceed a uniform."""
        uniform = _fractions(words)
        steps = DEEPEST - np.searchsorted(THRESHOLDS, uniform, side="right")
        nearest = THRESHOLDS[np.minimum(np.searchsorted(THRESHOLDS, uniform), DEEPEST - 1)]
        below = THRESHOLDS[np.maximum(np.searchsorted(THRESHOLDS, uniform) - 1, 0)]
        unsure = np.minimum(np.abs(nearest - uniform), np.abs(below - uniform)) < UNSURE
        for index in np.flatnonzero(unsure):
            steps[index] = self._exact_steps(int(words[index]))
        return np.asarray(steps, dtype=np.int64)

    def _proposals(self, std: int, missing: int) -> Proposals:
        count = math.ceil(missing / ACCEPTED) + 16
        uniform, geometric, deciding, signs = (self._words(count) for _ in range(4))
        limit = 2**WORD_BITS // std * std  # words from here on do not map evenly to 0..std-1
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
        for index in np.flatnonzero(np.abs(distance) < UNSURE):
            below, steps = int(proposed.below[index]), int(proposed.steps[index])
            exponent = Fraction(2 * std * below + (below + std * steps - std) ** 2, 2 * std * std)
            passed[index], _ = self._is_below((int(proposed.deciding[index]), WORD_BITS), exponent)
        return passed

    def _exact_steps(self, word: int) -> int:
        steps, bits = 0, (word, WORD_BITS)
        while True:
            below, bits = self._is_below(bits, Fraction(steps + 1))
            if not below:
                return steps
            steps += 1

    def _is_below(self, bits: tuple[int, int], exponent: Fraction) -> tuple[bool, tuple[int, int]]:
        """Return whether a uniform number, known by its first bits, is below e^(-exponent).

        Draws further bits until the answer is certain, and returns them too.
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
    """Return e^(-x) of each proposal, computed in floating point."""
    part = proposed.below / std
    exponents = part + (part + proposed.steps - 1) ** 2 / 2
    return np.asarray(np.exp(-exponents), dtype=np.float64)


def _exact_bounds(exponent: Fraction, bits: int) -> tuple[int, int]:
    """Return integers below and above 2^bits · e^(-exponent), with `NEARLY` as margin.

    A number of so many bits is certainly below the probability if it is less than the first
    integer, and certainly not if it is at least the second. `Decimal.exp` is correctly rounded.
    """
    exact = Context(prec=SPARE_DIGITS + math.ceil(bits * math.log10(2)))
    x = exact.divide(Decimal(exponent.numerator), Decimal(exponent.denominator))
    chance = exact.multiply(exact.exp(exact.minus(x)), Decimal(2**bits))
    return int(exact.subtract(chance, NEARLY)), int(exact.add(chance, NEARLY)) + 1
