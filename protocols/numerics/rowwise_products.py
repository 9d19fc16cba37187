"""Products of patients' rows with a matrix, in which no patient's result depends on another's.

The order in which a matrix product adds depends on how many rows there are and where each stands,
on threads and on the processor. With weights chosen to cancel, that order is the whole result: a
coordinator's model could let one patient who comes or goes change what others contribute, beyond
the bound of the accountant. There are two ways around it: every row by a call of its own
(`row_products`), or a product of many rows in which nothing is rounded, so that no order matters.
The second is a plain matrix product, and as quick as one.

*The grid.* Let K be the longer side of the matrix and p = ⌊(53 − ⌈log2 K⌉)/2⌋. A row whose largest
entry is below 2^e, e the least such whole number, is rounded to whole multiples of 2^(e−p); the
matrix likewise, from its own largest entry, below 2^f. Each is then at most 2^p of its steps.

*Why it is exact.* A product of two entries is a whole multiple of u = 2^(e−p+f−p), and at most
2^(2p) of it. The sum of any of one result's products, however it was come by, is a whole multiple
of u, at most K·2^(2p) ≤ 2^53 of it: a float64. No addition rounds, fused with its multiplication or
not; every order gives the same, and so it is with sums of a row's squares. What comes out is a
function of the row and the matrix alone, to the last bit (but for the sign of a zero, which goes
nowhere: nothing divides by it).

*Out of reach.* |e|, |f| ≤ REACH keeps all of this away from overflow and from numbers below the
normal ones. Smaller rows are rounded to the grid of −REACH. A row that reaches further, or is not
finite, is NaN throughout, and so is every result of such a row or matrix: by what is written here,
not by what a library makes of it.

*What it costs* is precision: steps of 2^-26 (K = 1) to 2^-21 (K = 1,024) of a row's or the matrix's
largest entry, about what single precision keeps of that entry.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MANTISSA = 53
REACH = 400
"""Binary exponents; squares and products of what they bound are normal numbers of float64."""
ANCHOR = 1.5 * 2.0 ** (MANTISSA - 1)
"""In steps: halfway between two powers of two, where what is added is rounded to whole steps."""


def row_products(rows: Floats, matrix: Floats) -> Floats:
    """Return rows @ matrix, (patients, leaving): the same call for each row by itself."""
    return np.asarray(np.matmul(rows[:, None, :], matrix)[:, 0, :], dtype=np.float64)


def grid_bits(shape: tuple[int, ...]) -> int:
    """Return p, the binary digits that rows and entries keep beside a matrix of this shape."""
    return (MANTISSA - (max(*shape, 1) - 1).bit_length()) // 2


def rows_on_grid(rows: Floats, bits: int) -> Floats:
    """Return each row rounded to its own grid, (patients, entering); NaN where out of reach."""
    sizes = np.abs(rows)
    return _rounded(rows, _anchors(sizes.max(axis=1, initial=0.0), bits)[:, None], sizes)


def matrix_on_grid(matrix: Floats, bits: int) -> Floats:
    """Return a matrix rounded to one grid; NaN throughout where an entry is out of reach."""
    sizes = np.abs(matrix)
    return _rounded(matrix, _anchors(sizes.max(initial=0.0), bits), sizes)


def grid_product(rows: Floats, matrix: Floats) -> Floats:
    """Return rows @ matrix, (patients, leaving), of rows and a matrix on their grids: exact."""
    product = np.asarray(rows @ matrix, dtype=np.float64)
    if np.isnan(matrix[:1, :1]).any():
        product.fill(np.nan)
    product[np.isnan(rows[:, :1]).any(axis=1)] = np.nan
    return product


def _anchors(top: Floats | np.float64, bits: int) -> Floats:
    """Return numbers around which floats lie 2^(e − bits) apart, e for each largest entry."""
    kept = np.where(top < 2.0**REACH, np.maximum(top, 2.0**-REACH), np.nan)
    # Floats around `kept` lie 2^(e − 53) apart, those around 1.5 · 2^52 steps a step.
    return np.asarray(np.spacing(kept) * (ANCHOR * 2.0 ** (MANTISSA - bits)), dtype=np.float64)


def _rounded(values: Floats, anchors: Floats, out: Floats) -> Floats:
    """Return values to the nearest step: adding the anchor rounds, taking it away is exact."""
    np.add(values, anchors, out=out)
    return np.subtract(out, anchors, out=out)
