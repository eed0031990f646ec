"""Coefficients of covariant vectors in a frame, one step back through its triangular factor, for both backends.

Ginelli et al. (2007): where J Q' = Q R, vectors V = Q C that J maps onto themselves have C' = R^-1 C D, D diagonal.
"""

import math

from .._jit import unit
from .._math import log
from .grading import lowered

LN2 = math.log(2.0)


@unit
def carried_back(C, c, R, shifts):
    """Column c of C[k, k], upper triangular and float64, becomes the unit vector along (R 2^shifts)^-1 of it.

    R[k, k] is upper triangular, with one exponent for each of its columns. Returns the logarithm of the factor by which
    R 2^shifts stretches the new column.
    """
    least = shifts[0]
    for j in range(1, c + 1):
        least = min(least, shifts[j])
    square = 0.0
    for j in range(c, -1, -1):
        value = C[j, c]
        for l in range(j + 1, c + 1):
            value -= R[j, l] * C[l, c]
        C[j, c] = value / R[j, j]
    for j in range(c + 1):
        value = lowered(C[j, c], shifts[j] - least)
        C[j, c] = value
        square += value * value
    length = math.sqrt(square)
    for j in range(c + 1):
        C[j, c] /= length
    return least * LN2 - log(length)
