"""Minimal gated unit: one gate f for both jobs, h~ = phi(W2 (f h) + U2 x + b2), h' = (1 - f) h + f h~.

Zhou, Wu, Zhang & Zhou (2016); f = logistic(W h + U x + b) (note 001 mentions it as the minimal GRU).
"""

from .._jit import unit
from .._math import logistic, logistic_slope, phi_slope
from .._math import phi as activate

STATES = ("h",)
GATES = ("f",)
GATE_KINDS = ("gate",)
GATES2 = ("candidate",)


@unit
def inner(phi, s, a, k):
    return logistic(a[0]) * s[0]


@unit
def inner_vjp(phi, s, a, k, g):
    f, _, df = logistic_slope(a[0])
    return (g * f,), (g * s[0] * df,)


@unit
def update(phi, s, a, a2, k):
    f, keep, _ = logistic_slope(a[0])
    return (keep * s[0] + f * activate(phi, a2[0]),)


@unit
def update_vjp(phi, s, a, a2, k, g):
    f, keep, df = logistic_slope(a[0])
    v, dv = phi_slope(phi, a2[0])
    return (g[0] * keep,), (g[0] * (v - s[0]) * df,), (g[0] * f * dv,)
