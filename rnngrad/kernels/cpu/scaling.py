"""Keep a row of numbers inside the exponent range: a power of two is taken out and counted."""

import math

import numpy as np
from llvmlite import ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic

from ..._jit import inner, kernel, unit

ROWS = 64  # rows of one task: enough for a matrix product, few enough for the cache


@intrinsic
def _exponent_field(typingctx, values, start, count):
    """Biased exponent of the largest magnitude among values[start : start + count] (the flat array); 0 if all are 0.

    Without its sign bit a float is ordered as an integer, and NaN above all; integer maxima vectorise.
    """
    dtype = values.dtype

    def codegen(context, builder, signature, args):
        bits, mantissa = (32, 23) if dtype == types.float32 else (64, 52)
        integer, lanes = ir.IntType(bits), 8
        vector, index_type = ir.VectorType(integer, lanes), ir.IntType(64)
        array = context.make_array(signature.args[0])(context, builder, args[0])
        data = builder.bitcast(array.data, integer.as_pointer())
        first = builder.gep(data, [context.cast(builder, args[1], signature.args[1], types.int64)])
        length = context.cast(builder, args[2], signature.args[2], types.int64)
        magnitude = ir.Constant(integer, (1 << (bits - 1)) - 1)
        magnitudes = ir.Constant(vector, [magnitude] * lanes)
        top = cgutils.alloca_once_value(builder, ir.Constant(integer, 0))
        tops = cgutils.alloca_once_value(builder, ir.Constant(vector, [ir.Constant(integer, 0)] * lanes))
        lanes_value = ir.Constant(index_type, lanes)
        whole = builder.sdiv(length, lanes_value)

        def keep(slot, value):
            old = builder.load(slot)
            builder.store(builder.select(builder.icmp_unsigned(">", value, old), value, old), slot)

        with cgutils.for_range(builder, whole) as loop:
            address = builder.gep(first, [builder.mul(loop.index, lanes_value)])
            value = builder.load(builder.bitcast(address, vector.as_pointer()), align=bits // 8)
            keep(tops, builder.and_(value, magnitudes))
        reduce = builder.module.declare_intrinsic(
            f"llvm.vector.reduce.umax.v{lanes}i{bits}", fnty=ir.FunctionType(integer, [vector])
        )
        keep(top, builder.call(reduce, [builder.load(tops)]))
        one = ir.Constant(index_type, 1)
        with cgutils.for_range_slice(builder, builder.mul(whole, lanes_value), length, one, intp=index_type) as (i, _):
            keep(top, builder.and_(builder.load(builder.gep(first, [i])), magnitude))
        field = builder.lshr(builder.load(top), ir.Constant(integer, mantissa))
        return field if bits == 64 else builder.zext(field, index_type)

    return types.int64(values, start, count), codegen


@inner()
def rescale(values, start, count):
    """Take a power of two 2^k out of values[start : start + count] (the flat array) if it left 2^(+-w); return k.

    w is half of the exponent range, so one more product overflows only if it multiplies by more than 2^w. Dividing by
    a power of two is exact but for entries 2^-w below the largest. Rows that are zero, or hold a NaN or an
    infinity, stay as they are.
    """
    single = values.itemsize == 4
    field = _exponent_field(values, start, count)
    exponent = field - (126 if single else 1022)  # the largest magnitude is in [2^(exponent - 1), 2^exponent)
    if abs(exponent) <= (60 if single else 500) or field == (255 if single else 2047):
        return 0
    flat = values.reshape(values.size)
    if field == 0:  # zero, or subnormal: the exponent field does not tell
        largest = 0.0
        for i in range(start, start + count):
            largest = max(largest, abs(np.float64(flat[i])))
        if largest == 0.0:
            return 0
        exponent = np.int64(math.frexp(largest)[1])
    _multiply(flat, start, count, -exponent)
    return exponent


@unit
def _power(exponent, values):
    """2^exponent in the dtype of ``values``; held at the ends of its range."""
    limit = 126 if values.itemsize == 4 else 1022
    bits = np.int64(min(max(exponent, -limit), limit) + 1023) << 52
    return values.dtype.type(np.int64(bits).view(np.float64))


@inner()
def _multiply(flat, start, count, exponent):
    """flat[start : start + count] *= 2^exponent."""
    half = exponent // 2  # two factors, since 2^exponent itself may be out of range
    first, second = _power(half, flat), _power(exponent - half, flat)
    for i in range(start, start + count):
        flat[i] = flat[i] * first * second


@kernel("fold", tasks=lambda rows, *rest: -(-len(rows) // ROWS))
def _fold(start, stop, rows, exponent, overflow):
    n = rows.shape[1]
    flat = rows.reshape(rows.size)
    infinite = 255 if rows.itemsize == 4 else 2047
    for r in range(start * ROWS, min(len(rows), stop * ROWS)):
        if exponent[r] != 0:
            _multiply(flat, r * n, n, exponent[r])
            if _exponent_field(rows, r * n, n) == infinite:
                overflow[r // ROWS] = 1


def fold(rows, exponent):
    """rows[R, n] *= 2^exponent[R], in place; whether an entry left the range of the dtype."""
    overflow = np.zeros(-(-len(rows) // ROWS), np.uint8)
    _fold(rows, exponent, overflow)
    return bool(overflow.any())


if config.DISABLE_JIT:  # interpreted kernels: the same number by NumPy

    def _exponent_field(values, start, count):
        bits, mantissa = (32, 23) if values.itemsize == 4 else (64, 52)
        row = values.reshape(-1)[start : start + count].view(f"u{values.itemsize}")
        return int((row & row.dtype.type((1 << (bits - 1)) - 1)).max(initial=0)) >> mantissa

    def _multiply(flat, start, count, exponent):
        with np.errstate(over="ignore", under="ignore"):
            flat[start : start + count] = np.ldexp(flat[start : start + count], exponent)
