"""Elman network, h-form: h_t = phi(W h_{t-1} + U x_t + b) (Elman 1990; lecture notes 000-004)."""

from .._jit import unit
from .._math import phi as activate
from .._math import phi_slope

STATES = ("h",)
GATES = ("h",)


@unit
def update(phi, s, a, a2, k):
    return (activate(phi, a[0]),)


@unit
def update_vjp(phi, s, a, a2, k, g):
    T = type(g[0])
    return (T(0.0),), (g[0] * phi_slope(phi, a[0])[1],), ()


#: 1 where ds'[row]/ds[column] and ds'[row]/da[column] can differ from zero.
UPDATE_BY_STATE = ((0,),)
