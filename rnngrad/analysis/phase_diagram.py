"""Order and chaos of random networks over the spread of weights and of biases, by mean field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._results import Result
from .mean_field import edge_of_chaos, mean_field


@dataclass(frozen=True)
class PhaseDiagram(Result):
    """Largest Lyapunov exponent over g and sigma_b, and the line where it is 0.

    Attributes
    ----------
    g : ndarray (K,)
        Standard deviation of the weights times sqrt(n).
    sigma_b : ndarray (M,)
        Standard deviation of the biases.
    lambda1 : ndarray (M, K)
        1/2 ln chi, natural logarithm per step.
    critical : ndarray (M,)
        The edge of chaos: the g at which chi = 1, for each sigma_b.
    activation : str
    """

    g: NDArray[np.float64]
    sigma_b: NDArray[np.float64]
    lambda1: NDArray[np.float64]
    critical: NDArray[np.float64]
    activation: str


def phase_diagram(g: Any, sigma_b: Any, *, activation: str = "tanh") -> PhaseDiagram:
    """Mean-field exponents on a grid of gains g (K,) and standard deviations sigma_b (M,) of the biases.

    Raises
    ------
    ValueError
        A list is empty, or holds a negative number.
    ConvergenceError
        As :func:`rnngrad.mean_field`.
    """
    gains, spreads = (_checks.array(name, value, ("K",)) for name, value in (("g", g), ("sigma_b", sigma_b)))
    for name, value in (("g", gains), ("sigma_b", spreads)):
        if not value.size or (value < 0).any():
            raise ValueError(f"{name} is {value}; it must be a list of numbers of at least 0")
    rows = [
        mean_field(gains, activation=activation, bias_variance=float(sigma**2), correlations=False).lambda1
        for sigma in spreads
    ]
    critical = [edge_of_chaos(activation, float(sigma**2)) for sigma in spreads]
    return PhaseDiagram(gains, spreads, np.array(rows), np.array(critical), activation)
