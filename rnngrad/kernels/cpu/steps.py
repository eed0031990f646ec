"""One step of the rows of one sample, forward or back, in either form of the local Jacobians.

``step(system, scratch, current, new, sample, t)`` with scratch from ``room(system, like)`` for rows shaped as ``like``
(R, S, n). The system is (factors, weights, masks, emits_state, gates) in factored form; (update_a, W packed) where
that comes to J = D W, a system so small that passing it on costs nothing beside a product of 16 x 16; or
(J[T, B, N, N],) with S = 1, of which a step uses the sample of its first row.
"""

import numpy as np

from ..._gemm import fill_panels, packed_product, panel_width
from ..._jit import inner
from .chain import adjoint_step
from .tangent import scaled_step, tangent_step


@inner()
def _factored_tangent_room(system, like):
    R, _, n = like.shape
    P, P2 = system[0][1].shape[3], system[0][2].shape[3]
    dtype = like.dtype
    return np.empty((R, P, n), dtype), np.empty((R, P2, n), dtype), np.empty((R, n), dtype), np.empty((R, n), dtype)


@inner()
def _factored_tangent(system, scratch, current, new, sample, t):
    factors, weights, masks, emits_state, gates = system
    tangent_step(current, new, scratch, sample, t, factors, weights, masks, emits_state, gates, False)


@inner()
def _scaled_room(system, like):
    return 0


@inner()
def _scaled_tangent(system, scratch, current, new, sample, t):
    scaled_step(current, new, system[1], system[0][t], sample)


@inner()
def _factored_adjoint_room(system, like):
    R, _, n = like.shape
    gates, P2 = system[4], system[0][2].shape[3]
    return np.empty((R, gates, n), like.dtype), np.empty((R, P2, n), like.dtype), np.empty((R, n), like.dtype)


@inner()
def _factored_adjoint(system, scratch, current, new, sample, t):
    factors, weights, masks, emits_state, gates = system
    adjoint_step(current, new, scratch, sample, t, factors, weights, masks, emits_state, gates, False)


@inner()
def _dense_room(system, like):
    n = like.shape[2]
    width = panel_width(n, like.itemsize)
    return np.empty(((n + width - 1) // width, n, width), like.dtype)


def _dense(transposed):
    @inner(transposed)
    def step(system, panels, current, new, sample, t):
        R, _, n = current.shape
        fill_panels(panels, 0, len(panels), system[0][t, sample[0]], transposed)
        packed_product(R, n, current, n, 1, panels, n, new, n)

    return step


#: form of the local Jacobians -> (step, room); rows v are columns that J acts on, rows y are acted on from the right
TANGENT = {
    "factored": (_factored_tangent, _factored_tangent_room),
    "scaled": (_scaled_tangent, _scaled_room),
    "dense": (_dense(True), _dense_room),
}
ADJOINT = {"factored": (_factored_adjoint, _factored_adjoint_room), "dense": (_dense(False), _dense_room)}
