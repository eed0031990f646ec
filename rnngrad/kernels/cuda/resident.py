"""Small work on arrays that stay on the device: copies in another order or in float64, and numbers that are none."""

import functools
import math

import numba
import numpy as np

from ... import _cuda

cuda = _cuda.load()


@functools.cache
def make_copy(dtype):
    """Kernel ``run(out, x, lengths)``: out[i, j, k] = x[i, j, k], whatever the steps of x, and 0 from lengths[j] on."""
    zero = dtype.type(0)

    @_cuda.Kernel
    def run(out, x, lengths):
        I, J, K = out.shape
        for item in range(cuda.grid(1), I * J * K, cuda.gridsize(1)):
            i, j, k = item // (J * K), item // K % J, item % K
            out[i, j, k] = x[i, j, k] if i < lengths[j] else zero

    return run


@functools.cache
def make_packed(ndim):
    """Kernel ``run(out, x)``: out[...] = x[...] of one or two axes, whatever the steps of x."""

    @_cuda.Kernel
    def of_one(out, x):
        for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
            out[i] = x[i]

    @_cuda.Kernel
    def of_two(out, x):
        J = out.shape[1]
        for item in range(cuda.grid(1), out.size, cuda.gridsize(1)):
            out[item // J, item % J] = x[item // J, item % J]

    return of_one if ndim == 1 else of_two


def contiguous(x, lengths=None):
    """A C-contiguous copy of a device array of one to three axes, made on the device.

    With lengths, of (I, J, K): 0 where i >= lengths[j].
    """
    out = _cuda.empty(x.shape, x.dtype)
    if x.ndim < 3:
        threads = _cuda.threads(x.size)
        make_packed(x.ndim)(-(-x.size // threads), threads, 0, out, x)
        return out
    lengths = np.full(x.shape[1], x.shape[0]) if lengths is None else lengths
    threads = _cuda.threads(x.size)
    make_copy(np.dtype(x.dtype))(-(-x.size // threads), threads, 0, out, x, _cuda.upload(lengths))
    return out


@functools.cache
def make_permuted(last):
    """Kernel ``run(out, x)``: out[i, k, j] = x[i, j, k], or out[j, i, k] = x[i, j, k] if not ``last``."""

    @_cuda.Kernel
    def run(out, x):
        I, J, K = x.shape
        for item in range(cuda.grid(1), I * J * K, cuda.gridsize(1)):
            i, j, k = item // (J * K), item // K % J, item % K
            if last:
                out[i, k, j] = x[i, j, k]
            else:
                out[j, i, k] = x[i, j, k]

    return run


def swapped(x, last=True):
    """A device array (I, J, K) as (I, K, J); as (J, I, K) if not ``last``."""
    I, J, K = x.shape
    out, threads = _cuda.empty((I, K, J) if last else (J, I, K), x.dtype), _cuda.threads(x.size)
    make_permuted(last)(-(-x.size // threads), threads, 0, out, x)
    return out


@functools.cache
def make_unit_rows(dtype):
    """Kernel ``run(out, first, count)``: out[r] = unit vector first + r % count, of the flat (S, n)."""
    zero, one = dtype.type(0), dtype.type(1)

    @_cuda.Kernel
    def run(out, first, count):
        R, S, n = out.shape
        for item in range(cuda.grid(1), R * S * n, cuda.gridsize(1)):
            r, at = item // (S * n), item % (S * n)
            out[r, at // n, at % n] = one if at == first + r % count else zero

    return run


def unit_rows(B, first, count, S, n, dtype):
    """Rows ``first`` … of the identity of S n numbers, ``count`` of them for each of B samples: (B count, S, n)."""
    out = _cuda.empty((B * count, S, n), dtype)
    threads = _cuda.threads(out.size)
    make_unit_rows(np.dtype(dtype))(-(-out.size // threads), threads, 0, out, first, count)
    return out


@functools.cache
def make_wide():
    """Kernel ``run(out, x)``: out[i] = x[i], whatever the two dtypes."""

    @_cuda.Kernel
    def run(out, x):
        for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
            out[i] = x[i]

    return run


def in_dtype(x, dtype):
    """The same numbers in a dtype, where they are: on the device (C-contiguous) or on the host."""
    if not _cuda.is_device_array(x):
        return np.asarray(x, dtype)
    if x.dtype == dtype:
        return x
    out = _cuda.empty(x.shape, dtype)
    threads = _cuda.threads(out.size)
    make_wide()(-(-out.size // threads), threads, 0, out.reshape(-1), x.reshape(-1))
    return out


def in_float64(x):
    """The same numbers in float64."""
    return in_dtype(x, np.float64)


@functools.cache
def make_fill():
    """Kernel ``run(out, value)``: out[i] = value."""

    @_cuda.Kernel
    def run(out, value):
        for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
            out[i] = value

    return run


def fill(out, value):
    """out[...] = value of a C-contiguous device array."""
    threads = _cuda.threads(out.size)
    make_fill()(-(-out.size // threads), threads, 0, out.reshape(-1), np.dtype(out.dtype).type(value))


@functools.cache
def make_first():
    """Kernel ``run(found, x)``: found[j] = the least i with a number in x[i, j, :] that is not finite."""

    @_cuda.Kernel
    def run(found, x):
        I, J, K = x.shape
        for item in range(cuda.grid(1), I * J * K, cuda.gridsize(1)):
            i, j, k = item // (J * K), item // K % J, item % K
            if not math.isfinite(x[i, j, k]):
                cuda.atomic.min(found, j, numba.int64(i))

    return run


def first_not_finite(x):
    """First i for every j with a NaN or an infinity in the device array x[i, j, :], -1 where there is none."""
    I, J, _ = x.shape
    found = _cuda.upload(np.full(J, I, np.int64))
    threads = _cuda.threads(x.size)
    make_first()(-(-x.size // threads), threads, 0, found, x)
    out = np.empty(J, np.int64)
    _cuda.download(found, out)
    return np.where(out == I, -1, out)
