"""Gradients of the batch-normalised LSTM, exact through the statistics of the batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dynamics.batchnorm import BatchNormTrajectory, _through_norm, step_adjoint
from ..losses import Loss
from .assemble import OfParameters, evaluate, output_adjoint, readout_gradients, state_adjoint
from .bptt import bptt

_PARAMETERS = ("W", "U", "b", "V", "c", "gamma_h", "gamma_x", "gamma_c", "beta_c")


@dataclass(frozen=True)
class BatchNormGradients(OfParameters):
    """Gradient of a loss L; every array has the shape of what it belongs to. ``s[t]`` is dL/ds_t, total."""

    loss: float
    W: NDArray
    U: NDArray
    b: NDArray
    gamma_h: NDArray
    gamma_x: NDArray
    gamma_c: NDArray
    beta_c: NDArray
    x: NDArray
    s: NDArray
    s0: NDArray
    V: Any = None
    c: Any = None

    def parameters(self) -> Iterator[tuple[str, NDArray]]:
        """(name, gradient) of each parameter there is."""
        for name in _PARAMETERS:
            if getattr(self, name) is not None:
                yield name, getattr(self, name)


@state_adjoint.register
def _no_sample_of_its_own(traj: BatchNormTrajectory, dy: NDArray) -> NDArray:
    raise ValueError(
        "traj is of a batch-normalised network, whose samples are no systems of their own; use bptt, jacobian_chain "
        "and full_jacobians, or net.folded() for the plain network of a step in inference mode"
    )


@bptt.register
def _bptt_batchnorm(traj: BatchNormTrajectory, loss: Loss) -> BatchNormGradients:
    value = evaluate(traj, loss)
    net, T = traj.net, traj.T
    gh = output_adjoint(traj, value.dy)
    gs = np.zeros_like(traj.states)
    da, dterm, dz = np.empty_like(traj.a), np.empty_like(traj.a), np.empty_like(traj.c_hat)
    for t in range(T - 1, -1, -1):
        gs[t + 1, :, 0] += gh[t]
        back, *parts = step_adjoint(traj, t, gs[t + 1][None])
        gs[t] = back[0]
        da[t], dterm[t], dz[t] = (part[0] for part in parts)
    # one axis of rows, then the batch: the input terms of all steps go back together
    du = _through_norm(net.gamma_x * da, traj.x_hat, traj.x_std[:, None], traj.coupled)
    return BatchNormGradients(
        loss=value.value,
        W=np.einsum("tbgi,tbj->gij", dterm, traj.states[:-1, :, 0]),
        U=np.einsum("tbgi,tbm->gim", du, traj.x),
        b=da.sum(axis=(0, 1)),
        gamma_h=np.sum(da * traj.h_hat, axis=(0, 1)),
        gamma_x=np.sum(da * traj.x_hat, axis=(0, 1)),
        gamma_c=np.sum(dz * traj.c_hat, axis=(0, 1)),
        beta_c=dz.sum(axis=(0, 1)),
        x=np.einsum("tbgi,gim->tbm", du, net.U),
        s=gs,
        s0=gs[0],
        **readout_gradients(traj, value.dy),
    )
