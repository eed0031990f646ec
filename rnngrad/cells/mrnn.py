"""Multiplicative network: h' = phi(W2 ((U x) (W h)) + U2 x + b2), with as many factors as units.

W is W_fh, U is W_fx, W2 is W_hf, U2 is W_hx of Sutskever, Martens & Hinton (2011); fewer factors are zero rows.
The first pre-activation has a recurrent part only, the second an input part only, and neither has a bias.
"""

from .._jit import unit
from .._math import phi as activate
from .._math import phi_slope

STATES = ("h",)
GATES = ("factor, recurrent", "factor, input")
GATE_KINDS = ("part", "part")
RECURRENT = 1
INPUT = (1,)
BIAS = ()
GATES2 = ("h",)
UPDATE_BY_STATE = ((0,),)
UPDATE_BY_GATE = ((0, 0),)
INNER_BY_STATE = (0,)


@unit
def inner(phi, s, a, k):
    return a[0] * a[1]


@unit
def inner_vjp(phi, s, a, k, g):
    T = type(g)
    return (T(0.0),), (g * a[1], g * a[0])


@unit
def update(phi, s, a, a2, k):
    return (activate(phi, a2[0]),)


@unit
def update_vjp(phi, s, a, a2, k, g):
    T = type(g[0])
    return (T(0.0),), (T(0.0), T(0.0)), (g[0] * phi_slope(phi, a2[0])[1],)
