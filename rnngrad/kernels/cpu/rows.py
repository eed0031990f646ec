"""Rows of arrays by their numbers: copied, added, looked at for what is not zero, and their norms."""

import math

import numpy as np

from ..._jit import inner, kernel
from .scaling import ROWS
from .sums import dot

_LN2 = math.log(2.0)
_SQUARES = (2.0**-900, 2.0**1000)  # sums of squares between these lost nothing to under- or overflow


@kernel("put_rows", tasks=lambda out, to, *rest: len(to), work=lambda out, to, *rest: len(to) * (2 + out.shape[1] / 4))
def _put(start, stop, out, to, values, source, factors, more):
    C = out.shape[1]
    for r in range(start, stop):
        row, given = out[to[r]], values[source[r]]
        if len(factors) and more:
            for c in range(C):
                row[c] += factors[r] * given[c]
        elif len(factors):
            for c in range(C):
                row[c] = factors[r] * given[c]
        elif more:
            for c in range(C):
                row[c] += given[c]
        else:
            for c in range(C):
                row[c] = given[c]


def put_rows(out, to, values, source, more=False, factors=None):
    """out[to[r]] = factors[r] values[source[r]] of arrays (X, C) and (Y, C), or added to it; no row twice in ``to``.

    Without factors (R,) they are 1; they are in the dtype of the values.
    """
    _put(out, to, values, source, np.empty(0, values.dtype) if factors is None else factors, bool(more))


def live_rows(x):
    """Which rows of (R, C) hold a number that is not zero, (R,) of bool."""
    return np.any(x != 0, axis=1)


def changing(x):
    """Which columns of (T, B, m) differ at some step from what they are at the first, (B,) of bool."""
    return np.any(x != x[:1], axis=(0, 2))


@inner()
def _norm(row):
    """(length, scale) with ||row|| = length scale; the scale is 1 unless squares leave the numbers."""
    square, top = dot(row, row), 0.0
    if square > _SQUARES[0] and square < _SQUARES[1]:
        return math.sqrt(square), 1.0
    for i in range(row.size):
        top = max(top, abs(np.float64(row[i])))
    if top == 0.0 or top == math.inf or square != square:  # zeros alone, or no number
        return square, 1.0
    square = 0.0
    for i in range(row.size):  # divided by the largest entry first
        x = np.float64(row[i]) / top
        square += x * x
    return math.sqrt(square), top


@kernel("row_lengths", tasks=lambda out, *rest: -(-len(out) // ROWS), work=lambda out, rows: rows.size)
def _lengths(start, stop, out, rows):
    for r in range(start * ROWS, min(len(rows), stop * ROWS)):
        length, scale = _norm(rows[r])
        out[r] = length * scale


@kernel("row_log_norms", tasks=lambda out, *rest: -(-len(out) // ROWS), work=lambda out, rows, *rest: rows.size)
def _log_norms(start, stop, out, rows, exponent):
    for r in range(start * ROWS, min(len(rows), stop * ROWS)):
        length, scale = _norm(rows[r])
        out[r] = -math.inf if length == 0.0 else math.log(length) + math.log(scale) + exponent[r] * _LN2


def row_lengths(out, rows):
    """out[r] = ||rows[r]|| of rows (R, C), in float64, of any size that is a number; not finite where an entry is not.

    ``out`` is on the host.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # of interpreted kernels
        _lengths(out, rows)


def row_log_norms(out, rows, exponent):
    """out[r] = ln ||rows[r] 2^exponent[r]|| of rows (R, n), in float64; -inf for a row of zeros."""
    with np.errstate(over="ignore", invalid="ignore"):
        _log_norms(out, rows, exponent)
