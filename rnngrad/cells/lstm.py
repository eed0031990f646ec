"""Long short-term memory: c = f c + i v, h = o phi(c); i, f, o = logistic(.), v = phi(.) of [h_{t-1}, x_t].

Hochreiter & Schmidhuber (1997) with the forget gate of Gers et al. (2000); gate order of PyTorch (i, f, g=v, o).
"""

from .._jit import unit
from .._math import logistic, logistic_slope, phi_slope
from .._math import phi as activate

STATES = ("h", "c")
GATES = ("i", "f", "v", "o")
GATE_KINDS = ("gate", "gate", "value", "gate")
UPDATE_BY_STATE = ((0, 1), (0, 1))
UPDATE_BY_GATE = ((1, 1, 1, 1), (1, 1, 1, 0))


@unit
def general(phi, s, a, m, scale, shift):
    """(h, c) with the value gate times m, and h = o phi(scale c + shift); m = scale = 1, shift = 0 is the LSTM."""
    c = logistic(a[1]) * s[1] + logistic(a[0]) * (m * activate(phi, a[2]))
    return logistic(a[3]) * activate(phi, scale * c + shift), c


@unit
def general_vjp(phi, s, a, m, scale, shift, g):
    T = type(g[0])
    i, _, di = logistic_slope(a[0])
    f, _, df = logistic_slope(a[1])
    v, dv = phi_slope(phi, a[2])
    o, _, do = logistic_slope(a[3])
    r, dr = phi_slope(phi, scale * (f * s[1] + i * (m * v)) + shift)
    gc = g[1] + g[0] * o * dr * scale
    return (T(0.0), gc * f), (gc * (m * v) * di, gc * s[1] * df, gc * i * (m * dv), g[0] * r * do), ()


@unit
def update(phi, s, a, a2, k):
    T = type(s[0])
    return general(phi, s, a, T(1.0), T(1.0), T(0.0))


@unit
def update_vjp(phi, s, a, a2, k, g):
    T = type(s[0])
    return general_vjp(phi, s, a, T(1.0), T(1.0), T(0.0), g)
