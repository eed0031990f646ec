"""Simplified gated unit (note 000): a gate u in [0, 1] per cell decides whether to copy or to apply the recurrence.

h_t = u_{t-1} h_{t-1} + (1 - u_{t-1}) phi(W h_{t-1} + U x_t + b);  u_t = logistic(W2 h_t + U2 x_t + b2).
"""

from .._jit import unit
from .._math import logistic, logistic_slope, phi_slope
from .._math import phi as activate

STATES = ("h", "u")
GATES = ("candidate",)
GATES2 = ("u",)
GATE_KINDS2 = ("gate",)
UPDATE_BY_STATE = ((1, 1), (0, 0))
UPDATE_BY_GATE = ((1,), (0,))
UPDATE_BY_GATE2 = ((0,), (1,))


@unit
def inner(phi, s, a, k):
    """The new h, on which the gate of the next step depends."""
    T = type(s[0])
    return s[1] * s[0] + (T(1.0) - s[1]) * activate(phi, a[0])


@unit
def inner_vjp(phi, s, a, k, g):
    T = type(g)
    v, dv = phi_slope(phi, a[0])
    return (g * s[1], g * (s[0] - v)), (g * (T(1.0) - s[1]) * dv,)


@unit
def update(phi, s, a, a2, k):
    return inner(phi, s, a, k), logistic(a2[0])


@unit
def update_vjp(phi, s, a, a2, k, g):
    ds, da = inner_vjp(phi, s, a, k, g[0])
    return ds, da, (g[1] * logistic_slope(a2[0])[2],)
