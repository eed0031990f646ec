"""Gated recurrent unit, reset after the product: the variant of PyTorch and cuDNN.

r, u = logistic(W h + U x + b);  h~ = phi(r (W_h h + b_rec) + U_h x + b_in);  h' = u h + (1 - u) h~  (Cho et al. 2014).
The candidate has two pre-activations, one with a recurrent and one with an input part, so b has four rows.
"""

from .._jit import unit
from .._math import logistic_slope, phi_slope
from .._math import phi as activate

STATES = ("h",)
GATES = ("r", "u", "candidate, recurrent", "candidate, input")
GATE_KINDS = ("gate", "gate", "part", "part")
RECURRENT = 3
INPUT = (0, 1, 3)


@unit
def masked(phi, s, a, m):
    """h with the candidate times m; m = 1 costs nothing."""
    r, _, _ = logistic_slope(a[0])
    u, w, _ = logistic_slope(a[1])
    return (u * s[0] + w * (m * activate(phi, r * a[2] + a[3])),)


@unit
def masked_vjp(phi, s, a, m, g):
    r, _, dr = logistic_slope(a[0])
    u, w, du = logistic_slope(a[1])
    v, dv = phi_slope(phi, r * a[2] + a[3])
    gv = g[0] * w * (m * dv)
    return (g[0] * u,), (gv * a[2] * dr, g[0] * (s[0] - m * v) * du, gv * r, gv), ()


@unit
def update(phi, s, a, a2, k):
    return masked(phi, s, a, type(s[0])(1.0))


@unit
def update_vjp(phi, s, a, a2, k, g):
    return masked_vjp(phi, s, a, type(s[0])(1.0), g)
