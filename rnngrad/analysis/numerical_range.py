"""The numerical radius of a matrix: what the numerical abscissa is to e^(tA), for the powers of A.

w(A) = max |v* A v| over unit vectors v = max over angles of h(theta), the largest eigenvalue of the Hermitian part of
e^(-i theta) A; h(0) is the numerical abscissa. Then ||A^k||_2 <= 2 w(A)^k for every k (Berger 1965): a network whose W
has w <= 1 never amplifies by more than 2 over any lag, however far from normal W is, which neither the spectral radius
(too small) nor sigma_max (too large) can say.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from .. import _checks
from .._blas import one_blas_thread
from ..errors import ConvergenceError

_ANGLES = 4096


def numerical_radius(A: Any, *, tol: float = 1e-4) -> tuple[float, float]:
    """An interval (low, high) that holds the numerical radius, with high - low <= tol high.

    Two values of h bound it on the angles between them, by the corner where their supporting lines of the numerical
    range meet; the angles with the farthest corner are halved until it is near enough (Johnson 1978).

    Parameters
    ----------
    A : array (n, n)
        Real.
    tol : float
        Relative width in (0, 1). Costs about 2/sqrt(tol) Hermitian eigenvalues at worst, where A's numerical range is a
        disc around 0, and a few tens where it is not.

    Returns
    -------
    low, high : float
        Both within rounding; ``high`` is a bound.

    Raises
    ------
    ValueError
        A is not square.
    ConvergenceError
        The width was not reached with 4096 angles.
    """
    A = _checks.array("A", A, ("n", "n"))
    if A.shape[0] != A.shape[1] or not A.size:
        raise ValueError(f"A has shape {A.shape}; it must be square")
    tol = _checks.number("tol", tol, 0.0, 1.0, open_low=True)
    scale = float(np.abs(A).max())
    if scale == 0:
        return 0.0, 0.0
    unit = A / scale
    angles = np.linspace(0, np.pi, 9)  # h is even: A is real
    with one_blas_thread():
        heights = [_height(unit, theta) for theta in angles]
        low = max(heights)
        wedges = [
            (-_corner(angles[i], angles[i + 1], heights[i], heights[i + 1]), *angles[i : i + 2], *heights[i : i + 2])
            for i in range(len(angles) - 1)
        ]
        heapq.heapify(wedges)
        for _ in range(_ANGLES):
            top, left, right, at_left, at_right = heapq.heappop(wedges)
            if -top <= low / (1 - tol):
                return scale * low, scale * max(-top, low)
            middle = (left + right) / 2
            height = _height(unit, middle)
            low = max(low, height)
            for a, b, at_a, at_b in ((left, middle, at_left, height), (middle, right, height, at_right)):
                heapq.heappush(wedges, (-_corner(a, b, at_a, at_b), a, b, at_a, at_b))
    raise ConvergenceError(
        f"the numerical radius is in [{scale * low:.9g}, {-scale * top:.9g}] after {_ANGLES} angles, wider than "
        f"tol = {tol:g} allows; give a larger one"
    )


def _height(A: NDArray, theta: float) -> float:
    """h(theta)."""
    turned = np.exp(-1j * theta) * A
    n = len(A)
    return float(scipy.linalg.eigvalsh((turned + turned.conj().T) / 2, subset_by_index=[n - 1, n - 1])[0])


def _corner(left: float, right: float, at_left: float, at_right: float) -> float:
    """Upper bound of h between two angles."""
    width = right - left
    # the corner lies at (along, across) in axes turned to the left angle
    along, across = at_left, (at_right - at_left * np.cos(width)) / np.sin(width)
    if 0 <= np.arctan2(across, along) <= width:
        return float(np.hypot(along, across))
    return max(at_left, at_right)
