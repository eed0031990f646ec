"""A stand-in for the part of CuPy that is used: cuBLAS's general product, counted along columns, on memory by address.

Written from cuBLAS's own description: op(A) is m x k, op(B) k x n, C m x n, all by columns with a leading dimension.
"""

import contextlib
import ctypes
import types

import numpy as np

NORMAL, TRANSPOSE = 0, 1


def _columns(address, rows, columns, lead, dtype):
    """The matrix (rows, columns) of numbers address[i + j lead], as it lies."""
    assert lead >= max(1, rows)
    kind = ctypes.c_double if dtype == np.float64 else ctypes.c_float
    flat = np.ctypeslib.as_array((kind * (lead * (columns - 1) + rows)).from_address(address))
    return np.lib.stride_tricks.as_strided(flat, (rows, columns), (flat.itemsize, lead * flat.itemsize))


def module(calls):
    """The module; (m, n, k) of every product are added to ``calls``."""

    def gemm(dtype):
        def run(handle, transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):
            assert handle == 7 and calls.mode == 0
            a = _columns(a, m, k, lda, dtype) if transa == NORMAL else _columns(a, k, m, lda, dtype).T
            b = _columns(b, k, n, ldb, dtype) if transb == NORMAL else _columns(b, n, k, ldb, dtype).T
            alpha, beta = (_columns(at, 1, 1, 1, dtype)[0, 0] for at in (alpha, beta))
            out = _columns(c, m, n, ldc, dtype)
            out[...] = alpha * (a @ b) + (beta * out if beta else 0)
            calls.append((m, n, k))

        return run

    cublas = types.SimpleNamespace(
        dgemm=gemm(np.float64), sgemm=gemm(np.float32), setMathMode=lambda handle, mode: setattr(calls, "mode", mode)
    )
    stream = types.SimpleNamespace(null=contextlib.nullcontext())
    cuda = types.SimpleNamespace(cublas=cublas, get_cublas_handle=lambda: 7, Stream=stream)
    return types.SimpleNamespace(cuda=cuda)


class Calls(list):
    """Products that were made."""

    mode = None
