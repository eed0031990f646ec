"""The register tile of a matrix product, written in LLVM's vector types: Numba cannot keep an array in registers."""

import functools

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ._compiler import FEATURES, VECTOR_BYTES

_WIDE = VECTOR_BYTES == 64
FMA = bool(FEATURES.get("fma")) or _WIDE or not FEATURES  # no feature list (Arm): fused is native there
VECTORS = 2  # vectors side by side in a tile, or one where the matrix is that narrow
MR = 8 if _WIDE else 4  # rows of a tile; 8 x 2 accumulators of 32 registers, or 4 x 2 of 16
_INDEX, _LANE, _FLAG = ir.IntType(64), ir.IntType(32), ir.IntType(1)


class _Vectors:
    """Code for vectors of one dtype: loads, stores and arithmetic, masked or whole."""

    def __init__(self, builder, dtype, scalar):
        self.builder, self.bits = builder, dtype.bitwidth
        self.align = dtype.bitwidth // 8
        self.lanes = VECTOR_BYTES // self.align
        self.type = ir.VectorType(scalar, self.lanes)
        self.zero = ir.Constant(self.type, [ir.Constant(scalar, 0.0)] * self.lanes)
        self.integers = ir.VectorType(ir.IntType(self.bits), self.lanes)
        self.mask = ir.VectorType(_FLAG, self.lanes)
        self._first = ir.Constant(ir.VectorType(_LANE, self.lanes), [ir.Constant(_LANE, 0)] * self.lanes)

    def _declared(self, name, ending, result, arguments):
        return self.builder.module.declare_intrinsic(
            f"llvm.{name}.v{self.lanes}f{self.bits}{ending}", fnty=ir.FunctionType(result, arguments)
        )

    def spread(self, value):
        """A vector of one number."""
        undefined = ir.Constant(ir.VectorType(value.type, self.lanes), ir.Undefined)
        head = self.builder.insert_element(undefined, value, ir.Constant(_LANE, 0))
        return self.builder.shuffle_vector(head, undefined, self._first)

    def place(self, base, offset):
        return self.builder.bitcast(self.builder.gep(base, [offset]), self.type.as_pointer())

    def load(self, base, offset, mask=None):
        """Where ``mask`` is false: 0, and nothing is read."""
        address = self.place(base, offset)
        if mask is None:
            return self.builder.load(address, align=self.align)
        how = self._declared("masked.load", ".p0", self.type, [address.type, _LANE, self.mask, self.type])
        return self.builder.call(how, [address, ir.Constant(_LANE, self.align), mask, self.zero])

    def store(self, value, base, offset, mask=None):
        address = self.place(base, offset)
        if mask is None:
            self.builder.store(value, address, align=self.align)
            return
        how = self._declared("masked.store", ".p0", ir.VoidType(), [self.type, address.type, _LANE, self.mask])
        self.builder.call(how, [value, address, ir.Constant(_LANE, self.align), mask])

    def multiply_add(self, x, y, z):
        if not FMA:
            return self.builder.fadd(self.builder.fmul(x, y), z)
        return self.builder.call(self._declared("fma", "", self.type, [self.type] * 3), [x, y, z])

    def first_lanes(self, count, first):
        """True in the lanes first, first + 1, … that are less than ``count``."""
        numbers = ir.Constant(
            ir.VectorType(_INDEX, self.lanes), [ir.Constant(_INDEX, first + i) for i in range(self.lanes)]
        )
        return self.builder.icmp_signed("<", numbers, self.spread(count))

    def larger(self, bits, others):
        """The larger of integers, lane by lane."""
        return self.builder.select(self.builder.icmp_signed(">", bits, others), bits, others)

    def magnitudes(self, values):
        """As the integers that their bits are: ordered as the numbers, infinity and NaN above all."""
        sign_off = ir.Constant(self.integers, [(1 << (self.bits - 1)) - 1] * self.lanes)
        return self.builder.and_(self.builder.bitcast(values, self.integers), sign_off)

    def any_at_least(self, bits, limit):
        """Whether one of the integers is ``limit`` or more."""
        found = self.builder.bitcast(self.builder.icmp_signed(">=", bits, limit), ir.IntType(self.lanes))
        return self.builder.icmp_unsigned("!=", found, ir.Constant(found.type, 0))


