"""Every fixed point, slow point or p-cycle that many starts lead to, with its Jacobian and stability.

The fixed points of a trained network are the skeleton of what it computes (Sussillo & Barak 2013). They minimise
||f(s) - s||; Newton's method finds the saddles as readily as the stable ones, which no simulation shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._arrays import on_host
from .._blas import one_blas_thread
from .._results import Result
from ..dynamics.placed import lengths, put_rows, take_rows
from ..dynamics.rollout import hidden
from . import newton
from .arguments import clamped, numbers, start_states
from .distinct import cycles, distinct
from .maps import Clamped

_SLOW_MERGE = 1e3  # times the tolerance of fixed points: a minimum is known to half the digits of a root


@dataclass(frozen=True)
class Points(Result):
    """Points of state space with the linear map around each; K may be 0.

    Attributes
    ----------
    s : ndarray (K, S, n)
        States, the stable ones first.
    h : ndarray (K, n)
        Their hidden outputs.
    residual : ndarray (K,)
        ||f^p(s) - s||: of a slow point, how far the state moves in a step.
    jacobian : ndarray (K, N, N)
        df^p/ds, row = output.
    eigenvalues : ndarray (K, N)
        By descending modulus.
    found : ndarray (K,)
        Starts that led there.
    """

    DERIVED: ClassVar[tuple[str, ...]] = ("stable", "unstable")

    s: NDArray
    h: NDArray
    residual: NDArray[np.float64]
    jacobian: NDArray
    eigenvalues: NDArray[np.complex128]
    found: NDArray[np.int64]

    @property
    def stable(self) -> NDArray[np.bool_]:
        """Where every eigenvalue is inside the unit circle, (K,)."""
        return self.unstable == 0

    @property
    def unstable(self) -> NDArray[np.int64]:
        """Number of directions that grow or stay, |eigenvalue| >= 1, (K,)."""
        return np.count_nonzero(np.abs(self.eigenvalues) >= 1, axis=1)

    def __len__(self) -> int:
        return len(self.s)


@dataclass(frozen=True)
class FixedPoints(Points):
    """Fixed points of f^p, and what became of every start.

    Attributes
    ----------
    slow : Points
        Local minima of ||f^p(s) - s|| that are no fixed points.
    cycle : ndarray (K,)
        Number of the cycle that each point is on: points with one number follow each other.
    cycle_length : ndarray (K,)
        Its length, a divisor of p; 1 for a fixed point of f itself, 0 where Newton's method lost what follows.
    status : ndarray (R,) of str
        Of each start: "converged"; "rounding" (at a point, but tol is below rounding); "slow"; "stuck": no step makes
        the residual smaller, and it is no minimum either; "limit", "singular": out of iterations, where I - J is
        regular or singular; "outside", "diverged": f is not finite at the start, or became so; "invalid": the start is
        not finite.
    point, slow_point : ndarray (R,)
        Index of the fixed point or slow point that each start came to; -1 for none.
    end : ndarray (R, S, n)
        The state that each start came to.
    iterations : ndarray (R,)
    period : int
        p.
    merge : float
        Points nearer than merge max(1, ||s||) are one.
    """

    slow: Points
    cycle: NDArray[np.int64]
    cycle_length: NDArray[np.int64]
    status: NDArray[np.str_]
    point: NDArray[np.int64]
    slow_point: NDArray[np.int64]
    end: NDArray
    iterations: NDArray[np.int64]
    period: int
    merge: float
    map: Clamped = field(repr=False, metadata={"saved": False})


def find_fixed_points(
    net: Any,
    starts: Any,
    x: Any = None,
    tol: float = 1e-10,
    *,
    period: int = 1,
    merge: float = 1e-6,
    max_iterations: int = 200,
    slow: bool = True,
    backend: str = "auto",
) -> FixedPoints:
    """All fixed points s = f^p(s, x) that Newton's method reaches from the starts, each once.

    Parameters
    ----------
    net : Network (any cell) or System
    starts : array (R, S, n) or (R, n)
        Such as states of a trajectory, and these with noise: R = 0 gives an empty result. A start that is not finite is
        "invalid", the others are followed. Starts on a GPU (such as states of a DeviceTrajectory) are followed there;
        where they end comes to the host, and the points are told apart there.
    x : array (m,)
        The input that is held, on either side; None: zero.
    tol : float
        Largest ||f^p(s) - s|| of a fixed point.
    period : int
        p: with p > 1 the points of cycles of every length that divides p; all points of a cycle are given.
    merge : float
        Points nearer than merge max(1, ||s||) are one; where I - J is nearly singular, points nearer than their own
        errors too.
    max_iterations : int
        Of Newton, and of the descent to a slow point.
    slow : bool
        Descend to slow points where the residual does not shrink along Newton's direction (False: "stuck" there).

    Returns
    -------
    FixedPoints
        Every start has a status.

    Raises
    ------
    ValueError
        An argument is out of range or does not fit.

    Notes
    -----
    Damped Newton with line search. Where I - J is singular or no step along the direction helps, Levenberg-Marquardt
    leads to a local minimum of the residual, a slow point, or back to where Newton works. O(N^3) per start and
    iteration. Which points are found depends on the starts alone: only an exhaustive search could know that there are
    no others. Where a gate is closed as far as ``tol`` can tell, as it may be far outside the range of h, every state
    is at rest, and starts that stray there are points of their own.
    """
    tol = _checks.number("tol", tol, 0.0, open_low=True)
    merge = _checks.number("merge", merge, 0.0, 0.1)
    limit = _checks.integer("max_iterations", max_iterations, 1)
    given = numbers("starts", starts)
    here = clamped(net, x, None, period, backend, beside=given)
    if here.x.shape[0] != 1:
        raise ValueError(f"x has {here.x.shape[0]} rows; it must be the one input (m,) that is held")
    s, invalid = _start_states(here, given)
    here = here.at(s.shape[0])
    done = _follow(here, s, tol, limit, slow)
    here, done.s = here.on_host(), on_host(done.s)
    done.status[(done.status == "diverged") & (done.iterations == 0)] = "outside"
    done.status[invalid] = "invalid"
    at_points = np.isin(done.status, ("converged", "rounding"))
    centres, point = distinct(here, done.s, at_points, merge, errors=True)
    centres, point, cycle, length = cycles(here, centres, point, tol, merge)
    fixed, place = _describe(here, centres, np.bincount(point[point >= 0], minlength=len(centres)))
    low, slow_point = distinct(here, done.s, done.status == "slow", merge * _SLOW_MERGE, errors=False)
    slow_points, slow_place = _describe(here, low, np.bincount(slow_point[slow_point >= 0], minlength=len(low)))
    return FixedPoints(
        **vars(fixed), slow=slow_points, cycle=np.unique(cycle[place], return_inverse=True)[1].astype(np.int64),
        cycle_length=length[place], status=done.status, point=_moved_to(place, point),
        slow_point=_moved_to(slow_place, slow_point), end=done.s, iterations=done.iterations, period=period,
        merge=merge, map=here,
    )  # fmt: skip


def _follow(here: Clamped, s: NDArray, tol: float, limit: int, slow: bool) -> newton.Outcome:
    """Newton from every start; where the residual does not shrink along its direction, down to a local minimum."""
    done = newton.solve(here, s, tol, limit, otherwise="stop")
    open_ = np.flatnonzero(done.status == "stuck")
    if slow and open_.size:
        more = newton.solve(here.at(len(open_)), take_rows(done.s, open_), tol, limit, otherwise="descend")
        put_rows(done.s, open_, more.s)
        done.status[open_] = more.status
        done.iterations[open_] += more.iterations
    return done


def _moved_to(place: NDArray, point: NDArray) -> NDArray[np.int64]:
    """Indices among points that were put in the order ``place``; -1 stays."""
    rank = np.full(len(place) + 1, -1)
    rank[place] = np.arange(len(place))
    return rank[point]


def _start_states(here: Clamped, starts: Any) -> tuple[Any, NDArray[np.bool_]]:
    """Starts (R, S, n), and which are not finite."""
    shape = here.net.state_shape
    flat = starts.ndim == 2 and shape[0] == 1 and starts.shape[1] == shape[1]
    rows = starts.reshape(starts.shape[0], *shape) if flat else starts
    if rows.ndim != 3 or rows.shape[1:] != shape:
        wanted = f"(R, {shape[0]}, {shape[1]})" + (f" or (R, {shape[1]})" if shape[0] == 1 else "")
        raise ValueError(f"starts has shape {starts.shape}; it must have shape {wanted}")
    return start_states(here, rows, rows.shape[0], "starts")


def _describe(here: Clamped, s: NDArray, found: NDArray) -> tuple[Points, NDArray[np.int64]]:
    """Points in their order, and the place that each had: stable ones first, then by what led there."""
    K, net = len(s), here.net
    N = net.N
    if not K:
        none = np.zeros((0, N, N), net.dtype)
        empty = np.zeros(0)
        return Points(s, s[:, 0], empty, none, np.zeros((0, N), complex), np.zeros(0, np.int64)), np.zeros(0, np.int64)
    there = here.at(K)
    traj = there.trajectory(s)
    J = np.array(there.jacobians(traj).dense()[0])
    with one_blas_thread():
        values = np.linalg.eigvals(J.astype(np.float64)).astype(complex)
    values = np.take_along_axis(values, np.argsort(-np.abs(values), axis=1, kind="stable"), axis=1)
    growing = np.count_nonzero(np.abs(values) >= 1, axis=1)
    first = s.reshape(K, -1)[:, 0]
    place = np.lexsort((first, -found, growing))
    h = hidden(net, s[None], here.backend)[0]
    residual = lengths(traj.states[-1] - s)
    return Points(s[place], h[place], residual[place], J[place], values[place], found[place]), place
