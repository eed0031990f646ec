"""Matrix products inside kernels: a few rows times one matrix, step after step, with the matrix packed once.

A recurrence multiplies 8 … 64 rows by the same W at every step. BLAS packs W anew each time, which at 16 rows halves
its rate. Here W is packed once into panels of ``NR`` columns, and a register tile of MR x NR accumulators walks along
k. Every row is summed in the order of k, whatever rows are computed beside it, so results depend neither on the
tiling of the batch nor on the number of threads.

The tile is written in LLVM's vector types because Numba cannot keep an array in registers.
"""

import weakref

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from ._jit import inner, kernel, unit
from ._memory import empty

_FEATURES = llvm.get_host_cpu_features()
_WIDE = bool(_FEATURES.get("avx512f"))
FMA = bool(_FEATURES.get("fma")) or _WIDE or not _FEATURES  # no feature list (Arm): fused is native there
VECTOR_BYTES = 64 if _WIDE else 32 if _FEATURES.get("avx") else 16
VECTORS = 2  # vectors side by side in a tile, or one where the matrix is that narrow
MR = 8 if _WIDE else 4  # rows of a tile; 8 x 2 accumulators of 32 registers, or 4 x 2 of 16


def panel_columns(columns, itemsize):
    """NR: columns of one panel of a matrix with that many columns."""
    lanes = VECTOR_BYTES // itemsize
    return lanes if columns <= lanes else VECTORS * lanes


panel_width = unit(panel_columns)  # for kernels; compiling it for Python takes longer than a thousand calls


def _tile(rows, vectors, accumulate):
    """Intrinsic: C (rows, NR) at c[c0:], leading dimension ldc, <- A (rows, k) B (k, NR) [+ C].

    A[r, k] is a[a0 + r * row_step + k * depth_step], so A may be a transpose; B[k, j] is b[b0 + k * b_step + j]. Only
    the first ``columns`` of C are touched.
    """

    @intrinsic
    def tile(typingctx, k, a, a0, row_step, depth_step, b, b0, b_step, c, c0, ldc, columns):
        dtype = c.dtype
        if a.dtype != dtype or b.dtype != dtype:
            return None

        def codegen(context, builder, signature, args):
            scalar = context.get_value_type(dtype)
            lanes = VECTOR_BYTES // (dtype.bitwidth // 8)
            vector = ir.VectorType(scalar, lanes)
            align = dtype.bitwidth // 8

            def integer(position):
                return context.cast(builder, args[position], signature.args[position], types.intp)

            def start(position, offset):
                array = context.make_array(signature.args[position])(context, builder, args[position])
                return builder.gep(array.data, [integer(offset)])

            def vector_at(base, offset):
                return builder.bitcast(builder.gep(base, [offset]), vector.as_pointer())

            k_value, row_step, depth_step, ldc_value = integer(0), integer(3), integer(4), integer(10)
            a_start, b_start, c_start, b_step = start(1, 2), start(5, 6), start(8, 9), integer(7)
            fma = builder.module.declare_intrinsic(
                f"llvm.fma.v{lanes}f{dtype.bitwidth}", fnty=ir.FunctionType(vector, [vector] * 3)
            )

            def multiply_add(x, y, z):
                return builder.call(fma, [x, y, z]) if FMA else builder.fadd(builder.fmul(x, y), z)

            index_type = k_value.type
            zero = ir.Constant(vector, [ir.Constant(scalar, 0.0)] * lanes)
            accumulators = [[cgutils.alloca_once_value(builder, zero) for _ in range(vectors)] for _ in range(rows)]
            row_starts = [
                builder.gep(a_start, [builder.mul(row_step, ir.Constant(index_type, r))]) for r in range(rows)
            ]
            lane_zero = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [ir.Constant(ir.IntType(32), 0)] * lanes)
            with cgutils.for_range(builder, k_value) as loop:
                first = builder.mul(loop.index, b_step)
                depth = builder.mul(loop.index, depth_step)
                b = []
                for v in range(vectors):
                    address = vector_at(b_start, builder.add(first, ir.Constant(index_type, v * lanes)))
                    b.append(builder.load(address, align=align))
                for r in range(rows):
                    value = builder.load(builder.gep(row_starts[r], [depth]))
                    head = builder.insert_element(
                        ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
                    )
                    spread = builder.shuffle_vector(head, ir.Constant(vector, ir.Undefined), lane_zero)
                    for v in range(vectors):
                        slot = accumulators[r][v]
                        builder.store(multiply_add(spread, b[v], builder.load(slot)), slot)
            flag = ir.IntType(1)
            lanes_of = ir.VectorType(index_type, lanes)
            mask_type = ir.VectorType(flag, lanes)
            name = f"v{lanes}f{dtype.bitwidth}.p0"
            load = builder.module.declare_intrinsic(
                f"llvm.masked.load.{name}",
                fnty=ir.FunctionType(vector, [vector.as_pointer(), ir.IntType(32), mask_type, vector]),
            )
            store = builder.module.declare_intrinsic(
                f"llvm.masked.store.{name}",
                fnty=ir.FunctionType(ir.VoidType(), [vector, vector.as_pointer(), ir.IntType(32), mask_type]),
            )
            limit = builder.insert_element(
                ir.Constant(lanes_of, ir.Undefined), integer(11), ir.Constant(ir.IntType(32), 0)
            )
            limit = builder.shuffle_vector(limit, ir.Constant(lanes_of, ir.Undefined), lane_zero)
            alignment = ir.Constant(ir.IntType(32), align)
            whole = builder.icmp_signed(">=", integer(11), ir.Constant(index_type, vectors * lanes))

            def finish(masked):
                for r in range(rows):
                    row = builder.gep(c_start, [builder.mul(ldc_value, ir.Constant(index_type, r))])
                    for v in range(vectors):
                        numbers = [ir.Constant(index_type, v * lanes + lane) for lane in range(lanes)]
                        address = vector_at(row, ir.Constant(index_type, v * lanes))
                        value = builder.load(accumulators[r][v])
                        if masked:
                            mask = builder.icmp_signed("<", ir.Constant(lanes_of, numbers), limit)
                            if accumulate:
                                value = builder.fadd(value, builder.call(load, [address, alignment, mask, zero]))
                            builder.call(store, [value, address, alignment, mask])
                        else:
                            if accumulate:
                                value = builder.fadd(value, builder.load(address, align=align))
                            builder.store(value, address, align=align)

            if _WIDE:  # masks cost nothing there, and one path compiles faster than two
                finish(masked=True)
            else:
                with builder.if_else(whole) as (then, otherwise):
                    with then:
                        finish(masked=False)
                    with otherwise:
                        finish(masked=True)
            return context.get_dummy_value()

        return types.void(k, a, a0, row_step, depth_step, b, b0, b_step, c, c0, ldc, columns), codegen

    return tile


