"""Rows of arrays by their numbers: copied, added, looked at for what is not zero, and their norms."""

import math

import numpy as np

from ..._jit import kernel
from .scaling import ROWS

_LN2 = math.log(2.0)
_LEAST, _LARGEST = 1e-130, 1e150  # lengths whose squares are certainly normal numbers
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


def row_lengths(out, rows):
    """out[r] = ||rows[r]|| of rows (R, C), in float64, of any size that is a number; not finite where an entry is not.

    ``out`` is on the host.
    """
    flat = rows.astype(np.float64, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        np.sqrt(np.einsum("ri,ri->r", flat, flat), out=out)
        if not (out.min(initial=1.0) > _LEAST and out.max(initial=1.0) < _LARGEST):  # squares may have left the numbers
            far = ~((out > _LEAST) & (out < _LARGEST))
            top = np.abs(flat[far]).max(axis=1, initial=0.0)
            scale = np.where((top > 0) & np.isfinite(top), top, 1.0)
            own = flat[far] / scale[:, None]
            out[far] = scale * np.sqrt(np.einsum("ri,ri->r", own, own))


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
