"""Gated recurrent unit, reset before the product: h~ = phi(W2 (r h) + U2 x + b2), h' = u h + (1 - u) h~ (note 001)."""

from .._jit import unit
from .._math import logistic, logistic_slope, phi_slope
from .._math import phi as activate

STATES = ("h",)
GATES = ("r", "u")
GATE_KINDS = ("gate", "gate")
GATES2 = ("candidate",)
UPDATE_BY_GATE = ((0, 1),)
INNER_BY_GATE = (1, 0)


@unit
def inner(phi, s, a, k):
    return logistic(a[0]) * s[0]


@unit
def inner_vjp(phi, s, a, k, g):
    T = type(g)
    r, _, dr = logistic_slope(a[0])
    return (g * r,), (g * s[0] * dr, T(0.0))


@unit
def masked(phi, s, a, a2, m):
    """h with the candidate times m; m = 1 costs nothing."""
    u, w, _ = logistic_slope(a[1])
    return (u * s[0] + w * (m * activate(phi, a2[0])),)


@unit
def masked_vjp(phi, s, a, a2, m, g):
    T = type(g[0])
    u, w, du = logistic_slope(a[1])
    v, dv = phi_slope(phi, a2[0])
    return (g[0] * u,), (T(0.0), g[0] * (s[0] - m * v) * du), (g[0] * w * (m * dv),)


@unit
def update(phi, s, a, a2, k):
    return masked(phi, s, a, a2, type(s[0])(1.0))


@unit
def update_vjp(phi, s, a, a2, k, g):
    return masked_vjp(phi, s, a, a2, type(s[0])(1.0), g)
