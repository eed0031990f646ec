"""How far back the gradient of a loss reaches: ||dL_t/ds_{t-lag}|| against lag at chosen reference steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._arrays import on_host
from .._results import Result
from ..dynamics.jacobian import local_jacobians
from ..dynamics.placed import filled, kernels_at, put_rows, take_rows
from ..dynamics.scaled import log_norms
from ..dynamics.stack import StackTrajectory
from ..gradients.assemble import evaluate, state_adjoint
from ..losses import Loss
from .products import quantiles, steps


@dataclass(frozen=True)
class GradientReach(Result):
    """||dL_t/ds_{t-lag}||, L_t the loss of step t alone.

    Attributes
    ----------
    times : ndarray (R,)
        Reference steps t.
    lags : ndarray (L,)
        0 … max_lag.
    log_norm : ndarray (B, R, L)
        Natural logarithm of the norm; -inf where it is zero (no loss at that step, or a sequence that has ended),
        NaN where lag > t.
    """

    times: NDArray[np.int64]
    lags: NDArray[np.int64]
    log_norm: NDArray[np.float64]

    @property
    def log_ratio(self) -> NDArray[np.float64]:
        """log(||dL_t/ds_{t-lag}|| / ||dL_t/ds_t||) as (B, R, L); NaN where there is no loss at step t."""
        start = self.log_norm[..., :1]
        with np.errstate(invalid="ignore"):  # -inf - -inf: no loss, no ratio
            return np.where(np.isfinite(start), self.log_norm - start, np.nan)

    def quantiles(self, q: Any) -> NDArray[np.float64]:
        """Quantiles q of ``log_ratio`` over samples and reference steps, (len(q), L); NaN where none is left."""
        return quantiles(self.log_ratio, q)


@dataclass(frozen=True)
class LayerReach(Result):
    """||dL_t/ds^l_{t-lag}|| of every layer l of a stack, against ||dL_t/ds_t|| of the joint state.

    Attributes
    ----------
    times : ndarray (R,)
    lags : ndarray (L,)
    log_norm : dict of ndarray (B, R, L)
        By layer ("l0", "l1", …, as in ``net.blocks``): natural logarithm of the norm; -inf where it is zero, such as
        at lag 0 below the top, since only the top layer's state of that step makes the output.
    log_start : ndarray (B, R)
        Logarithm of ||dL_t/ds_t|| of the joint state.
    """

    times: NDArray[np.int64]
    lags: NDArray[np.int64]
    log_norm: dict[str, NDArray[np.float64]]
    log_start: NDArray[np.float64]

    def quantiles(self, q: Any) -> dict[str, NDArray[np.float64]]:
        """Quantiles q of the log-ratios over samples and reference steps, by layer, (len(q), L)."""
        start = np.where(np.isfinite(self.log_start), self.log_start, np.nan)[..., None]
        return {name: quantiles(values - start, q) for name, values in self.log_norm.items()}


@dataclass(frozen=True)
class GradientMap(Result):
    """||dL_t/ds_k|| for the pairs of a part of the record.

    Attributes
    ----------
    first : int
        Step of the first row and column.
    sample : int
        Which sample of the batch.
    log_norm : ndarray (K, K)
        Natural logarithm, indexed [t - first, k - first]; NaN where k > t, -inf where there is no loss.
    """

    first: int
    sample: int
    log_norm: NDArray[np.float64]


def gradient_reach(traj: Any, loss: Loss, *, times: Any = None, max_lag: int | None = None) -> GradientReach:
    """Gradient norm against lag: dL_t/ds_{t-lag} = dL_t/ds_t J_t … J_{t-lag+1}.

    All reference steps travel back together, one row each with a power of two of its own, so nothing over- or
    underflows. For every pair (t, k) of a short sequence use :func:`rnngrad.gradient_flow`.

    Parameters
    ----------
    traj : Trajectory, DeviceTrajectory or StackTrajectory
        Of one on a GPU the rows stay there, and the loss and the norms alone come to the host.
    loss : Loss
    times : integers (R,)
        Reference steps in 1…T; all of them by default.
    max_lag : int
        Largest lag, 0…T; T by default.

    Returns
    -------
    GradientReach

    Raises
    ------
    ValueError
        A step or the lag is out of range, or the loss does not fit.
    """
    whole = slice(None)
    times, lags, (log_norm,) = _travel(traj, loss, times, max_lag, [whole])
    return GradientReach(times, lags, log_norm)


def layer_reach(traj: Any, loss: Loss, *, times: Any = None, max_lag: int | None = None) -> LayerReach:
    """Gradient norm against lag in every layer of a stack; arguments as for :func:`gradient_reach`.

    Raises
    ------
    ValueError
        ``traj`` is not of a stack, or a layer runs in both directions; or as :func:`gradient_reach`.
    """
    if not isinstance(traj, StackTrajectory):
        raise ValueError(f"traj is {type(traj).__name__}; layer_reach takes the trajectory of a Stack")
    names = [f"l{layer}" for layer in range(len(traj.layers))]
    blocks = traj.net.blocks
    times, lags, (whole, *parts) = _travel(traj, loss, times, max_lag, [slice(None), *(blocks[n] for n in names)])
    return LayerReach(times, lags, dict(zip(names, parts, strict=True)), np.ascontiguousarray(whole[..., 0]))


def _travel(
    traj: Any, loss: Loss, times: Any, max_lag: int | None, parts: list[slice]
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[NDArray[np.float64]]]:
    """(times, lags, log-norms (B, R, L) of each part of the state) of the rows dL_t/ds_{t-lag}."""
    T, B = traj.T, traj.B
    times = steps("times", np.arange(1, T + 1) if times is None else times, 1, T)
    max_lag = T if max_lag is None else _checks.integer("max_lag", max_lag, 0, T)
    direct = state_adjoint(traj, evaluate(traj, loss).dy)  # (T, B, S, n)
    factors, (_, _, S, n) = local_jacobians(traj).flattened(), direct.shape
    R = len(times) * B
    tables = [filled(direct, (R * (max_lag + 1), 1), np.float64, np.nan) for _ in parts]
    rows, exponent = take_rows(direct, times - 1).reshape(R, S, n), filled(direct, (R,), np.int64)
    at, b = np.repeat(times, B), np.tile(np.arange(B), len(times))
    live = np.arange(R)
    for lag in range(max_lag + 1):
        for table, part in zip(tables, parts, strict=True):
            norms = log_norms(rows.reshape(len(live), S * n)[:, part], exponent, factors.backend)
            put_rows(table, live * (max_lag + 1) + lag, norms.reshape(len(live), 1))
        kept = np.flatnonzero(at[live] - lag >= 1)
        if lag == max_lag or not kept.size:
            break
        if kept.size < len(live):
            live, rows, exponent = live[kept], take_rows(rows, kept), take_rows(exponent, kept)
        sample = (at[live] - lag - 1) * B + b[live]
        out, exponents = factors.adjoint(rows, exponent, sample, 1, 1)
        rows, exponent = out[0], exponents[0]
    by_part = [np.ascontiguousarray(on_host(one).reshape(len(times), B, -1).swapaxes(0, 1)) for one in tables]
    return times, np.arange(max_lag + 1), by_part


def gradient_map(traj: Any, loss: Loss, *, first: int = 0, last: int | None = None, sample: int = 0) -> GradientMap:
    """||dL_t/ds_k|| for every pair first <= k <= t <= last of one sample.

    Raises
    ------
    ValueError
        Not 0 <= first < last <= T, or no such sample.
    """
    last = _checks.integer("last", traj.T if last is None else last, 1, traj.T)
    first = _checks.integer("first", first, 0, last - 1)
    sample = _checks.integer("sample", sample, 0, traj.B - 1)
    at = np.arange(max(first, 1), last + 1)
    by_lag = gradient_reach(traj, loss, times=at, max_lag=last - first).log_norm[sample]
    log_norm = np.full((last - first + 1, last - first + 1), np.nan)
    for t, row in zip(at, by_lag, strict=True):
        log_norm[t - first, : t - first + 1] = row[t - first :: -1]
    return GradientMap(first, sample, log_norm)


def steps_with_loss(traj: Any, loss: Loss, first: int = 1, count: int | None = None) -> NDArray[np.int64]:
    """Steps whose loss has a gradient, those from ``first`` on if there are any, thinned evenly to ``count``.

    Raises
    ------
    ValueError
        No step has one.
    """
    dy = evaluate(traj, loss).dy
    live = 1 + np.flatnonzero(kernels_at(dy).live_rows(dy.reshape(traj.T, dy.size // traj.T)))
    if not live.size:
        raise ValueError("the loss has no gradient at any step: no weight, or no error to begin with")
    live = live[live >= first] if live[-1] >= first else live
    return live if count is None else live[np.unique(np.linspace(0, len(live) - 1, count).round().astype(int))]
