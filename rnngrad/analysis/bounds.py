"""How much ||Phi(t, k)|| can grow or shrink at most: products of per-step bounds, beside what is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import on_host
from .._results import Result
from ..dynamics.chain import sample_chain
from ..dynamics.encoder_decoder import EncoderDecoderTrajectory
from ..network import Network
from .products import spaced, steps
from .spectra import Spectrum, weight_spectrum
from .step_bounds import StepBounds, log_norms_of_products, log_ratio, running, step_bounds, step_norms

_COST = 2e10  # multiplications that the reference times may cost unasked: a second or two


@dataclass(frozen=True)
class GrowthBounds(Result):
    """Bounds of ||Phi(t, k)||_2 and what is measured, natural logarithms, indexed [b, t, k]; NaN where k > t.

    Each where it is defined,

        log_lower <= log_measured <= log_product <= log_upper <= log_gamma_lambda,
                     log_measured <= log_block <= log_gamma_measured <= log_gamma_lambda.

    The two lines meet where there is one state vector: there log_block is log_upper. With several (an LSTM's h and c)
    log_block can be below log_product: it follows what goes from one to the other over many steps, which a product of
    numbers does not.

    Attributes
    ----------
    log_measured : ndarray (B, T+1, T+1)
        log||Phi(t, k)||_2 at the reference times, NaN elsewhere.
    log_upper : ndarray (B, T+1, T+1)
        Sum of the per-step bounds from the measured partials, see :class:`StepBounds`.
    log_block : ndarray (B, T+1, T+1)
        log||M_t … M_{k+1}|| of the matrices of block norms, see :func:`rnngrad.analysis.step_bounds.block_norms`.
    log_gamma_measured : ndarray (B, T+1, T+1)
        log||M^(t-k)|| with M the entrywise largest of the sequence's M_t: for a vanilla network (gamma lambda)^(t-k)
        with gamma the largest |phi'| met along it, and the same idea for every other cell. Padded steps do not count.
    log_gamma_lambda : ndarray (B, T+1, T+1)
        (t - k) ln(gamma lambda), the a-priori bound; NaN for gated cells. Padded steps do not count.
    log_product, log_lower : ndarray (B, T+1, T+1)
        Sums of ln||J_j|| and of ln sigma_min(J_j); all NaN with ``lower=False``. A sigma_min lost in rounding counts
        as 0.
    times : ndarray (R,)
        Reference times.
    steps : StepBounds
        The per-step bounds and gamma, lambda, the eigenvalue rate.
    weights : Spectrum or None
        Of the recurrent matrices: spectral radius, Henrici's departure from normality, numerical abscissa, which say
        what the eigenvalue rate is worth. None where there is no W; for J_t see :func:`rnngrad.jacobian_spectrum`.
    name : str or None
        What a figure calls the network.
    """

    log_measured: NDArray[np.float64]
    log_upper: NDArray[np.float64]
    log_block: NDArray[np.float64]
    log_gamma_measured: NDArray[np.float64]
    log_gamma_lambda: NDArray[np.float64]
    log_product: NDArray[np.float64]
    log_lower: NDArray[np.float64]
    times: NDArray[np.int64]
    steps: StepBounds
    weights: Spectrum | None
    name: str | None = None

    @property
    def log_best(self) -> NDArray[np.float64]:
        """The smallest of the bounds from above, (B, T+1, T+1)."""
        return np.fmin(np.fmin(self.log_product, self.log_upper), self.log_block)

    @property
    def log_tightness(self) -> NDArray[np.float64]:
        """ln(bound/measured) of ``log_best`` at the reference times, (B, T+1, T+1); 0 is a tight bound."""
        return self.log_tightness_of(self.log_best)

    def log_tightness_of(self, log_bound: NDArray) -> NDArray[np.float64]:
        """ln(bound/measured) of one of the bounds, such as ``result.log_upper``."""
        return log_ratio(log_bound, self.log_measured)


def growth_bounds(traj: Any, *, times: Any = None, lower: bool = True, name: str | None = None) -> GrowthBounds:
    """Bounds of ||Phi(t, k)|| for every pair of steps, and the norm itself at reference times.

    ||Phi(t, k)|| <= prod ||J_j|| <= (gamma lambda)^(t-k) with lambda the largest **singular** value of W (Pascanu,
    Mikolov & Bengio 2013, section 2.1, who write of eigenvalues; for a non-normal W that version is violated).

    Parameters
    ----------
    traj : Trajectory, DeviceTrajectory or StackTrajectory
        Of a network, a stack that runs forward, or a user's system. Of one on a GPU products and decompositions stay
        there; norms of the partials of every step, singular values of every J_j, and the measured norms come to the
        host.
    times : integers (R,)
        Reference times t in 0…T at which ``log_measured`` is computed for every k. By default all of them while
        that takes a second or two, else as many as that allows (1…16), spread evenly, T among them.
    lower : bool
        Compute ``log_lower`` and ``log_product``, which take a dense singular value decomposition of every J_j.
    name : str
        What a figure calls the network.

    Returns
    -------
    GrowthBounds

    Raises
    ------
    ValueError
        A time is out of range, or the trajectory is not finite, of an encoder and a decoder, of a stack with a
        backward direction, or of a batch-normalised network in training mode.
    ConvergenceError
        Along a DeviceTrajectory a largest singular value was not found by Lanczos steps; ``traj.to_host()`` has another
        way to it.

    Notes
    -----
    Eight arrays of B (T+1)^2 numbers: for long records bound a part of them, or use
    :func:`rnngrad.analysis.step_bounds.step_bounds`.
    """
    if isinstance(traj, EncoderDecoderTrajectory):
        raise ValueError(
            "traj is of an encoder and a decoder, with a bridge between; it must be one of its parts, "
            "growth_bounds(traj.encoder) or growth_bounds(traj.decoder)"
        )
    T, B, chain = traj.T, traj.B, sample_chain(traj)
    if times is None:
        each = 2.0 * B * T * chain.N**3  # a product and its norm at every lag
        times = spaced(0, T, T + 1 if each * T / 2 <= _COST else int(np.clip(_COST // each, 1, 16)))
    times = steps("times", times, 0, T)
    empty = np.full((T, B), np.nan)
    log_sigma = step_norms(traj) if lower else (empty, empty)
    bounds = step_bounds(traj)
    measured = np.full((B, T + 1, T + 1), np.nan)
    measured[:, times] = on_host(chain.log_norms_at(times))
    return GrowthBounds(
        log_measured=measured,
        log_upper=_between(bounds.log_factored),
        log_block=_by_pair(bounds.block_bound(np.arange(T + 1), T)),
        log_gamma_measured=_uniform(bounds.largest, traj.lengths, T),
        log_gamma_lambda=_between(bounds.log_a_priori),
        log_product=_between(log_sigma[0]),
        log_lower=_between(log_sigma[1]),
        times=times,
        steps=bounds,
        weights=weight_spectrum(traj.net) if isinstance(traj.net, Network) else None,
        name=name,
    )


def _between(log_steps: NDArray) -> NDArray[np.float64]:
    """Sum of log_steps (T, B) over steps k+1 … t, as (B, T+1, T+1); NaN where k > t."""
    sums, zeros = running(log_steps)
    out = sums[:, :, None] - sums[:, None, :]
    out[zeros[:, :, None] > zeros[:, None, :]] = -np.inf
    out[:, ~np.tri(out.shape[1], dtype=bool)] = np.nan
    return out


def _by_pair(by_lag: NDArray) -> NDArray[np.float64]:
    """[b, t, lag] as [b, t, k]; NaN where k > t."""
    lag = np.arange(by_lag.shape[1])[:, None] - np.arange(by_lag.shape[1])
    out = by_lag[:, np.arange(len(lag))[:, None], np.maximum(lag, 0)]
    out[:, lag < 0] = np.nan
    return out


def _uniform(largest: NDArray, lengths: NDArray, T: int) -> NDArray[np.float64]:
    """log||M^lag|| of M (B, S, S) for every pair of steps, the lag counting a sequence's own steps."""
    powers = log_norms_of_products(np.broadcast_to(largest, (T, *largest.shape)), np.array([T]), T)[:, 0]
    live = np.minimum(np.arange(T + 1), lengths[:, None])  # live[B, T+1]
    lag = np.maximum(live[:, :, None] - live[:, None, :], 0)
    out = powers[np.arange(len(powers))[:, None, None], lag]
    out[:, ~np.tri(T + 1, dtype=bool)] = np.nan
    return out
