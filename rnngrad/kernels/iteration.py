"""When an iteration s <- g(s) of one sample ends, and how Anderson's mixing weighs its last steps; on every backend."""

import math

from .._jit import unit

CONVERGED, LIMIT, NOT_FINITE, STALLED = range(4)  # why an iteration ended
PATIENCE = 50  # iterations without a smaller residual, next to rounding, after which it is as small as it gets
ROUNDING = 32.0  # times eps sqrt(N) max(1, |s|): next to rounding
DEPENDENT = 64.0  # times eps: share of the square of a change that must be left beside the newer ones


@unit
def ending(size, first, since, length, tol, near, most, k, limit):
    """Why the iteration of a sample ends with its k-th residual, or -1.

    size is that residual and first the 0-th, since the iterations without a smaller one, length |s|; near = ROUNDING
    eps sqrt(N), most = 1 / eps^2.
    """
    T = type(size)
    if size <= tol:
        return CONVERGED
    if not size <= (T(1.0) + first) * most:
        return NOT_FINITE
    if since >= PATIENCE and size <= near * max(T(1.0), length):
        return STALLED
    if k == limit:
        return LIMIT
    return -1


@unit
def mixture(gram, factors, gamma, k, window, count, least):
    """gamma = argmin |r - sum_i gamma_i c_i| over the newest ``count`` changes c of the residual; how many are used.

    The c that iteration k' < k made is row k' % window of gram[window, window], the inner products of changes. gamma[i]
    holds r c_i of the i-th newest on entry; factors[window, window] is scratch. The normal equations are factored from
    the newest on and end before the first change of which the newer ones leave no more than ``least`` of its square, so
    that an old direction can spoil nothing.
    """
    used = 0
    for i in range(count):  # L L^T = gram, and L w = changes r
        a = (k - 1 - i) % window
        for j in range(i):
            value = gram[a, (k - 1 - j) % window]
            for l in range(j):
                value -= factors[i, l] * factors[j, l]
            factors[i, j] = value / factors[j, j]
        pivot = gram[a, a]
        for l in range(i):
            pivot -= factors[i, l] * factors[i, l]
        if not pivot > least * gram[a, a]:
            break
        factors[i, i] = math.sqrt(pivot)
        value = gamma[i]
        for l in range(i):
            value -= factors[i, l] * gamma[l]
        gamma[i] = value / factors[i, i]
        used = i + 1
    for i in range(used - 1, -1, -1):
        for l in range(i + 1, used):
            gamma[i] -= factors[l, i] * gamma[l]
        gamma[i] /= factors[i, i]
    return used
