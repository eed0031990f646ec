"""Gradients of the batch-normalised LSTM, exact through the statistics of the batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cells import LSTM_SCALED
from ..dynamics.batchnorm import BatchNormTrajectory, _through_norm, on_cuda, step_adjoint
from ..dynamics.rollout import input_runs
from ..kernels import backend as find_backend
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
    net, T, B, n = traj.net, traj.T, traj.B, traj.net.n
    kernels, every = find_backend(traj.backend), input_runs(range(4))
    gh = output_adjoint(traj, value.dy)
    gs = np.zeros_like(traj.states)
    da, dterm, dz, du = np.empty_like(traj.a), np.empty_like(traj.a), np.empty_like(traj.c_hat), np.empty_like(traj.a)
    if traj.backend == "cuda":
        wide = (T, B, 4 * n)
        kernels.batchnorm_backprop(
            LSTM_SCALED, net.phi, gs, da.reshape(wide), dterm.reshape(wide), dz, gh, *on_cuda(traj)
        )
        hat, std = traj.x_hat.reshape(wide), traj.x_std.reshape(T, 4 * n)
        kernels.through_batch(du.reshape(wide), da.reshape(wide), net.gamma_x.reshape(-1), hat, std, traj.coupled)
    else:
        for t in range(T - 1, -1, -1):
            gs[t + 1, :, 0] += gh[t]
            back, *parts = step_adjoint(traj, t, gs[t + 1][None])
            gs[t] = back[0]
            da[t], dterm[t], dz[t] = (part[0] for part in parts)
        # one axis of rows, then the batch: the input terms of all steps go back together
        du[:] = _through_norm(net.gamma_x * da, traj.x_hat, traj.x_std[:, None], traj.coupled)
    rows = T * B
    dx = np.empty((rows, net.m), net.dtype)
    kernels.input_adjoint(dx, du.reshape(rows, 4, n), net.U, every)
    term, inputs = dterm.reshape(rows, 4, n), np.ascontiguousarray(traj.x).reshape(rows, net.m)
    return BatchNormGradients(
        loss=value.value,
        W=kernels.outer(term, 0, 4 * n, traj.states[:-1].reshape(rows, 2 * n), n).reshape(4, n, n),
        U=kernels.outer(du.reshape(rows, 4, n), 0, 4 * n, inputs, net.m).reshape(4, n, net.m),
        b=kernels.column_sums(da.reshape(rows, 4, n)),
        gamma_h=kernels.column_sums((da * traj.h_hat).reshape(rows, 4, n)),
        gamma_x=kernels.column_sums((da * traj.x_hat).reshape(rows, 4, n)),
        gamma_c=kernels.column_sums((dz * traj.c_hat).reshape(rows, n)),
        beta_c=kernels.column_sums(dz.reshape(rows, n)),
        x=dx.reshape(traj.x.shape),
        s=gs,
        s0=gs[0],
        **readout_gradients(traj, value.dy),
    )
