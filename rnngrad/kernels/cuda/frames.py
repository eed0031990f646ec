"""Tangent frames carried along a trajectory and made orthonormal on the way, a block for each sample, in one launch.

The loop is the CPU's: a QR every few steps, so few that the stretch within the frame stays small, and steps that
stretched it too far are taken again in smaller pieces. Frames are float64.
"""

import functools
import math

import numba
import numpy as np

from ... import _cuda
from . import block, pieces, steps
from .block import KEYS, MOST_ROWS
from .orthonormalize import DEPENDENT, NOT_FINITE, limits, make_qr, room

cuda = _cuda.load()

_LONGEST = 64  # steps between two QRs at most
_LN2 = math.log(2.0)


@functools.cache
def make(form, dtype, level):
    """Kernel of ``tangent_frames``; vectors are given as rows [B k, S, n] and flat, R and ``again`` flat."""
    step, begin, qr = steps.make(form, True, dtype), steps.begin(form, dtype, level), make_qr(dtype)
    widest = block.widest(dtype.type(1))
    aim, limit = limits(dtype.itemsize)

    @_cuda.Kernel
    def run(
        frames, frames_flat, odd, odd_flat, even, even_flat, mantissas, counts, interval, found, exponents, totals,
        products, R, again, sample, none, system, scratch, numbers, rows, length,
    ):  # fmt: skip
        # mantissas, counts[blocks, B, k]: what a block of steps stretched by, mantissa 2^count
        # interval[B]  found[B, 4]  exponents, totals, products[B, k]  R, again[B k k]
        b, k = cuda.blockIdx.x, exponents.shape[1]
        n, N = frames.shape[2], frames.shape[1] * frames.shape[2]
        first, r0 = b * k, b * k * k
        keys = cuda.shared.array(KEYS, numba.int32)
        flags = cuda.shared.array(2, numba.int32)
        where = begin(scratch, numbers, system, n)
        place, at, _ = where
        taken, total, product = exponents[b], totals[b], products[b]
        wanted = interval[b]
        lost = found[b, 0]
        for part in range(mantissas.shape[0]):
            for c in range(cuda.threadIdx.x, k, cuda.blockDim.x):
                product[c] = 1.0
                total[c] = 0
            done = 0
            broken = False
            while done < length and not broken:
                together = min(wanted, length - done)
                for r in range(cuda.threadIdx.x, KEYS, cuda.blockDim.x):
                    keys[r] = 0
                for c in range(cuda.threadIdx.x, k, cuda.blockDim.x):
                    taken[c] = 0
                cuda.syncthreads()
                turn = 0
                current = frames
                for d in range(together):
                    new = odd if d % 2 == 0 else even
                    t = part * length + done + d
                    for g in range(0, k, rows):
                        count = min(rows, k - g)
                        step(current, new, first + g, count, rows, sample, t, system, where, none, none)
                        block.rescale(new, first + g, count, keys, taken[g:], turn, widest)
                        turn = 1 - turn
                        cuda.syncthreads()
                    current = new
                flat = odd_flat if together % 2 == 1 else even_flat
                stretch = qr(current, flat, first, k, R, again, r0, taken, place, at, keys, flags)
                cuda.syncthreads()
                if stretch > limit and together > 1:
                    wanted = max(1, together // 2 if stretch >= DEPENDENT else aim * together // stretch)
                    continue
                now = part * length + done
                if stretch == NOT_FINITE:
                    broken = True
                    lost = now
                    if cuda.threadIdx.x == 0:
                        found[b, 0] = now
                        found[b, 1] = 1
                    continue
                if stretch >= DEPENDENT:
                    if lost < 0:
                        lost = now
                        if cuda.threadIdx.x == 0:
                            found[b, 0] = now
                    longer = 1
                else:
                    longer = max(1, min(aim * together // max(stretch, 1), min(2 * together, _LONGEST)))
                if cuda.threadIdx.x == 0:
                    found[b, 2] += 1
                    if stretch < DEPENDENT:
                        found[b, 3] = max(found[b, 3], stretch)
                for item in range(cuda.threadIdx.x, k * N, cuda.blockDim.x):
                    frames_flat[first * N + item] = flat[first * N + item]
                for c in range(cuda.threadIdx.x, k, cuda.blockDim.x):
                    value = product[c] * np.float64(R[r0 + c * k + c])
                    out = block.exponent_of(block.exponent_key(value), value)
                    product[c] = block.times_power(value, -out)
                    total[c] += taken[c] + out
                done += together
                wanted = longer if together == wanted else min(wanted, longer)  # the end of a block cut it short
                cuda.syncthreads()
            if broken:
                break
            for c in range(cuda.threadIdx.x, k, cuda.blockDim.x):
                mantissas[part, b, c] = product[c]
                counts[part, b, c] = total[c]
        if cuda.threadIdx.x == 0:
            interval[b] = wanted

    return run


def _frames(frames, logs, interval, found, t_from, length, system):
    """See ``tangent_frames``."""
    B, k, S, n = frames.shape
    if frames.dtype != np.float64:
        raise ValueError(f"frames have dtype {frames.dtype}; they must be float64")
    N = S * n
    rows = min(-(-k // block.TILE) * block.TILE, MOST_ROWS)
    numbers = max(rows * system.row, room(k, N))
    level, _ = block.placement(8, system.weights, -(-numbers // block.TILE), _cuda.shared_limit())
    kernel = make(system.form, frames.dtype, level)
    counts = np.zeros(logs.shape, np.int64)
    operands = [pieces.changed(frames, 0), pieces.written(logs, 1), pieces.written(counts, 1)]
    operands += [pieces.changed(interval, 0), pieces.changed(found, 0)]
    operands += system.steps(t_from, t_from + len(logs) * length).operands(lambda partial: pieces.read(partial, 1))
    found[:, 0] = np.where(found[:, 0] >= 0, found[:, 0] - t_from, found[:, 0])

    def piece(start, stop, frames, mantissas, counts, interval, found, *others):
        count = stop - start
        scratch, shared = block.scratch(level, count, numbers, system.weights, np.dtype(np.float64))
        vectors = [frames, *(_cuda.empty((count, k, S, n), np.float64) for _ in range(2))]
        views = [view for each in vectors for view in (each.reshape(count * k, S, n), each.reshape(-1))]
        numbers_of = [_cuda.empty((count, k), kind) for kind in (np.int64, np.int64, np.float64)]
        factors_of = [_cuda.empty((count * k * k,), np.float64) for _ in range(2)]
        sample = _cuda.upload(np.repeat(np.arange(count), k))
        none = _cuda.empty((1, 1, 1), np.float64)
        kernel(
            count, _cuda.threads(max(N, rows * n)), shared, *views, mantissas, counts, interval, found, *numbers_of,
            *factors_of, sample, none, (*others, *system.scalars), scratch, numbers, rows, length,
        )  # fmt: skip

    each = 8 * (3 * k * N + 2 * k * k + 4 * k + (numbers if level == block.GLOBAL else 0))
    pieces.run(piece, B, operands, "the frame of one sample", (0, each))
    found[:, 0] = np.where(found[:, 0] >= 0, found[:, 0] + t_from, found[:, 0])
    with np.errstate(divide="ignore", invalid="ignore"):  # a lost direction is -inf; after a NaN nothing is kept
        logs[:] = np.log(logs) + counts * _LN2


def tangent_frames(frames, logs, interval, found, t_from, length, system):
    """Carry frames[B, k, S, n] of orthonormal vectors len(logs) blocks of ``length`` steps on; the CPU's contract."""
    system = steps.factored(True, system)
    _frames(frames, logs, interval, found, t_from, length, system)


def dense_frames(frames, logs, interval, found, t_from, length, J):
    """The same contract for local Jacobians J[T, B, N, N] and frames[B, k, 1, N]."""
    _frames(frames, logs, interval, found, t_from, length, steps.dense(J))