@intrinsic
def _flat(typingctx, array):
    """The memory of an array from its first element on, as one row: one type for arrays of any dimension."""
    row = types.Array(array.dtype, 1, "C")

    def codegen(context, builder, signature, args):
        given = context.make_array(array)(context, builder, args[0])
        size = ir.Constant(given.itemsize.type, array.dtype.bitwidth // 8)
        out = context.make_array(row)(context, builder)
        nothing = cgutils.get_null_value(out.meminfo.type)
        populate_array(out, given.data, [given.nitems], [size], size, nothing)
        return out._getvalue()

    return row(array), codegen


def _make_walk(vectors, accumulate):
    """All tiles of a product whose panels are ``vectors`` registers wide."""
    tall, half, single = (_tile(rows, vectors, accumulate) for rows in (MR, MR // 2, 1))
    full, part = MR, MR // 2

    @inner(vectors, accumulate)
    def walk(m, k, a, row_step, depth_step, group_step, b, b_step, b_panel, width, n, c, ldc):
        for p in range((n + width - 1) // width):
            j = p * width
            b0 = p * b_panel
            r = 0
            while r + full <= m:
                tall(k, a, r // full * group_step, row_step, depth_step, b, b0, b_step, c, r * ldc + j, ldc, n - j)
                r += full
            while r + part <= m:
                half(
                    k,
                    a,
                    r // full * group_step + r % full * row_step,
                    row_step,
                    depth_step,
                    b,
                    b0,
                    b_step,
                    c,
                    r * ldc + j,
                    ldc,
                    n - j,
                )
                r += part
            while r < m:
                single(
                    k,
                    a,
                    r // full * group_step + r % full * row_step,
                    row_step,
                    depth_step,
                    b,
                    b0,
                    b_step,
                    c,
                    r * ldc + j,
                    ldc,
                    n - j,
                )
                r += 1

    return walk


def _make_product(accumulate):
    wide, narrow = _make_walk(VECTORS, accumulate), _make_walk(1, accumulate)

    @inner(accumulate, forced=True)
    def product(m, k, a, row_step, depth_step, panels, n, c, ldc):
        width = panels.shape[2]
        group_step, b, b_panel = MR * row_step, _flat(panels), k * width
        if width * c.itemsize > VECTOR_BYTES:
            wide(m, k, _flat(a), row_step, depth_step, group_step, b, width, b_panel, width, n, _flat(c), ldc)
        else:
            narrow(m, k, _flat(a), row_step, depth_step, group_step, b, width, b_panel, width, n, _flat(c), ldc)

    return product


_wide, _narrow = _make_walk(VECTORS, True), _make_walk(1, True)


@inner(forced=True)
def add_transposed_product(m, k, a, depth_step, group_step, b, b_step, b_panel, width, n, c, ldc):
    """C (m, n) += A (m, k) B (k, n) with A stored by columns and B in panels.

    A[g MR + r, d] is the element g group_step + d depth_step + r of a (flat): groups of MR rows one after the other,
    or the transpose of a matrix as it lies. B[d, p width + j] is the element p b_panel + d b_step + j of b (flat):
    packed panels, or a matrix as it lies if n is a multiple of ``width``.
    """
    if width * c.itemsize > VECTOR_BYTES:
        _wide(m, k, _flat(a), 1, depth_step, group_step, _flat(b), b_step, b_panel, width, n, _flat(c), ldc)
    else:
        _narrow(m, k, _flat(a), 1, depth_step, group_step, _flat(b), b_step, b_panel, width, n, _flat(c), ldc)


#: product(m, k, a, row_step, depth_step, panels, n, c, ldc): C (m, n) <- A (m, k) B (k, n) with B packed;
#: A[r, d] is the element r * row_step + d * depth_step after a's first, C[r, j] the one r * ldc + j after c's first.
packed_product = _make_product(False)
#: The same, added to C.
add_packed_product = _make_product(True)


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

    def add_transposed_product(m, k, a, depth_step, group_step, b, b_step, b_panel, width, n, c, ldc):
        starts = [r // MR * group_step + r % MR for r in range(m)]
        rows = np.stack([a[start::depth_step][:k] for start in starts])
        panels = -(-n // width)
        steps = (b_step * b.itemsize, b_panel * b.itemsize, b.itemsize)
        columns = np.lib.stride_tricks.as_strided(b, (k, panels, width), steps).reshape(k, -1)[:, :n]
        out = _matrix(c, m, n, ldc, 1)
        out[...] = out + _rows_times(rows, columns)
