"""Losses and their derivatives with respect to the outputs, a block for each step of a sample.

Also what is done to a target that lies on the GPU: labels become rows of the identity, and what is out of range is
found.
"""

import functools
import math

import numba
import numpy as np

from ... import _cuda
from ...loss_terms import TERMS, log_mass, share
from . import pieces
from .products import column_sums
from .resident import in_float64

cuda = _cuda.load()

_LANES = 32  # parts of a sum over components, and threads of a block


@functools.cache
def _added(dtype):
    """Device function: the sum of ``_LANES`` parts, by every thread of the block."""
    zero = dtype.type(0)

    @_cuda.function
    def run(parts):
        cuda.syncthreads()
        total = zero
        for lane in range(_LANES):
            total += parts[lane]
        cuda.syncthreads()
        return total

    return run


@functools.cache
def _masses(dtype):
    """Device function: the largest logit, the sum of the shares relative to it, and the sum of the target."""
    added, zero = _added(dtype), dtype.type(0)

    @_cuda.function
    def run(parts, y, target):
        top = y[0]
        for lane in range(cuda.threadIdx.x, _LANES, cuda.blockDim.x):
            most = top
            for i in range(lane, y.size, _LANES):
                most = max(most, y[i])
            parts[lane] = most
        cuda.syncthreads()
        for lane in range(_LANES):
            top = max(top, parts[lane])
        cuda.syncthreads()
        for lane in range(cuda.threadIdx.x, _LANES, cuda.blockDim.x):
            own = zero
            for i in range(lane, y.size, _LANES):
                own += share(y[i], top)
            parts[lane] = own
        mass = added(parts)
        for lane in range(cuda.threadIdx.x, _LANES, cuda.blockDim.x):
            own = zero
            for i in range(lane, y.size, _LANES):
                own += target[i]
            parts[lane] = own
        return top, mass, added(parts)

    return run


@functools.cache
def make(kind, dtype):
    """Kernel ``run(steps, dy, y, target, weights)``, one block per step and sample at a time."""
    terms = TERMS[kind]
    term, slope, normalized = terms.term, terms.slope, terms.normalized
    scale, zero = dtype.type(terms.scale), dtype.type(0)
    added, masses = _added(dtype), _masses(dtype)
    dtype = numba.from_dtype(dtype)

    @_cuda.Kernel
    def run(steps, dy, y, target, weights):
        T, B, p = y.shape
        parts = cuda.shared.array(_LANES, dtype)
        for tb in range(cuda.blockIdx.x, T * B, cuda.gridDim.x):
            t, b = tb // B, tb % B
            w = weights[t, b]
            if w == zero:  # the whole block
                for i in range(cuda.threadIdx.x, p, cuda.blockDim.x):
                    dy[t, b, i] = zero
                if cuda.threadIdx.x == 0:
                    steps[t, b] = zero
                continue
            top, mass, level, total = zero, zero, zero, zero
            if normalized:
                top, mass, total = masses(parts, y[t, b], target[t, b])
                level = log_mass(mass)
            for lane in range(cuda.threadIdx.x, _LANES, cuda.blockDim.x):
                own = zero
                for i in range(lane, p, _LANES):
                    own += term(y[t, b, i], target[t, b, i], top, level)
                parts[lane] = own
            value = added(parts)
            w *= scale
            for i in range(cuda.threadIdx.x, p, cuda.blockDim.x):
                own = share(y[t, b, i], top) / mass if normalized else zero
                dy[t, b, i] = w * slope(y[t, b, i], target[t, b, i], own, total)
            if cuda.threadIdx.x == 0:
                steps[t, b] = w * value

    return run


@functools.cache
def loss(kind):
    """Kernel ``launch(steps, dy, y, target, weights)``, the contract of the CPU's."""

    def launch(steps, dy, y, target, weights):
        operands = [pieces.written(steps, 0), pieces.written(dy, 0)]
        operands += [pieces.read(array, 0) for array in (y, target, weights)]
        kernel = make(kind, np.dtype(steps.dtype))

        def piece(start, stop, *arrays):
            blocks = min((stop - start) * y.shape[1], 32 * _cuda.processors())
            kernel(blocks, _cuda.threads(_LANES), 0, *arrays)

        pieces.run(piece, y.shape[0], operands, "the loss of one step")

    return launch


