"""Rows of arrays by their numbers: copied, added, looked at for what is not zero, and their norms."""

import math

import numpy as np

from ..._jit import kernel
from .scaling import ROWS

_LN2 = math.log(2.0)
_SQUARES = (2.0**-900, 2.0**1000)  # sums of squares between these lost nothing to under- or overflow


@kernel("put_rows", tasks=lambda out, to, *rest: len(to), work=lambda out, to, *rest: len(to) * (2 + out.shape[1] / 4))
def _put(start, stop, out, to, values, source, more):
    C = out.shape[1]
    for r in range(start, stop):
        row, given = out[to[r]], values[source[r]]
        if more:
            for c in range(C):
                row[c] += given[c]
        else:
            for c in range(C):
                row[c] = given[c]


def put_rows(out, to, values, source, more=False):
    """out[to[r]] = values[source[r]] of arrays (X, C) and (Y, C), or added to it; no row twice in ``to``."""
    _put(out, to, values, source, bool(more))


def live_rows(x):
    """Which rows of (R, C) hold a number that is not zero, (R,) of bool."""
    return np.any(x != 0, axis=1)


def changing(x):
    """Which columns of (T, B, m) differ at some step from what they are at the first, (B,) of bool."""
    return np.any(x != x[:1], axis=(0, 2))


@kernel("row_log_norms", tasks=lambda out, *rest: -(-len(out) // ROWS), work=lambda out, rows, *rest: rows.size)
def _log_norms(start, stop, out, rows, exponent):
    R, n = rows.shape
    for r in range(start * ROWS, min(R, stop * ROWS)):
        square, top = 0.0, 0.0
        for i in range(n):
            x = np.float64(rows[r, i])
            square += x * x
        if square > _SQUARES[0] and square < _SQUARES[1]:
            out[r] = math.log(square) / 2.0 + exponent[r] * _LN2
            continue
        for i in range(n):
            top = max(top, abs(np.float64(rows[r, i])))
        if top == 0.0 or top == math.inf or square != square:  # zeros alone, or no number
            out[r] = -math.inf if square == 0.0 else square
            continue
        square = 0.0
        for i in range(n):  # divided by the largest entry first
            x = np.float64(rows[r, i]) / top
            square += x * x
        out[r] = math.log(square) / 2.0 + math.log(top) + exponent[r] * _LN2


def row_log_norms(out, rows, exponent):
    """out[r] = ln ||rows[r] 2^exponent[r]|| of rows (R, n), in float64; -inf for a row of zeros."""
    with np.errstate(over="ignore"):
        _log_norms(out, rows, exponent)
