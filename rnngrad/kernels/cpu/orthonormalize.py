"""QR of tangent frames: k vectors, kept as rows, are made orthonormal, and what they had in common goes into R.

Blocked modified Gram-Schmidt. A panel of NR vectors is transposed, so that all of its inner products come out of one
register tile; what it takes out of the vectors after it is two matrix products. Gram-Schmidt leaves vectors that are
orthogonal to eps times the condition number, so a frame that was stretched a lot goes through twice (Giraud, Langou,
Rozložník & van den Eshof 2005: twice is enough).
"""

import math

import numpy as np

from ..._gemm import add_packed_product, fill_panels, packed_product, panel_width
from ..._jit import MULTIPLY_ADDS, inner, kernel, unit
from .elimination import eliminate
from .scaling import normalize

DEPENDENT, NOT_FINITE = np.int64(1 << 40), np.int64(1 << 41)  # in the place of a stretch
LONGEST = 64  # steps between two QRs at most


@unit
def stretch_limits(itemsize):
    """(aim, limit): log2 of the stretch that a frame is meant to undergo between two QRs, and of the largest accepted.

    The smallest factors have a relative error of about eps 2^stretch: 1e-11 and 1e-9 in float64, 4e-6 and 3e-5 in
    float32, where the frame is not stretched further in a single step. Beyond the limit a QR goes twice.
    """
    return (5, 8) if itemsize == 4 else (16, 22)


