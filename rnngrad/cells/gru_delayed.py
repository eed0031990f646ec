"""Gated recurrent unit with delayed gates (note 000): the gates of step t act at step t + 1 and belong to the state.

h_t = u_{t-1} h_{t-1} + (1 - u_{t-1}) phi(W (r_{t-1} h_{t-1}) + U x_t + b);  u_t, r_t = logistic(W2 h_t + U2 x_t + b2).
The note writes one sigmoid S throughout, so phi defaults to the logistic function.
"""

from .._jit import unit
from .._math import logistic, logistic_slope, phi_slope
from .._math import phi as activate

STATES = ("h", "u", "r")
GATES = ("candidate",)
GATES2 = ("u", "r")
GATE_KINDS2 = ("gate", "gate")
ACTIVATION = "logistic"
EMITS_STATE = False
UPDATE_BY_STATE = ((1, 1, 0), (0, 0, 0), (0, 0, 0))
UPDATE_BY_GATE = ((1,), (0,), (0,))
UPDATE_BY_GATE2 = ((0, 0), (1, 0), (0, 1))
INNER_BY_STATE = (1, 1, 0)


@unit
def emit(phi, s, k):
    return s[2] * s[0]


@unit
def emit_vjp(phi, s, k, g):
    T = type(g)
    return g * s[2], T(0.0), g * s[0]


@unit
def inner(phi, s, a, k):
    """The new h, on which the second product acts."""
    T = type(s[0])
    return s[1] * s[0] + (T(1.0) - s[1]) * activate(phi, a[0])


@unit
def inner_vjp(phi, s, a, k, g):
    T = type(g)
    v, dv = phi_slope(phi, a[0])
    return (g * s[1], g * (s[0] - v), T(0.0)), (g * (T(1.0) - s[1]) * dv,)


@unit
def update(phi, s, a, a2, k):
    return inner(phi, s, a, k), logistic(a2[0]), logistic(a2[1])


@unit
def update_vjp(phi, s, a, a2, k, g):
    ds, da = inner_vjp(phi, s, a, k, g[0])
    return ds, da, (g[1] * logistic_slope(a2[0])[2], g[2] * logistic_slope(a2[1])[2])
