"""Products over all steps and samples at once: inputs into pre-activations, and back into parameter gradients.

These kernels do not depend on the cell. A *run* (from, to, length) couples rows of U with pre-activation rows: most
cells have one run, the GRU of PyTorch two. Work is cut into pieces whose size depends on shapes alone, so results do
not depend on the number of threads.
"""

import numpy as np

from ..._blas import gemm_nn, gemm_nt, gemm_tn
from ..._jit import kernel

_ROWS = 512  # rows of one piece
_WIDTH = 256  # columns of one piece of a large output


@kernel("affine", tasks=lambda out, *rest: -(-len(out) // _ROWS))
def affine(start, stop, out, x, U, bias, runs):
    """out[r, P, n] = bias[P, n] + U x[r], block by block of rows."""
    R, P, n = out.shape
    m = x.shape[1]
    for piece in range(start, stop):
        r0 = piece * _ROWS
        r1 = min(R, r0 + _ROWS)
        for r in range(r0, r1):
            out[r] = bias
        if m > 0:
            for j in range(runs.shape[0]):
                u, p, length = runs[j]
                gemm_nt(r1 - r0, length * n, m, x[r0:], m, U[u:], m, 1.0, out[r0:, p:], P * n)


@kernel("input_adjoint", tasks=lambda out, *rest: -(-len(out) // _ROWS))
def input_adjoint(start, stop, dx, da, U, runs):
    """dx[r, m] += U^T da[r], over the pre-activations that have an input part."""
    R, P, n = da.shape
    m = dx.shape[1]
    for piece in range(start, stop):
        r0 = piece * _ROWS
        r1 = min(R, r0 + _ROWS)
        for j in range(runs.shape[0]):
            u, p, length = runs[j]
            gemm_nn(r1 - r0, m, length * n, da[r0:, p:], P * n, U[u:], m, 1.0, dx[r0:], m)


@kernel("outer_rows", tasks=lambda out, *rest: -(-len(out) // _WIDTH))
def _outer_rows(start, stop, out, da, first, columns, lead, x, m, ldx):
    """out[c, m] = sum_r da[r, first + c] x[r], one piece of columns at a time (large outputs)."""
    R = da.shape[0]
    for piece in range(start, stop):
        c0 = piece * _WIDTH
        c1 = min(columns, c0 + _WIDTH)
        gemm_tn(c1 - c0, m, R, da[0, first + c0 :], lead, x, ldx, 0.0, out[c0:], m)


@kernel("outer_steps", tasks=lambda parts, *rest: len(parts))
def _outer_steps(start, stop, parts, da, first, columns, lead, x, m, ldx, chunk):
    """parts[piece, c, m]: the same sum over a piece of the rows (small outputs)."""
    R = da.shape[0]
    xf = x.reshape(R, ldx)
    for piece in range(start, stop):
        r0 = piece * chunk
        rows = min(R, r0 + chunk) - r0
        gemm_tn(columns, m, rows, da[r0, first:], lead, xf[r0:], ldx, 0.0, parts[piece], m)


def outer(da, first, columns, x, m):
    """sum_r da[r, first : first + columns] x[r, :m]^T as (columns, m); da and x are (R, ...) C-contiguous."""
    da = da.reshape(len(da), -1)
    x = x.reshape(len(x), -1)
    R, lead, ldx = len(da), da.shape[1], x.shape[1]
    if m == 0 or columns == 0 or R == 0:
        return np.zeros((columns, m), da.dtype)
    if columns * m > 128 * 128:
        out = np.empty((columns, m), da.dtype)
        _outer_rows(out, da, first, columns, lead, x, m, ldx)
        return out
    chunk = 1024
    parts = np.empty(((R + chunk - 1) // chunk, columns, m), da.dtype)
    _outer_steps(parts, da, first, columns, lead, x, m, ldx, chunk)
    return parts.sum(axis=0)


@kernel("column_sums", tasks=lambda parts, *rest: len(parts))
def _column_sums(start, stop, parts, da, chunk):
    R, C = da.shape
    for piece in range(start, stop):
        acc = np.zeros(C, da.dtype)
        for r in range(piece * chunk, min(R, (piece + 1) * chunk)):
            for c in range(C):
                acc[c] += da[r, c]
        parts[piece] = acc


def column_sums(da):
    """sum_r da[r] of an (R, ...) array."""
    flat = da.reshape(len(da), -1)
    chunk = 1024
    parts = np.empty(((len(flat) + chunk - 1) // chunk, flat.shape[1]), da.dtype)
    _column_sums(parts, flat, chunk)
    return parts.sum(axis=0).reshape(da.shape[1:])
