"""Backpropagation through time."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _cuda
from .._arrays import assign, empty_beside
from ..dynamics.device import DeviceTrajectory, is_on_device
from ..dynamics.jacobian import local_jacobians
from ..dynamics.rollout import Trajectory, tile_rows
from ..dynamics.stack import StackTrajectory, reverse
from ..dynamics.system import System
from ..kernels import backend as find_backend
from ..losses import Loss
from .assemble import (
    Gradients,
    evaluate,
    explicit_gradients,
    kind_of,
    output_adjoint,
    readout_gradients,
    recurrent_gradients,
)
from .stack import StackGradients
from .truncated import full_adjoints, truncated_bptt


@functools.singledispatch
def bptt(traj: Any, loss: Loss) -> Any:
    """Gradient of a loss along a trajectory by backpropagation through time.

    dL/ds_{t-1} = J_t^T dL/ds_t + d+L/ds_{t-1},  dL/dW = sum_t (dL/da_t) e_{t-1}^T  (Werbos 1990).

    Parameters
    ----------
    traj : Trajectory, DeviceTrajectory, StackTrajectory or EncoderDecoderTrajectory
    loss : Loss
        From :mod:`rnngrad.losses`. Along a DeviceTrajectory it is evaluated on the GPU; its target may lie there too.

    Returns
    -------
    Gradients, DeviceGradients, StackGradients or EncoderDecoderGradients
        All parameters, x, s_0, and dL/ds_t for every t. A padded step contributes nothing. Of a DeviceTrajectory,
        device arrays, and the loss as the one number that is copied to the host.

    Raises
    ------
    ValueError
        Target or weights do not fit the output, or the trajectory is not finite.
    """
    if isinstance(traj.net, System) or getattr(traj.net, "feedback", False):  # one segment over the whole sequence
        return truncated_bptt(traj, loss, k1=traj.T, k2=traj.T)
    value = evaluate(traj, loss)
    grads = backpropagate(traj, output_adjoint(traj, value.dy))
    grads = dataclasses.replace(grads, loss=value.value, **readout_gradients(traj, value.dy))
    if is_on_device(traj):  # whoever reads them in place is told of no stream to wait for
        _cuda.synchronize()
    return grads


@functools.singledispatch
def backpropagate(traj: Any, gh: NDArray, last: NDArray | None = None) -> Any:
    """Gradients without loss and readout, from gh (T, B, n): the loss's own derivative with respect to h_1 … h_T.

    ``last`` (B, S, n) is what reaches the final state from beyond the end; of a stack, that of each direction's own
    end, as ``final_state`` lays them side by side.
    """
    raise NotImplementedError(type(traj).__name__)


@backpropagate.register(DeviceTrajectory)
@backpropagate.register(Trajectory)
def _backpropagate_network(traj: Any, gh: NDArray, last: NDArray | None = None) -> Gradients:
    net = traj.net
    if isinstance(net, System):
        direct = gh[:, :, None].copy()
        if last is not None:
            direct[-1] += last
        jacobians = local_jacobians(traj)
        G = full_adjoints(jacobians, direct)
        return Gradients(loss=0.0, s=G, s0=G[0], **explicit_gradients(traj, jacobians, G[1:]))
    gs, da, da2 = adjoints(traj, gh, last)
    return kind_of(traj)(loss=0.0, s=gs, s0=gs[0], **recurrent_gradients(traj, da, da2))


def adjoints(traj: Any, gh: NDArray, last: NDArray | None = None) -> tuple[NDArray, NDArray, NDArray]:
    """dL/ds_t (T+1, B, S, n), dL/da_t (T, B, P, n), dL/da2_t (T, B, P2, n) of a network; see ``backpropagate``."""
    net = traj.net
    gs, da, da2 = (empty_beside(array, array.shape, array.dtype) for array in (traj.states, traj.a, traj.a2))
    assign(gs[traj.T], 0 if last is None else last)
    find_backend(traj.backend).backprop(net.cell, net.phi)(
        gs,
        da,
        da2,
        gh,
        traj.states,
        traj.a,
        traj.a2,
        net.W,
        net.second_weights,
        traj.lengths,
        net.unit_constants,
        tile_rows(net.n),
    )
    return gs, da, da2


@backpropagate.register
def _backpropagate_stack(traj: StackTrajectory, gh: NDArray, last: NDArray | None = None) -> StackGradients:
    """Layer by layer from the top: what a layer's inputs receive is what the outputs below are charged with."""
    layers: list[tuple[Gradients, ...]] = []
    end = traj.net.N
    for row in reversed(traj.layers):
        parts, received, start = [], [], 0
        at = end = end - sum(layer.net.N for layer in row)
        for backward, layer in enumerate(row):
            own = np.ascontiguousarray(gh[..., start : start + layer.net.n])
            start += layer.net.n
            final = None
            if last is not None:
                final = last[:, 0, at : at + layer.net.N].reshape(traj.B, *layer.net.state_shape)
                at += layer.net.N
            grads = backpropagate(layer, reverse(own, traj.lengths) if backward else own, final)
            received.append(reverse(grads.x, traj.lengths) if backward else grads.x)
            parts.append(grads)
        layers.insert(0, tuple(parts))
        gh = sum(received[1:], received[0])
    return StackGradients(loss=0.0, layers=tuple(layers), x=gh)
