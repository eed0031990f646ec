"""Norms of every product Phi(t, k) of a row of the heat map, t fixed, without keeping the products.

The 2-norm is the root of the largest eigenvalue of M M^T, by Lanczos steps from the vector that belonged to the lag
before: left singular vectors of Phi(t, k) settle as the lag grows, so a few steps are enough. A part of the start is
the same in every direction, so none is missed.
"""

import functools
import math

import numpy as np

from ..._gemm import fill_panels, packed_product, panel_width
from ..._jit import MULTIPLY_ADDS, inner, kernel
from ..tridiagonal import SETTLED, largest_eigenvalue
from .scaling import normalize, rescale
from .steps import ADJOINT, prepared
from .sums import dot


@inner()
def _largest_eigenvalue(G, start, Q, a, b):
    """Largest eigenvalue of the positive semidefinite G[R, R]; ``start`` becomes its vector. NaN if not found."""
    R, most = len(G), len(Q) - 1
    square = dot(start, start)
    scale = 1 / math.sqrt(square) if square > 0 else 0.0
    square = 0.0
    for i in range(R):  # something of every direction, the same each time
        Q[0, i] = start[i] * scale + 0.05 * math.sin(1.7 * i * i + 0.3)
        square += Q[0, i] * Q[0, i]
    scale = 1 / math.sqrt(square)
    for i in range(R):
        Q[0, i] *= scale
    theta, settled = 0.0, 0
    for j in range(most):
        q, w = Q[j], Q[j + 1]
        for i in range(R):
            w[i] = 0
        for r in range(R):
            factor = q[r]
            for i in range(R):
                w[i] += factor * G[r, i]
        a[j] = dot(q, w)
        for i in range(R):
            w[i] -= a[j] * q[i]
        if j > 0:
            for i in range(R):
                w[i] -= b[j - 1] * Q[j - 1, i]
        b[j] = math.sqrt(dot(w, w))
        before, theta = theta, largest_eigenvalue(a, b, j + 1, theta)
        settled = settled + 1 if theta - before <= SETTLED * theta else 0
        if settled == 2 or b[j] == 0:  # growth falls geometrically: what is to come is of its order
            _ritz_vector(start, Q, a, b, j + 1, theta)
            return theta
        for i in range(R):
            w[i] /= b[j]
    return np.nan


@inner()
def _ritz_vector(out, Q, a, b, j, theta):
    """out = sum_i s_i Q[i], s the eigenvector of T_j at theta from its last component up (not normalised)."""
    for i in range(out.size):
        out[i] = Q[j - 1, i]
    after, s, size = 0.0, 1.0, 1.0
    for l in range(j - 2, -1, -1):
        before = ((theta - a[l + 1]) * s - (b[l + 1] * after if l + 2 < j else 0.0)) / b[l]
        after, s = s, before
        size = max(size, abs(s))
        for i in range(out.size):
            out[i] += s * Q[l, i]
        if size > 1e100:
            for i in range(out.size):
                out[i] *= 1e-100
            after, s, size = after * 1e-100, s * 1e-100, 1.0


@inner()
def _log_norm(rows, exponents, first, last, spectral, start, scratch):
    """ln of the norm of M[R, first:last], row r of M being rows[r] 2^exponents[r]; 2-norm or Frobenius norm."""
    A, panels, G, Q, a, b, shifts = scratch
    R = len(rows)
    for r in range(R):
        shifts[r] = exponents[r]
        for i in range(last - first):
            A[r, i] = rows[r, first + i]
    normalize(A, last - first, shifts)
    top = -(1 << 62)
    for r in range(R):
        largest = 0.0
        for i in range(last - first):
            largest = max(largest, abs(A[r, i]))
        if largest > 0:
            top = max(top, shifts[r])
    if top == -(1 << 62):
        return -math.inf
    for r in range(R):
        if shifts[r] != top:
            factor = 2.0 ** max(shifts[r] - top, -1000)
            for i in range(last - first):
                A[r, i] *= factor
    if spectral:
        fill_panels(panels, 0, len(panels), A, True)
        packed_product(R, last - first, A, last - first, 1, panels, R, G, R)
        square = _largest_eigenvalue(G, start, Q, a, b)
    else:
        square = 0.0
        for r in range(R):
            square += dot(A[r], A[r])
    return math.log(square) / 2 + top * math.log(2.0)


@inner()
def _scratch(R, columns):
    """Room of ``_log_norm``: everything but the rows themselves is float64, whatever they are."""
    width = panel_width(R, 8)
    most = 2 * R + 40
    return (
        np.empty((R, columns), np.float64),
        np.empty(((R + width - 1) // width, columns, width), np.float64),
        np.empty((R, R), np.float64),
        np.empty((most + 1, R), np.float64),
        np.empty(most, np.float64),
        np.empty(most, np.float64),
        np.empty(R, np.int64),
    )


@functools.cache
def _make(form):
    """Kernel for one form of the local Jacobians."""
    step, step_room = ADJOINT[form]

    @kernel(
        "chain_norms",
        form,
        tasks=lambda out, times, *rest: out.shape[0] * out.shape[1],
        work=lambda out, times, eye, *rest: out.size / 2 * eye.size * (2 + 2 * eye[0].size / MULTIPLY_ADDS),
    )
    def run(start, stop, out, times, eye, columns, spectral, system):
        # out[times, B, T+1]  eye[R, S, n]: the rows of the identity that are wanted
        _, B, ends = out.shape
        R, S, n = eye.shape
        N = S * n
        first, last = columns
        scratch, own = step_room(system, eye), _scratch(R, last - first)
        ways = np.empty((2, R, S, n), eye.dtype)
        exponents, vector = np.empty(R, np.int64), np.empty(R, np.float64)
        for task in range(start, stop):
            i, b = task // B, task % B
            sample = np.full(R, b)
            exponents[:] = 0
            vector[:] = 0
            for k in range(ends):
                out[i, b, k] = np.nan
            current, at = eye, times[i]
            while True:
                out[i, b, at] = _log_norm(current.reshape(R, N), exponents, first, last, spectral, vector, own)
                if at == 0:
                    break
                new = ways[at % 2]
                step(system, scratch, current, new, sample, at - 1)
                rescale(new, N, exponents)
                current, at = new, at - 1

    return run


def chain_norms(out, times, eye, columns, spectral, system):
    """out[i, b, k] = ln ||Phi(times[i], k)[rows, columns]|| for every k <= times[i], NaN beyond.

    eye[R, S, n] are the rows of the identity that make the block, columns = (first, last) its columns; ``spectral``
    is the 2-norm, else Frobenius. NaN too where the iteration for the 2-norm did not settle.
    """
    form, operands = prepared(False, system)
    _make(form)(out, times, eye, columns, spectral, operands)


def dense_chain_norms(out, times, eye, columns, spectral, J):
    """The same for local Jacobians J[T, B, N, N]; eye[R, 1, N]."""
    _make("dense")(out, times, eye, columns, spectral, (J,))
