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
_LOCATED = 1e-4  # of a branch point at worst, in (s, p): nearer than that corrections may lead to the other curve
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
    if not callable(net_of):
        raise ValueError(f"net_of is {type(net_of).__name__}; it must be a function p -> Network or System")
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
        arc = _Arc(curve, point, tangent, name)
        here, there = arc.station(0.0, point), arc.station(h, new)
        end = arc.left(here, there, low, high)
        if end is not None:
            there = end
        events += _settled(arc.events(here, there), 2 * (3 * tol) ** (1 / 3))
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

    def counts(self, point: NDArray) -> tuple[int, int, int]:
        """Eigenvalues on the unit circle or outside: real and positive, real and negative, complex."""
        values = self.eigenvalues(point)
        out = values[np.abs(values) >= 1]
        # an eigenvalue of multiplicity 2 comes out as a pair that far off the axis, or off by the error of the point
        real = np.abs(out.imag) <= max(self.tol, np.sqrt(np.finfo(float).eps)) * np.abs(out)
        up, down = int((real & (out.real > 0)).sum()), int((real & (out.real < 0)).sum())
        return up, down, len(out) - up - down


@dataclass(frozen=True)
class _Station:
    """A point of the curve at a distance along the tangent, which way p goes there, and eigenvalues outside."""

    along: float
    point: NDArray
    way: float
    counts: tuple[int, int, int]

    def same(self, other: _Station) -> bool:
        return self.counts == other.counts and self.way * other.way >= 0


@dataclass(frozen=True)
class _Event:
    kind: str
    change: int  # of the eigenvalues (pairs) outside; 0 where the curve turns back and an eigenvalue 1 does so too
    point: NDArray


@dataclass(frozen=True)
class _Arc:
    """The curve over the tangent at one of its points."""

    curve: _Curve
    point: NDArray
    tangent: NDArray
    name: str

    def station(self, along: float, point: NDArray) -> _Station:
        way = self.curve.tangent(point, self.tangent)[-1]
        return _Station(along, point, float(way), self.curve.counts(point))

    def middle(self, low: _Station, high: _Station) -> _Station | None:
        """Between two stations; None close to a branch point, where the corrections lead to the other curve."""
        guess = 0.5 * (low.point + high.point)
        apart = float(np.linalg.norm(high.point - low.point))
        point = self.curve.correct(guess, self.tangent)
        if point is not None and np.linalg.norm(point - guess) <= apart + self.curve.tol:
            return self.station(0.5 * (low.along + high.along), point)
        if apart > _LOCATED * max(1.0, float(np.abs(guess).max())):
            raise ConvergenceError(f"the curve is lost beyond {self.name} = {low.point[-1]:.6g}; take a smaller step")
        return None

    def bisect(self, low: _Station, high: _Station, inside: Callable[[_Station], bool]) -> tuple[_Station, _Station]:
        """The last station that is inside and the first that is not, as near as they get."""
        for _ in range(_BISECTIONS):
            middle = self.middle(low, high)
            if middle is None:
                break
            if inside(middle):
                low = middle
            else:
                high = middle
        return low, high

    def events(self, low: _Station, high: _Station) -> list[_Event]:
        """What changes between two stations, in order; halved until one thing does, or they are one to rounding."""
        if low.same(high):
            return []
        together = np.sqrt(self.curve.tol) * max(
            1.0, float(np.abs(low.point).max())
        )  # a double root is known that well
        if not _alone(low, high) and high.along - low.along > together:
            middle = self.middle(low, high)
            if middle is not None:
                return self.events(low, middle) + self.events(middle, high)
        seen = _kinds(low, high)
        at = self.bisect(low, high, low.same)[1].point if seen else low.point
        return [_Event(kind, change, at) for kind, change in seen]

    def left(self, low: _Station, high: _Station, least: float, most: float) -> _Station | None:
        """Where p leaves [least, most] between two stations, if it does; it may come back at a fold between them."""

        def inside(station: _Station) -> bool:
            return bool(least <= station.point[-1] <= most)

        if low.way * high.way < 0 and inside(high):
            turn = self.bisect(low, high, lambda station: station.way * low.way > 0)
            high = turn[0] if inside(turn[1]) else turn[1]
        if inside(high):
            return None
        before, after = self.bisect(low, high, inside)
        edge = most if after.point[-1] > most else least
        here = self.curve.at(edge)
        s = before.point[:-1].reshape(1, *here.net.state_shape)
        done = solve(here, s, self.curve.tol, 50, otherwise="stop")
        end = np.append(done.s.ravel(), edge)
        if done.status[0] not in ("converged", "rounding") or np.linalg.norm(end - before.point) > high.along:
            raise ConvergenceError(
                f"the curve is lost at its end, {self.name} = {edge:.6g}: Newton's method ends {str(done.status[0])!r}"
            )
        return self.station(before.along, end)


def _alone(low: _Station, high: _Station) -> bool:
    """Whether one thing changes between two stations."""
    up, down, pairs = (abs(b - a) for a, b in zip(low.counts, high.counts, strict=True))
    return bool(up + down + pairs // 2 == 1 and (up or low.way * high.way >= 0))


def _kinds(low: _Station, high: _Station) -> list[tuple[str, int]]:
    """Kinds of the events between two stations that are one to rounding, and the change of each."""
    up, down, pairs = (int(b - a) for a, b in zip(low.counts, high.counts, strict=True))
    if pairs * up < 0 or pairs * down < 0:  # two real ones outside become a pair there, or the other way round
        other = up if pairs * up < 0 else down
        met = int(np.sign(pairs)) * min(abs(pairs), abs(other) // 2 * 2)
        pairs -= met
        up, down = (up + met, down) if other == up else (up, down + met)
    turned = low.way * high.way < 0
    changes = (("fold" if turned else "branch", up), ("flip", down), ("rotation", pairs // 2))
    return [(kind, change) for kind, change in changes if change or kind == "fold"]


def _settled(events: list[_Event], near: float) -> list[_Event]:
    """Without crossings of 1 there and back within ``near``, twice what s^3 / 3 = tol leaves of a triple root."""
    out: list[_Event] = []
    for event in events:
        last = out[-1] if out else None
        if (
            last is not None
            and {last.kind, event.kind} <= {"fold", "branch"}
            and last.change * event.change < 0
            and np.linalg.norm(event.point - last.point) <= near * max(1.0, float(np.abs(event.point).max()))
        ):
            out.pop()
            if last.kind != event.kind:
                out.append(_Event("fold", last.change + event.change, event.point))
        else:
            out.append(event)
    return out
