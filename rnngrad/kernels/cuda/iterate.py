"""One iteration of s <- g(s) after g was applied: residuals, whether a sample is done, and its next state.

A block iterates a few samples. Each decides for itself, by what its own numbers are; inner products are made in a fixed
number of parts, so that nothing depends on the threads or on the other samples.
"""

import functools
import math

from ... import _cuda
from ..iteration import DEPENDENT, ending, mixture

cuda = _cuda.load()

_LANES = 16  # parts of an inner product


def room(window):
    """Numbers of scratch for one sample: inner products and their parts."""
    return (2 + 2 * window) * (_LANES + 1)


def vectors(window):
    """Vectors that are kept for one sample: s, r, and what the last steps changed of both."""
    return 2 + 2 * window


@functools.cache
def advance(dtype):
    """Device function: what is done with pair[1] = g(pair[0]); how many of the block's samples go on.

    pair[0, b] moves, unless b is done. past[B, vectors, N]; gram, factors[B, window, window] and gamma[B, window] are
    of Anderson's mixing; room[at : …] holds :func:`room` numbers for each of the block's ``rows``; live, since, used
    and best are shared, one for each of them. settings = (window, limit, tol, near, beta).
    """
    T = dtype.type
    zero, eps = T(0), 2.0**-23 if dtype.itemsize == 4 else 2.0**-52
    most, least = T(1 / (eps * eps)), T(DEPENDENT * eps)

    @_cuda.function
    def run(
        k, first, count, rows, pair, residuals, iterations, ends, past, mixing, room, at, live, since, used, best,
        settings,
    ):  # fmt: skip
        window, limit, tol, near, beta = settings
        gram, factors, gamma = mixing
        S, n = pair.shape[2], pair.shape[3]
        N, kept = S * n, min(k, window)
        new = (k - 1) % window if kept > 0 else 0
        for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
            r, i = item // n, item % n
            b = first + r
            if live[r] == 1:
                for c in range(S):
                    l = c * n + i
                    own = pair[0, b, c, i]
                    residual = pair[1, b, c, i] - own
                    if kept > 0:
                        past[b, 2 + new, l] = own - past[b, 0, l]
                        past[b, 2 + window + new, l] = residual - past[b, 1, l]
                    past[b, 0, l] = own
                    past[b, 1, l] = residual
        cuda.syncthreads()
        # |r|^2, |s|^2, then the newest change and r with every change
        products = 2 + 2 * kept
        sums = at + rows * products * _LANES
        for task in range(cuda.threadIdx.x, count * products * _LANES, cuda.blockDim.x):
            r, p, lane = task // (products * _LANES), task // _LANES % products, task % _LANES
            b = first + r
            if live[r] == 1:
                if p == 0:
                    x, y = 1, 1
                elif p == 1:
                    x, y = 0, 0
                elif p < 2 + kept:
                    x, y = 2 + window + new, window + p
                else:
                    x, y = 1, window + p - kept
                total = zero
                for l in range(lane, N, _LANES):
                    total += past[b, x, l] * past[b, y, l]
                room[at + task] = total
        cuda.syncthreads()
        for task in range(cuda.threadIdx.x, count * products, cuda.blockDim.x):
            if live[task // products] == 1:
                total = zero
                for lane in range(_LANES):
                    total += room[at + task * _LANES + lane]
                room[sums + task] = total
        cuda.syncthreads()
        for r in range(cuda.threadIdx.x, count, cuda.blockDim.x):
            b, own_sums = first + r, sums + r * products
            if live[r] == 1:
                size, length = T(math.sqrt(room[own_sums])), T(math.sqrt(room[own_sums + 1]))
                residuals[k, b] = size
                since[r] = 0 if size < best[r] else since[r] + 1
                end = ending(size, residuals[0, b], since[r], length, tol, near, most, k, limit)
                if size < best[r]:
                    best[r] = size
                if end >= 0:
                    ends[b] = end
                    iterations[b] = k
                    live[r] = 0
                elif window > 0:
                    for j in range(kept):
                        gram[b, new, j] = room[own_sums + 2 + j]
                        gram[b, j, new] = room[own_sums + 2 + j]
                    for j in range(kept):
                        gamma[b, j] = room[own_sums + 2 + kept + (k - 1 - j) % window]
                    used[r] = mixture(gram[b], factors[b], gamma[b], k, window, kept, least)
        cuda.syncthreads()
        left = 0
        for r in range(count):
            left += live[r]
        for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
            r, i = item // n, item % n
            b = first + r
            if live[r] == 1:
                for c in range(S):
                    l = c * n + i
                    value = past[b, 0, l] + beta * past[b, 1, l]
                    for j in range(used[r]):
                        row = 2 + (k - 1 - j) % window
                        value -= gamma[b, j] * (past[b, row, l] + beta * past[b, window + row, l])
                    pair[0, b, c, i] = value
        return left

    return run
