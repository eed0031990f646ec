"""LSTM with a mask on its value gate: c = f c + i (m v) (Semeniuta et al. 2016).

What the state keeps of itself is not masked, so dropout makes no memory fade. The mask m is a constant of each unit,
and may differ from step to step and from sample to sample.
"""

from .._jit import unit
from . import lstm as plain
from .lstm import general, general_vjp

GATE_KINDS = plain.GATE_KINDS
GATES = plain.GATES
STATES = plain.STATES
UPDATE_BY_GATE = plain.UPDATE_BY_GATE
UPDATE_BY_STATE = plain.UPDATE_BY_STATE
CONSTANTS = ("mask",)


@unit
def update(phi, s, a, a2, k):
    T = type(s[0])
    return general(phi, s, a, k[0], T(1.0), T(0.0))


@unit
def update_vjp(phi, s, a, a2, k, g):
    T = type(s[0])
    return general_vjp(phi, s, a, k[0], T(1.0), T(0.0), g)
