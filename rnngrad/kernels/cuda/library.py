"""Products of large matrices by cuBLAS, through CuPy where that is installed: on our arrays, on the stream of kernels.

cuBLAS gives the same bits in every run on one kind of card, but sums in an order that may hang on the number of rows.
So rows are multiplied ``ROWS`` at a time, counted from the first of a job, and jobs are cut at multiples of them:
results do not depend on how a job is cut. No reduced precision: the handle is set to the plain arithmetic of the dtype.
"""

import functools

import numpy as np

from ... import _cuda

EXTRA = "pip install 'rnngrad[cuda-blas]'"
#: Both sides of a matrix from which on its products are cuBLAS's; ``scripts/gpu_check.py`` times both below and above.
FROM = 512
ROWS = 1024  # of one product

_PLAIN, _TRANSPOSED = 0, 1  # CUBLAS_OP_N, CUBLAS_OP_T
_DEFAULT_MATH = 0  # CUBLAS_DEFAULT_MATH


@functools.cache
def load():
    """The module ``cupy``."""
    import cupy

    return cupy


@functools.cache
def missing():
    """What keeps cuBLAS from being used, with what to do about it; None if nothing does."""
    if _cuda.simulated():
        return "the simulator has no cuBLAS"
    if not _cuda._installed("cupy"):
        return f"CuPy is not installed ({EXTRA})"
    try:
        load().cuda.cublas  # noqa: B018  # loaded when it is asked for
    except Exception as problem:  # of several packages, by what they lack
        return f"CuPy does not load: {type(problem).__name__}: {problem}"
    return None


def pays(*sides):
    """Whether products with a matrix of these sides are the library's."""
    return min(sides) >= FROM and missing() is None


def explained():
    """Whose the products of large matrices are, in words."""
    reason = missing()
    return f"of {FROM} units and more by cuBLAS" if reason is None else f"by kernels of our own: {reason}"


def multiply(c, a, b, rows, depth, columns, a_at, b_at, c_at, more=False):
    """c[c0 + i c_row + j] = sum_k a[a0 + i a_row + k a_depth] b[b0 + k b_depth + j b_column], or added to c.

    c, a, b are flat; of the two steps of a, and of b, one is 1. The library counts along columns first: for it this is
    the product c^T = b^T a^T.
    """
    (a0, a_row, a_depth), (b0, b_depth, b_column), (c0, c_row) = a_at, b_at, c_at
    single = c.dtype == np.float32
    one, add = np.ones(1, c.dtype), np.full(1, more, c.dtype)
    size, cupy = c.dtype.itemsize, load()
    at_a, at_b, at_c = (_cuda.address(array) for array in (a, b, c))
    b_how = (_PLAIN, b_depth) if b_column == 1 else (_TRANSPOSED, b_column)
    a_how = (_PLAIN, a_row) if a_depth == 1 else (_TRANSPOSED, a_depth)
    with _cuda.errors(), cupy.cuda.Stream.null:
        handle = cupy.cuda.get_cublas_handle()
        cupy.cuda.cublas.setMathMode(handle, _DEFAULT_MATH)
        gemm = cupy.cuda.cublas.sgemm if single else cupy.cuda.cublas.dgemm
        for first in range(0, rows, ROWS):
            gemm(
                handle, b_how[0], a_how[0], columns, min(ROWS, rows - first), depth, one.ctypes.data,
                at_b + b0 * size, b_how[1], at_a + (a0 + first * a_row) * size, a_how[1], add.ctypes.data,
                at_c + (c0 + first * c_row) * size, c_row,
            )  # fmt: skip
