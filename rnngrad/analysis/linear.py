"""The linear recurrence h_tau = W^tau h_0 in closed form, and the powers of W without rounding."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._results import Result
from ..errors import SingularError


def linear_recurrence(W: Any, h0: Any, tau: Any) -> NDArray[np.float64]:
    """h_tau = W^tau h_0 = R Lambda^tau R^-1 h_0 by eigendecomposition (note 000).

    Eigenvalues of magnitude below one decay, above one explode. For a non-normal W this is only the asymptotic rate:
    the norm can grow first.

    Parameters
    ----------
    W : array (n, n)
    h0 : array (n,)
    tau : integers (...)
        Numbers of steps, each at least 0.

    Returns
    -------
    ndarray (..., n)
        Relative accuracy about eps times the condition number of the eigenvectors R.

    Raises
    ------
    SingularError
        W is defective or nearly so: the eigenvectors' condition number exceeds 1e8.
    """
    W = _square(W)
    h0 = _checks.array("h0", h0, (len(W),))
    steps = np.asarray(tau)
    if steps.dtype.kind not in "iu" or (steps.size and steps.min() < 0):
        raise ValueError(f"tau is {tau!r}; it must be integers of at least 0")
    eigenvalues, R = np.linalg.eig(W)
    condition = np.linalg.cond(R)
    if not condition < 1e8:
        raise SingularError(
            f"W has no well-conditioned eigenvectors (condition number {condition:.2g}): it is defective or nearly so, "
            "and the closed form would lose more than half of the digits; use rollout"
        )
    coefficients = np.linalg.solve(R, h0.astype(R.dtype))
    powers = eigenvalues ** steps[..., None].astype(float)
    return np.real((powers * coefficients) @ R.T)


@dataclass(frozen=True)
class MatrixPower(Result):
    """W^lag, which is Phi(t, t - lag) of the linear network h_t = W h_{t-1} + ….

    Attributes
    ----------
    W : ndarray (n, n)
    lag : int
    values : ndarray (n, n)
        W^lag, each entry rounded once.
    name : str
        What a figure calls W.
    """

    W: NDArray[np.float64]
    lag: int
    values: NDArray[np.float64]
    name: str


def matrix_power(W: Any, lag: int, *, name: str = "W") -> MatrixPower:
    """W^lag in exact rational arithmetic, rounded once at the end.

    Numbers of 53 lag bits: for small matrices and lags of hundreds, where it is the truth that chains are held against.

    Raises
    ------
    ValueError
        W is not square, or the lag is negative.
    OverflowError
        An entry is beyond float64.
    """
    W = _square(W)
    exact = np.vectorize(Fraction, otypes=[object])(W)
    power = np.vectorize(Fraction, otypes=[object])(np.eye(len(W)))
    for _ in range(_checks.integer("lag", lag, 0)):
        power = exact @ power
    return MatrixPower(W, lag, power.astype(np.float64), name)


def _square(W: Any) -> NDArray[np.float64]:
    W = _checks.array("W", W, ("n", "n"))
    if W.shape[0] != W.shape[1]:
        raise ValueError(f"W has shape {W.shape}; it must be square")
    return W
