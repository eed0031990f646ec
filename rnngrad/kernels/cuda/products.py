"""Products over all steps and samples at once: inputs into pre-activations, and back into parameter gradients.

One kernel: tiles of both factors go through shared memory, and a thread makes 4 x 4 elements of the result; products
with large matrices are the library's. Sums over steps and samples are cut into pieces whose size depends on shapes
alone and added in their order.
"""

import functools

import numba
import numpy as np

from ... import _cuda
from ..._arrays import concatenated
from . import library, pieces
from .block import TILE

cuda = _cuda.load()

_DEPTH = 16  # of the tiles in shared memory
_SIDE = 2 if _cuda.simulated() else 16  # threads of a block along either side of its tile
_PARTS = 64  # pieces of a sum at most, and their rows at least
_ROWS = 1024


@functools.cache
def make(dtype, side):
    """Kernel ``run(c, a, b, bias, sizes, …)``: c[p, i, j] = bias[j] + sum_k a[i, k] b[k, j], or added to c.

    Elements are a[a0 + i a_row + k a_depth], b[b0 + k b_depth + j b_column], c[p c_part + c0 + i c_row + j]; part p
    sums k from p ``chunk`` on. Blocks of side x side threads are counted along columns, rows, parts.
    """
    zero = dtype.type(0)
    dtype = numba.from_dtype(dtype)
    wide = TILE * side
    padded = wide + 1  # so that a column's numbers lie in different banks

    @_cuda.Kernel
    def run(
        c, a, b, bias, rows, depth, columns, a0, a_row, a_depth, b0, b_depth, b_column, c0, c_row, c_part, chunk, more,
        biased,
    ):  # fmt: skip
        left = cuda.shared.array((_DEPTH, padded), dtype)
        right = cuda.shared.array((_DEPTH, padded), dtype)
        total = cuda.local.array((TILE, TILE), dtype)
        across, down = (columns + wide - 1) // wide, (rows + wide - 1) // wide
        j0 = cuda.blockIdx.x % across * wide
        i0 = cuda.blockIdx.x // across % down * wide
        part = cuda.blockIdx.x // (across * down)
        tx, ty = cuda.threadIdx.x % side, cuda.threadIdx.x // side
        for y in range(TILE):
            for x in range(TILE):
                total[y, x] = zero
        k0, end = part * chunk, min(depth, part * chunk + chunk)
        while k0 < end:
            for item in range(cuda.threadIdx.x, _DEPTH * wide, side * side):
                # neighbouring threads read neighbouring numbers, whichever way the matrices lie
                k, i = (item % _DEPTH, item // _DEPTH) if a_depth == 1 else (item // wide, item % wide)
                inside = k0 + k < end and i0 + i < rows
                left[k, i] = a[a0 + (i0 + i) * a_row + (k0 + k) * a_depth] if inside else zero
                k, j = (item % _DEPTH, item // _DEPTH) if b_depth == 1 else (item // wide, item % wide)
                inside = k0 + k < end and j0 + j < columns
                right[k, j] = b[b0 + (k0 + k) * b_depth + (j0 + j) * b_column] if inside else zero
            cuda.syncthreads()
            for k in range(_DEPTH):
                for y in range(TILE):
                    factor = left[k, np.uint64(ty + y * side)]
                    for x in range(TILE):
                        total[y, x] += factor * right[k, np.uint64(tx + x * side)]
            cuda.syncthreads()
            k0 += _DEPTH
        for y in range(TILE):
            i = i0 + ty + y * side
            for x in range(TILE):
                j = j0 + tx + x * side
                if i < rows and j < columns:
                    at = part * c_part + c0 + i * c_row + j
                    value = total[y, x]
                    if biased:
                        value += bias[j]
                    c[at] = c[at] + value if more else value

    return run


def _product(
    c, a, b, bias, rows, depth, columns, a_at, b_at, c_at, parts=1, chunk=1 << 62, more=False, by_library=False
):  # fmt: skip
    """Launch ``run``, or leave its products to the library; ``*_at`` are (start, steps …) of the operands."""
    if by_library:
        if bias is not None:
            _product(c, a, b, bias, rows, 0, columns, a_at, b_at, c_at, more=more)
        for part in range(parts):
            k = part * chunk
            from_a, from_b, to_c = a_at[0] + k * a_at[2], b_at[0] + k * b_at[1], c_at[0] + part * c_at[2]
            library.multiply(
                c, a, b, rows, min(chunk, depth - k), columns, (from_a, *a_at[1:]), (from_b, *b_at[1:]),
                (to_c, c_at[1]), more or bias is not None,
            )  # fmt: skip
        return
    wide = TILE * _SIDE
    blocks = -(-columns // wide) * -(-rows // wide) * parts
    biased = bias is not None
    make(c.dtype, _SIDE)(
        blocks, _SIDE**2, 0, c, a, b, bias if biased else c, rows, depth, columns, *a_at, *b_at, *c_at, chunk, more,
        biased,
    )  # fmt: skip


def affine(out, x, U, bias, runs):
    """out[r, P, n] = bias[P, n] + U x[r]; a run (from, to, length) couples rows of U with pre-activations."""
    R, P, n = out.shape
    m = x.shape[1]
    driven = {p for _, to, length in runs for p in range(to, to + length)}
    runs = [*runs, *((0, p, 0) for p in range(P) if p not in driven)]  # length 0: the bias alone
    operands = [pieces.written(out, 0), pieces.read(x, 0), pieces.whole(U.ravel()), pieces.whole(bias.ravel())]

    def piece(start, stop, out, x, U, bias):
        out, x = out.reshape(-1), x.reshape(-1)
        for u, p, length in runs:
            depth, columns = (m, length * n) if length else (0, n)
            place = (0, m, 1), (u * n * m, 1, m), (p * n, P * n, 0)
            whose = library.pays(depth, columns)
            _product(out, x, U, bias[p * n :], stop - start, depth, columns, *place, by_library=whose)

    multiple = _multiple(R, *((m, length * n) for _, _, length in runs))
    pieces.run(piece, R, operands, "one row of the inputs", multiple=multiple)


def input_adjoint(dx, da, U, runs, more=False):
    """dx[r, m] = U^T da[r], over the pre-activations that have an input part; ``more``: added to dx."""
    R, P, n = da.shape
    m = dx.shape[1]
    if not more and not len(runs):
        dx[:] = 0
    if not m or not len(runs):
        return
    operands = [pieces.changed(dx, 0) if more else pieces.written(dx, 0), pieces.read(da, 0), pieces.whole(U.ravel())]

    def piece(start, stop, dx, da, U):
        dx, da = dx.reshape(-1), da.reshape(-1)
        for i, (u, p, length) in enumerate(runs):
            place = (p * n, P * n, 1), (u * n * m, m, 1), (0, m, 0)
            whose = library.pays(length * n, m)
            _product(dx, da, U, None, stop - start, length * n, m, *place, more=more or i > 0, by_library=whose)

    multiple = _multiple(R, *((length * n, m) for _, _, length in runs))
    pieces.run(piece, R, operands, "one row of the inputs' adjoints", multiple=multiple)


def _multiple(rows, *matrices):
    """Rows at whose multiples products with matrices of these sides may be cut."""
    return min(rows, library.ROWS) if any(library.pays(*sides) for sides in matrices) else 1


def _parts(rows):
    """(pieces of a sum over rows, rows of each)."""
    chunk = max(_ROWS, -(-rows // _PARTS))
    return -(-rows // chunk), chunk


def outer(da, first, columns, x, m):
    """sum_r da[r, first : first + columns] x[r, :m]^T as (columns, m), where da lies."""
    da, x = da.reshape(len(da), -1), x.reshape(len(x), -1)
    if not columns * m:
        return np.zeros((columns, m), da.dtype)
    count, chunk = _parts(len(da))
    scratch = (count * columns * m * da.dtype.itemsize, 0)
    parts = _cuda.empty((count * columns * m,), da.dtype)
    lead, ldx = da.shape[1], x.shape[1]

    def piece(start, stop, da, x):
        place = (first, 1, lead), (0, ldx, 1), (start // chunk * columns * m, m, columns * m)
        sums = -(-(stop - start) // chunk)
        whose = library.pays(columns, m)
        flat = da.reshape(-1), x.reshape(-1)
        _product(parts, *flat, None, columns, stop - start, m, *place, sums, chunk, by_library=whose)

    operands = [pieces.read(da, 0), pieces.read(x, 0)]
    pieces.run(piece, len(da), operands, "a product over steps and samples", scratch, multiple=chunk)
    return added(parts, count, (columns, m), _cuda.is_device_array(da))


def outers(da, *sides):
    """``outer`` for each side (x, m, runs), over the columns of its runs (first, columns), one after the other."""
    sums = []
    for x, m, runs in sides:
        parts = [outer(da, first, columns, x, m) for first, columns in runs]
        sums.append(concatenated(parts) if parts else np.zeros((0, m), da.dtype))
    return tuple(sums)


def column_sums(da):
    """sum_r da[r] of an (R, ...) array, where it lies."""
    flat = da.reshape(len(da), -1)
    columns = flat.shape[1]
    if not columns:
        return np.zeros(da.shape[1:], da.dtype)
    count, chunk = _parts(len(flat))
    parts = _cuda.empty((count * columns,), da.dtype)
    ones = _cuda.upload(np.ones(chunk, da.dtype))

    def piece(start, stop, flat):
        place = (0, 0, 0), (0, columns, 1), (start // chunk * columns, columns, columns)
        sums = -(-(stop - start) // chunk)
        _product(parts, ones, flat.reshape(-1), None, 1, stop - start, columns, *place, sums, chunk)

    operands = [pieces.read(flat, 0)]
    pieces.run(piece, len(flat), operands, "a sum over steps and samples", (parts.nbytes, 0), multiple=chunk)
    return added(parts, count, da.shape[1:], _cuda.is_device_array(da))


@functools.cache
def make_sum():
    """Kernel ``run(out, parts, count)``: out[i] = sum of parts[p, i] in the order of p."""

    @_cuda.Kernel
    def run(out, parts, count):
        for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
            total = parts[i]
            for p in range(1, count):
                total += parts[p * out.size + i]
            out[i] = total

    return run


def added(parts, count, shape, stays):
    """The sum of ``count`` parts, on the device if it ``stays`` there."""
    result = _cuda.empty((parts.size // count,), parts.dtype)
    threads = _cuda.threads(result.size)
    make_sum()(-(-result.size // threads), threads, 0, result, parts, count)
    if stays:
        return result.reshape(shape)
    out = np.empty(shape, parts.dtype)
    _cuda.download(result, out.reshape(-1))
    return out
