"""What happens between two points of a curve of fixed points: bifurcations, and the end of the interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..errors import ConvergenceError
from .curve import Curve
from .newton import solve

_BISECTIONS = 45
_BEFORE = 0.95  # of the way to a station where nothing has changed: an eigenvalue that gets to the circle there, turns
_LOCATED = 1e-4  # of a branch point at worst, in (s, p): nearer than that corrections may lead to the other curve


@dataclass(frozen=True)
class Station:
    """A point of the curve at a distance along the tangent, the curve's own direction, and eigenvalues outside.

    ``pace`` is the distance along the tangent for one of the curve.
    """

    curve: Curve
    along: float
    point: NDArray
    direction: NDArray
    pace: float
    counts: tuple[int, int, int]

    @property
    def way(self) -> float:
        """Which way p goes."""
        return float(self.direction[-1])

    @cached_property
    def reaches(self) -> tuple[float, float]:
        """How far ahead and behind, along the tangent, an eigenvalue meets the unit circle at the pace it has here."""
        ahead, behind = self.curve.reaches(self.point, self.direction)
        return ahead * self.pace, behind * self.pace

    def same(self, other: Station) -> bool:
        return self.counts == other.counts and self.way * other.way >= 0


@dataclass(frozen=True)
class Event:
    kind: str
    change: int  # of the eigenvalues (pairs) outside; 0 where the curve turns back and an eigenvalue 1 does so too
    point: NDArray


@dataclass(frozen=True)
class Arc:
    """The curve over the tangent at one of its points."""

    curve: Curve
    point: NDArray
    tangent: NDArray
    name: str

    def station(self, along: float, point: NDArray) -> Station:
        direction = self.curve.tangent(point, self.tangent)
        pace = float(direction @ self.tangent)
        return Station(self.curve, along, point, direction, pace, self.curve.counts(point))

    def middle(self, low: Station, high: Station) -> Station | None:
        """Between two stations; None close to a branch point, where the corrections lead to the other curve."""
        guess = 0.5 * (low.point + high.point)
        apart = float(np.linalg.norm(high.point - low.point))
        point = self.curve.correct(guess, self.tangent)
        if point is not None and np.linalg.norm(point - guess) <= apart + self.curve.tol:
            return self.station(0.5 * (low.along + high.along), point)
        if apart > _LOCATED * max(1.0, float(np.abs(guess).max())):
            raise ConvergenceError(f"the curve is lost beyond {self.name} = {low.point[-1]:.6g}; take a smaller step")
        return None

    def bisect(self, low: Station, high: Station, inside: Callable[[Station], bool]) -> tuple[Station, Station]:
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

    def events(self, low: Station, high: Station) -> list[Event]:
        """What changes between two stations, in order; halved until one thing does, or they are one to rounding.

        Nothing seems to change where something comes and goes: it is looked for where the pace of an eigenvalue at one
        of the stations takes it to the unit circle before the other one.
        """
        # a double root is known to the square root of tol
        together = np.sqrt(self.curve.tol) * max(1.0, float(np.abs(low.point).max()))
        same, apart = low.same(high), high.along - low.along
        if same and (apart <= together or min(low.reaches[0], high.reaches[1]) > _BEFORE * apart):
            return []
        if not _alone(low, high) and apart > together:
            middle = self.middle(low, high)
            if middle is not None:
                return self.events(low, middle) + self.events(middle, high)
        seen = _kinds(low, high)
        if not seen:
            return []
        last, first = self.bisect(low, high, low.same)
        if not first.same(high) and apart > together:  # something else came first, and goes again
            return self.events(low, first) + self.events(first, high)
        events = [Event(kind, change, first.point) for kind, change in seen]
        return self.events(low, last) + events + self.events(first, high) if apart > together else events

    def left(self, low: Station, high: Station, least: float, most: float) -> Station | None:
        """Where p leaves [least, most] between two stations, if it does; it may come back at a fold between them."""

        def inside(station: Station) -> bool:
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


def _alone(low: Station, high: Station) -> bool:
    """Whether one thing changes between two stations."""
    up, down, pairs = (abs(b - a) for a, b in zip(low.counts, high.counts, strict=True))
    return bool(up + down + pairs // 2 == 1 and (up or low.way * high.way >= 0))


def _kinds(low: Station, high: Station) -> list[tuple[str, int]]:
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


def settled(events: list[Event], near: float) -> list[Event]:
    """Without crossings of 1 there and back within ``near``, twice what s^3 / 3 = tol leaves of a triple root."""
    out: list[Event] = []
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
                out.append(Event("fold", last.change + event.change, event.point))
        else:
            out.append(event)
    return out
