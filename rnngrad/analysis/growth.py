"""Everything that depends on the lag, in one result: the gradient, the chain, and what bounds and rates say of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .comparison import QUANTILES, ReachByLag, reach_by_lag
from .products import SingularValues, quantiles
from .reach import GradientReach
from .step_bounds import StepBounds, log_ratio
from .time_constants import TimeConstants


@dataclass(frozen=True)
class GrowthByLag(ReachByLag):
    """Growth over ``lag`` steps, natural logarithms; 0 at lag 0, NaN where it does not apply.

    Attributes
    ----------
    lags, gradient, count, eps, horizon, longest
        See :class:`rnngrad.analysis.comparison.ReachByLag`.
    chain_lags, chain : ndarray (K,), (3, K)
        log||Phi(t, t-lag)||_2, the same quantiles over its own reference steps.
    factored, product, a_priori : ndarray (L,)
        Bounds of ||Phi||: from the measured partials (the smaller of the product of per-step bounds and the block
        bound), from the norms ||J_j|| (medians over the chain's reference steps; NaN where those norms were too dear),
        and (gamma lambda)^lag.
    tightness : ndarray (K,)
        log(bound/||Phi||) at the chain's lags, of the smallest of these bounds, the median over its reference steps.
    eigen_rate : ndarray (L,)
        (gamma rho)^lag, a rate and not a bound.
    leak : ndarray (L,)
        What the unit with the longest memory would keep by its own gate alone.
    """

    chain_lags: NDArray[np.int64]
    chain: NDArray[np.float64]
    factored: NDArray[np.float64]
    product: NDArray[np.float64]
    a_priori: NDArray[np.float64]
    eigen_rate: NDArray[np.float64]
    leak: NDArray[np.float64]
    tightness: NDArray[np.float64]

    def at(self, lag: int) -> dict[str, float]:
        """The numbers at one lag."""
        i = int(np.flatnonzero(self.lags == lag)[0])
        names = ("gradient_low", "gradient_median", "gradient_high")
        out: dict[str, Any] = {"lag": lag, **dict(zip(names, self.gradient[:, i], strict=True))}
        out |= {name: getattr(self, name)[i] for name in ("factored", "product", "a_priori", "eigen_rate", "leak")}
        at = np.flatnonzero(self.chain_lags == lag)
        out["chain_median"] = self.chain[1, at[0]] if at.size else np.nan
        out["tightness"] = self.tightness[at[0]] if at.size else np.nan
        return {name: float(value) for name, value in out.items()}


def growth_by_lag(
    reach: GradientReach,
    chain: SingularValues,
    bounds: StepBounds,
    constants: TimeConstants,
    eps: float,
    log_norms: NDArray | None = None,
) -> GrowthByLag:
    """Put the results of one trajectory side by side, by lag; ``eps`` is that of the memory horizon.

    ``log_norms`` are ln||J_t|| (T, B), if there are any.
    """
    lags = reach.lags
    empty = np.full(bounds.log_factored.shape, np.nan)
    by_block = bounds.block_bound(chain.times, int(lags[-1]))
    # a user's system has no W, and its per-step bound is ||J|| again
    by_step = bounds.over(empty if np.isnan(bounds.lam) else bounds.log_factored, chain.times, lags)
    factored = np.minimum(by_step, by_block[:, :, lags])
    product = bounds.over(empty if log_norms is None else log_norms, chain.times, lags)
    a_priori = bounds.over(bounds.log_a_priori, chain.times, lags)
    at = np.searchsorted(lags, chain.lags)
    best = np.fmin(np.fmin(factored, product), a_priori)[:, :, at]
    longest = float(constants.leak_rate.max()) if constants.leak_rate.size else np.nan
    return GrowthByLag(
        **vars(reach_by_lag(reach, eps)),
        chain_lags=chain.lags,
        chain=quantiles(chain.log_norm, QUANTILES),
        factored=quantiles(factored, (0.5,))[0],
        product=quantiles(product, (0.5,))[0],
        a_priori=quantiles(a_priori, (0.5,))[0],
        eigen_rate=_line(bounds.log_eigen_rate, lags),
        leak=_line(longest, lags),
        tightness=quantiles(log_ratio(best, chain.log_norm), (0.5,))[0],
    )


def _line(rate: float, lags: NDArray) -> NDArray[np.float64]:
    """rate * lag, 0 at lag 0 also where the rate is -inf."""
    out = np.full(len(lags), rate if np.isnan(rate) else 0.0)
    np.multiply(rate, lags, out=out, where=lags > 0)
    return out
