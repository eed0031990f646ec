"""Backpropagation through time."""

from __future__ import annotations

from .._memory import empty_like
from ..dynamics.rollout import Trajectory, constants, second_weights, tile_rows
from ..dynamics.system import System
from ..kernels import backend as find_backend
from ..losses import Loss
from .assemble import Gradients, evaluate, output_adjoint, readout_gradients, recurrent_gradients
from .truncated import truncated_bptt


def bptt(traj: Trajectory, loss: Loss) -> Gradients:
    """Gradient of a loss along a trajectory by backpropagation through time.

    dL/ds_{t-1} = J_t^T dL/ds_t + d+L/ds_{t-1},  dL/dW = sum_t (dL/da_t) e_{t-1}^T  (Werbos 1990).

    Parameters
    ----------
    traj : Trajectory
    loss : Loss
        From :mod:`rnngrad.losses`.

    Returns
    -------
    Gradients
        All parameters, x, s_0, and dL/ds_t for every t. A padded step contributes nothing.

    Raises
    ------
    ValueError
        Target or weights do not fit the output, or the trajectory is not finite.
    """
    if isinstance(traj.net, System):  # dense Jacobians: one segment over the whole sequence
        return truncated_bptt(traj, loss, k1=traj.T, k2=traj.T)
    value = evaluate(traj, loss)
    net = traj.net
    gs, da, da2 = empty_like(traj.states), empty_like(traj.a), empty_like(traj.a2)
    find_backend(traj.backend).backprop(net.cell, net.phi)(
        gs,
        da,
        da2,
        output_adjoint(traj, value.dy),
        traj.states,
        traj.a,
        traj.a2,
        net.W,
        second_weights(net),
        traj.lengths,
        constants(net),
        tile_rows(net.n),
    )
    parts = recurrent_gradients(traj, da, da2) | readout_gradients(traj, value.dy)
    return Gradients(loss=value.value, s=gs, s0=gs[0], **parts)
