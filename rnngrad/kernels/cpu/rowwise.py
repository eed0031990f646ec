"""Rows times a diagonal, on flat arrays: what the partial derivatives do to cotangents and tangents.

Written in vectors because a loop over two short rows spends its time on finding out that they do not overlap.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic

from ..._compiler import VECTOR_BYTES
from ..._gemm import flat
from ..._jit import inner
from ..._tile import FMA

_SHORT = 4  # vectors of a short row


def _scaled_rows(accumulate):
    """Intrinsic: out[out0 + r out_step + i] <- a[a0 + r a_step + i] d[d0 + i] [+ out], for r < rows and i < n."""

    @intrinsic
    def scaled_rows(typingctx, rows, n, a, a0, a_step, d, d0, out, out0, out_step):
        dtype = out.dtype
        if a.dtype != dtype or d.dtype != dtype:
            return None

        def codegen(context, builder, signature, args):
            scalar, size = context.get_value_type(dtype), dtype.bitwidth // 8
            lanes = VECTOR_BYTES // size
            vector, index_type = ir.VectorType(scalar, lanes), ir.IntType(64)

            def integer(position):
                return context.cast(builder, args[position], signature.args[position], types.int64)

            def start(position, offset):
                array = context.make_array(signature.args[position])(context, builder, args[position])
                return builder.gep(array.data, [integer(offset)])

            rows, n, a_step, out_step = integer(0), integer(1), integer(4), integer(9)
            a, d, out = start(2, 3), start(5, 6), start(7, 8)
            whole = builder.mul(builder.sdiv(n, ir.Constant(index_type, lanes)), ir.Constant(index_type, lanes))

            zero = ir.Constant(index_type, 0)

            def multiply(r, i, width):
                """Entries i … i + width - 1 of row r."""
                kind = scalar if width == 1 else vector

                def place(base, offset):
                    address = builder.gep(base, [offset])
                    return address if width == 1 else builder.bitcast(address, kind.as_pointer())

                x = builder.load(place(a, builder.add(i, builder.mul(r, a_step))), align=size)
                y = builder.load(place(d, i), align=size)
                to = place(out, builder.add(i, builder.mul(r, out_step)))
                if not accumulate:
                    value = builder.fmul(x, y)
                elif FMA:
                    name = f"llvm.fma.{'' if width == 1 else f'v{width}'}f{dtype.bitwidth}"
                    fma = builder.module.declare_intrinsic(name, fnty=ir.FunctionType(kind, [kind] * 3))
                    value = builder.call(fma, [x, y, builder.load(to, align=size)])
                else:
                    value = builder.fadd(builder.fmul(x, y), builder.load(to, align=size))
                builder.store(value, to, align=size)

            def loop(first, last, step):
                return cgutils.for_range_slice(builder, first, last, ir.Constant(index_type, step), index_type)

            short = builder.icmp_signed("<=", n, ir.Constant(index_type, _SHORT * lanes))
            with builder.if_else(short) as (columns_first, rows_first):
                with columns_first:  # a loop over few columns has more to do with itself than with them
                    for first, last, width in ((zero, whole, lanes), (whole, n, 1)):
                        with loop(first, last, width) as (i, _), loop(zero, rows, 1) as (r, _):
                            multiply(r, i, width)
                with rows_first, loop(zero, rows, 1) as (r, _):
                    for first, last, width in ((zero, whole, lanes), (whole, n, 1)):
                        with loop(first, last, width) as (i, _):
                            multiply(r, i, width)
            return context.get_dummy_value()

        return types.void(rows, n, a, a0, a_step, d, d0, out, out0, out_step), codegen

    return scaled_rows


scaled_rows, add_scaled_rows = _scaled_rows(False), _scaled_rows(True)


@intrinsic
def subtract_outer(typingctx, rows, n, f, f0, f_step, row, row0, out, out0, out_step):
    """out[out0 + r out_step + i] -= f[f0 + r f_step] row[row0 + i], for r < rows and i < n rounded up to whole vectors.

    Row and out may be parts of one array, if they do not overlap.
    """
    dtype = out.dtype
    if f.dtype != dtype or row.dtype != dtype:
        return None

    def codegen(context, builder, signature, args):
        scalar, size = context.get_value_type(dtype), dtype.bitwidth // 8
        lanes = VECTOR_BYTES // size
        vector, index_type = ir.VectorType(scalar, lanes), ir.IntType(64)
        undefined = ir.Constant(vector, ir.Undefined)
        first_lane = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [ir.Constant(ir.IntType(32), 0)] * lanes)
        fma = builder.module.declare_intrinsic(
            f"llvm.fma.v{lanes}f{dtype.bitwidth}", fnty=ir.FunctionType(vector, [vector] * 3)
        )

        def integer(position):
            return context.cast(builder, args[position], signature.args[position], types.int64)

        def start(position, offset):
            array = context.make_array(signature.args[position])(context, builder, args[position])
            return builder.gep(array.data, [integer(offset)])

        rows, n, f_step, out_step = integer(0), integer(1), integer(4), integer(9)
        f, row, out = start(2, 3), start(5, 6), start(7, 8)
        step = ir.Constant(index_type, lanes)
        with cgutils.for_range(builder, rows, intp=index_type) as r:
            factor = builder.load(builder.gep(f, [builder.mul(r.index, f_step)]))
            factor = builder.fsub(ir.Constant(scalar, 0.0), factor)
            head = builder.insert_element(undefined, factor, ir.Constant(ir.IntType(32), 0))
            spread = builder.shuffle_vector(head, undefined, first_lane)
            own = builder.gep(out, [builder.mul(r.index, out_step)])
            with cgutils.for_range_slice(builder, ir.Constant(index_type, 0), n, step, index_type) as (i, _):
                x = builder.load(builder.bitcast(builder.gep(row, [i]), vector.as_pointer()), align=size)
                to = builder.bitcast(builder.gep(own, [i]), vector.as_pointer())
                y = builder.load(to, align=size)
                value = builder.call(fma, [spread, x, y]) if FMA else builder.fadd(builder.fmul(spread, x), y)
                builder.store(value, to, align=size)
        return context.get_dummy_value()

    return types.void(rows, n, f, f0, f_step, row, row0, out, out0, out_step), codegen


if config.DISABLE_JIT:  # interpreted kernels: the same numbers by NumPy

    def _rows(array, first, rows, step, n):
        return np.lib.stride_tricks.as_strided(array[first:], (rows, n), (step * array.itemsize, array.itemsize))

    def scaled_rows(rows, n, a, a0, a_step, d, d0, out, out0, out_step):
        with np.errstate(all="ignore"):
            _rows(out, out0, rows, out_step, n)[...] = _rows(a, a0, rows, a_step, n) * d[d0 : d0 + n]

    def add_scaled_rows(rows, n, a, a0, a_step, d, d0, out, out0, out_step):
        with np.errstate(all="ignore"):
            _rows(out, out0, rows, out_step, n)[...] += _rows(a, a0, rows, a_step, n) * d[d0 : d0 + n]

    def subtract_outer(rows, n, f, f0, f_step, row, row0, out, out0, out_step):
        with np.errstate(all="ignore"):
            factors = _rows(f, f0, rows, f_step, 1)
            _rows(out, out0, rows, out_step, n)[...] -= factors * row[row0 : row0 + n]


@inner(forced=True)
def run_end(sample, r):
    """The first row after r that belongs to another sample."""
    end = r + 1
    while end < sample.size and sample[end] == sample[r]:
        end += 1
    return end


@inner()
def through(out, y, partial, mask, sample, transposed, more):
    """out[r, c] = sum over k of y[r, k] partial[b, k, c] with b = sample[r]; ``more``: added to out.

    Of y[R, K, n], partial[B, K, C, n] (or [B, C, K, n] if ``transposed``; C may exceed that of out) and out[R, C, n],
    over the structural non-zeros mask[K, C] (or [C, K]).
    """
    rows, K, n = y.shape
    C = out.shape[1]
    across = partial.shape[2]
    y_flat, d_flat, out_flat = flat(y), flat(partial), flat(out)
    r = 0
    while r < rows:
        end = run_end(sample, r)
        first = sample[r] * partial.shape[1] * across
        for c in range(C):
            fresh = not more
            for k in range(K):
                i, j = (c, k) if transposed else (k, c)
                if mask[i, j]:
                    place = (first + i * across + j) * n
                    if fresh:
                        scaled_rows(
                            end - r, n, y_flat, (r * K + k) * n, K * n, d_flat, place, out_flat, (r * C + c) * n, C * n
                        )  # fmt: skip
                    else:
                        add_scaled_rows(
                            end - r, n, y_flat, (r * K + k) * n, K * n, d_flat, place, out_flat, (r * C + c) * n, C * n
                        )
                    fresh = False
            if fresh:
                for q in range(r, end):
                    for i in range(n):
                        out[q, c, i] = 0
        r = end
