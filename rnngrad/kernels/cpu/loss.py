"""Losses and their derivatives with respect to the outputs, step by step."""

import functools

from ..._jit import inner, kernel
from ...loss_terms import TERMS, log_mass, share


@inner(forced=True)
def _masses(shares, y, z):
    """The largest logit, the sum of the shares relative to it (put into ``shares``), and the sum of the target."""
    top, mass, total = y[0], y.dtype.type(0), y.dtype.type(0)
    for i in range(1, y.size):
        top = max(top, y[i])
    for i in range(y.size):
        shares[i] = share(y[i], top)
    for i in range(y.size):
        mass += shares[i]
        total += z[i]
    return top, mass, total


@functools.cache
def loss(kind):
    """Kernel ``run(steps, dy, y, target, weights)``: steps[T, B] = w l(y, z), dy[T, B, p] = w dl/dy.

    y, target are (T, B, p); where weights[T, B] is 0 so are both, whatever y and z are.
    """
    terms = TERMS[kind]
    term, slope, normalized, scale = terms.term, terms.slope, terms.normalized, terms.scale

    @kernel(
        "loss",
        kind,
        tasks=lambda steps, *rest: len(steps),
        work=lambda steps, dy, *rest: 6 * dy.size + 20 * steps.size,
    )
    def run(start, stop, steps, dy, y, target, weights):
        T = steps.dtype.type
        _, B, p = y.shape
        for t in range(start, stop):
            for b in range(B):
                row, z, out = y[t, b], target[t, b], dy[t, b]
                w = weights[t, b]
                if w == 0:
                    steps[t, b] = 0
                    for i in range(p):
                        out[i] = 0
                    continue
                top, mass, level, total = T(0), T(0), T(0), T(0)
                if normalized:
                    top, mass, total = _masses(out, row, z)
                    level = log_mass(mass)
                value = T(0)
                for i in range(p):
                    value += term(row[i], z[i], top, level)
                w *= T(scale)
                for i in range(p):
                    own = out[i] / mass if normalized else T(0)
                    out[i] = w * slope(row[i], z[i], own, total)
                steps[t, b] = w * value

    return run


@functools.cache
def loss_curvature(kind):
    """Kernel ``run(out, u, y, target, weights)``: out[T, R, p] = w d^2l/dy^2 u[T, R, p], row r of sample r % B.

    y, target are (T, B, p); where weights[T, B] is 0 so is the result, whatever they are.
    """
    terms = TERMS[kind]
    bend, normalized, scale = terms.bend, terms.normalized, terms.scale

    @kernel(
        "loss_curvature",
        kind,
        tasks=lambda out, *rest: len(out),
        work=lambda out, *rest: 6 * out.size,
    )
    def run(start, stop, out, u, y, target, weights):
        T = out.dtype.type
        _, R, p = out.shape
        B = y.shape[1]
        for t in range(start, stop):
            for r in range(R):
                b = r % B
                row, z, change, found = y[t, b], target[t, b], u[t, r], out[t, r]
                w = weights[t, b]
                if w == 0:
                    for i in range(p):
                        found[i] = 0
                    continue
                top, mass, total, mean = T(0), T(0), T(0), T(0)
                if normalized:
                    top, mass, total = _masses(found, row, z)
                    for i in range(p):
                        mean += found[i] / mass * change[i]
                w *= T(scale)
                for i in range(p):
                    own = found[i] / mass if normalized else T(0)
                    found[i] = w * bend(row[i], change[i], own, total, mean)

    return run
