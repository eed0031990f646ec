"""Matrix products inside kernels: BLAS ``gemm`` with strides and accumulation, which ``np.dot`` does not offer.

All three take row-major operands given by their first element and their leading dimension (elements from one row
to the next), so a gate's block of a larger array is multiplied where it lies.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic
from numba.np.linalg import check_blas_return, ensure_blas, get_blas_kind

from ._jit import unit


@intrinsic
def _xxgemm(typingctx, transa, transb, m, n, k, a, lda, b, ldb, beta, c, ldc):
    """Column-major BLAS gemm, C <- op(A) op(B) + beta C, on the data pointers of three arrays of one dtype."""
    ensure_blas()
    dtype = c.dtype
    if a.dtype != dtype or b.dtype != dtype:
        return None

    def codegen(context, builder, signature, args):
        char, intp, pointer = ir.IntType(8), context.get_value_type(types.intp), cgutils.voidptr_t

        def data(position):
            array = context.make_array(signature.args[position])(context, builder, args[position])
            return builder.bitcast(array.data, pointer)

        def integer(position):
            return context.cast(builder, args[position], signature.args[position], types.intp)

        def flag(position):
            return builder.trunc(integer(position), char)

        def scalar(value):
            return builder.bitcast(cgutils.alloca_once_value(builder, value), pointer)

        one = context.get_constant_generic(builder, dtype, 1.0)
        factor = context.cast(builder, args[9], signature.args[9], dtype)
        function_type = ir.FunctionType(
            ir.IntType(32),
            [char, char, char, intp, intp, intp, pointer, pointer, intp, pointer, intp, pointer, pointer, intp],
        )
        function = cgutils.get_or_insert_function(builder.module, function_type, "numba_xxgemm")
        kind = ir.Constant(char, ord(get_blas_kind(dtype)))
        status = builder.call(
            function,
            [kind, flag(0), flag(1), integer(2), integer(3), integer(4), scalar(one), data(5), integer(6)]
            + [data(7), integer(8), scalar(factor), data(10), integer(11)],
        )
        check_blas_return(context, builder, status)
        return context.get_dummy_value()

    return types.void(transa, transb, m, n, k, a, lda, b, ldb, beta, c, ldc), codegen


_N, _T = ord("n"), ord("t")


@unit
def gemm_nt(m, n, k, a, lda, b, ldb, beta, c, ldc):
    """C (m,n) <- A (m,k) B (n,k)^T + beta C."""
    if m > 0 and n > 0:
        _xxgemm(_T, _N, n, m, k, b, ldb, a, lda, beta, c, ldc)


@unit
def gemm_nn(m, n, k, a, lda, b, ldb, beta, c, ldc):
    """C (m,n) <- A (m,k) B (k,n) + beta C."""
    if m > 0 and n > 0:
        _xxgemm(_N, _N, n, m, k, b, ldb, a, lda, beta, c, ldc)


@unit
def gemm_tn(m, n, k, a, lda, b, ldb, beta, c, ldc):
    """C (m,n) <- A (k,m)^T B (k,n) + beta C."""
    if m > 0 and n > 0:
        _xxgemm(_N, _T, n, m, k, b, ldb, a, lda, beta, c, ldc)


if config.DISABLE_JIT:  # interpreted kernels (debugging, mutation runs): the same products by NumPy

    def _matrix(array, rows, columns, lead):
        return np.lib.stride_tricks.as_strided(array, (rows, columns), (lead * array.itemsize, array.itemsize))

    def _store(product, beta, c, m, n, ldc):
        out = _matrix(c, m, n, ldc)
        out[...] = product + beta * out if beta else product

    def gemm_nt(m, n, k, a, lda, b, ldb, beta, c, ldc):
        _store(_matrix(a, m, k, lda) @ _matrix(b, n, k, ldb).T, beta, c, m, n, ldc)

    def gemm_nn(m, n, k, a, lda, b, ldb, beta, c, ldc):
        _store(_matrix(a, m, k, lda) @ _matrix(b, k, n, ldb), beta, c, m, n, ldc)

    def gemm_tn(m, n, k, a, lda, b, ldb, beta, c, ldc):
        _store(_matrix(a, k, m, lda).T @ _matrix(b, k, n, ldb), beta, c, m, n, ldc)
