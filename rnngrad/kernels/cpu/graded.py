"""A triangular factor times rows with a power of two each: how products of triangular factors are kept."""

import numpy as np

from ..._gemm import fill_panels, packed_product, panel_width
from ..._jit import MULTIPLY_ADDS, kernel
from ..grading import NONE, lowered
from .scaling import normalize


@kernel(
    "graded_product",
    tasks=lambda out, *rest: len(out),
    work=lambda out, *rest: out.size * out.shape[1] / MULTIPLY_ADDS,
)
def graded_product(start, stop, out, exponents, R, shifts, X, before):
    """out[B, N, M] 2^exponents[B, N] = R[B, N, N] 2^shifts[B, N] (X[B, N, M] 2^before[B, N]), all float64.

    R is upper triangular, ``shifts`` has one exponent for each of its columns, the others have one for each row. The
    largest entry of a row of ``out`` is in [1/2, 1); a row of zeros has the exponent 0.
    """
    _, N, M = X.shape
    width = panel_width(M, X.itemsize)
    panels = np.empty(((M + width - 1) // width, N, width), X.dtype)
    weights, total, live = np.empty((N, N), X.dtype), np.empty(N, np.int64), np.empty(N, np.bool_)
    for b in range(start, stop):
        for j in range(N):
            total[j] = shifts[b, j] + before[b, j]
            live[j] = False
            for l in range(M):
                if X[b, j, l] != 0:
                    live[j] = True
                    break
        for i in range(N):
            top = np.int64(NONE)
            for j in range(i, N):
                if live[j] and R[b, i, j] != 0:  # the exponent of a zero says nothing
                    top = max(top, total[j])
            for j in range(N):
                weights[i, j] = 0
                if j >= i and live[j]:
                    weights[i, j] = lowered(R[b, i, j], max(top - total[j], 0))
            exponents[b, i] = top if top != NONE else 0
        fill_panels(panels, 0, len(panels), X[b], False)
        packed_product(N, N, weights, N, 1, panels, M, out[b], M)
        normalize(out[b], M, exponents[b])
