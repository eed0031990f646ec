"""Normalisation over the batch, and the adjoint of it: a block sums over all samples for one column at one step."""

import functools
import math

import numba
import numpy as np

from ... import _cuda
from ...normalization import normalized, through
from . import pieces

cuda = _cuda.load()

_LANES = 32  # parts of a sum over the batch


@functools.cache
def make_mean(dtype):
    """Device function ``mean(parts, count)``: sum of the parts over ``count``, by every thread of the block."""
    zero, number = dtype.type(0), dtype.type

    @_cuda.function
    def mean(parts, count):
        cuda.syncthreads()
        total = zero
        for lane in range(_LANES):
            total += parts[lane]
        cuda.syncthreads()
        return total / number(count)

    return mean


@functools.cache
def make_normalize(dtype):
    """Kernel ``run(hat, mean, var, std, z, given_mean, given_var, eps, given, t, at)``: steps t … of z[at:, B, C].

    mean, var[T, C] are those of the batch, and std[T, C] what hat[T, B, C] was divided by: of the given ones if so.
    """
    zero, mean_of = dtype.type(0), make_mean(dtype)
    number = numba.from_dtype(dtype)

    @_cuda.Kernel
    def run(hat, mean, var, std, z, given_mean, given_var, eps, given, t, at):
        steps, B, C = z.shape
        parts = cuda.shared.array(_LANES, number)
        for item in range(cuda.blockIdx.x, (steps - at) * C, cuda.gridDim.x):
            d, c = item // C, item % C
            for lane in range(cuda.threadIdx.x, _LANES, cuda.blockDim.x):
                own = zero
                for b in range(lane, B, _LANES):
                    own += z[at + d, b, c]
                parts[lane] = own
            middle = mean_of(parts, B)
            for lane in range(cuda.threadIdx.x, _LANES, cuda.blockDim.x):
                own = zero
                for b in range(lane, B, _LANES):
                    away = z[at + d, b, c] - middle
                    own += away * away
                parts[lane] = own
            spread = mean_of(parts, B)
            if cuda.threadIdx.x == 0:
                mean[t + d, c] = middle
                var[t + d, c] = spread
            if given:
                middle, spread = given_mean[t + d, c], given_var[t + d, c]
            size = math.sqrt(spread + eps)
            if cuda.threadIdx.x == 0:
                std[t + d, c] = size
            for b in range(cuda.threadIdx.x, B, cuda.blockDim.x):
                hat[t + d, b, c] = normalized(z[at + d, b, c], middle, size)

    return run


@functools.cache
def make_through(dtype):
    """Kernel ``run(out, g, gamma, hat, std, t, each, first, rows, coupled)``: dL/dz of g gamma through a norm.

    Rows ``first`` … of out, g[X, B, C] are of step t of hat[T, B, C] and std[T, C], or of t, t + 1, … with ``each``.
    """
    zero, mean_of = dtype.type(0), make_mean(dtype)
    number = numba.from_dtype(dtype)

    @_cuda.Kernel
    def run(out, g, gamma, hat, std, t, each, first, rows, coupled):
        B, C = g.shape[1], g.shape[2]
        parts = cuda.shared.array(_LANES, number)
        for item in range(cuda.blockIdx.x, rows * C, cuda.gridDim.x):
            r, c, step = first + item // C, item % C, t + item // C * each
            mean_g, mean_g_hat = zero, zero
            if coupled:
                for lane in range(cuda.threadIdx.x, _LANES, cuda.blockDim.x):
                    own = zero
                    for b in range(lane, B, _LANES):
                        own += gamma[c] * g[r, b, c]
                    parts[lane] = own
                mean_g = mean_of(parts, B)
                for lane in range(cuda.threadIdx.x, _LANES, cuda.blockDim.x):
                    own = zero
                    for b in range(lane, B, _LANES):
                        own += gamma[c] * g[r, b, c] * hat[step, b, c]
                    parts[lane] = own
                mean_g_hat = mean_of(parts, B)
            for b in range(cuda.threadIdx.x, B, cuda.blockDim.x):
                out[r, b, c] = through(gamma[c] * g[r, b, c], hat[step, b, c], mean_g, mean_g_hat, std[step, c])

    return run


def columnwise(kernel, columns, *args):
    """Launch a block for each column that is summed over the batch."""
    kernel(min(columns, 32 * _cuda.processors()), _cuda.threads(_LANES), 0, *args)


def normalize_batch(hat, mean, var, std, z, given, eps):
    """Over the batch, for every step: z[T, B, C] into hat, with moments mean, var[T, C] and std = sqrt(var + eps).

    ``given``: (mean, var)[T, C] to be used in the place of those of the batch, or None.
    """
    used = (mean, var) if given is None else given
    operands = [pieces.written(array, 0) for array in (hat, mean, var, std)]
    operands += [pieces.read(array, 0) for array in (z, *used)]

    def piece(start, stop, *arrays):
        columns = (stop - start) * z.shape[2]
        kernel = make_normalize(np.dtype(z.dtype))
        columnwise(kernel, columns, *arrays, z.dtype.type(eps), given is not None, 0, 0)

    pieces.run(piece, len(z), operands, "the statistics of one step")


def through_batch(out, g, gamma, hat, std, coupled):
    """dL/dz[T, B, C] of g gamma through z^ = (z - mean)/std, mean and std those of the batch if ``coupled``."""
    operands = [pieces.written(out, 0), pieces.read(g, 0), pieces.whole(gamma)]
    operands += [pieces.read(array, 0) for array in (hat, std)]

    def piece(start, stop, *arrays):
        rows = stop - start
        columnwise(make_through(np.dtype(g.dtype)), rows * g.shape[2], *arrays, 0, 1, 0, rows, coupled)

    pieces.run(piece, len(g), operands, "the adjoints of one step's statistics")
