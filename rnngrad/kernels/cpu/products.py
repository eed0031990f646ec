"""Products over all steps and samples at once: inputs into pre-activations, and back into parameter gradients.

These kernels do not depend on the cell. A *run* (from, to, length) couples rows of U with pre-activation rows: most
cells have one run, the GRU of PyTorch two. Work is cut into pieces whose size depends on shapes alone, so results do
not depend on the number of threads.
"""

import numpy as np

from ..._gemm import add_packed_product, add_product, fill_panels, pack, panel_width
from ..._jit import inner, kernel

_ROWS = 256  # rows of one piece
_COLUMNS = 32  # columns of da copied together in ``outer``
_SHORT = 1024  # bytes of a row that needs no copying
_DEPTH = 256  # rows of x packed at once in ``outer``: a panel stays in the first-level cache


@kernel("affine", tasks=lambda out, *rest: -(-len(out) // _ROWS))
def _affine(start, stop, out, x, panels, bias, first, columns):
    """out[r, first : first + columns] = bias + x[r] B, piece by piece of rows; with empty panels the bias alone."""
    R, C = out.shape
    m = x.shape[1]
    for piece in range(start, stop):
        r0 = piece * _ROWS
        r1 = min(R, r0 + _ROWS)
        for r in range(r0, r1):
            out[r, first : first + columns] = bias
        if m > 0 and panels.shape[0] > 0:
            add_packed_product(r1 - r0, m, x[r0:], m, 1, panels, columns, out[r0:, first:], C)


def affine(out, x, U, bias, runs):
    """out[r, P, n] = bias[P, n] + U x[r]."""
    R, P, n = out.shape
    flat, m = out.reshape(R, P * n), x.shape[1]
    driven = set()
    for u, p, length in runs:
        panels = pack(U[u : u + length], transposed=True)
        _affine(flat, x, panels, bias[p : p + length].reshape(-1), p * n, length * n)
        driven.update(range(p, p + length))
    none = np.empty((0, m, 1), out.dtype)
    for p in set(range(P)) - driven:
        _affine(flat, x, none, bias[p], p * n, n)


@kernel("input_adjoint", tasks=lambda dx, *rest: -(-len(dx) // _ROWS))
def _input_adjoint(start, stop, dx, da, first, depth, panels):
    """dx[r] += da[r, first : first + depth] B."""
    R, m = dx.shape
    for piece in range(start, stop):
        r0 = piece * _ROWS
        rows = min(R, r0 + _ROWS) - r0
        add_packed_product(rows, depth, da[r0:, first:], da.shape[1], 1, panels, m, dx[r0:], m)


def input_adjoint(dx, da, U, runs):
    """dx[r, m] += U^T da[r], over the pre-activations that have an input part."""
    n, m = da.shape[2], dx.shape[1]
    for u, p, length in runs if m else ():
        panels = pack(U[u : u + length])
        _input_adjoint(dx, da.reshape(len(da), -1), p * n, length * n, panels)


@inner()
def _copy_block(out, block):
    """out[k, j] = block[k, j]; four at a time become vector moves."""
    rows, columns = block.shape
    for k in range(rows):
        j = 0
        while j + 4 <= columns:
            v0, v1, v2, v3 = block[k, j], block[k, j + 1], block[k, j + 2], block[k, j + 3]
            out[k, j], out[k, j + 1], out[k, j + 2], out[k, j + 3] = v0, v1, v2, v3
            j += 4
        while j < columns:
            out[k, j] = block[k, j]
            j += 1


@kernel("outer", tasks=lambda parts, *rest: len(parts))
def _outer(start, stop, parts, da, first, x, chunk):
    """parts[piece, c, m] = sum of da[r, first + c] x[r, :m] over a piece of ``chunk`` rows.

    Long rows would touch a page of memory at every step of the sum, so blocks of them are copied together first.
    """
    R, lead = da.shape
    _, columns, m = parts.shape
    ldx = x.shape[1]
    width = panel_width(m, da.itemsize)
    count = (m + width - 1) // width
    short_x = m % width == 0 and ldx * da.itemsize <= _SHORT
    short_da = lead * da.itemsize <= _SHORT
    panels = np.empty(0 if short_x else count * _DEPTH * width, da.dtype)
    left = np.empty((0 if short_da else _DEPTH, _COLUMNS), da.dtype)
    for piece in range(start, stop):
        for c in range(columns):
            for j in range(m):
                parts[piece, c, j] = 0
        r0 = piece * chunk
        end = min(R, r0 + chunk)
        while r0 < end:
            depth = min(_DEPTH, end - r0)
            block = panels[: panels.size // _DEPTH * depth].reshape(0 if short_x else count, depth, width)
            if not short_x:
                fill_panels(block, 0, count, x[r0 : r0 + depth, :m], False)
            width_c = columns if short_da else _COLUMNS
            for c0 in range(0, columns, width_c):
                rows = min(columns, c0 + width_c) - c0
                if short_da:
                    source, step = da[r0:, first:], lead
                else:
                    _copy_block(left, da[r0 : r0 + depth, first + c0 : first + c0 + rows])
                    source, step = left[0:, 0:], _COLUMNS
                if short_x:
                    add_product(rows, depth, source, 1, step, x[r0:], ldx, m, parts[piece, c0:], m)
                else:
                    add_packed_product(rows, depth, source, 1, step, block, m, parts[piece, c0:], m)
            r0 += depth


def outer(da, first, columns, x, m):
    """sum_r da[r, first : first + columns] x[r, :m]^T as (columns, m); da and x are (R, ...) C-contiguous."""
    da, x = da.reshape(len(da), -1), x.reshape(len(x), -1)
    if m == 0 or columns == 0:
        return np.zeros((columns, m), da.dtype)
    chunk = max(_DEPTH, -(-len(da) // 8))  # at most 8 partial sums
    parts = np.empty((-(-len(da) // chunk), columns, m), da.dtype)
    _outer(parts, da, first, x, chunk)
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
    chunk = 512
    parts = np.empty((-(-len(flat) // chunk), flat.shape[1]), da.dtype)
    _column_sums(parts, flat, chunk)
    return parts.sum(axis=0).reshape(da.shape[1:])
