"""GRU (reset before the product) with a mask: h' = u h + (1 - u) (m h~) (Semeniuta et al. 2016).

What the state keeps of itself is not masked, so dropout makes no memory fade. The mask m is a constant of each unit,
and may differ from step to step and from sample to sample.
"""

from .._jit import unit
from . import gru_reset_before as plain
from .gru_reset_before import masked, masked_vjp

GATE_KINDS = plain.GATE_KINDS
GATES = plain.GATES
GATES2 = plain.GATES2
INNER_BY_GATE = plain.INNER_BY_GATE
STATES = plain.STATES
UPDATE_BY_GATE = plain.UPDATE_BY_GATE
inner = plain.inner
inner_vjp = plain.inner_vjp
CONSTANTS = ("mask",)


@unit
def update(phi, s, a, a2, k):
    return masked(phi, s, a, a2, k[0])


@unit
def update_vjp(phi, s, a, a2, k, g):
    return masked_vjp(phi, s, a, a2, k[0], g)
