"""Gradient flow: how much of the gradient of each step's loss arrives at each earlier step."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._arrays import assign, empty_beside, on_host, placed_beside
from .._results import Result
from ..dynamics.device import is_on_device
from ..dynamics.jacobian import local_jacobians
from ..dynamics.placed import filled, finished, kernels_at, put_rows, take_rows
from ..dynamics.rollout import Trajectory
from ..dynamics.scaled import log_norms, scaled, unscaled
from ..losses import Loss
from .assemble import evaluate, explicit_gradients, state_adjoint


@dataclass(frozen=True)
class GradientFlow(Result):
    """dL_t/ds_k for every pair of steps.

    Attributes
    ----------
    log_norm : ndarray (B, T+1, T+1)
        Natural logarithm of ||dL_t/ds_k||, indexed [b, t, k]; L_t is the loss of step t alone. -inf where it is zero
        (no loss at that step), NaN where k > t. Row 0 is NaN: there is no loss before the first step.
    """

    log_norm: NDArray[np.float64]
    trajectory: Trajectory = field(metadata={"saved": False})
    jacobians: Any = field(metadata={"saved": False})
    direct: NDArray = field(metadata={"saved": False})

    def pieces(self, t: int, k: int) -> dict[str, NDArray]:
        """The part of dL_t/dw that enters at step k: dL_t/ds_t Phi(t, k) d+s_k/dw, for every recurrent parameter.

        Summed over 1 <= k <= t <= T these are the gradients of :func:`bptt` (the readout's have one piece per t).
        """
        t = _checks.integer("t", t, 1, self.trajectory.T)
        k = _checks.integer("k", k, 1, t)
        traj = self.trajectory
        y = self.direct[t - 1]
        if t > k:
            out, exponents = self.jacobians.adjoint(*scaled(y), np.arange(traj.B), t, t - k)
            y = unscaled(out[0], exponents[0])
        G = filled(y, (traj.T, *y.shape), y.dtype)
        assign(G[k - 1], y)
        found = explicit_gradients(traj, self.jacobians, G)
        finished(G)
        return found

    def log_norm_by_lag(self) -> NDArray[np.float64]:
        """log||dL_t/ds_{t-lag}|| as (B, T, T+1), indexed [b, t-1, lag]; NaN where the lag goes before s_0."""
        B, T1, _ = self.log_norm.shape
        out = filled(self.log_norm, (B, T1 - 1, T1), np.float64, np.nan)
        step, lag = np.nonzero(np.tri(T1, dtype=bool)[1:])  # of t = step + 1
        row, column = _of_every(B, (T1 - 1) * T1, step * T1 + lag), _of_every(B, T1 * T1, (step + 1) * (T1 + 1) - lag)
        put_rows(out.reshape(out.size, 1), row, self.log_norm.reshape(B * T1 * T1, 1), column)
        return finished(out)


@dataclass(frozen=True)
class DeviceGradientFlow(GradientFlow):
    """Gradient flow of a :class:`rnngrad.DeviceTrajectory`: ``log_norm`` and the pieces are device arrays.

    For drawing and saving there is :meth:`to_host`.
    """

    def to_host(self) -> GradientFlow:
        """The same of a trajectory on the host: everything is copied."""
        traj = self.trajectory.to_host()  # type: ignore[attr-defined]
        return GradientFlow(on_host(self.log_norm), traj, local_jacobians(traj), on_host(self.direct))

    def plot(self, ax: Any = None) -> Any:
        """Refused, as :meth:`save` is: nothing is copied from the GPU without a word."""
        return self._saved()

    def _saved(self) -> list[tuple[str, Any]]:
        raise ValueError("the gradient flow lives on a GPU, and this is made from arrays on the host; give to_host()")


@functools.singledispatch
def gradient_flow(traj: Any, loss: Loss) -> Any:
    """Norms of dL_t/ds_k for all t and k; their pieces on request.

    All steps' losses travel back together, one row each, so a step costs one product with W. Rows carry a power of
    two each: a norm of e^-2000 is as good as one of 1.

    Parameters
    ----------
    traj : Trajectory, DeviceTrajectory, StackTrajectory or EncoderDecoderTrajectory
    loss : Loss

    Returns
    -------
    GradientFlow; of encoder and decoder a BridgeFlow
        Of a DeviceTrajectory a DeviceGradientFlow, whose arrays stay on the GPU; the loss and which steps have one come
        to the host.
    """
    value = evaluate(traj, loss)
    jacobians = local_jacobians(traj)
    direct = state_adjoint(traj, value.dy)  # (T, B, S, n)
    log_norm, _ = carried(jacobians, direct)
    kind = DeviceGradientFlow if is_on_device(traj) else GradientFlow
    return kind(finished(log_norm), traj, jacobians, direct)


@dataclass(frozen=True)
class Rows:
    """dL_t/ds_0 of every step t with a loss: rows[R, S, n] 2^exponent[R], sample by sample, latest step first."""

    steps: NDArray[np.int64]
    rows: NDArray
    exponent: NDArray[np.int64]
    sample: NDArray[np.int64]


def carried(jacobians: Any, direct: NDArray) -> tuple[NDArray[np.float64], Rows]:
    """log||dL_t/ds_k|| (B, T+1, T+1), and the rows that arrive at s_0."""
    T, B, S, n = direct.shape
    T1 = T + 1
    log_norm = empty_beside(direct, (B, T1, T1), np.float64)
    nothing = np.where(np.tri(T1, dtype=bool), -np.inf, np.nan)
    nothing[0] = np.nan
    put_rows(log_norm, np.arange(B), placed_beside(direct, nothing[None]), np.zeros(B, np.int64))
    kernels = kernels_at(direct)
    live = np.flatnonzero(kernels.live_rows(direct.reshape(T, B * S * n)))[::-1]  # steps with a loss, latest first
    sample = np.tile(np.arange(B), len(live))
    if not live.size:
        return log_norm, Rows(live, np.zeros((0, S, n), direct.dtype), np.zeros(0, np.int64), sample)
    rows, exponent = scaled(take_rows(direct, live).reshape(len(live) * B, S, n))
    for k in range(T, -1, -1):
        count = int(np.count_nonzero(live + 1 >= k))
        started = count * B
        if started:
            norms = log_norms(rows[:started], exponent[:started], jacobians.backend)
            at = np.add.outer((live[:count] + 1) * T1 + k, np.arange(B) * T1 * T1).reshape(-1)
            put_rows(log_norm.reshape(log_norm.size, 1), at, norms.reshape(started, 1))
        if k == 0 or not started:
            continue
        out, exponents = jacobians.adjoint(rows[:started], exponent[:started], sample[:started], k, 1)
        assign(rows[:started], out[0])
        assign(exponent[:started], exponents[0])
    return log_norm, Rows(live + 1, rows, exponent, sample)


def _of_every(B: int, size: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places in an array of one sample, as those in that of all samples, one after the other."""
    return np.add.outer(np.arange(B) * size, places).reshape(-1)
