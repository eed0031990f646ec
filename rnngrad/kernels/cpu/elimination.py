"""One step of Gram-Schmidt on a panel in one pass: what the next step needs is summed while the rows are changed.

Two passes, one that takes a column out of the others and one for the inner products of the next column, read the
panel twice and wait for each other; at 16 x 16 that is most of the time of a QR.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic

from ..._compiler import VECTOR_BYTES
from ..._tile import FMA, VECTORS

_SUMS = 2  # partial sums, so that additions need not wait for each other


@intrinsic
def eliminate(typingctx, P, rows, column, coefficients, following, products):
    """P[i, :] += P[i, column] coefficients; then products = sum_i P[i, following] P[i, :], for i < rows.

    P[N, NR] is a panel as wide as a tile of ``_gemm``; coefficients[column] = 0.
    """
    dtype = P.dtype

    def codegen(context, builder, signature, args):
        scalar = context.get_value_type(dtype)
        size = dtype.bitwidth // 8
        lanes, width = VECTOR_BYTES // size, VECTORS * VECTOR_BYTES // size
        vector, index = ir.VectorType(scalar, lanes), ir.IntType(64)
        lane_zero = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [ir.Constant(ir.IntType(32), 0)] * lanes)
        panel, given, out = (context.make_array(signature.args[i])(context, builder, args[i]).data for i in (0, 3, 5))
        rows, column, following = (context.cast(builder, args[i], signature.args[i], types.int64) for i in (1, 2, 4))
        fma = builder.module.declare_intrinsic(
            f"llvm.fma.v{lanes}f{dtype.bitwidth}", fnty=ir.FunctionType(vector, [vector] * 3)
        )

        def multiply_add(x, y, z):
            return builder.call(fma, [x, y, z]) if FMA else builder.fadd(builder.fmul(x, y), z)

        def address(base, v):
            offset = ir.Constant(index, v * lanes)
            return builder.bitcast(builder.gep(base, [offset]), vector.as_pointer())

        def spread(pointer):
            undefined = ir.Constant(vector, ir.Undefined)
            head = builder.insert_element(undefined, builder.load(pointer), ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(head, undefined, lane_zero)

        taken = [builder.load(address(given, v), align=size) for v in range(VECTORS)]
        zero = ir.Constant(vector, [ir.Constant(scalar, 0.0)] * lanes)
        sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(VECTORS)] for _ in range(_SUMS)]

        def change(i, part):
            row = builder.gep(panel, [builder.mul(i, ir.Constant(index, width))])
            factor, new = spread(builder.gep(row, [column])), []
            for v in range(VECTORS):
                new.append(multiply_add(factor, taken[v], builder.load(address(row, v), align=size)))
                builder.store(new[v], address(row, v), align=size)
            factor = spread(builder.gep(row, [following]))
            for v in range(VECTORS):
                builder.store(multiply_add(factor, new[v], builder.load(part[v])), part[v])

        count = ir.Constant(index, _SUMS)
        whole = builder.sdiv(rows, count)
        with cgutils.for_range(builder, whole, intp=index) as loop:
            for s in range(_SUMS):
                change(builder.add(builder.mul(loop.index, count), ir.Constant(index, s)), sums[s])
        one = ir.Constant(index, 1)
        with cgutils.for_range_slice(builder, builder.mul(whole, count), rows, one, intp=index) as (i, _):
            change(i, sums[0])
        for v in range(VECTORS):
            total = builder.load(sums[0][v])
            for part in sums[1:]:
                total = builder.fadd(total, builder.load(part[v]))
            builder.store(total, address(out, v), align=size)
        return context.get_dummy_value()

    return types.void(P, rows, column, coefficients, following, products), codegen


if config.DISABLE_JIT:  # interpreted kernels: the same by NumPy

    def _interpreted(P, rows, column, coefficients, following, products):
        with np.errstate(all="ignore"):
            P[:rows] += np.outer(P[:rows, column], coefficients)
            products[:] = P[:rows, following] @ P[:rows]

    eliminate = _interpreted  # type: ignore[assignment]
