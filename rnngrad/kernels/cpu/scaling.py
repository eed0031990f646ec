"""Keep a row of numbers inside the exponent range: a power of two is taken out and counted."""

import math

import numpy as np
from llvmlite import ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic

from ..._jit import inner, kernel, unit

ROWS = 64  # rows of one task: enough for a matrix product, few enough for the cache


_LANES = 8


def _fields(by_lane):
    """Intrinsic: biased exponents of the largest magnitude of each row, as (the least, the greatest) of them.

    Row r is values[start + r count : start + (r + 1) count] of the flat array; a row of zeros has 0. Without its sign
    bit a float is ordered as an integer, and NaN above all; integer maxima vectorise. ``by_lane``: a row counts as
    ``_LANES`` interleaved ones, which spares it the maximum over its lanes; its length is a multiple of them.
    """

    @intrinsic
    def fields(typingctx, values, start, rows, count):
        dtype = values.dtype

        def codegen(context, builder, signature, args):
            bits, mantissa = (32, 23) if dtype == types.float32 else (64, 52)
            integer, index_type = ir.IntType(bits), ir.IntType(64)
            vector = ir.VectorType(integer, _LANES)
            array = context.make_array(signature.args[0])(context, builder, args[0])
            data = builder.bitcast(array.data, integer.as_pointer())
            start, rows, length = (context.cast(builder, args[i], signature.args[i], types.int64) for i in (1, 2, 3))
            magnitude = ir.Constant(integer, (1 << (bits - 1)) - 1)
            magnitudes = ir.Constant(vector, [magnitude] * _LANES)
            zero = ir.Constant(integer, 0)
            zeros = ir.Constant(vector, [zero] * _LANES)
            lanes_value, one = ir.Constant(index_type, _LANES), ir.Constant(index_type, 1)
            whole = builder.sdiv(length, lanes_value)
            tops, top = cgutils.alloca_once(builder, vector), cgutils.alloca_once(builder, integer)
            first_least, first_greatest = (magnitudes, zeros) if by_lane else (magnitude, zero)
            least = cgutils.alloca_once_value(builder, first_least)
            greatest = cgutils.alloca_once_value(builder, first_greatest)

            def keep(slot, value, which=">"):  # signed: AVX2 has no other comparison of 64-bit integers
                old = builder.load(slot)
                builder.store(builder.select(builder.icmp_signed(which, value, old), value, old), slot)

            def over_lanes(which, value):
                return builder.call(
                    builder.module.declare_intrinsic(
                        f"llvm.vector.reduce.{which}.v{_LANES}i{bits}", fnty=ir.FunctionType(integer, [vector])
                    ),
                    [value],
                )

            with cgutils.for_range(builder, rows, intp=index_type) as row:
                first = builder.gep(data, [builder.add(start, builder.mul(row.index, length))])
                builder.store(zeros, tops)
                with cgutils.for_range(builder, whole) as loop:
                    address = builder.gep(first, [builder.mul(loop.index, lanes_value)])
                    value = builder.load(builder.bitcast(address, vector.as_pointer()), align=bits // 8)
                    keep(tops, builder.and_(value, magnitudes))
                if by_lane:
                    largest = builder.load(tops)
                else:
                    builder.store(over_lanes("umax", builder.load(tops)), top)
                    tail = builder.mul(whole, lanes_value)
                    with cgutils.for_range_slice(builder, tail, length, one, intp=index_type) as (i, _):
                        keep(top, builder.and_(builder.load(builder.gep(first, [i])), magnitude))
                    largest = builder.load(top)
                keep(least, largest, "<")
                keep(greatest, largest)

            def field(which, slot):
                value = builder.load(slot)
                value = builder.lshr(over_lanes(which, value) if by_lane else value, ir.Constant(integer, mantissa))
                return value if bits == 64 else builder.zext(value, index_type)

            ends = field("umin", least), field("umax", greatest)
            return context.make_tuple(builder, signature.return_type, ends)

        return types.UniTuple(types.int64, 2)(values, start, rows, count), codegen

    return fields


_exponent_fields, _lane_fields = _fields(by_lane=False), _fields(by_lane=True)


@unit
def _range(values):
    """(bias of the exponent field, field of infinities, w) of the dtype of ``values``."""
    return (126, 255, 60) if values.itemsize == 4 else (1022, 2047, 500)


@unit
def limits(values):
    """(least, beyond), bits as integers: ``rescale`` leaves a row whose largest magnitude is in [least, beyond)."""
    bias, _, w = _range(values)
    mantissa = 23 if values.itemsize == 4 else 52
    return np.int64(bias - w) << mantissa, np.int64(bias + w + 1) << mantissa


@inner(forced=True)
def rescale(values, count, exponents):
    """Take a power of two 2^k out of each row of ``count`` numbers that left 2^(+-w), and add k to its exponent.

    w is half of the exponent range, so one more product overflows only if it multiplies by more than 2^w.
    """
    _take_out(values, count, exponents, _range(values)[2])


@inner()
def normalize(values, count, exponents):
    """The same for every row: its largest magnitude comes to lie in [1/2, 1). Whether all of them are finite."""
    return _take_out(values, count, exponents, 0)


@inner(forced=True)
def _take_out(values, count, exponents, w):
    """Take a power of two out of each row of ``count`` numbers that left 2^(+-w); whether all rows are finite.

    ``values`` is contiguous and as long as ``exponents``. Dividing by a power of two is exact but for entries 2^-w
    below the largest. Rows that are zero, or hold a NaN or an infinity, stay as they are.
    """
    bias, infinite, _ = _range(values)
    if w > 0 and count % _LANES == 0:  # mostly every lane of every row is within range, and then so are the rows
        least, greatest = _lane_fields(values, 0, exponents.size, count)
        if least - bias >= -w and greatest - bias <= w:
            return True
    least, greatest = _exponent_fields(values, 0, exponents.size, count)
    if least - bias >= -w and greatest - bias <= w:
        return True
    flat = values.reshape(values.size)
    for r in range(exponents.size):
        field = _exponent_fields(values, r * count, 1, count)[1]
        exponent = field - bias  # the largest magnitude is in [2^(exponent - 1), 2^exponent)
        if abs(exponent) <= w or field == infinite:
            continue
        if field == 0:  # zero, or subnormal: the exponent field does not tell
            largest = 0.0
            for i in range(r * count, (r + 1) * count):
                largest = max(largest, abs(np.float64(flat[i])))
            if largest == 0.0:
                continue
            exponent = np.int64(math.frexp(largest)[1])
        _multiply(flat, r * count, count, -exponent)
        exponents[r] += exponent
    return greatest != infinite


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


@kernel("fold", tasks=lambda rows, *rest: -(-len(rows) // ROWS), work=lambda rows, *rest: rows.size / 16)
def _fold(start, stop, rows, exponent, overflow):
    n = rows.shape[1]
    flat = rows.reshape(rows.size)
    for task in range(start, stop):
        r0, r1, any_of = task * ROWS, min(len(rows), (task + 1) * ROWS), np.int64(0)
        for r in range(r0, r1):  # mostly there is nothing to do, which vectors find out
            any_of |= exponent[r]
        if any_of == 0:
            continue
        for r in range(r0, r1):
            if exponent[r] != 0:
                _multiply(flat, r * n, n, exponent[r])
                if _exponent_fields(rows, r * n, 1, n)[1] == _range(rows)[1]:
                    overflow[task] = 1


def fold(rows, exponent):
    """rows[R, n] *= 2^exponent[R], in place; whether an entry left the range of the dtype."""
    overflow = np.zeros(-(-len(rows) // ROWS), np.uint8)
    _fold(rows, exponent, overflow)
    return bool(overflow.any())


if config.DISABLE_JIT:  # interpreted kernels: the same number by NumPy

    def _exponent_fields(values, start, rows, count):
        bits, mantissa = (32, 23) if values.itemsize == 4 else (64, 52)
        block = values.reshape(-1)[start : start + rows * count].reshape(rows, count).view(f"u{values.itemsize}")
        fields = (block & block.dtype.type((1 << (bits - 1)) - 1)).max(axis=1, initial=0) >> mantissa
        return int(fields.min()), int(fields.max())

    def _lane_fields(values, start, rows, count):
        return _exponent_fields(values, start, rows * _LANES, count // _LANES)  # other lanes, to the same end

    def _multiply(flat, start, count, exponent):
        with np.errstate(over="ignore", under="ignore"):
            flat[start : start + count] = np.ldexp(flat[start : start + count], exponent)