class _Onward:
    """Code for what a tile makes of C beside storing it: see ``onward_product``; ``extra`` as for ``make_tile``."""

    def __init__(self, vectors, extra, c0, ldc):
        d, d0, places, place0, scaled, within, least, beyond = extra
        builder = self._builder = vectors.builder
        self._vectors, self._ldc = vectors, ldc
        self._d, self._places, self._scaled = (
            builder.gep(base, [first]) for base, first in ((d, d0), (places, place0), (scaled, c0))
        )
        element = vectors.integers.element
        self._limits = [
            vectors.spread(value if value.type == element else builder.trunc(value, element))
            for value in (least, beyond)
        ]
        self._within, self._fine = within, cgutils.alloca_once_value(builder, builder.load(within))

    def row(self, r, values, masks):
        """Of row r: its vectors times those of d to ``scaled``, and whether it is within range."""
        builder, lanes = self._builder, self._vectors.lanes
        from_d = builder.mul(builder.load(builder.gep(self._places, [ir.Constant(_INDEX, r)])), self._ldc)
        to = builder.mul(self._ldc, ir.Constant(_INDEX, r))
        for v, (value, mask) in enumerate(zip(values, masks, strict=True)):
            column = ir.Constant(_INDEX, v * lanes)
            factor = self._vectors.load(self._d, builder.add(from_d, column), mask)
            self._vectors.store(builder.fmul(value, factor), self._scaled, builder.add(to, column), mask)
        # columns past the edge of B are zero: they hide nothing, and are no numbers only where the row has one
        top = functools.reduce(self._vectors.larger, map(self._vectors.magnitudes, values))
        some, beyond = (self._vectors.any_at_least(top, limit) for limit in self._limits)
        fine = builder.zext(builder.and_(some, builder.not_(beyond)), _INDEX)
        builder.store(builder.and_(builder.load(self._fine), fine), self._fine)

    def end(self):
        self._builder.store(self._builder.load(self._fine), self._within)


def make_tile(rows, vectors, accumulate, onward=False):
    """Intrinsic: C (rows, NR) at c[c0:], leading dimension ldc, <- A (rows, k) B (k, NR) [+ C].

    A[r, k] is a[a0 + r * row_step + k * depth_step], so A may be a transpose; B[k, j] is b[b0 + k * b_step + j]. Only
    the first ``columns`` of C are touched. ``onward``: what comes of C is made while it is in registers, with
    extra = (d, d0, places, place0, scaled, within, least, beyond), flat arrays and integers; else extra is 0.
    """

    @intrinsic
    def tile(typingctx, k, a, a0, row_step, depth_step, b, b0, b_step, c, c0, ldc, columns, extra):
        dtype = c.dtype
        if a.dtype != dtype or b.dtype != dtype:
            return None

        def codegen(context, builder, signature, args):
            code = _Vectors(builder, dtype, context.get_value_type(dtype))
            lanes = code.lanes

            def value_of(kind, value):
                """The integer, or where the array begins."""
                if isinstance(kind, types.Array):
                    return context.make_array(kind)(context, builder, value).data
                return context.cast(builder, value, kind, types.int64)

            k, a, a0, row_step, depth_step, b, b0, b_step, c, c0, ldc, columns = (
                value_of(kind, value) for kind, value in zip(signature.args[:-1], args[:-1], strict=True)
            )
            a, b, c = (builder.gep(base, [first]) for base, first in ((a, a0), (b, b0), (c, c0)))
            accumulators = [
                [cgutils.alloca_once_value(builder, code.zero) for _ in range(vectors)] for _ in range(rows)
            ]
            starts = [builder.gep(a, [builder.mul(row_step, ir.Constant(_INDEX, r))]) for r in range(rows)]
            with cgutils.for_range(builder, k, intp=_INDEX) as loop:
                first, depth = builder.mul(loop.index, b_step), builder.mul(loop.index, depth_step)
                own = [code.load(b, builder.add(first, ir.Constant(_INDEX, v * lanes))) for v in range(vectors)]
                for start, slots in zip(starts, accumulators, strict=True):
                    spread = code.spread(builder.load(builder.gep(start, [depth])))
                    for slot, right in zip(slots, own, strict=True):
                        builder.store(code.multiply_add(spread, right, builder.load(slot)), slot)
            beside = None
            if onward:
                kinds = signature.args[-1].types
                extra = [value_of(kind, builder.extract_value(args[-1], i)) for i, kind in enumerate(kinds)]
                beside = _Onward(code, extra, c0, ldc)

            def finish(masked):
                masks = [code.first_lanes(columns, v * lanes) if masked else None for v in range(vectors)]
                for r, slots in enumerate(accumulators):
                    row, values = builder.gep(c, [builder.mul(ldc, ir.Constant(_INDEX, r))]), []
                    for v, (slot, mask) in enumerate(zip(slots, masks, strict=True)):
                        value, column = builder.load(slot), ir.Constant(_INDEX, v * lanes)
                        if accumulate:
                            value = builder.fadd(value, code.load(row, column, mask))
                        code.store(value, row, column, mask)
                        values.append(value)
                    if beside is not None:
                        beside.row(r, values, masks)

            if _WIDE:  # masks cost nothing there, and one path compiles faster than two
                finish(masked=True)
            else:
                whole = builder.icmp_signed(">=", columns, ir.Constant(_INDEX, vectors * lanes))
                with builder.if_else(whole) as (then, otherwise):
                    with then:
                        finish(masked=False)
                    with otherwise:
                        finish(masked=True)
            if beside is not None:
                beside.end()
            return context.get_dummy_value()

        return types.void(k, a, a0, row_step, depth_step, b, b0, b_step, c, c0, ldc, columns, extra), codegen

    return tile
