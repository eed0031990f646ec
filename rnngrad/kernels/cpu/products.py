"""Products over all steps and samples at once: inputs into pre-activations, and back into parameter gradients.

These kernels do not depend on the cell. A *run* (from, to, length) couples rows of U with pre-activation rows: most
cells have one run, the GRU of PyTorch two. Work is cut into pieces whose size depends on shapes alone, so results do
not depend on the number of threads.
"""

import itertools

import numpy as np

from ..._gemm import add_packed_product, add_transposed_product, fill_panels, flat, pack, panel_columns, panel_width
from ..._jit import MULTIPLY_ADDS, inner, kernel
from ..._memory import empty
from ..._tile import MR
from .rowwise import scaled_rows

_ROWS = 256  # rows of one piece
_SHORT = 1024  # bytes of a row that needs no copying
_DEPTH = 256  # rows of x packed at once in ``outers``: a panel stays in the first-level cache
_TASKS = 8  # pieces of a sum, where there are fewer blocks of columns than this


@kernel(
    "affine",
    tasks=lambda out, *rest: -(-len(out) // _ROWS),
    work=lambda out, x, *rest: out.size * (0.5 + x.shape[1] / MULTIPLY_ADDS),
)
def _affine(start, stop, out, x, panels, bias, first, columns):
    """out[r, first : first + columns] = bias + x[r] B, piece by piece of rows; with empty panels the bias alone."""
    R, C = out.shape
    m, ones = x.shape[1], np.ones(columns, out.dtype)
    for piece in range(start, stop):
        r0 = piece * _ROWS
        r1 = min(R, r0 + _ROWS)
        # the bias times one, in vectors: loops over short rows find out at each that it overlaps nothing
        scaled_rows(r1 - r0, columns, ones, 0, 0, bias, 0, flat(out), r0 * C + first, C)
        if m > 0 and panels.shape[0] > 0:
            add_packed_product(r1 - r0, m, x[r0:], m, 1, panels, columns, out[r0:, first:], C)


def affine(out, x, U, bias, runs):
    """out[r, P, n] = bias[P, n] + U x[r]."""
    R, P, n = out.shape
    whole, m = out.reshape(R, P * n), x.shape[1]
    driven = set()
    for u, p, length in runs:
        panels = pack(U[u : u + length], transposed=True)
        _affine(whole, x, panels, bias[p : p + length].reshape(-1), p * n, length * n)
        driven.update(range(p, p + length))
    none = np.empty((0, m, 1), out.dtype)
    for p in set(range(P)) - driven:
        _affine(whole, x, none, bias[p], p * n, n)


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
def _copy_groups(copy, da, first, columns):
    """copy as out[g, k, r] = da[k, first + g MR + r]; 0 past the edge.

    Row by row of da, which is read from memory, and by four (vector moves).
    """
    depth = da.shape[0]
    groups = (columns + MR - 1) // MR
    whole = columns // MR
    out = copy[: groups * depth * MR].reshape(groups, depth, MR)
    for k in range(depth):
        for g in range(whole):
            c0 = first + g * MR
            for r in range(0, MR, 4):
                v0, v1, v2, v3 = da[k, c0 + r], da[k, c0 + r + 1], da[k, c0 + r + 2], da[k, c0 + r + 3]
                out[g, k, r], out[g, k, r + 1], out[g, k, r + 2], out[g, k, r + 3] = v0, v1, v2, v3
        for g in range(whole, groups):
            for r in range(MR):
                out[g, k, r] = da[k, first + g * MR + r] if g * MR + r < columns else 0


@kernel("pack_rows", tasks=lambda packed, x, m, width: -(-len(x) // _DEPTH))
def _pack_rows(start, stop, packed, x, m, width):
    """Panels of every ``_DEPTH`` rows of x[:, :m], one after the other."""
    count = (m + width - 1) // width
    for piece in range(start, stop):
        r0 = piece * _DEPTH
        r1 = min(len(x), r0 + _DEPTH)
        block = packed[r0 * count * width : r1 * count * width].reshape(count, r1 - r0, width)
        fill_panels(block, 0, count, x[r0:r1, :m], False)


@inner(forced=True)
def _clear(out, rows):
    for c in range(rows):
        for j in range(out.shape[1]):
            out[c, j] = 0


@inner()
def _add_block(side, piece, to, left, d_step, g_step, rows, depth, r0):
    """parts[piece, to + c] += sum of left[c, r] x[r0 + r, :m] over r < depth, c < rows, for a side of ``_outers``."""
    parts, x, packed = side
    out = parts[piece, to:]
    m, ldx = out.shape[1], x.shape[1]
    width = panel_width(m, out.itemsize)
    count = (m + width - 1) // width
    if packed.size > 0:
        right, r_step, p_step = packed[r0 * count * width :], width, depth * width
    else:
        right, r_step, p_step = flat(x)[r0 * ldx :], ldx, width
    add_transposed_product(rows, depth, left, d_step, g_step, right, r_step, p_step, width, m, out, m)


@kernel(
    "outers",
    tasks=lambda da, blocks, one, two, chunk: len(one[0]) * len(blocks),
    work=lambda da, blocks, one, two, chunk: (one[0][0].size + two[0][0].size) * len(da) / MULTIPLY_ADDS,
)
def _outers(start, stop, da, blocks, one, two, chunk):
    """parts[piece, to + c] = sum of da[r, first + c] x[r, :m] over a piece of ``chunk`` rows, for both sides.

    A side is (parts, x, panels of x), where panels are given if its rows are long. A task is one of ``blocks``
    (first, columns, to of one, to of two) over one piece, where -1 is nowhere. Long rows would touch a page of memory
    at every step of the sum, so the block of da is copied first, ``_DEPTH`` rows at a time.
    """
    R, lead = da.shape
    copied = lead * da.itemsize > _SHORT
    widest = 0
    for k in range(len(blocks)):
        widest = max(widest, blocks[k, 1])
    groups = (widest + MR - 1) // MR if copied else 0
    copy = np.empty(groups * _DEPTH * MR, da.dtype)
    for task in range(start, stop):
        piece = task // len(blocks)
        first, rows, to, to2 = blocks[task % len(blocks)]
        if to >= 0:
            _clear(one[0][piece, to:], rows)
        if to2 >= 0:
            _clear(two[0][piece, to2:], rows)
        r0 = piece * chunk
        end = min(R, r0 + chunk)
        while r0 < end:
            depth = min(_DEPTH, end - r0)
            if copied:
                _copy_groups(copy, da[r0 : r0 + depth], first, rows)
                left, d_step, g_step = copy, MR, depth * MR
            else:
                left, d_step, g_step = flat(da)[r0 * lead + first :], lead, MR
            if to >= 0:
                _add_block(one, piece, to, left, d_step, g_step, rows, depth, r0)
            if to2 >= 0:
                _add_block(two, piece, to2, left, d_step, g_step, rows, depth, r0)
            r0 += depth


def _blocks(runs, runs2, most):
    """(first, columns, to, to2) of blocks of at most ``most`` columns, each as a whole in a run or outside of it."""
    edges = sorted({edge for first, columns in (*runs, *runs2) for edge in (first, first + columns)})
    out = []
    for start, stop in itertools.pairwise(edges):
        places = [_place(own, start) for own in (runs, runs2)]
        if max(places) < 0:
            continue
        for first in range(start, stop, most):
            to, to2 = (place + first - start if place >= 0 else -1 for place in places)
            out.append((first, min(most, stop - first), to, to2))
    return np.array(out, np.int64).reshape(len(out), 4)


def _place(runs, column):
    """Where a column comes among those of the runs, laid one after the other; -1 if it is in none."""
    before = 0
    for first, columns in runs:
        if first <= column < first + columns:
            return before + column - first
        before += columns
    return -1


def outers(da, *sides):
    """For each of two sides (x, m, runs) sum_r da[r, c] x[r, :m]^T as (columns, m), over columns c of its runs.

    Runs are (first, columns), and those of a side do not overlap; where runs of both do, da is read once. da and x are
    (R, ...), C-contiguous.
    """
    da = da.reshape(len(da), -1)
    blocks = _blocks(*(runs if m else () for _, m, runs in sides), _SHORT // da.itemsize)
    pieces = -(-_TASKS // max(len(blocks), 1))
    chunk = -(-len(da) // (pieces * _DEPTH)) * _DEPTH
    operands = []
    for x, m, runs in sides:
        x, columns = x.reshape(len(x), -1), sum(length for _, length in runs)
        parts = empty((-(-len(da) // chunk), columns, m), da.dtype)
        operands.append((parts, x, _panels(x, m, columns)))
    _outers(da, blocks, *operands, chunk)
    return tuple(parts[0] if len(parts) == 1 else parts.sum(axis=0) for parts, _, _ in operands)


def _panels(x, m, columns):
    """x[:, :m] in panels; nothing where it serves as it lies, or for an empty sum."""
    width = panel_columns(m, x.itemsize)
    if not columns * m or (m % width == 0 and x.shape[1] * x.itemsize <= _SHORT):
        return np.empty(0, x.dtype)
    packed = empty((len(x) * -(-m // width) * width,), x.dtype)
    _pack_rows(packed, x, m, width)
    return packed


def outer(da, first, columns, x, m):
    """sum_r da[r, first : first + columns] x[r, :m]^T as (columns, m); da and x are (R, ...) C-contiguous."""
    return outers(da, (x, m, ((first, columns),)), (x, 0, ()))[0]


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
    whole = da.reshape(len(da), -1)
    chunk = 512
    parts = np.empty((-(-len(whole) // chunk), whole.shape[1]), da.dtype)
    _column_sums(parts, whole, chunk)
    return parts.sum(axis=0).reshape(da.shape[1:])
