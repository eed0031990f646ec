"""LSTM whose cell state is scaled and shifted on its way out: h = o phi(scale c + shift).

A batch-normalised LSTM with fixed statistics is this cell (Cooijmans et al. 2017): what normalises the products goes
into W, U and b, what normalises the cell state is a constant of each unit.
"""

from .._jit import unit
from . import lstm as plain
from .lstm import general, general_vjp

GATE_KINDS = plain.GATE_KINDS
GATES = plain.GATES
STATES = plain.STATES
UPDATE_BY_GATE = plain.UPDATE_BY_GATE
UPDATE_BY_STATE = plain.UPDATE_BY_STATE
CONSTANTS = ("scale", "shift")


@unit
def update(phi, s, a, a2, k):
    return general(phi, s, a, type(s[0])(1.0), k[0], k[1])


@unit
def update_vjp(phi, s, a, a2, k, g):
    return general_vjp(phi, s, a, type(s[0])(1.0), k[0], k[1], g)
