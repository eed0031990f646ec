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
from . import block, iterate, pieces
from .block import MOST_ROWS
from .chain import adjoint_step
from .rollout import room as step_room
from .rollout import step
from .tangent import tangent_step

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


@functools.cache
def make(cell, phi, dtype, level):
    """Kernel of ``fixed_point``; W, W2 transposed and flat, pair[2, B, S, n], a[1, B, P, n], … scratch of a step."""
    P, P2, G = len(cell.gates), len(cell.gates2), cell.recurrent
    one_step, advance = step(cell, phi, dtype), iterate.advance(dtype)
    infinity = dtype.type(math.inf)
    dtype = numba.from_dtype(dtype)
    wide = max(G, P2)

    @_cuda.Kernel
    def run(
        s, iterations, ends, drive, drive2, lengths, W, W2, consts, residuals, pair, past, gram, factors, gamma, a, a2,
        e, q, scratch, rows, row, window, limit, tol, near, beta,
    ):  # fmt: skip
        B, n = s.shape[0], s.shape[2]
        first = cuda.blockIdx.x * rows
        count = min(rows, B - first)
        live = cuda.shared.array(MOST_ROWS, numba.int32)
        since = cuda.shared.array(MOST_ROWS, numba.int32)
        used = cuda.shared.array(MOST_ROWS, numba.int32)
        best = cuda.shared.array(MOST_ROWS, dtype)
        if level == 0:
            room = scratch
            sent = cuda.blockIdx.x * rows * row
        else:
            room = cuda.shared.array(0, dtype)
            sent = 0
        if level == 2:
            block.copy(room, 0, W, G * n * n)
            block.copy(room, G * n * n, W2, P2 * n * n)
            weights = (room, 0, room, G * n * n)
            sent = (G + P2) * n * n
        else:
            weights = (W, 0, W2, 0)
        at = sent + rows * (1 + wide) * n
        settings = (window, limit, tol, near, beta)
        _begin(pair, s, first, count, live, since, used, best, infinity)
        k, left = 0, count
        while left > 0:
            for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
                b, i = first + item // n, item % n
                for p in range(P):
                    a[0, b, p, i] = drive[b, p, i]
                for p in range(P2):
                    a2[0, b, p, i] = drive2[b, p, i]
            one_step(pair, a, a2, e, q, 0, weights, lengths, consts, first, count, rows, room, sent)
            left = advance(
                k, first, count, rows, pair, residuals, iterations, ends, past, (gram, factors, gamma), room, at, live,
                since, used, best, settings,
            )  # fmt: skip
            k += 1
        _end(pair, s, first, count)

    return run


@functools.cache
def make_linear(dtype, level, forward):
    """Kernel of ``adjoint_fixed_point``, or ``forward`` of ``tangent_fixed_point``, whose weights are transposed."""
    one_step, advance = (tangent_step if forward else adjoint_step)(dtype, False), iterate.advance(dtype)
    infinity = dtype.type(math.inf)
    dtype = numba.from_dtype(dtype)

    @_cuda.Kernel
    def run(
        s, iterations, ends, g, sample, update_s, update_a, update_a2, inner_s, inner_a, emit_s, W, W2, by_s, by_a,
        by_a2, in_s, in_a, by_e, residuals, pair, past, gram, factors, gamma, scratch, rows, row, window, limit, tol,
        near, beta, G, P2, emits_state,
    ):  # fmt: skip
        R, S, n = s.shape
        first = cuda.blockIdx.x * rows
        count = min(rows, R - first)
        live = cuda.shared.array(MOST_ROWS, numba.int32)
        since = cuda.shared.array(MOST_ROWS, numba.int32)
        used = cuda.shared.array(MOST_ROWS, numba.int32)
        best = cuda.shared.array(MOST_ROWS, dtype)
        if level == 0:
            room = scratch
            z = cuda.blockIdx.x * rows * row
        else:
            room = cuda.shared.array(0, dtype)
            z = 0
        if level == 2:
            block.copy(room, 0, W, G * n * n)
            block.copy(room, G * n * n, W2, P2 * n * n)
            weights = (room, 0, room, G * n * n)
            z = (G + P2) * n * n
        else:
            weights = (W, 0, W2, 0)
        at = z + rows * (1 + G + P2) * n
        settings = (window, limit, tol, near, beta)
        partials = (update_s, update_a, update_a2, inner_s, inner_a, emit_s)
        masks = (by_s, by_a, by_a2, in_s, in_a, by_e)
        _begin(pair, s, first, count, live, since, used, best, infinity)
        current, new = pair[0], pair[1]
        k, left = 0, count
        while left > 0:
            one_step(
                current, new, first, count, rows, sample, 0, partials, masks, room, z, weights, G, P2, emits_state, g,
                g,
            )  # fmt: skip
            for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
                r, i = first + item // n, item % n
                for c in range(S):
                    new[r, c, i] += g[r, c, i]
            left = advance(
                k, first, count, rows, pair, residuals, iterations, ends, past, (gram, factors, gamma), room, at, live,
                since, used, best, settings,
            )  # fmt: skip
            k += 1
        _end(pair, s, first, count)

    return run


