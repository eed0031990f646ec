"""Norms of every product Phi(t, k) of a row of the heat map, t fixed, without keeping the products: a block for each t.

The method is the CPU's: Lanczos steps on M M^T from the vector that belonged to the lag before. Everything is float64,
whatever the network is.
"""

import functools
import math

import numba
import numpy as np

from ... import _cuda
from ..._math import log
from ..tridiagonal import SETTLED, largest_eigenvalue
from . import block, pieces, steps
from .block import KEYS, MOST_ROWS
from .resident import in_float64

cuda = _cuda.load()

_LANES = 32  # parts of an inner product
_LOWEST = -(1 << 60)  # in the place of the exponent of a zero row
_LN2 = math.log(2.0)
_DTYPE = np.dtype(np.float64)


@_cuda.function
def _dot(x, x0, y, y0, count, parts):
    """Inner product by the whole block; every thread has it."""
    for lane in range(cuda.threadIdx.x, _LANES, cuda.blockDim.x):
        total = 0.0
        for i in range(lane, count, _LANES):
            total += x[x0 + i] * y[y0 + i]
        parts[lane] = total
    cuda.syncthreads()
    total = 0.0
    for lane in range(_LANES):
        total += parts[lane]
    cuda.syncthreads()
    return total


@_cuda.function
def _largest_eigenvalue(A, a0, R, columns, start, s0, tilt, Q, q0, most, tri, t0, u, u0, parts):
    """Largest eigenvalue of A A^T, A[R, columns]; ``start`` becomes its vector. NaN if not found."""
    square = _dot(start, s0, start, s0, R, parts)
    scale = 1.0 / math.sqrt(square) if square > 0.0 else 0.0
    for i in range(cuda.threadIdx.x, R, cuda.blockDim.x):  # something of every direction, the same each time
        Q[q0 + i] = start[s0 + i] * scale + tilt[i]
    cuda.syncthreads()
    scale = 1.0 / math.sqrt(_dot(Q, q0, Q, q0, R, parts))
    for i in range(cuda.threadIdx.x, R, cuda.blockDim.x):
        Q[q0 + i] *= scale
    cuda.syncthreads()
    theta, settled = 0.0, 0
    a, b = tri[t0 : t0 + most], tri[t0 + most : t0 + 2 * most]
    for j in range(most):
        q, w = q0 + j * R, q0 + (j + 1) * R
        for i in range(cuda.threadIdx.x, columns, cuda.blockDim.x):
            total = 0.0
            for r in range(R):
                total += Q[q + r] * A[a0 + r * columns + i]
            u[u0 + i] = total
        cuda.syncthreads()
        for r in range(cuda.threadIdx.x, R, cuda.blockDim.x):
            total = 0.0
            for i in range(columns):
                total += A[a0 + r * columns + i] * u[u0 + i]
            Q[w + r] = total
        cuda.syncthreads()
        diagonal = _dot(Q, q, Q, w, R, parts)
        for i in range(cuda.threadIdx.x, R, cuda.blockDim.x):
            Q[w + i] -= diagonal * Q[q + i]
            if j > 0:
                Q[w + i] -= b[j - 1] * Q[q - R + i]
        cuda.syncthreads()
        length = math.sqrt(_dot(Q, w, Q, w, R, parts))
        if cuda.threadIdx.x == 0:
            a[j] = diagonal
            b[j] = length
        cuda.syncthreads()
        before = theta
        theta = largest_eigenvalue(a, b, j + 1, theta)
        settled = settled + 1 if theta - before <= SETTLED * theta else 0
        if settled == 2 or length == 0.0:  # growth falls geometrically: what is to come is of its order
            _ritz_vector(start, s0, R, Q, q0, a, b, j + 1, theta)
            return theta
        for i in range(cuda.threadIdx.x, R, cuda.blockDim.x):
            Q[w + i] /= length
        cuda.syncthreads()
    return math.nan


