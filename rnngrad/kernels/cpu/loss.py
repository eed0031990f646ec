"""Losses and their derivatives with respect to the outputs, step by step."""

import functools

from ..._jit import kernel
from ...loss_terms import TERMS, log_mass, share


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
                    top = row[0]
                    for i in range(1, p):
                        top = max(top, row[i])
                    for i in range(p):
                        out[i] = share(row[i], top)
                    for i in range(p):
                        mass += out[i]
                        total += z[i]
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