def _below(value, dtype):
    """The number of the dtype next to the value, not above it."""
    number = dtype.type(min(value, float(np.finfo(dtype).max)))
    return number if float(number) <= value else np.nextafter(number, dtype.type(-math.inf))


def _iterate(kernel, s, residuals, iterations, ends, settings, operands, row, weights, shapes, more, what):
    """Launch an iteration of s[B, S, n] in pieces of samples.

    ``kernel(level)``; ``operands`` beside s, iterations and ends; a step needs ``row`` numbers of scratch per sample,
    ``weights`` in shared memory, and arrays of ``shapes(count)``; ``more`` are its last arguments.
    """
    tol, limit, window, damping, _ = settings
    B, S, n = s.shape
    N, dtype = S * n, s.dtype
    row += iterate.room(window)
    level, fits = block.placement(dtype.itemsize, weights, row, _cuda.shared_limit())
    near = dtype.type(ROUNDING * np.finfo(dtype).eps * math.sqrt(N))
    numbers = (window, limit, _below(tol, dtype), near, dtype.type(damping))
    operands = [pieces.changed(s, 0), pieces.written(iterations, 0), pieces.written(ends, 0), *operands]

    def room(count):
        square = (count, window, window)
        kept = [(2, count, S, n), (count, iterate.vectors(window), N), square, square, square[:2]]
        return [(limit + 1, count), *kept, *shapes(count)]

    of_piece, of_row = block.spare(level, row * dtype.itemsize)
    of_row += dtype.itemsize * sum(math.prod(shape) for shape in room(1))

    def piece(start, stop, *arrays):
        count = stop - start
        blocks, rows = pieces.blocks_and_rows(count, fits)
        scratch, shared = block.scratch(level, blocks, rows * row, weights, dtype)
        own = [_cuda.empty(shape, dtype) for shape in room(count)]
        kernel(level)(
            blocks, _cuda.threads(rows * n), shared, *arrays, *own, scratch, rows, row, *numbers, *more
        )  # fmt: skip
        _cuda.download(arrays[1], iterations[start:stop])
        last = int(iterations[start:stop].max())  # nothing was written after it
        with np.errstate(invalid="ignore"):  # nor before it, where a sample ended
            _cuda.download(own[0][: last + 1], residuals[: last + 1, start:stop])

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

        _iterate(
            lambda level: make(cell, phi, s.dtype, level), s, residuals, iterations, ends, settings, operands,
            step_room(len(W), len(W2), n), W.size + W2.size, shapes, (), "the iteration of one sample",
        )  # fmt: skip

    return launch


def _linear(forward, y, residuals, iterations, ends, settings, g, sample, factors, W, W2, masks, emits_state):
    G, P2, n = len(W), len(W2), y.shape[2]
    operands = [pieces.read(g, 0), pieces.read(sample, 0), *(pieces.whole(partial[:1]) for partial in factors)]
    operands += [
        pieces.whole(pieces.transposed(weights).ravel() if forward else weights.ravel()) for weights in (W, W2)
    ]
    operands += [pieces.whole(mask) for mask in masks]
    _iterate(
        lambda level: make_linear(y.dtype, level, forward), y, residuals, iterations, ends, settings, operands,
        (1 + G + P2) * n, W.size + W2.size, lambda count: [], (G, P2, emits_state), "the iteration of one row",
    )  # fmt: skip


def adjoint_fixed_point(z, residuals, iterations, ends, settings, g, sample, factors, W, W2, masks, emits_state):
    """The iteration z <- z J + g of rows z, g[R, S, n], each with the factored Jacobian of sample[r]."""
    _linear(False, z, residuals, iterations, ends, settings, g, sample, factors, W, W2, masks, emits_state)


def tangent_fixed_point(d, residuals, iterations, ends, settings, r, sample, factors, W, W2, masks, emits_state):
    """The iteration d <- J d + r of columns d, r[R, S, n]; the rest as for ``adjoint_fixed_point``."""
    _linear(True, d, residuals, iterations, ends, settings, r, sample, factors, W, W2, masks, emits_state)
