"""Gradient flow: how much of the gradient of each step's loss arrives at each earlier step."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._results import Result
from ..dynamics.jacobian import local_jacobians
from ..dynamics.rollout import Trajectory
from ..dynamics.scaled import log_norms, scaled
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
        sample = np.arange(traj.B)
        if t > k:
            out, exponents = self.jacobians.adjoint(*scaled(y), sample, t, t - k)
            y = np.ldexp(out[0], exponents[0].astype(np.int32)[:, None, None])
        G = np.zeros((traj.T, *y.shape), y.dtype)
        G[k - 1] = y
        return explicit_gradients(traj, self.jacobians, G)

    def log_norm_by_lag(self) -> NDArray[np.float64]:
        """log||dL_t/ds_{t-lag}|| as (B, T, T+1), indexed [b, t-1, lag]; NaN where the lag goes before s_0."""
        B, T1, _ = self.log_norm.shape
        out = np.full((B, T1 - 1, T1), np.nan)
        for t in range(1, T1):
            out[:, t - 1, : t + 1] = self.log_norm[:, t, t::-1]
        return out


@functools.singledispatch
def gradient_flow(traj: Any, loss: Loss) -> Any:
    """Norms of dL_t/ds_k for all t and k; their pieces on request.

    All steps' losses travel back together, one row each, so a step costs one product with W. Rows carry a power of
    two each: a norm of e^-2000 is as good as one of 1.

    Parameters
    ----------
    traj : Trajectory, StackTrajectory or EncoderDecoderTrajectory
    loss : Loss

    Returns
    -------
    GradientFlow; of encoder and decoder a BridgeFlow
    """
    value = evaluate(traj, loss)
    jacobians = local_jacobians(traj)
    direct = state_adjoint(traj, value.dy)  # (T, B, S, n)
    log_norm, _ = carried(jacobians, direct)
    return GradientFlow(log_norm, traj, jacobians, direct)


@dataclass(frozen=True)
class Rows:
    """dL_t/ds_0 of every step t with a loss: rows[R, S, n] 2^exponent[R], sample by sample, latest step first."""

    steps: NDArray[np.int64]
    rows: NDArray
    exponent: NDArray[np.int64]
    sample: NDArray[np.int64]


def carried(jacobians: Any, direct: NDArray) -> tuple[NDArray[np.float64], Rows]:
    """log||dL_t/ds_k|| (B, T+1, T+1), and the rows that arrive at s_0."""
    T, B = direct.shape[:2]
    log_norm = np.full((B, T + 1, T + 1), np.nan)
    log_norm[:, 1:, :] = np.where(np.tri(T, T + 1, k=1, dtype=bool), -np.inf, np.nan)
    live = np.flatnonzero(np.any(direct != 0, axis=(1, 2, 3)))[::-1]  # steps with a loss, latest first
    rows, exponent = scaled(direct[live].reshape(-1, *direct.shape[2:]))
    sample = np.tile(np.arange(B), len(live))
    for k in range(T, -1, -1):
        started = int(np.count_nonzero(live + 1 >= k)) * B
        if started:
            at = live[: started // B] + 1
            log_norm[:, at, k] = log_norms(rows[:started], exponent[:started]).reshape(-1, B).T
        if k == 0 or not started:
            continue
        out, exponents = jacobians.adjoint(rows[:started], exponent[:started], sample[:started], k, 1)
        rows[:started], exponent[:started] = out[0], exponents[0]
    return log_norm, Rows(live + 1, rows, exponent, sample)
