"""The linear recurrence h_tau = W^tau h_0 in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
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
    W = _checks.array("W", W, ("n", "n"))
    if W.shape[0] != W.shape[1]:
        raise ValueError(f"W has shape {W.shape}; it must be square")
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
