"""The gradient's norm against lag in random networks of different gains, beside mean field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._results import Result
from ..dynamics.rollout import rollout
from ..losses import squared_error
from ..network import Network
from .mean_field import MeanField, mean_field
from .products import spaced
from .reach import gradient_reach

_REFERENCES = 16


@dataclass(frozen=True)
class GainSweep(Result):
    """Growth of the gradient over a lag, for each gain.

    Attributes
    ----------
    prediction : MeanField
        For the same gains, (K,); chi^(lag/2) is the factor over a lag.
    lags : ndarray (L,)
        0 … L-1.
    log_ratio : ndarray (K, 3, L)
        log(||dL_t/ds_{t-lag}||/||dL_t/ds_t||), L_t = 1/2 ||h_t - z||^2: the quantiles 0.1, 0.5, 0.9 over reference
        steps and samples.
    n : int
        Units.
    """

    prediction: MeanField
    lags: NDArray[np.int64]
    log_ratio: NDArray[np.float64]
    n: int


def gain_sweep(
    g: Any,
    *,
    n: int = 200,
    lag: int = 100,
    samples: int = 4,
    transient: int = 200,
    activation: str = "tanh",
    seed: int = 0,
    progress: Callable[[float], Any] = lambda share: None,
) -> GainSweep:
    """Gradients of random networks h <- phi(W h), W_ij ~ N(0, g^2/n), over ``lag`` steps back, for each gain g (K,).

    One draw of the weights serves every gain. The loss pulls h towards a random target z, so that the gradient starts
    in a random direction.

    Raises
    ------
    ValueError
        An argument is out of range, or a network diverges.
    """
    gains = _checks.array("g", np.atleast_1d(_checks.numbers("g", g)), ("K",))
    lag, transient = _checks.integer("lag", lag, 1), _checks.integer("transient", transient, 0)
    samples = _checks.integer("samples", samples, 1)
    prediction = mean_field(gains, activation=activation)
    times = spaced(transient + lag, transient + 2 * lag, _REFERENCES)
    T, rows = int(times[-1]), []
    for i, gain in enumerate(gains):
        net = Network.init("vanilla", 0, n, scheme="gaussian", gain=float(gain), activation=activation, seed=seed)
        rng = np.random.default_rng(seed)
        traj = rollout(net, s0=rng.standard_normal((samples, 1, n)), steps=T)
        loss = squared_error(rng.standard_normal(traj.y.shape))
        rows.append(gradient_reach(traj, loss, times=times, max_lag=lag).quantiles((0.1, 0.5, 0.9)))
        progress((i + 1) / len(gains))
    return GainSweep(prediction, np.arange(lag + 1), np.array(rows), n)
