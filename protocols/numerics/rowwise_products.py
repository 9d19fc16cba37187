"""Products of patients' rows with a matrix, in which no patient's result depends on another's.

The order in which a matrix product adds depends on the number of rows and their positions, on
threads and on the processor. If the weights are chosen to cancel, this order decides the whole
result. With such a model from the coordinator, adding or removing one patient could change what
others contribute, beyond the bound that the accountant uses. There are two solutions: a separate
call for each row (`row_products`), or a product of many rows in which nothing is rounded, so that
the order does not matter. The second is a plain matrix product, and as fast as one.

*The grid.* Let K be the longer side of the matrix and p = ⌊(53 − ⌈log2 K⌉)/2⌋. Let 2^e be the
smallest power of two above the largest entry of a row, in absolute value: the row is rounded to
whole multiples of 2^(e−p). The matrix is rounded in the same way, with 2^f above its largest entry.
Each entry is then at most 2^p steps.

*Why it is exact.* A product of two entries is a whole multiple of u = 2^(e−p+f−p), and at most
2^(2p)·u. Any partial sum of a result's products, in any order, is a whole multiple of u and at most
K·2^(2p)·u ≤ 2^53·u, so a float64 holds it exactly. No addition rounds, whether or not it is fused
with its multiplication, and every order gives the same result. The same holds for sums of a row's
squares. The result depends on the row and the matrix only, to the last bit (except for the sign of
a zero, which has no effect: nothing divides by it).

*Out of range.* |e|, |f| ≤ REACH excludes overflow and subnormal numbers. Smaller rows are rounded
to the grid of −REACH. A row with a larger entry, or with one that is not finite, becomes NaN in all
entries, and so does every result of such a row or matrix. This code sets it so, whatever a library
would return.

*The cost* is precision: steps of 2^-26 (K = 1) to 2^-21 (K = 1,024) of the largest entry of a row
or of the matrix, about the precision of float32 for that entry.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MANTISSA = 53
REACH = 400
"""Largest binary exponent: squares and products of entries are then normal numbers of float64."""
ANCHOR = 1.5 * 2.0 ** (MANTISSA - 1)
"""In steps, halfway between two powers of two: a number added to it is rounded to whole steps."""


def row_products(rows: Floats, matrix: Floats) -> Floats:
    """Return rows @ matrix, (patients, leaving), with a separate call for each row.

    Entries below 2^-REACH count as zero: then no product or sum is a subnormal number, which would
    take longer, in whatever thread it is computed (`protocols.numerics.denormals`).
    """
    rows, matrix = _without_smallest(rows), _without_smallest(matrix)
    return np.asarray(np.matmul(rows[:, None, :], matrix)[:, 0, :], dtype=np.float64)


def grid_bits(shape: tuple[int, ...]) -> int:
    """Return p, the bits that entries keep in a product with a matrix of this shape."""
    return (MANTISSA - (max(*shape, 1) - 1).bit_length()) // 2


def rows_on_grid(rows: Floats, bits: int) -> Floats:
    """Return each row rounded to its own grid, (patients, entering); NaN if out of range."""
    sizes = np.abs(rows)
    return _rounded(rows, _anchors(sizes.max(axis=1, initial=0.0), bits)[:, None], sizes)


def matrix_on_grid(matrix: Floats, bits: int) -> Floats:
    """Return a matrix rounded to one grid; all NaN if an entry is out of range."""
    sizes = np.abs(matrix)
    return _rounded(matrix, _anchors(sizes.max(initial=0.0), bits), sizes)


def grid_product(rows: Floats, matrix: Floats) -> Floats:
    """Return the exact product rows @ matrix, (patients, leaving), of values on their grids."""
    product = np.asarray(rows @ matrix, dtype=np.float64)
    if np.isnan(matrix[:1, :1]).any():
        product.fill(np.nan)
    product[np.isnan(rows[:, :1]).any(axis=1)] = np.nan
    return product


def _without_smallest(values: Floats) -> Floats:
    return np.where(np.abs(values) < 2.0**-REACH, 0.0, values)


def _anchors(top: Floats | np.float64, bits: int) -> Floats:
    """Return, for each largest entry, a number around which floats are 2^(e − bits) apart."""
    in_range = np.where(top < 2.0**REACH, np.maximum(top, 2.0**-REACH), np.nan)
    # Floats around `in_range` are 2^(e − 53) apart; those around 1.5 · 2^52 steps, one step.
    return np.asarray(np.spacing(in_range) * (ANCHOR * 2.0 ** (MANTISSA - bits)), dtype=np.float64)


def _rounded(values: Floats, anchors: Floats, out: Floats) -> Floats:
    """Round values to the nearest step: adding the anchor rounds, subtracting it is exact."""
    np.add(values, anchors, out=out)
    return np.subtract(out, anchors, out=out)
