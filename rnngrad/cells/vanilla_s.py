"""Elman network, s-form: the state is the pre-activation, s_t = W phi(s_{t-1}) + U x_t + b, h = phi(s) (note 001)."""

from .._jit import unit
from .._math import phi as activate
from .._math import phi_slope

STATES = ("s",)
GATES = ("s",)
EMITS_STATE = False
OUTPUTS_STATE = False
UPDATE_BY_STATE = ((0,),)


@unit
def emit(phi, s, k):
    return activate(phi, s[0])


@unit
def emit_vjp(phi, s, k, g):
    return (g * phi_slope(phi, s[0])[1],)


output = emit
output_vjp = emit_vjp


@unit
def update(phi, s, a, a2, k):
    return (a[0],)


@unit
def update_vjp(phi, s, a, a2, k, g):
    T = type(g[0])
    return (T(0.0),), (g[0],), ()
