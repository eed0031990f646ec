"""Random networks measured against their mean-field theory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._results import Result
from ..dynamics.rollout import rollout
from ..network import Network
from .lyapunov import lyapunov_spectrum
from .mean_field import MeanField, mean_field

_CURVE = 101  # gains of the line that is drawn


@dataclass(frozen=True)
class RandomNetworks(Result):
    """Exponent and variance of K ensembles of R random networks each, beside the prediction.

    Attributes
    ----------
    prediction : MeanField
        For the same gains, (K,).
    curve : MeanField
        From the smallest gain to the largest.
    lambda1 : ndarray (K, R)
        Largest Lyapunov exponent, natural logarithm per step.
    stderr : ndarray (K, R)
        Of ``lambda1``, from its fluctuation in time; networks of one ensemble differ by more.
    q : ndarray (K, R)
        Mean square of the units' inputs W h + b over units and measured steps.
    seeds : ndarray (R,)
    n, steps, transient : int
        Units, steps measured and steps before them.
    """

    prediction: MeanField
    curve: MeanField
    lambda1: NDArray[np.float64]
    stderr: NDArray[np.float64]
    q: NDArray[np.float64]
    seeds: NDArray[np.int64]
    n: int
    steps: int
    transient: int

    @property
    def relative_error(self) -> NDArray[np.float64]:
        """(mean of lambda1 over the networks - prediction)/|prediction|, (K,); NaN where that is 0 or -inf."""
        theory = self.prediction.lambda1
        theory = np.where(np.isfinite(theory) & (theory != 0), theory, np.nan)
        return (self.lambda1.mean(axis=1) - theory) / np.abs(theory)


def random_networks(
    g: Any,
    *,
    n: int = 800,
    seeds: Sequence[int] = (0, 1, 2),
    steps: int = 1000,
    transient: int = 300,
    activation: str = "tanh",
    bias_variance: float = 0.0,
    progress: Callable[[float], Any] = lambda share: None,
) -> RandomNetworks:
    """Measure random networks h <- phi(W h + b), W_ij ~ N(0, g^2/n), b_i ~ N(0, sigma_b^2), at each gain g (K,).

    Each starts from a standard normal state. The theory holds for n -> infinity: near the edge of chaos a network of
    n = 800 can differ from it by ten percent, and a small one can have a stable cycle where the theory has chaos.

    Parameters
    ----------
    g : float or array (K,)
    n, steps, transient : int
        Units; steps measured; steps before them.
    seeds : sequence of int (R,)
        One network each.
    activation, bias_variance
        As for :func:`rnngrad.mean_field`.
    progress : function
        Called with the share of the networks that is done.

    Returns
    -------
    RandomNetworks

    Raises
    ------
    ValueError
        An argument is out of range, or the networks diverge.
    """
    gains = _checks.array("g", np.atleast_1d(_checks.numbers("g", g)), ("K",))
    if not gains.size or not np.ndim(seeds) or not len(seeds):
        raise ValueError(f"g is {g!r} and seeds is {seeds!r}; neither may be empty, and seeds are a list")
    prediction = mean_field(gains, activation=activation, bias_variance=bias_variance)
    steps, transient = _checks.integer("steps", steps, 1), _checks.integer("transient", transient, 0)
    fine = np.union1d(gains, np.linspace(gains.min(), gains.max(), _CURVE))
    curve = mean_field(fine, activation=activation, bias_variance=bias_variance, correlations=False)
    shape = (len(gains), len(seeds))
    lambda1, stderr, q = np.empty(shape), np.empty(shape), np.empty(shape)
    for i, gain in enumerate(gains):
        for j, seed in enumerate(seeds):
            rng = np.random.default_rng(seed)
            net = Network.init("vanilla", 0, n, scheme="gaussian", gain=float(gain), activation=activation, seed=rng)
            net = net.replace(b=np.sqrt(prediction.bias_variance) * rng.standard_normal((1, n)))
            s0 = rng.standard_normal((1, 1, n))
            found = lyapunov_spectrum(net, s0=s0, steps=steps, k=1, transient=transient, seed=rng)
            lambda1[i, j], stderr[i, j] = found.exponents[0, 0], found.stderr[0, 0]
            inputs = rollout(net, s0=s0, steps=transient + steps).a[transient:]
            q[i, j] = np.mean(np.square(inputs))
            progress((i * shape[1] + j + 1) / (shape[0] * shape[1]))
    return RandomNetworks(prediction, curve, lambda1, stderr, q, np.array(seeds), net.n, steps, transient)
