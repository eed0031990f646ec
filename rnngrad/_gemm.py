"""Matrix products inside kernels: a few rows times one matrix, step after step, with the matrix packed once.

A recurrence multiplies 8 … 64 rows by the same W at every step. BLAS packs W anew each time, which at 16 rows halves
its rate. Here W is packed once into panels of ``NR`` columns, and a register tile of MR x NR accumulators walks along
k. Every row is summed in the order of k, whatever rows are computed beside it, so results depend neither on the
tiling of the batch nor on the number of threads.
"""

import weakref

import numpy as np
from llvmlite import ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from ._compiler import VECTOR_BYTES
from ._jit import inner, kernel, unit
from ._memory import empty
from ._tile import MR, VECTORS, make_tile


def panel_columns(columns, itemsize):
    """NR: columns of one panel of a matrix with that many columns."""
    lanes = VECTOR_BYTES // itemsize
    return lanes if columns <= lanes else VECTORS * lanes


panel_width = unit(panel_columns)  # for kernels; compiling it for Python takes longer than a thousand calls


@intrinsic
def flat(typingctx, array):
    """The memory of an array from its first element on, as one row: one type for arrays of any dimension.

    Of a contiguous array the same as ``reshape(-1)``, which asks a function whether it must copy. It is no owner, so
    an array that a kernel made must be used after it.
    """
    row = types.Array(array.dtype, 1, "C")

    def codegen(context, builder, signature, args):
        given = context.make_array(array)(context, builder, args[0])
        size = ir.Constant(given.itemsize.type, array.dtype.bitwidth // 8)
        out = context.make_array(row)(context, builder)
        nothing = cgutils.get_null_value(out.meminfo.type)
        populate_array(out, given.data, [given.nitems], [size], size, nothing)
        return out._getvalue()

    return row(array), codegen


@unit
def _nothing(extra, r, j):
    return 0


@unit
def _onward(extra, r, j):
    """What a tile at row r and column j takes beside its product."""
    d, places, scaled, within, least, beyond = extra
    return d, j, places, r, scaled, within, least, beyond


def _make_walk(vectors, accumulate, onward=False):
    """All tiles of a product whose panels are ``vectors`` registers wide."""
    tall, half, single = (make_tile(rows, vectors, accumulate, onward) for rows in (MR, MR // 2, 1))
    full, part = MR, MR // 2
    here = _onward if onward else _nothing

    @inner(vectors, accumulate, onward)
    def walk(m, k, a, row_step, depth_step, group_step, b, b_step, b_panel, width, n, c, ldc, extra):
        for p in range((n + width - 1) // width):
            j = p * width
            b0 = p * b_panel
            r = 0
            while r + full <= m:
                a0, c0 = r // full * group_step, r * ldc + j
                tall(k, a, a0, row_step, depth_step, b, b0, b_step, c, c0, ldc, n - j, here(extra, r, j))
                r += full
            while r + part <= m:
                a0, c0 = r // full * group_step + r % full * row_step, r * ldc + j
                half(k, a, a0, row_step, depth_step, b, b0, b_step, c, c0, ldc, n - j, here(extra, r, j))
                r += part
            while r < m:
                a0, c0 = r // full * group_step + r % full * row_step, r * ldc + j
                single(k, a, a0, row_step, depth_step, b, b0, b_step, c, c0, ldc, n - j, here(extra, r, j))
                r += 1

    return walk


def _make_product(accumulate, onward=False):
    wide, narrow = (_make_walk(vectors, accumulate, onward) for vectors in (VECTORS, 1))

    @inner(accumulate, onward, forced=True)
    def product(m, k, a, row_step, depth_step, panels, n, c, ldc, extra=0):
        width = panels.shape[2]
        group_step, b, b_panel = MR * row_step, flat(panels), k * width
        if width * c.itemsize > VECTOR_BYTES:
            wide(m, k, flat(a), row_step, depth_step, group_step, b, width, b_panel, width, n, flat(c), ldc, extra)
        else:
            narrow(m, k, flat(a), row_step, depth_step, group_step, b, width, b_panel, width, n, flat(c), ldc, extra)

    return product


_wide, _narrow = (_make_walk(vectors, True) for vectors in (VECTORS, 1))


@inner(forced=True)
def add_transposed_product(m, k, a, depth_step, group_step, b, b_step, b_panel, width, n, c, ldc):
    """C (m, n) += A (m, k) B (k, n) with A stored by columns and B in panels.

    A[g MR + r, d] is the element g group_step + d depth_step + r of a (flat): groups of MR rows one after the other,
    or the transpose of a matrix as it lies. B[d, p width + j] is the element p b_panel + d b_step + j of b (flat):
    packed panels, or a matrix as it lies if n is a multiple of ``width``.
    """
    if width * c.itemsize > VECTOR_BYTES:
        _wide(m, k, flat(a), 1, depth_step, group_step, flat(b), b_step, b_panel, width, n, flat(c), ldc, 0)
    else:
        _narrow(m, k, flat(a), 1, depth_step, group_step, flat(b), b_step, b_panel, width, n, flat(c), ldc, 0)


#: product(m, k, a, row_step, depth_step, panels, n, c, ldc): C (m, n) <- A (m, k) B (k, n) with B packed;
#: A[r, d] is the element r * row_step + d * depth_step after a's first, C[r, j] the one r * ldc + j after c's first.
packed_product = _make_product(False)
#: The same, added to C.
add_packed_product = _make_product(True)
_onward_product = _make_product(False, onward=True)


@inner(forced=True)
def onward_product(m, n, a, panels, c, d, places, scaled, within, least, beyond):
    """C (m, n) <- A (m, n) B (n, n), all contiguous; and what comes of C while it is in registers.

    scaled[r] = C[r] * d[places[r]] of d (B, n), flat. within[0] becomes 0 where a row of C has in some panel no
    magnitude of ``least`` or more, or one of ``beyond`` or more, both given as the integers that their bits are.
    """
    _onward_product(m, n, a, n, 1, panels, n, c, n, (flat(d), places, flat(scaled), within, least, beyond))


@inner()
def fill_panels(panels, first, last, matrix, transposed):
    """panels[p, k, j] = B[k, p NR + j], p in first … last - 1, 0 past the edge; B = matrix or its transpose."""
    depth, width = panels.shape[1], panels.shape[2]
    n = matrix.shape[0] if transposed else matrix.shape[1]
    for p in range(first, last):
        j0 = p * width
        columns = min(width, n - j0)
        for k in range(depth):
            if transposed:
                for j in range(columns):
                    panels[p, k, j] = matrix[j0 + j, k]
            else:
                j = 0
                while j + 4 <= columns:  # loads before stores: four at a time become vector moves
                    v0, v1, v2, v3 = (
                        matrix[k, j0 + j],
                        matrix[k, j0 + j + 1],
                        matrix[k, j0 + j + 2],
                        matrix[k, j0 + j + 3],
                    )
                    panels[p, k, j], panels[p, k, j + 1], panels[p, k, j + 2], panels[p, k, j + 3] = v0, v1, v2, v3
                    j += 4
                while j < columns:
                    panels[p, k, j] = matrix[k, j0 + j]
                    j += 1
            for j in range(columns, width):
                panels[p, k, j] = 0


@kernel("pack", tasks=lambda panels, *rest: len(panels))
def _pack(start, stop, panels, matrix, transposed):
    fill_panels(panels, start, stop, matrix, transposed)


_packed: dict = {}  # id of an array -> (weak reference to it, {transposed: panels})


def pack(weights, transposed=False):
    """Panels of a stack of matrices (G, n, m) laid one below the other, (G n, m), or of the transpose of that.

    Those of an array that cannot change (a network's) are kept for as long as it lives.
    """
    constant = weights.flags.owndata and not weights.flags.writeable
    if constant:
        key = id(weights)
        entry = _packed.get(key)
        if entry is None or entry[0]() is not weights:
            entry = _packed[key] = (weakref.ref(weights, lambda _: _packed.pop(key, None)), {})
        if transposed in entry[1]:
            return entry[1][transposed]
    matrix = weights.reshape(weights.shape[0] * weights.shape[1], weights.shape[2])
    n, depth = matrix.shape if transposed else matrix.shape[::-1]
    width = panel_columns(n, matrix.itemsize)
    panels = empty((-(-n // width), depth, width), matrix.dtype)
    _pack(panels, matrix, transposed)
    if constant:
        entry[1][transposed] = panels
    return panels


if config.DISABLE_JIT:  # interpreted kernels (debugging, mutation runs): the same products by NumPy

    def flat(array):
        return array.reshape(array.size)

    def _matrix(array, rows, columns, row_step, column_step):
        steps = (row_step * array.itemsize, column_step * array.itemsize)
        return np.lib.stride_tricks.as_strided(array, (rows, columns), steps)

    def _unpack(panels, n):
        return panels.transpose(1, 0, 2).reshape(panels.shape[1], -1)[:, :n]

    def _rows_times(a, b):
        # row by row, so that here too a row's sum does not depend on its neighbours
        with np.errstate(all="ignore"):
            return np.stack([row @ b for row in a]) if len(a) else np.zeros((0, b.shape[1]), b.dtype)

    def packed_product(m, k, a, row_step, depth_step, panels, n, c, ldc):
        _matrix(c, m, n, ldc, 1)[...] = _rows_times(_matrix(a, m, k, row_step, depth_step), _unpack(panels, n))

    def add_packed_product(m, k, a, row_step, depth_step, panels, n, c, ldc):
        out = _matrix(c, m, n, ldc, 1)
        out[...] = out + _rows_times(_matrix(a, m, k, row_step, depth_step), _unpack(panels, n))

    def onward_product(m, n, a, panels, c, d, places, scaled, within, least, beyond):
        C = _rows_times(_matrix(a, m, n, n, 1), _unpack(panels, n))
        _matrix(c, m, n, n, 1)[...] = C
        with np.errstate(all="ignore"):
            _matrix(scaled, m, n, n, 1)[...] = C * d.reshape(-1, n)[places[:m]]
        integer = np.dtype(f"i{C.itemsize}")
        size = np.abs(C).view(integer)
        for panel in range(0, n, panels.shape[2]):
            own = size[:, panel : panel + panels.shape[2]]
            within[0] &= bool(((own >= least).any(axis=1) & (own < beyond).all(axis=1)).all())

    def add_transposed_product(m, k, a, depth_step, group_step, b, b_step, b_panel, width, n, c, ldc):
        starts = [r // MR * group_step + r % MR for r in range(m)]
        rows = np.stack([a[start::depth_step][:k] for start in starts])
        panels = -(-n // width)
        steps = (b_step * b.itemsize, b_panel * b.itemsize, b.itemsize)
        columns = np.lib.stride_tricks.as_strided(b, (k, panels, width), steps).reshape(k, -1)[:, :n]
        out = _matrix(c, m, n, ldc, 1)
        out[...] = out + _rows_times(rows, columns)
