"""Tangent frames carried along a trajectory and made orthonormal on the way: the loop of Lyapunov exponents.

How often is found on the way: a QR every few steps, so few that the stretch within the frame stays small (see
``orthonormalize``); steps that stretched it too far are taken again in smaller pieces. A frame depends on nothing but
itself, so results depend neither on the batch nor on the number of threads.
"""

import functools
import math

import numpy as np

from ..._jit import MULTIPLY_ADDS, kernel
from .orthonormalize import DEPENDENT, NOT_FINITE, next_interval, qr, room, stretch_limits
from .scaling import rescale
from .steps import TANGENT, prepared


@functools.cache
def _make(form):
    """Kernel for one form of the local Jacobians."""
    step, step_room = TANGENT[form]

    @kernel(
        "frames",
        form,
        tasks=lambda frames, *rest: len(frames),
        work=lambda frames, logs, interval, found, t_from, length, *rest: (
            len(logs) * length * frames.size * (2 + frames.shape[2] * frames.shape[3] / MULTIPLY_ADDS)
        ),
    )
    def run(start, stop, frames, logs, interval, found, t_from, length, system):
        # frames[B, k, S, n]  logs[blocks, B, k]  interval[B]  found[B, 4]
        blocks, _, k = logs.shape
        _, _, S, n = frames.shape
        N = S * n
        aim, limit = stretch_limits(frames.itemsize)
        scratch, work = step_room(system, frames[0]), room(k, N, frames)
        ways = np.empty((2, k, S, n), frames.dtype)
        R, again = np.zeros((k, k), frames.dtype), np.zeros((k, k), frames.dtype)
        exponents, total = np.empty(k, np.int64), np.empty(k, np.int64)
        product = np.empty(k, np.float64)
        for b in range(start, stop):
            frame, sample, wanted = frames[b], np.full(k, b), interval[b]
            for block in range(blocks):
                for c in range(k):
                    product[c], total[c] = 1.0, 0
                done, pending = 0, 0
                while done < length:
                    steps = min(wanted, length - done)
                    exponents[:] = 0
                    current = frame
                    for d in range(steps):
                        new = ways[d % 2]
                        step(system, scratch, current, new, sample, t_from + block * length + done + d)
                        rescale(new, N, exponents)
                        current = new
                    stretch = qr(current.reshape(k, N), R, again, exponents, work)
                    if stretch > limit and steps > 1:
                        wanted = max(1, steps // 2 if stretch >= DEPENDENT else aim * steps // stretch)
                        continue
                    at = t_from + block * length + done
                    if stretch == NOT_FINITE:
                        found[b, 0], found[b, 1] = at, 1
                        break
                    if stretch >= DEPENDENT and found[b, 0] < 0:
                        found[b, 0] = at
                    found[b, 2] += 1
                    if stretch < DEPENDENT:
                        found[b, 3] = max(found[b, 3], stretch)
                    to, source = frame.reshape(frame.size), current.reshape(frame.size)
                    for i in range(frame.size):
                        to[i] = source[i]
                    for c in range(k):
                        product[c] *= R[c, c]
                        total[c] += exponents[c]
                    done, pending = done + steps, pending + 1
                    if pending == 8:  # each factor is above 2^-52, and at most sqrt(N)
                        for c in range(k):
                            product[c], exponent = math.frexp(product[c])
                            total[c] += exponent
                        pending = 0
                    longer = next_interval(steps, stretch, aim)
                    wanted = longer if steps == wanted else min(wanted, longer)  # the end of a block cut it short
                if done < length:
                    break
                for c in range(k):
                    log = math.log(product[c]) if product[c] > 0 else -math.inf
                    logs[block, b, c] = log + total[c] * math.log(2.0)
            interval[b] = wanted

    return run


def tangent_frames(frames, logs, interval, found, t_from, length, system):
    """Carry frames[B, k, S, n] of orthonormal vectors len(logs) blocks of ``length`` steps on, from state t_from.

    logs[block, b, c] is the logarithm of what the block stretched direction c by, given the directions before it.
    interval[B] is the steps to the first QR on entry, those to the next on return. found[B, 4]: the step at which the
    frame lost a direction, or was no number, -1 for none; which of the two (1: no number, and nothing after it is
    computed); the number of QRs; the log2 of the largest stretch between two of them.
    """
    form, operands = prepared(True, system)
    _make(form)(frames, logs, interval, found, t_from, length, operands)


def dense_frames(frames, logs, interval, found, t_from, length, J):
    """The same contract for local Jacobians J[T, B, N, N] and frames[B, k, 1, N]."""
    _make("dense")(frames, logs, interval, found, t_from, length, (J,))
