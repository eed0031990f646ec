"""Iterations s <- g(s), plain or accelerated, of a batch: forward to a fixed point, its adjoint and its tangent.

One launch takes all iterations: a block carries a few samples until each of them ends. The arrays and their meaning are
those of the CPU's kernels. Inner products are made in the dtype of the states, also in float32.
"""

import functools
import math

import numba
import numpy as np

from ... import _cuda
from ..iteration import ROUNDING
from . import block, iterate, pieces, steps
from .block import MOST_ROWS
from .rollout import room as step_room
from .rollout import step

cuda = _cuda.load()


@_cuda.function
def _begin(pair, s, first, count, live, since, used, best, infinity):
    """Put the states in their place, and every sample of the block at its start."""
    S, n = s.shape[1], s.shape[2]
    for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
        for c in range(S):
            pair[0, first + item // n, c, item % n] = s[first + item // n, c, item % n]
    for r in range(cuda.threadIdx.x, count, cuda.blockDim.x):
        live[r] = 1
        since[r] = 0
        used[r] = 0
        best[r] = infinity
    cuda.syncthreads()


@_cuda.function
def _end(pair, s, first, count):
    """The states that the iterations ended with."""
    S, n = s.shape[1], s.shape[2]
    for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
        for c in range(S):
            s[first + item // n, c, item % n] = pair[0, first + item // n, c, item % n]


def make(dtype, begin, apply):
    """Kernel of the iterations of one map, pair[2, B, S, n] and the others scratch.

    ``begin`` is a device function that says where a block's scratch is, as of ``steps``; ``apply(pair, first, count,
    rows, system, where)`` is one for pair[1, b] = g(pair[0, b]) of ``count`` samples from ``first`` on.
    """
    advance = iterate.advance(dtype)
    infinity = dtype.type(math.inf)
    dtype = numba.from_dtype(dtype)

    @_cuda.Kernel
    def run(
        s, iterations, ends, system, residuals, pair, past, gram, factors, gamma, scratch, rows, row, own, window,
        limit, tol, near, beta,
    ):  # fmt: skip
        B, n = s.shape[0], s.shape[2]
        first = cuda.blockIdx.x * rows
        count = min(rows, B - first)
        live = cuda.shared.array(MOST_ROWS, numba.int32)
        since = cuda.shared.array(MOST_ROWS, numba.int32)
        used = cuda.shared.array(MOST_ROWS, numba.int32)
        best = cuda.shared.array(MOST_ROWS, dtype)
        room, at, weights = begin(scratch, rows * row, system, n)
        where = (room, at + rows * own, weights)
        settings = (window, limit, tol, near, beta)
        _begin(pair, s, first, count, live, since, used, best, infinity)
        k, left = 0, count
        while left > 0:
            apply(pair, first, count, rows, system, where)
            left = advance(
                k, first, count, rows, pair, residuals, iterations, ends, past, (gram, factors, gamma), room, at, live,
                since, used, best, settings,
            )  # fmt: skip
            k += 1
        _end(pair, s, first, count)

    return run


@functools.cache
def make_cell(cell, phi, dtype, level):
    """Kernel of ``fixed_point``; system = (drive, drive2, lengths, W, W2, consts, a, a2, e, q), W, W2 transposed."""
    P, P2, G = len(cell.gates), len(cell.gates2), cell.recurrent
    one_step, place = step(cell, phi, dtype), block.place(dtype, level)

    @_cuda.function
    def begin(scratch, numbers, system, n):
        return place(scratch, numbers, system[3], G * n * n, system[4], P2 * n * n)

    @_cuda.function
    def apply(pair, first, count, rows, system, where):
        drive, drive2, lengths, _, _, consts, a, a2, e, q = system
        room, sent, weights = where
        n = pair.shape[3]
        for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
            b, i = first + item // n, item % n
            for p in range(P):
                a[0, b, p, i] = drive[b, p, i]
            for p in range(P2):
                a2[0, b, p, i] = drive2[b, p, i]
        one_step(pair, a, a2, e, q, 0, weights, lengths, consts, first, count, rows, room, sent)

    return make(dtype, begin, apply)


@functools.cache
def make_linear(form, forward, dtype, level):
    """Kernel of y <- y J + g, or of y <- J y + g; system = (g, sample, *local Jacobians of one step)."""
    one_step, begin = steps.make(form, forward, dtype), steps.begin(form, dtype, level)

    @_cuda.function
    def begin_after(scratch, numbers, system, n):
        return begin(scratch, numbers, system[2:], n)

    @_cuda.function
    def apply(pair, first, count, rows, system, where):
        g, sample, new = system[0], system[1], pair[1]
        S, n = pair.shape[2], pair.shape[3]
        one_step(pair[0], new, first, count, rows, sample, 0, system[2:], where, g, g)
        for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
            r, i = first + item // n, item % n
            for c in range(S):
                new[r, c, i] += g[r, c, i]

    return make(dtype, begin_after, apply)


def _below(value, dtype):
    """The number of the dtype next to the value, not above it."""
    number = dtype.type(min(value, float(np.finfo(dtype).max)))
    return number if float(number) <= value else np.nextafter(number, dtype.type(-math.inf))


def iterate_on(kernel, s, residuals, iterations, ends, settings, operands, row, weights, shapes, more, what):
    """Launch an iteration of s[B, S, n] in pieces of samples.

    ``kernel(level)``, whose system are the ``operands``, arrays of ``shapes(count)`` and ``more``; a step needs ``row``
    numbers of scratch per sample, and ``weights`` in shared memory.
    """
    tol, limit, window, damping, _ = settings
    B, S, n = s.shape
    N, dtype, own = S * n, s.dtype, iterate.room(window)
    row += own
    level, fits = block.placement(dtype.itemsize, weights, row, _cuda.shared_limit())
    near = dtype.type(ROUNDING * np.finfo(dtype).eps * math.sqrt(N))
    numbers = (window, limit, _below(tol, dtype), near, dtype.type(damping))
    operands = [pieces.changed(s, 0), pieces.written(iterations, 0), pieces.written(ends, 0), *operands]

    def room(count):
        square = (count, window, window)
        kept = [(2, count, S, n), (count, iterate.vectors(window), N), square, square, square[:2]]
        return [(limit + 1, count), *kept]

    of_piece, of_row = block.spare(level, row * dtype.itemsize)
    of_row += dtype.itemsize * sum(math.prod(shape) for shape in (*room(1), *shapes(1)))

    def piece(start, stop, *arrays):
        count = stop - start
        blocks, rows = pieces.blocks_and_rows(count, fits)
        scratch, shared = block.scratch(level, blocks, rows * row, weights, dtype)
        kept, of_step = ([_cuda.empty(shape, dtype) for shape in each(count)] for each in (room, shapes))
        system = (*arrays[3:], *of_step, *more)
        kernel(level)(
            blocks, _cuda.threads(rows * n), shared, *arrays[:3], system, *kept, scratch, rows, row, own, *numbers
        )  # fmt: skip
        _cuda.download(arrays[1], iterations[start:stop])
        last = int(iterations[start:stop].max())  # nothing was written after it
        with np.errstate(invalid="ignore"):  # nor before it, where a sample ended
            _cuda.download(kept[0][: last + 1], residuals[: last + 1, start:stop])

    pieces.run(piece, B, operands, what, (of_piece, of_row))


@functools.cache
def fixed_point(cell, phi):
    """Kernel ``launch(s, residuals, iterations, ends, settings, drive, drive2, W, W2, consts)`` of a cell.

    The contract of the CPU's: settings = (tol, limit, window, damping, tile), of which the tile is not used; s moves in
    place, residuals[k, b] = |f(s_k) - s_k| for k <= iterations[b], and ends[b] says why it ended.
    """
    P, P2 = len(cell.gates), len(cell.gates2)
    E, Q = 0 if cell.emits_state else 1, 1 if cell.two_stage else 0

    def launch(s, residuals, iterations, ends, settings, drive, drive2, W, W2, consts):
        B, _, n = s.shape
        operands = [pieces.read(array, 0) for array in (drive, drive2, np.ones(B, np.int64))]
        operands += [pieces.whole(pieces.transposed(weights).ravel()) for weights in (W, W2)]
        operands += [pieces.read(consts, 1)]

        def shapes(count):
            return [(1, count, P, n), (1, count, P2, n), (E, count, n), (Q, count, n)]

        iterate_on(
            lambda level: make_cell(cell, phi, s.dtype, level), s, residuals, iterations, ends, settings, operands,
            step_room(len(W), len(W2), n), W.size + W2.size, shapes, (), "the iteration of one sample",
        )  # fmt: skip

    return launch


def _linear(forward, y, residuals, iterations, ends, settings, g, sample, system):
    operands = [pieces.read(g, 0), pieces.read(sample, 0), *system.steps(0, 1).operands(pieces.whole)]
    iterate_on(
        lambda level: make_linear(system.form, forward, y.dtype, level), y, residuals, iterations, ends, settings,
        operands, system.row, system.weights, lambda count: [], system.scalars, "the iteration of one row",
    )  # fmt: skip


def adjoint_fixed_point(z, residuals, iterations, ends, settings, g, sample, system):
    """The iteration z <- z J + g of rows z, g[R, S, n], each with the factored Jacobian of sample[r]."""
    system = steps.factored(False, system)
    _linear(False, z, residuals, iterations, ends, settings, g, sample, system)


def tangent_fixed_point(d, residuals, iterations, ends, settings, r, sample, system):
    """The iteration d <- J d + r of columns d, r[R, S, n]; the rest as for ``adjoint_fixed_point``."""
    system = steps.factored(True, system)
    _linear(True, d, residuals, iterations, ends, settings, r, sample, system)


def dense_adjoint_fixed_point(z, residuals, iterations, ends, settings, g, sample, J):
    """The iteration z <- z J + g for dense Jacobians J[1, B, N, N]."""
    _linear(False, z, residuals, iterations, ends, settings, g, sample, steps.dense(J))


def dense_tangent_fixed_point(d, residuals, iterations, ends, settings, r, sample, J):
    """The iteration d <- J d + r for dense Jacobians J[1, B, N, N]."""
    _linear(True, d, residuals, iterations, ends, settings, r, sample, steps.dense(J))
