"""Products over all steps and samples at once: inputs into pre-activations, and back into parameter gradients.

These kernels do not depend on the cell. A *run* (from, to, length) couples rows of U with pre-activation rows: most
cells have one run, the GRU of PyTorch two. Work is cut into pieces whose size depends on shapes alone, so results do
not depend on the number of threads.
"""

import numpy as np

from ..._gemm import add_packed_product, add_transposed_product, fill_panels, pack, panel_columns, panel_width
from ..._jit import MULTIPLY_ADDS, inner, kernel
from ..._memory import empty
from ..._tile import MR
from .rowwise import scaled_rows

_ROWS = 256  # rows of one piece
_SHORT = 1024  # bytes of a row that needs no copying
_DEPTH = 256  # rows of x packed at once in ``outer``: a panel stays in the first-level cache
_TASKS = 8  # pieces of a sum, where there are fewer blocks of columns than this


@kernel(
    "affine",
    tasks=lambda out, *rest: -(-len(out) // _ROWS),
    work=lambda out, x, *rest: out.size * (0.5 + x.shape[1] / MULTIPLY_ADDS),
)
def _affine(start, stop, out, x, panels, bias, first, columns):
    """out[r, first : first + columns] = bias + x[r] B, piece by piece of rows; with empty panels the bias alone."""
    R, C = out.shape
    m, flat, ones = x.shape[1], out.reshape(out.size), np.ones(columns, out.dtype)
    for piece in range(start, stop):
        r0 = piece * _ROWS
        r1 = min(R, r0 + _ROWS)
        # the bias times one, in vectors: loops over short rows find out at each that it overlaps nothing
        scaled_rows(r1 - r0, columns, ones, 0, 0, bias, 0, flat, r0 * C + first, C)
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


@kernel(
    "input_adjoint",
    tasks=lambda dx, *rest: -(-len(dx) // _ROWS),
    work=lambda dx, da, first, depth, *rest: dx.size * depth / MULTIPLY_ADDS,
)
def _input_adjoint(start, stop, dx, da, first, depth, panels, more):
    """dx[r] = da[r, first : first + depth] B, or added to it."""
    R, m = dx.shape
    for piece in range(start, stop):
        r0 = piece * _ROWS
        rows = min(R, r0 + _ROWS) - r0
        if not more:
            for r in range(r0, r0 + rows):
                for j in range(m):
                    dx[r, j] = 0
        add_packed_product(rows, depth, da[r0:, first:], da.shape[1], 1, panels, m, dx[r0:], m)


def input_adjoint(dx, da, U, runs, more=False):
    """dx[r, m] = U^T da[r], over the pre-activations that have an input part; ``more``: added to dx."""
    n, m = da.shape[2], dx.shape[1]
    if not more and not len(runs):
        dx[:] = 0
    for u, p, length in runs if m else ():
        panels = pack(U[u : u + length])
        _input_adjoint(dx, da.reshape(len(da), -1), p * n, length * n, panels, more)
        more = True


@inner()
def _copy_groups(flat, da, first, columns):
    """flat as out[g, k, r] = da[k, first + g MR + r]; 0 past the edge.

    Row by row of da, which is read from memory, and by four (vector moves).
    """
    depth = da.shape[0]
    groups = (columns + MR - 1) // MR
    whole = columns // MR
    out = flat[: groups * depth * MR].reshape(groups, depth, MR)
    for k in range(depth):
        for g in range(whole):
            c0 = first + g * MR
            for r in range(0, MR, 4):
                v0, v1, v2, v3 = da[k, c0 + r], da[k, c0 + r + 1], da[k, c0 + r + 2], da[k, c0 + r + 3]
                out[g, k, r], out[g, k, r + 1], out[g, k, r + 2], out[g, k, r + 3] = v0, v1, v2, v3
        for g in range(whole, groups):
            for r in range(MR):
                out[g, k, r] = da[k, first + g * MR + r] if g * MR + r < columns else 0


@kernel("pack_rows", tasks=lambda flat, x, m, width: -(-len(x) // _DEPTH))
def _pack_rows(start, stop, flat, x, m, width):
    """Panels of every ``_DEPTH`` rows of x[:, :m], one after the other."""
    count = (m + width - 1) // width
    for piece in range(start, stop):
        r0 = piece * _DEPTH
        r1 = min(len(x), r0 + _DEPTH)
        block = flat[r0 * count * width : r1 * count * width].reshape(count, r1 - r0, width)
        fill_panels(block, 0, count, x[r0:r1, :m], False)


@kernel(
    "outer",
    tasks=lambda parts, da, first, x, packed, chunk, block: parts.shape[0] * -(-parts.shape[1] // block),
    work=lambda parts, da, *rest: parts[0].size * len(da) / MULTIPLY_ADDS,
)
def _outer(start, stop, parts, da, first, x, packed, chunk, block):
    """parts[piece, c, m] = sum of da[r, first + c] x[r, :m] over a piece of ``chunk`` rows.

    A task is one block of columns c over one piece. Long rows would touch a page of memory at every step of the sum,
    so the block of da is copied first, ``_DEPTH`` rows at a time; x, if its rows are long, is given packed.
    """
    R, lead = da.shape
    _, columns, m = parts.shape
    ldx = x.shape[1]
    da_flat, x_flat = da.reshape(da.size), x.reshape(x.size)
    width = panel_width(m, da.itemsize)
    count = (m + width - 1) // width
    blocks = (columns + block - 1) // block
    copied = lead * da.itemsize > _SHORT
    groups = (block + MR - 1) // MR if copied else 0
    flat = np.empty(groups * _DEPTH * MR, da.dtype)
    for task in range(start, stop):
        piece = task // blocks
        c0 = task % blocks * block
        rows = min(columns, c0 + block) - c0
        out = parts[piece, c0:]
        for c in range(rows):
            for j in range(m):
                out[c, j] = 0
        r0 = piece * chunk
        end = min(R, r0 + chunk)
        while r0 < end:
            depth = min(_DEPTH, end - r0)
            if copied:
                _copy_groups(flat, da[r0 : r0 + depth], first + c0, rows)
                left, d_step, g_step = flat, MR, depth * MR
            else:
                left, d_step, g_step = da_flat[r0 * lead + first + c0 :], lead, MR
            if packed.size > 0:
                right, r_step, p_step = packed[r0 * count * width :], width, depth * width
            else:
                right, r_step, p_step = x_flat[r0 * ldx :], ldx, width
            add_transposed_product(rows, depth, left, d_step, g_step, right, r_step, p_step, width, m, out, m)
            r0 += depth


def outer(da, first, columns, x, m):
    """sum_r da[r, first : first + columns] x[r, :m]^T as (columns, m); da and x are (R, ...) C-contiguous."""
    da, x = da.reshape(len(da), -1), x.reshape(len(x), -1)
    if m == 0 or columns == 0:
        return np.zeros((columns, m), da.dtype)
    block = min(columns, _SHORT // da.itemsize)
    pieces = -(-_TASKS // -(-columns // block))
    chunk = -(-len(da) // (pieces * _DEPTH)) * _DEPTH
    width = panel_columns(m, da.itemsize)
    short = m % width == 0 and x.shape[1] * x.itemsize <= _SHORT
    packed = empty((0 if short else len(x) * -(-m // width) * width,), x.dtype)
    if not short:
        _pack_rows(packed, x, m, width)
    parts = empty((-(-len(da) // chunk), columns, m), da.dtype)
    _outer(parts, da, first, x, packed, chunk, block)
    return parts[0] if len(parts) == 1 else parts.sum(axis=0)


@kernel("column_sums", tasks=lambda parts, *rest: len(parts), work=lambda parts, da, *rest: da.size / 4)
def _column_sums(start, stop, parts, da, chunk):
    R, C = da.shape
    for piece in range(start, stop):
        acc = np.zeros(C, da.dtype)  # of no other array, hence vectorised
        for r in range(piece * chunk, min(R, (piece + 1) * chunk)):
            for c in range(C):
                acc[c] += da[r, c]
        for c in range(C):
            parts[piece, c] = acc[c]


def column_sums(da):
    """sum_r da[r] of an (R, ...) array."""
    flat = da.reshape(len(da), -1)
    chunk = 512
    parts = np.empty((-(-len(flat) // chunk), flat.shape[1]), da.dtype)
    _column_sums(parts, flat, chunk)
    return parts.sum(axis=0).reshape(da.shape[1:])