@_cuda.function
def _ritz_vector(out, s0, R, Q, q0, a, b, j, theta):
    """out = sum_i s_i Q[i], s the eigenvector of T_j at theta from its last component up (not normalised)."""
    for i in range(cuda.threadIdx.x, R, cuda.blockDim.x):
        total = Q[q0 + (j - 1) * R + i]
        after, s, size = 0.0, 1.0, 1.0
        for l in range(j - 2, -1, -1):
            before = ((theta - a[l + 1]) * s - (b[l + 1] * after if l + 2 < j else 0.0)) / b[l]
            after, s = s, before
            size = max(size, abs(s))
            total += s * Q[q0 + l * R + i]
            if size > 1e100:
                total *= 1e-100
                after, s, size = after * 1e-100, s * 1e-100, 1.0
        out[s0 + i] = total
    cuda.syncthreads()


@functools.cache
def make(form, level):
    """Kernel of ``chain_norms`` for one form of the local Jacobians."""
    step, begin = steps.make(form, False, _DTYPE), steps.begin(form, _DTYPE, level)
    widest = block.widest(1.0)

    @_cuda.Kernel
    def run(
        out, times, eye, tilt, odd, even, A, Q, tri, u, start, tops, exponents, sample, none, system, scratch, numbers,
        rows, first, last, spectral,
    ):  # fmt: skip
        # out[times, B, T+1]  eye[R, S, n]  odd, even[blocks R, S, n]  tops, exponents[blocks, R]
        B, ends = out.shape[1], out.shape[2]
        R, n = eye.shape[0], eye.shape[2]
        columns, most, own = last - first, 2 * R + 40, cuda.blockIdx.x * R
        a0, q0, t0, u0 = own * columns, own * (most + 1), cuda.blockIdx.x * 2 * most, cuda.blockIdx.x * columns
        keys = cuda.shared.array(KEYS, numba.int32)
        parts = cuda.shared.array(_LANES, numba.float64)
        where = begin(scratch, numbers, system, n)
        taken, top_of = exponents[cuda.blockIdx.x], tops[cuda.blockIdx.x]
        for task in range(cuda.blockIdx.x, times.size * B, cuda.gridDim.x):
            i, b = task // B, task % B
            cuda.syncthreads()
            for r in range(cuda.threadIdx.x, KEYS, cuda.blockDim.x):
                keys[r] = 0
            for r in range(cuda.threadIdx.x, R, cuda.blockDim.x):
                taken[r] = 0
                sample[own + r] = b
                start[own + r] = 0.0
            for item in range(cuda.threadIdx.x, R * eye.shape[1] * n, cuda.blockDim.x):
                r, s, j = item // (eye.shape[1] * n), item // n % eye.shape[1], item % n
                odd[own + r, s, j] = eye[r, s, j]
            for k in range(cuda.threadIdx.x, ends, cuda.blockDim.x):
                out[i, b, k] = math.nan
            cuda.syncthreads()
            turn, parity, t = 0, 0, times[i]
            while t >= 0:
                current = odd if parity == 0 else even
                for r in range(cuda.threadIdx.x, R, cuda.blockDim.x):
                    key = np.int32(0)
                    for c in range(first, last):
                        key = max(key, block.exponent_key(current[own + r, c // n, c % n]))
                    top_of[r] = taken[r] + block.exponent_of(key, 1.0) if key > 0 else _LOWEST
                cuda.syncthreads()
                top = top_of[0]
                for r in range(1, R):
                    top = max(top, top_of[r])
                for item in range(cuda.threadIdx.x, R * columns, cuda.blockDim.x):
                    r, c = item // columns, first + item % columns
                    shift = max(taken[r] - top, -4000) if top > _LOWEST else 0
                    A[a0 + item] = block.times_power(current[own + r, c // n, c % n], shift)
                cuda.syncthreads()
                if top == _LOWEST:
                    square = 0.0
                elif spectral:
                    square = _largest_eigenvalue(
                        A, a0, R, columns, start, own, tilt, Q, q0, most, tri, t0, u, u0, parts
                    )
                else:
                    square = _dot(A, a0, A, a0, R * columns, parts)
                if cuda.threadIdx.x == 0:
                    if 0.0 < square < math.inf:
                        out[i, b, t] = log(square) / 2.0 + top * _LN2
                    else:  # no number stays none
                        out[i, b, t] = -math.inf if square == 0.0 else square
                if t > 0:
                    new = even if parity == 0 else odd
                    for g in range(0, R, rows):
                        count = min(rows, R - g)
                        step(current, new, own + g, count, rows, sample, t - 1, system, where, none, none)
                        block.rescale(new, own + g, count, keys, taken[g:], turn, widest)
                        turn = 1 - turn
                        cuda.syncthreads()
                    parity = 1 - parity
                t -= 1

    return run


def _norms(out, times, eye, columns, spectral, system):
    """See ``chain_norms``; everything is float64."""
    R, S, n = eye.shape
    first, last = columns
    width, most = last - first, 2 * R + 40
    rows = min(-(-R // block.TILE) * block.TILE, MOST_ROWS)
    numbers = rows * system.row
    level, _ = block.placement(8, system.weights, -(-numbers // block.TILE), _cuda.shared_limit())
    kernel = make(system.form, level)
    i = np.arange(R)
    operands = [pieces.written(out, 1)]
    operands += [pieces.whole(array) for array in (times, eye, 0.05 * np.sin(1.7 * i * i + 0.3))]
    operands += system.operands(lambda partial: pieces.read(partial, 1))
    scratch_numbers = 2 * R * S * n + R * width + (most + 1) * R + 2 * most + width + 5 * R
    bytes_each = 8 * (scratch_numbers + (numbers if level == block.GLOBAL else 0))
    blocks = pieces.blocks_with_room(min(len(times) * out.shape[1], 2 * _cuda.processors()), bytes_each)

    def piece(start, stop, out, times, eye, tilt, *others):
        count = min(blocks, len(times) * (stop - start))
        scratch, shared = block.scratch(level, count, numbers, system.weights, _DTYPE)
        vectors = [_cuda.empty((count * R, S, n), _DTYPE) for _ in range(2)]
        sizes = (count * R * width, count * R * (most + 1), count * 2 * most, count * width, count * R)
        flat = [_cuda.empty((size,), _DTYPE) for size in sizes]
        integers = [_cuda.empty(shape, np.int64) for shape in ((count, R), (count, R), (count * R,))]
        none = _cuda.empty((1, 1, 1), _DTYPE)
        kernel(
            count, _cuda.threads(max(R * width, rows * n)), shared, out, times, eye, tilt, *vectors, *flat,
            *integers, none, (*others, *system.scalars), scratch, numbers, rows, first, last, bool(spectral),
        )  # fmt: skip

    pieces.run(piece, out.shape[1], operands, "the norms of one sample", (blocks * bytes_each, 0))


def chain_norms(out, times, eye, columns, spectral, system):
    """out[i, b, k] = ln ||Phi(times[i], k)[rows, columns]|| for every k <= times[i], NaN beyond; the CPU's contract."""
    factors, W, W2, *rest = system
    wide = tuple(map(in_float64, factors)), in_float64(W), in_float64(W2), *rest
    _norms(out, times, in_float64(eye), columns, spectral, steps.factored(False, wide))


def dense_chain_norms(out, times, eye, columns, spectral, J):
    """The same for local Jacobians J[T, B, N, N]; eye[R, 1, N]."""
    _norms(out, times, in_float64(eye), columns, spectral, steps.dense(in_float64(J)))


@functools.cache
def make_unsettled():
    """Kernel ``run(found, out, times)``: found[0] is set where a norm of k <= times[i] is no number."""

    @_cuda.Kernel
    def run(found, out, times):
        I, B, K = out.shape
        for item in range(cuda.grid(1), I * B * K, cuda.gridsize(1)):
            i, b, k = item // (B * K), item // K % B, item % K
            if k <= times[i] and math.isnan(out[i, b, k]):
                cuda.atomic.max(found, 0, numba.int64(1))

    return run


def unsettled(out, times):
    """Whether ``chain_norms`` left a NaN in its result, a device array, where there should be a norm."""
    found, threads = _cuda.upload(np.zeros(1, np.int64)), _cuda.threads(out.size)
    make_unsettled()(-(-out.size // threads), threads, 0, found, out, _cuda.upload(times))
    answer = np.empty(1, np.int64)
    _cuda.download(found, answer)
    return bool(answer[0])
