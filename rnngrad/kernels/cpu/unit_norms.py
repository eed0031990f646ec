"""Norms of pointwise partials: the largest over the units of the norm of each unit's own matrix."""

import math

import numpy as np

from ..._jit import inner, kernel
from ..magnitudes import larger
from ..rotation import SWEEPS, keeps_largest, rotation
from .sums import dot


@inner()
def _square(A):
    """The square of the largest singular value of A[R, C], which is used up: rows are rotated until orthogonal."""
    R, C = A.shape
    for _ in range(SWEEPS):
        turned = False
        for i in range(R - 1):
            for j in range(i + 1, R):
                x, y = A[i], A[j]
                a, b, g = dot(x, x), dot(y, y), dot(x, y)
                if keeps_largest(a, b, g):
                    continue
                c, s = rotation(a, b, g, 1.0)
                for l in range(C):
                    u, v = x[l], y[l]
                    x[l] = c * u + s * v
                    y[l] = c * v - s * u
                turned = True
        if not turned:
            break
    most = 0.0
    for i in range(R):
        most = larger(most, dot(A[i], A[i]))
    return most


@kernel("unit_norms", tasks=lambda out, *rest: len(out), work=lambda out, partials, *rest: 3 * partials.size)
def unit_norms(start, stop, out, partials, columns):
    """out[X] = the largest over i of ||partials[X, :, :columns, i]||_2 of partials[X, R, C, n], in float64."""
    _, R, _, n = partials.shape
    A = np.empty((R, columns))
    for x in range(start, stop):
        top = 0.0  # a slope of 1e-200 has no square
        for r in range(R):
            for c in range(columns):
                for i in range(n):
                    top = larger(top, abs(np.float64(partials[x, r, c, i])))
        if R * columns > 1 and 0.0 < top < math.inf:
            most = 0.0
            for i in range(n):
                for r in range(R):
                    for c in range(columns):
                        A[r, c] = np.float64(partials[x, r, c, i]) / top
                most = larger(most, _square(A))
            top *= math.sqrt(most)
        out[x] = top