@functools.cache
def make_curvature(kind, dtype):
    """Kernel ``run(out, u, y, target, weights)``, one block per step and row at a time."""
    terms = TERMS[kind]
    bend, normalized = terms.bend, terms.normalized
    scale, zero = dtype.type(terms.scale), dtype.type(0)
    added, masses = _added(dtype), _masses(dtype)
    dtype = numba.from_dtype(dtype)

    @_cuda.Kernel
    def run(out, u, y, target, weights):
        T, R, p = out.shape
        B = y.shape[1]
        parts = cuda.shared.array(_LANES, dtype)
        for tr in range(cuda.blockIdx.x, T * R, cuda.gridDim.x):
            t, r = tr // R, tr % R
            b = r % B
            w = weights[t, b]
            if w == zero:  # the whole block
                for i in range(cuda.threadIdx.x, p, cuda.blockDim.x):
                    out[t, r, i] = zero
                continue
            top, mass, total, mean = zero, zero, zero, zero
            if normalized:
                top, mass, total = masses(parts, y[t, b], target[t, b])
                for lane in range(cuda.threadIdx.x, _LANES, cuda.blockDim.x):
                    own = zero
                    for i in range(lane, p, _LANES):
                        own += share(y[t, b, i], top) / mass * u[t, r, i]
                    parts[lane] = own
                mean = added(parts)
            w *= scale
            for i in range(cuda.threadIdx.x, p, cuda.blockDim.x):
                own = share(y[t, b, i], top) / mass if normalized else zero
                out[t, r, i] = w * bend(y[t, b, i], u[t, r, i], own, total, mean)

    return run


@functools.cache
def loss_curvature(kind):
    """Kernel ``launch(out, u, y, target, weights)``, the contract of the CPU's."""

    def launch(out, u, y, target, weights):
        operands = [pieces.written(out, 0), *(pieces.read(array, 0) for array in (u, y, target, weights))]
        kernel = make_curvature(kind, np.dtype(out.dtype))

        def piece(start, stop, *arrays):
            blocks = min((stop - start) * u.shape[1], 32 * _cuda.processors())
            kernel(blocks, _cuda.threads(_LANES), 0, *arrays)

        pieces.run(piece, u.shape[0], operands, "the curvature of the loss of one step")

    return launch


def total(steps):
    """The sum of a device array as a float; it alone is copied to the host."""
    out = np.empty(1)
    _cuda.download(column_sums(in_float64(steps).reshape(steps.size, 1)), out)
    return float(out[0])


@functools.cache
def make_one_hot(dtype):
    """Kernel ``run(out, bad, labels, weights)``: out[t, b] = row labels[t, b] of the identity; bad[0] the first not."""
    zero, one = dtype.type(0), dtype.type(1)

    @_cuda.Kernel
    def run(out, bad, labels, weights):
        T, B, p = out.shape
        for item in range(cuda.grid(1), T * B * p, cuda.gridsize(1)):
            t, b, i = item // (B * p), item // p % B, item % p
            counts, label = weights[t, b] != zero, labels[t, b]
            out[t, b, i] = one if counts and label == i else zero
            if i == 0 and counts and (label < 0 or label >= p):
                cuda.atomic.min(bad, 0, numba.int64(t * B + b))

    return run


@functools.cache
def make_outside(dtype):
    """Kernel ``run(bad, target, weights, low, high)``: bad[0] = the first t B + b with an entry that is not inside."""
    zero = dtype.type(0)

    @_cuda.Kernel
    def run(bad, target, weights, low, high):
        T, B, p = target.shape
        for item in range(cuda.grid(1), T * B * p, cuda.gridsize(1)):
            t, b, i = item // (B * p), item // p % B, item % p
            z = target[t, b, i]
            if weights[t, b] != zero and not (low <= z <= high and math.isfinite(z)):
                cuda.atomic.min(bad, 0, numba.int64(t * B + b))

    return run


def one_hot(labels, weights, p, dtype):
    """(rows of the identity (T, B, p), the first t B + b with a label out of range or -1), on the device."""
    T, B = labels.shape
    out = _cuda.empty((T, B, p), dtype)
    return out, _first(make_one_hot(np.dtype(dtype)), out.size, lambda bad: (out, bad, labels, _cuda.upload(weights)))


def first_outside(target, weights, low, high):
    """The first t B + b with a number of target[t, b] that is not finite or not in [low, high]; -1 if all are."""
    bounds = (target.dtype.type(low), target.dtype.type(high))
    return _first(
        make_outside(np.dtype(target.dtype)), target.size, lambda bad: (bad, target, _cuda.upload(weights), *bounds)
    )


def _first(kernel, items, arguments):
    """What a kernel finds the least of, -1 where there is none."""
    nothing, threads = np.iinfo(np.int64).max, _cuda.threads(items)
    found = _cuda.upload(np.full(1, nothing))
    kernel(-(-items // threads), threads, 0, *arguments(found))
    out = np.empty(1, np.int64)
    _cuda.download(found, out)
    return -1 if out[0] == nothing else int(out[0])
