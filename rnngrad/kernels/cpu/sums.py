"""Sums over rows, added up in vectors."""

import numpy as np

from ..._jit import inner


@inner(in_any_order=True)
def dot(x, y):
    """Sum of x y, in float64."""
    total = 0.0
    for i in range(x.size):
        total += np.float64(x[i]) * np.float64(y[i])
    return total


@inner(in_any_order=True)
def square_distance(x, y):
    """Sum of (x - y)^2, with the difference in the numbers' own precision."""
    total = 0.0
    for i in range(x.size):
        d = np.float64(x[i] - y[i])
        total += d * d
    return total
