"""Makes arithmetic take the same time for very small numbers: denormals count as zero.

A processor needs up to a hundred times as long for a number below 2^-1022, a subnormal (denormal)
one. A model can be made so that some patients' values become that small: the time of the answer
would then depend on records. So processors can treat such numbers, as inputs and results, as zero
(Intel: Software Developer's Manual, volume 1, section 10.2.3, FTZ and DAZ; Arm: FPCR.FZ).

The setting belongs to a thread, and is inherited by threads that it starts. It is made through the
C library's `fegetenv` and `fesetenv`, whose environment holds the processor's control register; so
it holds for numpy and torch alike (`torch.set_flush_denormal` sets the same bits). numpy's matrix
products may use threads that were started earlier: what they multiply is kept away from subnormal
numbers by itself (`protocols.numerics.rowwise_products`).
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_WORDS = {"x86_64": (7, 0x8040), "aarch64": (0, 1 << 24)}
"""By processor: which 32-bit word of the C library's environment is the control register (Linux),
and its bits that make subnormal inputs and results zero."""
_ENVIRONMENT_WORDS = 64
"""More than any C library's environment has."""


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Treat subnormal numbers as zero in this thread, as long as the context lasts.

    Does nothing on a processor other than x86-64 and 64-bit Arm.
    """
    known = _WORDS.get(platform.machine())
    before = _exchanged(known, None)
    try:
        yield
    finally:
        _exchanged(known, before)


def _exchanged(known: tuple[int, int] | None, value: int | None) -> int:
    """Set the bits to a value, or all of them for None; return what they were before."""
    if known is None:
        return 0
    (word, bits), libc = known, ctypes.CDLL(None)
    environment = (ctypes.c_uint32 * _ENVIRONMENT_WORDS)()
    libc.fegetenv(environment)
    before = environment[word] & bits
    environment[word] = environment[word] & ~bits | (bits if value is None else value)
    libc.fesetenv(environment)
    return int(before)
