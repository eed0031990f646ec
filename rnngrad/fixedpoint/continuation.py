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
from .maps import Clamped, clamped
from .newton import solve
from .solve import start_states

_CORRECTIONS = 8  # Newton iterations before a step is halved
_DIFFERENCE = 1e-6  # of the parameter, for df/dp by central differences; it steers and does not enter the result
_BISECTIONS = 45
_KINDS = ("fold", "branch", "flip", "rotation")


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
    name : str
        Of the parameter.
    """

    DERIVED: ClassVar[tuple[str, ...]] = ("stable",)

    parameter: NDArray[np.float64]
    s: NDArray[np.float64]
    eigenvalues: NDArray[np.complex128]
    event: NDArray[np.str_]
    event_parameter: NDArray[np.float64]
    event_s: NDArray[np.float64]
    name: str

    @property
    def stable(self) -> NDArray[np.bool_]:
        """Where every eigenvalue is inside the unit circle, (M,)."""
        return np.abs(self.eigenvalues).max(axis=1) < 1


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
    with the distance along the tangent.

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
    curve = _Curve(net_of, x, tol, backend)
    first = curve.at(start)
    if first.net.dtype != np.float64:
        raise ValueError(f"net_of({start}) is a network in {first.net.dtype}; it must be in float64")
    rows, invalid = start_states(first.net, _checks.numbers("s", s), 1, "s")
    done = solve(first, rows, tol, 100)
    if invalid.any() or done.status[0] not in ("converged", "rounding"):
        ended = str(done.status[0])
        raise ConvergenceError(f"there is no fixed point near s at {name} = {start}: Newton's method ends {ended!r}")
    point = np.append(done.s.ravel(), start)
    tangent = curve.tangent(point, None)
    tangent *= np.sign(stop - start) * (np.sign(tangent[-1]) or 1.0)
    points, events = [point], []
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
        events += [curve.locate(kind, point, tangent, h) for kind in curve.crossed(point, tangent, new, turned)]
        if not low <= new[-1] <= high:
            edge = high if new[-1] > high else low
            share = (edge - point[-1]) / (new[-1] - point[-1])
            end = solve(curve.at(edge), (point + share * (new - point))[:-1].reshape(1, *shape), tol, 50)
            points.append(np.append(end.s.ravel(), edge))
            events = [event for event in events if low <= event[1][-1] <= high]
            break
        points.append(new)
        point, tangent, h = new, turned, min(step, 1.5 * h)
    p = np.array([one[-1] for one in points])
    values = np.stack([curve.eigenvalues(one) for one in points])
    where = np.array([at for _, at in events]).reshape(len(events), point.size)
    return Branch(
        parameter=p, s=np.stack([one[:-1].reshape(shape) for one in points]), eigenvalues=values,
        event=np.array([kind for kind, _ in events], dtype="<U8"), event_parameter=where[:, -1],
        event_s=where[:, :-1].reshape(len(events), *shape), name=name,
    )  # fmt: skip


@dataclass(frozen=True)
class _Curve:
    """Points (s, p), flat, of size N + 1."""

    net_of: Callable[[float], Any]
    x: Any
    tol: float
    backend: str

    def at(self, p: float) -> Clamped:
        return clamped(self.net_of(float(p)), self.x, 1, 1, self.backend)

    def _residual(self, point: NDArray) -> NDArray:
        """s - f(s; p), (N,)."""
        here = self.at(point[-1])
        s = point[:-1].reshape(1, *here.net.state_shape)
        return (s - here.image(s)).ravel()

    def jacobian(self, point: NDArray) -> NDArray:
        """df/ds (N, N)."""
        here = self.at(point[-1])
        return here.jacobians(here.trajectory(point[:-1].reshape(1, *here.net.state_shape))).dense()[0, 0]

    def _derivative(self, point: NDArray) -> NDArray:
        """d(s - f)/d(s, p), (N, N + 1)."""
        h = _DIFFERENCE * max(1.0, abs(point[-1]))
        up, down = point.copy(), point.copy()
        up[-1] += h
        down[-1] -= h
        by_p = (self._residual(up) - self._residual(down)) / (2 * h)
        return np.column_stack([np.eye(len(by_p)) - self.jacobian(point), by_p])

    def tangent(self, point: NDArray, before: NDArray | None) -> NDArray:
        """Unit tangent of the curve, in the direction of the one before."""
        way = np.linalg.svd(self._derivative(point))[2][-1]
        return way if before is None or way @ before >= 0 else -way

    def correct(self, guess: NDArray, tangent: NDArray) -> NDArray | None:
        """The point of the curve in the plane through ``guess`` across the tangent; None without convergence."""
        point = guess.copy()
        for _ in range(_CORRECTIONS):
            residual = self._residual(point)
            if np.linalg.norm(residual) <= self.tol:
                return point
            bordered = np.vstack([self._derivative(point), tangent])
            try:
                point = point - np.linalg.solve(bordered, np.append(residual, tangent @ (point - guess)))
            except np.linalg.LinAlgError:
                return None
            if not np.isfinite(point).all():
                return None
        return None

    def eigenvalues(self, point: NDArray) -> NDArray:
        values = np.linalg.eigvals(self.jacobian(point)).astype(complex)
        return values[np.argsort(-np.abs(values), kind="stable")]

    def tests(self, point: NDArray, tangent: NDArray) -> NDArray:
        """A number for each kind of event whose sign changes there (that of a branch does at a fold too)."""
        J = self.jacobian(point)
        eye, values = np.eye(len(J)), np.linalg.eigvals(J)
        pairs = np.sort(np.abs(values[values.imag > 0]))
        outside = np.count_nonzero(pairs >= 1)
        return np.array(
            [tangent[-1], np.linalg.slogdet(eye - J)[0], np.linalg.slogdet(eye + J)[0], outside], dtype=np.float64
        )

    def crossed(self, point: NDArray, tangent: NDArray, new: NDArray, turned: NDArray) -> list[str]:
        """Kinds of the events between two points."""
        before, after = self.tests(point, tangent), self.tests(new, turned)
        fold, branch, flip = before[:3] * after[:3] < 0
        rotation = before[3] != after[3] and len(self._pairs(point)) == len(self._pairs(new))
        return [kind for kind, seen in zip(_KINDS, (fold, branch and not fold, flip, rotation), strict=True) if seen]

    def _pairs(self, point: NDArray) -> NDArray:
        values = np.linalg.eigvals(self.jacobian(point))
        return values[values.imag > 0]

    def locate(self, kind: str, point: NDArray, tangent: NDArray, h: float) -> tuple[str, NDArray]:
        """Bisection for the arclength in (0, h) at which the test of that kind changes."""
        which = _KINDS.index(kind)
        low, high, found = 0.0, h, point
        start = self.tests(point, tangent)[which]
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            new = self.correct(point + middle * tangent, tangent)
            if new is None:
                break
            found = new
            value = self.tests(new, self.tangent(new, tangent))[which]
            same = value == start if which == 3 else value * start > 0
            low, high = (middle, high) if same else (low, middle)
        return kind, found