@unit
def next_interval(steps, stretch, aim):
    """Steps until the next QR, from the log2 of the stretch over the last ones: at most twice as many."""
    return max(1, min(aim * steps // max(stretch, 1), 2 * steps, LONGEST))


@unit
def smallest_resolved(N, itemsize):
    """What is left of a vector of largest entry 1 after Gram-Schmidt is rounding if it is shorter than this."""
    return 4 * N * (1.1920929e-07 if itemsize == 4 else 2.220446049250313e-16)


@inner()
def _panel(P, R, j0, w, scratch, tol):
    """Orthonormalise the first w columns of P[N, NR] in place; R[j0 + j, j0 + c] are the coefficients.

    A column that is shorter than ``tol`` when its turn comes is set to zero, and so is its diagonal entry. Columns are
    divided by their lengths at the end only: a number written into a row that is read as a whole at once stalls.
    """
    N, width = P.shape
    one = P.dtype.type(1)
    products, taken, lengths = scratch[0, :width], scratch[1, :width], scratch[2, :width]
    for c in range(width):
        taken[c] = 0
        lengths[c] = 0
    eliminate(P, N, 0, taken, 0, products)
    for j in range(w):
        length = np.sqrt(products[j])
        if length > tol:
            scale = one / length
            lengths[j] = scale
            R[j0 + j, j0 + j] = length
            for c in range(j + 1, w):
                R[j0 + j, j0 + c] = products[c] * scale
            square = scale * scale
            taken[j] = 0
            for c in range(j + 1, width):
                taken[c] = -products[c] * square
        else:
            for c in range(j, w):
                R[j0 + j, j0 + c] = 0
            for c in range(j, width):
                taken[c] = 0
        if j + 1 < w:
            eliminate(P, N, j, taken, j + 1, products)  # columns after j lose what lies along it
    for i in range(N):
        for c in range(width):
            P[i, c] *= lengths[c]


@inner()
def _gram_schmidt(Y, R, work, tol):
    """Rows Y[k, N] made orthonormal in place (or zero); row c was sum_j R[j, c] row j. ``work`` from :func:`room`."""
    k, N = Y.shape
    P, C, panels, scratch = work
    width = P.shape[1]
    flat = Y.reshape(k * N)
    for j0 in range(0, k, width):
        w = min(width, k - j0)
        for i in range(N):
            for c in range(w, width):
                P[i, c] = 0
        for c in range(w):
            for i in range(N):
                P[i, c] = Y[j0 + c, i]
        _panel(P, R, j0, w, scratch, tol)
        for c in range(w):
            for i in range(N):
                Y[j0 + c, i] = P[i, c]
        left = k - j0 - w
        if left > 0:
            after = flat[(j0 + w) * N :]
            packed_product(left, N, after, N, 1, P.reshape(1, N, width), width, C, width)
            for r in range(left):
                for c in range(w):
                    R[j0 + c, j0 + w + r] = C[r, c]
                    C[r, c] = -C[r, c]
            own = panels.reshape(panels.size)[: panels.shape[0] * w * panels.shape[2]]
            own = own.reshape(panels.shape[0], w, panels.shape[2])
            fill_panels(own, 0, own.shape[0], Y[j0 : j0 + w], False)
            add_packed_product(left, w, C, width, 1, own, N, after, N)


@inner()
def _fill(Y, scratch):
    """Put a unit vector orthogonal to all the others in the place of every zero row of Y[k, N]."""
    k, N = Y.shape
    for c in range(k):
        empty = True
        for i in range(N):
            if Y[c, i] != 0:
                empty = False
                break
        if not empty:
            continue
        for attempt in range(N):  # of N unit vectors, one at least keeps 1/N of its square
            first = (c + attempt) % N
            for i in range(N):
                scratch[i] = 0
            scratch[first] = 1
            for _ in range(2):
                for r in range(k):
                    dot = 0.0
                    for i in range(N):
                        dot += Y[r, i] * scratch[i]
                    for i in range(N):
                        scratch[i] -= scratch.dtype.type(dot) * Y[r, i]
            square = 0.0
            for i in range(N):
                square += scratch[i] * scratch[i]
            if 2 * N * square >= 1:
                break
        for i in range(N):
            Y[c, i] = scratch[i] / scratch.dtype.type(math.sqrt(square))


@inner()
def _compose(R, again):
    """R = again R, both upper triangular."""
    k = len(R)
    for c in range(k):
        for j in range(c + 1):
            total = R.dtype.type(0)
            for i in range(j, c + 1):
                total += again[j, i] * R[i, c]
            R[j, c] = total


@inner()
def room(k, N, like):
    """Scratch of :func:`qr` for k vectors of N numbers, in the dtype of ``like``."""
    width = panel_width(1 << 30, like.itemsize)
    columns = panel_width(N, like.itemsize)
    return (
        np.empty((N, width), like.dtype),
        np.empty((k, width), like.dtype),
        np.empty(((N + columns - 1) // columns, width, columns), like.dtype),
        np.empty((3, max(N, width)), like.dtype),
    )


@inner(forced=True)
def _exponent(x):
    """floor(log2 x) + 1 of a positive number."""
    return (np.int64(np.float64(x).view(np.int64)) >> 52) - 1022


@inner()
def qr(Y, R, again, exponents, work):
    """Rows Y[k, N] 2^exponents[k] made orthonormal in place; log2 of the stretch between them.

    Row c was 2^exponents[c] sum_{j <= c} R[j, c] (row j as it is now); R[k, k] is upper triangular, ``again`` a second
    of its size. A row that is zero beside the longest, or depends on those before it, to rounding, has R[c, c] = 0 and
    is replaced by a vector orthogonal to all; the stretch is then DEPENDENT. It is NOT_FINITE, and nothing done, if an
    entry is no number.
    """
    k, N = Y.shape
    if not normalize(Y, N, exponents):
        return NOT_FINITE
    tol = R.dtype.type(smallest_resolved(N, Y.itemsize))
    top = exponents[0]
    for c in range(1, k):
        top = max(top, exponents[c])
    floor = top + _exponent(np.float64(tol))
    for c in range(k):
        if exponents[c] < floor:  # what a product leaves of a null direction
            for i in range(N):
                Y[c, i] = 0
    _gram_schmidt(Y, R, work, tol)
    low, high, dependent = np.int64(1 << 62), np.int64(-(1 << 62)), False
    for c in range(k):
        if R[c, c] > 0:
            size = exponents[c] + _exponent(R[c, c])
            low, high = min(low, size), max(high, size)
        else:
            dependent = True
    stretch = max(high - low, 0)
    if dependent or stretch > stretch_limits(Y.itemsize)[1]:
        _gram_schmidt(Y, again, work, tol)
        _compose(R, again)
        for c in range(k):
            if not R[c, c] > tol:
                dependent = True
                R[c, c] = 0
                for i in range(N):
                    Y[c, i] = 0
    if dependent:
        _fill(Y, work[3][0])
        return DEPENDENT
    return stretch


@kernel(
    "orthonormalize",
    tasks=lambda Y, *rest: len(Y),
    work=lambda Y, *rest: 3 * Y.size * Y.shape[1] / MULTIPLY_ADDS,
)
def orthonormalize(start, stop, Y, R, exponents, stretch):
    """QR of every frame: Y[B, k, N] 2^exponents[B, k] = (R[B, k, k])^T (orthonormal rows), see :func:`qr`."""
    _, k, N = Y.shape
    work, again = room(k, N, Y), np.zeros((k, k), Y.dtype)
    for b in range(start, stop):
        for i in range(k):
            for j in range(k):
                R[b, i, j] = 0
        stretch[b] = qr(Y[b], R[b], again, exponents[b], work)
