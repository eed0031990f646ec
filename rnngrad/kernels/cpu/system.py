"""Loops around a user's function, written as call(out, s, x, params), and chains of dense Jacobians.

A factory takes the :class:`UserFunction`; such kernels are compiled once per process (Numba cannot cache what it did
not see on disk).
"""

import functools

import numpy as np

from ..._jit import inner, kernel
from ..user import COMPLEX_STEP
from .scaling import ROWS, rescale


@functools.cache
def written(user):
    """The function as ``call(out, s, x, params)``."""
    return user.into(user.function, inner(forced=True))


@functools.cache
def system_rollout(user):
    """Kernel ``run(states, x, params, lengths)``: states[t + 1] = f(states[t], x[t], params)."""
    call = written(user)

    @kernel("system_rollout", tasks=lambda states, *rest: states.shape[1], cached=False)
    def run(start, stop, states, x, params, lengths):
        n = states.shape[3]
        s = np.empty(n, states.dtype)
        for b in range(start, stop):
            for t in range(x.shape[0]):
                for i in range(n):
                    s[i] = states[t, b, 0, i]
                if t < lengths[b]:
                    call(states[t + 1, b, 0], s, x[t, b], params)
                else:
                    for i in range(n):
                        states[t + 1, b, 0, i] = s[i]

    return run


@functools.cache
def system_derivatives(user, which):
    """Kernel ``run(J, states, x, params, lengths)``: J[t, b, i, j] = df_i/d(argument ``which``)_j by a complex step."""
    call = written(user)

    @kernel("system_derivatives", tasks=lambda J, *rest: len(J), cached=False)
    def run(start, stop, J, states, x, params, lengths):
        _, B, n, width = J.shape
        moved, new = np.empty(width, np.complex128), np.empty(n, np.complex128)
        for t in range(start, stop):
            for b in range(B):
                if t >= lengths[b]:  # a padded step copies the state
                    J[t, b] = 0
                    if which == 0:
                        for i in range(n):
                            J[t, b, i, i] = 1
                    continue
                s, u = states[t, b, 0].copy(), x[t, b].copy()
                for i in range(width):
                    moved[i] = s[i] if which == 0 else u[i] if which == 1 else params[i]
                for j in range(width):
                    moved[j] += 1j * COMPLEX_STEP
                    if which == 0:
                        call(new, moved, u, params)
                    elif which == 1:
                        call(new, s, moved, params)
                    else:
                        call(new, s, u, moved)
                    for i in range(n):
                        J[t, b, i, j] = new[i].imag / COMPLEX_STEP
                    moved[j] = moved[j].real

    return run


@functools.cache
def system_jacobian(user):
    """Kernel ``run(J, states, x, params, lengths)`` around a user's own Jacobian, call(out (n, n), s, x, params)."""
    call = written(user)

    @kernel("system_jacobian", tasks=lambda J, *rest: len(J), cached=False)
    def run(start, stop, J, states, x, params, lengths):
        _, B, n, _ = J.shape
        for t in range(start, stop):
            for b in range(B):
                if t < lengths[b]:
                    call(J[t, b], states[t, b, 0].copy(), x[t, b].copy(), params)
                else:
                    for i in range(n):
                        for j in range(n):
                            J[t, b, i, j] = 1 if i == j else 0

    return run


@inner(forced=True)
def _times(new, row, J, transposed):
    """new = row J, or J row."""
    n = row.size
    for i in range(n):
        new[i] = 0
    for k in range(n):
        for i in range(n):
            new[i] += row[k] * (J[i, k] if transposed else J[k, i])


@kernel("dense_chain", tasks=lambda out, *rest: -(-out.shape[1] // ROWS))
def dense_chain(start, stop, out, exponents, y, exponent, sample, t_from, J, forward):
    """Carry rows y[R, n] back through J[T, B, n, n] from state t_from, or columns forward; out in the order of time.

    The same contract as ``adjoint_chain`` and ``tangent_chain``.
    """
    steps, R, n = out.shape
    for r in range(start * ROWS, min(R, stop * ROWS)):
        current, count = y[r], exponent[r : r + 1].copy()
        for d in range(steps):
            slot = d if forward else steps - 1 - d
            t = t_from + d if forward else t_from - 1 - d
            _times(out[slot, r], current, J[t, sample[r]], forward)
            rescale(out[slot, r], n, count)
            exponents[slot, r] = count[0]
            current = out[slot, r]
