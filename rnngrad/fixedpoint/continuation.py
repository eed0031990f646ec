"""A fixed point followed through one parameter, around folds, with its bifurcations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._results import Result
from ..errors import ConvergenceError
from .arc import Arc, Event, settled
from .arguments import start_states
from .curve import Curve
from .newton import solve


@dataclass(frozen=True)
class Branch(Result):
    """A curve of fixed points s(p).

    Attributes
    ----------
    parameter : ndarray (M,)
        p along the curve; it turns back at a fold.
    s : ndarray (M, S, n)
    eigenvalues : ndarray (M, N)
        Of J = df/ds, by descending modulus.
    event : ndarray (E,) of str
        Where stability changes: "fold" (the curve turns back, eigenvalue 1), "branch" (eigenvalue 1, and it does not:
        another curve crosses, such as at a pitchfork), "flip" (eigenvalue -1: a 2-cycle is born), "rotation" (a complex
        pair on the unit circle: Neimark-Sacker).
    event_parameter, event_s : ndarray (E,), (E, S, n)
        Where; between the points by bisection.
    event_multiplicity : ndarray (E,)
        Eigenvalues (of a rotation: pairs) that cross the unit circle there together, 2 and more in symmetric networks;
        1 also for a fold whose eigenvalue 1 turns back.
    name : str
        Of the parameter.
    """

    DERIVED: ClassVar[tuple[str, ...]] = ("stable", "unstable")

    parameter: NDArray[np.float64]
    s: NDArray[np.float64]
    eigenvalues: NDArray[np.complex128]
    event: NDArray[np.str_]
    event_parameter: NDArray[np.float64]
    event_s: NDArray[np.float64]
    event_multiplicity: NDArray[np.int64]
    name: str

    @property
    def stable(self) -> NDArray[np.bool_]:
        """Where every eigenvalue is inside the unit circle, (M,)."""
        return self.unstable == 0

    @property
    def unstable(self) -> NDArray[np.int64]:
        """Number of eigenvalues on the unit circle or outside, (M,); it changes at events only."""
        return np.count_nonzero(np.abs(self.eigenvalues) >= 1, axis=1)


@dataclass(frozen=True)
class Branches(Result):
    """Several curves over one parameter."""

    branches: tuple[Branch, ...]

    def arrays(self) -> dict[str, NDArray]:
        """The arrays of each curve under its number and a dot."""
        return {f"{i}.{key}": value for i, one in enumerate(self.branches) for key, value in one.arrays().items()}


def continue_fixed_point(
    net_of: Callable[[float], Any],
    s: Any,
    start: float,
    stop: float,
    *,
    x: Any = None,
    step: float = 0.05,
    max_points: int = 2000,
    tol: float = 1e-10,
    name: str = "p",
    backend: str = "auto",
) -> Branch:
    """Follow a fixed point s = f(s; p) from p = start until p leaves [start, stop], around folds.

    Pseudo-arclength continuation (Keller 1977): a tangent predictor, and Newton's method on the fixed-point equation
    with the distance along the tangent. An eigenvalue that crosses the unit circle and comes back between two points is
    found where its pace at one of them shows it; one that does so within a small part of ``step`` is not.

    Parameters
    ----------
    net_of : function p -> Network or System
        In float64; smooth in p.
    s : array (S, n) or (n,)
        A state near the fixed point at ``start``.
    start, stop : float
        ``stop`` may be below ``start``.
    x : array (m,)
        The input that is held.
    step : float
        Longest step of arclength in (s, p); it is halved where the curve bends.
    max_points : int
        The curve ends after so many, wherever it is.
    tol : float
        Largest ||f(s) - s|| of a point on the curve.
    name : str
        Of the parameter, for figures.

    Returns
    -------
    Branch

    Raises
    ------
    ConvergenceError
        There is no fixed point near ``s`` at ``start``, or the curve is lost: the message says where.
    ValueError
        An argument is out of range or does not fit.
    """
    start, stop = _checks.number("start", start), _checks.number("stop", stop)
    step = _checks.number("step", step, 0.0, open_low=True)
    max_points = _checks.integer("max_points", max_points, 2)
    tol = _checks.number("tol", tol, 0.0, open_low=True)
    if start == stop:
        raise ValueError(f"stop is {stop}, as start is; a curve takes an interval")
    if not callable(net_of):
        raise ValueError(f"net_of is {type(net_of).__name__}; it must be a function p -> Network or System")
    curve = Curve(net_of, None if x is None else _checks.numbers("x", x), tol, backend)
    first = curve.at(start)
    if first.net.dtype != np.float64:
        raise ValueError(f"net_of({start}) is a network in {first.net.dtype}; it must be in float64")
    rows, invalid = start_states(first, _checks.numbers("s", s), 1, "s")
    done = solve(first, rows, tol, 100)
    if invalid.any() or done.status[0] not in ("converged", "rounding"):
        ended = str(done.status[0])
        raise ConvergenceError(f"there is no fixed point near s at {name} = {start}: Newton's method ends {ended!r}")
    point = np.append(done.s.ravel(), start)
    tangent = curve.tangent(point, None)
    tangent *= np.sign(stop - start) * (np.sign(tangent[-1]) or 1.0)
    points: list[NDArray] = [point]
    events: list[Event] = []
    h, low, high = step, min(start, stop), max(start, stop)
    shape = rows.shape[1:]
    while len(points) < max_points:
        new = curve.correct(point + h * tangent, tangent)
        if new is None or np.linalg.norm(new - point) > 2 * h:
            h /= 2
            if h < 1e-9 * step:
                raise ConvergenceError(f"the curve is lost at {name} = {point[-1]:.6g}; take a smaller step")
            continue
        turned = curve.tangent(new, tangent)
        if turned @ tangent < 0.95 and h > 1e-4 * step:  # too sharp a bend to look at from both ends only
            h /= 2
            continue
        arc = Arc(curve, point, tangent, name)
        here, there = arc.station(0.0, point), arc.station(h, new)
        end = arc.left(here, there, low, high)
        if end is not None:
            there = end
        events += settled(arc.events(here, there), 2 * (3 * tol) ** (1 / 3))
        points.append(there.point)
        if end is not None:
            break
        point, tangent, h = new, turned, min(step, 1.5 * h)
    p = np.array([one[-1] for one in points])
    values = np.stack([curve.eigenvalues(one) for one in points])
    where = np.array([event.point for event in events]).reshape(len(events), point.size)
    return Branch(
        parameter=p, s=np.stack([one[:-1].reshape(shape) for one in points]), eigenvalues=values,
        event=np.array([event.kind for event in events], dtype="<U8"), event_parameter=where[:, -1],
        event_s=where[:, :-1].reshape(len(events), *shape),
        event_multiplicity=np.array([max(1, abs(event.change)) for event in events], dtype=np.int64), name=name,
    )  # fmt: skip
