"""How much ||Phi(t, k)|| can grow or shrink at most: products of per-step bounds, beside what is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._blas import one_blas_thread
from .._math import LIPSCHITZ
from .._results import Result
from ..dynamics.chain import JacobianChain
from ..dynamics.jacobian import FactoredJacobians, jacobians, local_jacobians
from ..dynamics.rollout import Trajectory
from ..network import Network
from .products import products, spaced, steps

_COST = 2e10  # multiplications that the reference times may cost unasked: a second or two


@dataclass(frozen=True)
class StepBounds(Result):
    """Per-step bounds of ||J_t||_2, natural logarithms; a padded step has J = I and reads 0.

    Attributes
    ----------
    log_factored : ndarray (T, B)
        From the measured partials: ||ds'/ds|| + ||ds'/da|| ||W|| ||de/ds|| (+ the second stage), the norm of each
        pointwise partial being its largest over the units. For a vanilla network this is ln(gamma_t lambda) with
        gamma_t the largest |phi'| at step t.
    log_a_priori : ndarray (T, B)
        ln(gamma lambda), gamma = sup |phi'|: needs no trajectory. NaN for gated cells, which have none.
    gamma, lam : float
        Lipschitz constant of the activation; largest singular value of W (all recurrent gates stacked). NaN for a
        user's system.
    log_eigen_rate : float
        ln(gamma rho(W)), the rate of the folklore: asymptotic for a normal W, **not a bound**. NaN for gated cells.
    """

    log_factored: NDArray[np.float64]
    log_a_priori: NDArray[np.float64]
    gamma: float
    lam: float
    log_eigen_rate: float

    def over(self, log_steps: NDArray, times: NDArray, lags: NDArray) -> NDArray[np.float64]:
        """Sum of per-step logarithms over the ``lag`` steps that end at each time, (B, R, L); NaN where lag > t."""
        k = times[:, None] - lags
        sums, zeros = _running(log_steps)
        t = np.broadcast_to(times[:, None], k.shape)
        out = sums[:, t] - sums[:, np.maximum(k, 0)]
        out[zeros[:, t] > zeros[:, np.maximum(k, 0)]] = -np.inf
        return np.where(k >= 0, out, np.nan)


@dataclass(frozen=True)
class GrowthBounds(Result):
    """Bounds of ||Phi(t, k)||_2 and what is measured, natural logarithms, indexed [b, t, k]; NaN where k > t.

    log_lower <= log_measured <= log_product <= log_upper <= log_gamma_lambda, each where it is defined.

    Attributes
    ----------
    log_measured : ndarray (B, T+1, T+1)
        log||Phi(t, k)||_2 at the reference times, NaN elsewhere.
    log_upper : ndarray (B, T+1, T+1)
        Sum of the per-step bounds from the measured partials, see :class:`StepBounds`.
    log_gamma_lambda : ndarray (B, T+1, T+1)
        (t - k) ln(gamma lambda), the a-priori bound; NaN for gated cells. Padded steps do not count.
    log_product, log_lower : ndarray (B, T+1, T+1)
        Sums of ln||J_j|| and of ln sigma_min(J_j); all NaN with ``lower=False``. A sigma_min lost in rounding counts
        as 0.
    times : ndarray (R,)
        Reference times.
    steps : StepBounds
        The per-step bounds and gamma, lambda, the eigenvalue rate.
    """

    log_measured: NDArray[np.float64]
    log_upper: NDArray[np.float64]
    log_gamma_lambda: NDArray[np.float64]
    log_product: NDArray[np.float64]
    log_lower: NDArray[np.float64]
    times: NDArray[np.int64]
    steps: StepBounds

    @property
    def log_tightness(self) -> NDArray[np.float64]:
        """ln(bound/measured) of ``log_upper`` at the reference times, (B, T+1, T+1); 0 is a tight bound."""
        with np.errstate(invalid="ignore"):
            return self.log_upper - self.log_measured


def growth_bounds(traj: Trajectory, *, times: Any = None, lower: bool = True) -> GrowthBounds:
    """Bounds of ||Phi(t, k)|| for every pair of steps, and the norm itself at reference times.

    ||Phi(t, k)|| <= prod ||J_j|| <= (gamma lambda)^(t-k) with lambda the largest **singular** value of W (Pascanu,
    Mikolov & Bengio 2013, section 2.1, who write of eigenvalues; for a non-normal W that version is violated).

    Parameters
    ----------
    traj : Trajectory
    times : integers (R,)
        Reference times t in 0…T at which ``log_measured`` is computed for every k. By default all of them while
        that takes a second or two, else as many as that allows (1…16), spread evenly, T among them.
    lower : bool
        Compute ``log_lower`` and ``log_product``, which take a dense singular value decomposition of every J_j.

    Returns
    -------
    GrowthBounds

    Raises
    ------
    ValueError
        A time is out of range, or the trajectory is not finite.

    Notes
    -----
    Six arrays of B (T+1)^2 numbers: for long records bound a part of them, or use :func:`step_bounds`.
    """
    T, B = traj.T, traj.B
    chain = JacobianChain(traj)
    if times is None:
        each = 8.0 * B * T * chain.N**3  # singular values of Phi at every lag
        times = spaced(0, T, T + 1 if each * T / 2 <= _COST else int(np.clip(_COST // each, 1, 16)))
    times = steps("times", times, 0, T)
    empty = np.full((T, B), np.nan)
    log_sigma = step_norms(traj) if lower else (empty, empty)
    bounds = step_bounds(traj)
    measured = np.full((B, T + 1, T + 1), np.nan)
    with one_blas_thread():
        for t in times:
            for lag, product in enumerate(products(chain, int(t), np.arange(t + 1))):
                measured[:, t, t - lag] = product.log_norm(2)
    return GrowthBounds(
        log_measured=measured,
        log_upper=_between(bounds.log_factored),
        log_gamma_lambda=_between(bounds.log_a_priori),
        log_product=_between(log_sigma[0]),
        log_lower=_between(log_sigma[1]),
        times=times,
        steps=bounds,
    )


def step_bounds(traj: Trajectory) -> StepBounds:
    """Bounds of ||J_t|| from the pointwise partials around W; no singular value decomposition of a J_t.

    A user's system has no W: its bound is ||J_t|| itself.

    ||J|| <= ||ds'/ds|| + ||ds'/da|| ||W|| ||de/ds|| + ||ds'/da'|| ||W'|| (||dq/ds|| + ||dq/da|| ||W|| ||de/ds||).

    Raises
    ------
    ValueError
        The trajectory is not finite.
    """
    if not isinstance(traj.net, Network):
        return StepBounds(step_norms(traj)[0], np.full((traj.T, traj.B), np.nan), np.nan, np.nan, np.nan)
    factors: FactoredJacobians = local_jacobians(traj)
    net, G = traj.net, traj.net.cell.recurrent
    lam = sigma_max(net.W)
    emit = _norm(factors.emit_s[:, :, None])
    total = _norm(factors.update_s) + _norm(factors.update_a[:, :, :, :G]) * lam * emit
    if net.cell.two_stage:
        through = _norm(factors.inner_s[:, :, None]) + _norm(factors.inner_a[:, :, None, :G]) * lam * emit
        total += _norm(factors.update_a2) * sigma_max(net.W2) * through
    gamma, rate, eigen_rate = _a_priori(net)
    ended = np.arange(traj.T)[:, None] >= traj.lengths
    with np.errstate(divide="ignore"):
        return StepBounds(np.log(total), np.where(ended, 0.0, np.log(rate)), gamma, lam, float(np.log(eigen_rate)))


def _a_priori(net: Network) -> tuple[float, float, float]:
    """(gamma, gamma lambda, gamma rho) of cells that are one activation around one matrix; NaN for the others."""
    gamma = LIPSCHITZ[net.activation]
    if not net.cell.built_in or net.cell.n_states > 1 or net.cell.gates2 or net.cell.gate_kinds != ("value",):
        return gamma, np.nan, np.nan
    W = net.W[0].astype(np.float64)
    if net.alpha is None:
        return gamma, gamma * sigma_max(W), gamma * spectral_radius(W)
    alpha = net.alpha.astype(np.float64)  # where it is one number: (1 - alpha) + alpha gamma lambda
    rate = float(np.max(1 - alpha)) + float(np.max(alpha)) * gamma * sigma_max(W)
    return gamma, rate, spectral_radius(np.diag(1 - alpha) + gamma * alpha[:, None] * W)


def sigma_max(W: NDArray) -> float:
    """Largest singular value of a matrix, or of several (G, n, n) stacked on top of each other."""
    return float(np.linalg.norm(W.reshape(-1, W.shape[-1]).astype(np.float64), ord=2))


def spectral_radius(W: NDArray) -> float:
    """Largest |eigenvalue|."""
    return float(np.abs(np.linalg.eigvals(W.astype(np.float64))).max())


def _norm(partial: NDArray) -> NDArray[np.float64]:
    """2-norm of pointwise partials (T, B, rows, columns, n) as one matrix: the largest over the units, (T, B)."""
    p = partial.astype(np.float64)
    gram = np.einsum("tbrcn,tbqcn->tbnrq", p, p)
    if gram.shape[-1] == 1:
        top = gram[..., 0, 0]
    elif gram.shape[-1] == 2:
        middle, half = (gram[..., 0, 0] + gram[..., 1, 1]) / 2, (gram[..., 0, 0] - gram[..., 1, 1]) / 2
        top = middle + np.hypot(half, gram[..., 0, 1])
    else:
        top = np.linalg.eigvalsh(gram)[..., -1]
    return np.sqrt(np.maximum(top.max(axis=-1), 0))


def step_norms(traj: Trajectory) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """ln sigma_max(J_t) and ln sigma_min(J_t), (T, B) each, by T B dense decompositions.

    A sigma_min within rounding of 0 reads -inf, so that it stays a bound from below.
    """
    J = jacobians(traj)
    with one_blas_thread():
        sigma = np.linalg.svd(J.astype(np.float64), compute_uv=False)
    floor = J.shape[-1] * np.finfo(J.dtype).eps * sigma[..., 0]
    with np.errstate(divide="ignore"):
        return np.log(sigma[..., 0]), np.log(np.where(sigma[..., -1] > floor, sigma[..., -1], 0))


def _running(log_steps: NDArray) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Running sums (B, T+1) of the finite entries of log_steps (T, B), and the running count of zeros (-inf)."""
    start = ((1, 0), (0, 0))
    zero = np.isneginf(log_steps)
    return (
        np.pad(np.cumsum(np.where(zero, 0.0, log_steps), axis=0), start).T,
        np.pad(np.cumsum(zero, axis=0, dtype=np.int64), start).T,
    )


def _between(log_steps: NDArray) -> NDArray[np.float64]:
    """Sum of log_steps (T, B) over steps k+1 … t, as (B, T+1, T+1); NaN where k > t."""
    sums, zeros = _running(log_steps)
    out = sums[:, :, None] - sums[:, None, :]
    out[zeros[:, :, None] > zeros[:, None, :]] = -np.inf
    out[:, ~np.tri(out.shape[1], dtype=bool)] = np.nan
    return out
