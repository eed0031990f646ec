"""Rows with a power of two each, on the device: taken out of their numbers, and put back."""

import functools
import math

import numba
import numpy as np

from ... import _cuda
from . import block
from .block import KEYS, MOST_ROWS

cuda = _cuda.load()


@functools.cache
def make_fold(dtype):
    """Kernel ``run(rows, exponent, overflow)``: rows[R, n] *= 2^exponent[R]; overflow[0] is set where one left."""

    @_cuda.Kernel
    def run(rows, exponent, overflow):
        R, n = rows.shape
        for item in range(cuda.grid(1), R * n, cuda.gridsize(1)):
            r, i = item // n, item % n
            if exponent[r] != 0:
                value = block.times_power(rows[r, i], exponent[r])
                rows[r, i] = value
                if not math.isfinite(value):
                    cuda.atomic.max(overflow, 0, numba.int64(1))

    return run


def times_powers(rows, exponent):
    """rows[R, n] *= 2^exponent[R] of device arrays, in place; 1 if an entry left the range of the dtype, on the device.

    What leaves it is infinite then. Nothing comes to the host.
    """
    overflow, threads = _cuda.upload(np.zeros(1, np.int64)), _cuda.threads(rows.size)
    make_fold(np.dtype(rows.dtype))(-(-rows.size // threads), threads, 0, rows, exponent, overflow)
    return overflow


def fold(rows, exponent):
    """rows[R, n] *= 2^exponent[R] of device arrays, in place; whether an entry left the range of the dtype."""
    overflow, out = times_powers(rows, exponent), np.empty(1, np.int64)
    _cuda.download(overflow, out)
    return bool(out[0])


@functools.cache
def make_normalize(dtype):
    """Kernel ``run(rows, exponent)``, a block for MOST_ROWS rows[R, S, n]."""

    @_cuda.Kernel
    def run(rows, exponent):
        first = cuda.blockIdx.x * MOST_ROWS
        keys = cuda.shared.array(KEYS, numba.int32)
        for r in range(cuda.threadIdx.x, KEYS, cuda.blockDim.x):
            keys[r] = 0
        cuda.syncthreads()
        block.rescale(rows, first, min(MOST_ROWS, rows.shape[0] - first), keys, exponent[first:], 0, 0)

    return run


def normalize(rows, exponent):
    """Take a power of two out of each of the device arrays rows[R, S, n] and add it to exponent[R]: below 1 then."""
    blocks = -(-rows.shape[0] // MOST_ROWS)
    make_normalize(np.dtype(rows.dtype))(blocks, _cuda.threads(rows.size // blocks), 0, rows, exponent)
