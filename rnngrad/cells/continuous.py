"""Continuous-time network, forward Euler: s_t = (1 - alpha) s_{t-1} + alpha (W phi(s_{t-1}) + U x_t + b), h = phi(s).

alpha = dt/tau in (0, 1] is a constant of each unit (note 001).
"""

from .._jit import unit
from .vanilla_s import EMITS_STATE, GATES, OUTPUTS_STATE, STATES, emit, emit_vjp, output, output_vjp  # noqa: F401

CONSTANTS = ("alpha",)


@unit
def update(phi, s, a, a2, k):
    T = type(s[0])
    return ((T(1.0) - k[0]) * s[0] + k[0] * a[0],)


@unit
def update_vjp(phi, s, a, a2, k, g):
    T = type(g[0])
    return ((T(1.0) - k[0]) * g[0],), (k[0] * g[0],), ()
