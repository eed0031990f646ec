"""The section on fixed points: its numbers and its sentences, for each input that is held."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..analysis.settled import Cycle, Settling
from ..analysis.words import short
from ..fixedpoint.find import Points
from .measure import Measured

ROWS = 12  # points of a table
SLOW_ROWS = 4
MODULI = 3
NEAR = 1e-3  # of the size of a point: what ends closer to it is said to be there

_OUTCOMES = {
    "point": "came to rest at a fixed point",
    "rest": "came to rest at a point that was not identified",
    "cycle": "settled on a cycle",
    "moving": "were still moving",
    "diverged": "left the finite numbers",
}
_STATUSES = {
    "stuck": "ended where no step helps",
    "limit": "ran out of iterations",
    "singular": "ran out of iterations where I − J is singular",
    "outside": "began where f is not finite",
    "diverged": "left the finite numbers",
    "invalid": "were not finite",
}


def section(m: Measured) -> dict[str, Any] | None:
    """Numbers and sentences; None where the input is not held."""
    if not m.held:
        return None
    count = len(m.held)
    text = ""
    if count > 1:
        shown = len(m.settled)
        what = "all" if shown == count else f"the first {shown} of these"
        text = f"The samples hold {count} different inputs; {what} are looked at, each by itself."
    return {
        "inputs": count,
        "looked_at": len(m.settled),
        "text": text,
        "each": [_one(m, i) for i in range(len(m.settled))],
    }


def name_of(m: Measured, i: int) -> str:
    """What the page calls the i-th held input; "" where there is one."""
    return "" if len(m.held) == 1 else f"input {i + 1}"


def place(i: int) -> str:
    """The part of the page about the i-th held input, where its figures go."""
    return f"fixed points {i + 1}"


def _one(m: Measured, i: int) -> dict[str, Any]:
    one, points = m.settled[i], m.settled[i].points
    stable = 0 if points is None else int(np.count_nonzero(points.stable))
    return {
        "section": place(i),
        "name": name_of(m, i),
        "input": one.x,
        "samples": one.samples,
        "holding": m.held[i],
        "followed": len(one.samples),
        "starts": one.starts,
        "steps": one.steps,
        "searched": one.searched,
        "outcome": one.outcome,
        "count": 0 if points is None else len(points),
        "stable": stable,
        "unstable": 0 if points is None else len(points) - stable,
        "slow": 0 if points is None else len(points.slow),
        "text": [
            line
            for line in (_found(one), _singular(one), _unfound(one), _followed(one), *_rate(m, one), _undrawn(one))
            if line
        ],
        "points": [] if points is None else _points(one, points),
        "cycles": [_cycle(k, cycle) for k, cycle in enumerate(one.cycles)],
        "ends": [_end(m, one, q) for q in range(len(one.samples))],
        "left_out": 0 if points is None else max(len(points) - ROWS, 0) + max(len(points.slow) - SLOW_ROWS, 0),
    }


# -- rows of the tables ------------------------------------------------------------------------------------------


def _points(one: Settling, points: Any) -> list[dict[str, Any]]:
    """Fixed points in their order, and the slowest slow ones."""
    rows = []
    for k in range(min(len(points), ROWS)):
        more = {"condition": one.condition[k], "attracted": one.attracted[k], "log_radius": one.log_radius[k]}
        rows.append(_point(f"point {k + 1}", _kind(points, k), points, k) | more)
    for place, k in enumerate(np.argsort(points.slow.residual)[:SLOW_ROWS]):
        nothing = {"condition": None, "attracted": None, "log_radius": None}
        rows.append(_point(f"slow point {place + 1}", "slow", points.slow, int(k)) | nothing)
    return rows


def _kind(points: Points, k: int) -> str:
    return _called(int(points.unstable[k]), points.eigenvalues.shape[1])


def _called(unstable: int, N: int) -> str:
    """A point with so many unstable directions of N."""
    return {0: "stable", N: "unstable in all directions"}.get(unstable, "saddle")


def _point(name: str, kind: str, points: Points, k: int) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "unstable": points.unstable[k],
        "moduli": np.abs(points.eigenvalues[k, :MODULI]),
        "residual": points.residual[k],
    }


def _cycle(k: int, cycle: Cycle) -> dict[str, Any]:
    return {
        "name": f"cycle {k + 1}",
        "length": cycle.length,
        "modulus": np.abs(cycle.eigenvalues[0]),
        "log_rate": cycle.log_rate,
        "attracted": cycle.attracted,
    }


def _end(m: Measured, one: Settling, q: int) -> dict[str, Any]:
    sample = int(one.samples[q])
    return {
        "sample": sample,
        "end": one.end[q],
        "text": _where(one, q),
        "distance": one.distance[q],
        "speed": one.speed[q],
        "log_rate": one.log_rate[q],
        "exponent": None if m.lyapunov is None else m.lyapunov.exponents[sample, 0],
    }


def _where(one: Settling, q: int) -> str:
    """Where a trajectory ends, or is on the way to."""
    end, k = str(one.end[q]), int(one.end_index[q])
    if end == "point" and one.points is not None:
        size = max(1.0, float(np.linalg.norm(one.points.s[k].astype(np.float64))))
        way = "at" if one.distance[q] <= NEAR * size else "on the way to"
        return f"{way} point {k + 1} ({_kind(one.points, k)})"
    if end == "cycle":
        known = f"cycle {k + 1}" if k >= 0 else "a cycle that Newton's method did not find"
        return f"on {known}, of {int(one.end_length[q])} steps"
    return {
        "rest": "coming to rest; which point it is, was not searched"
        if one.points is None
        else "coming to rest, at none of the points",
        "moving": f"still moving after {one.steps} more steps",
        "diverged": "leaving the finite numbers when followed on",
    }[end]


# -- sentences ---------------------------------------------------------------------------------------------------


def _found(one: Settling) -> str:
    """What the search found."""
    points = one.points
    if points is None:
        return (
            "The state is too large to search for fixed points at the cost a report may have; where the trajectories "
            "end was found by following them."
        )
    if one.starts > len(one.samples):
        text = (
            f"Newton's method from {one.searched} starts (states of the trajectories, these with noise, those where "
            "they come to rest, and states between these) found "
        )
    else:
        text = "The state is large, so Newton's method started from the trajectories' ends alone; it found "
    counts = np.bincount(points.unstable) if len(points) else np.zeros(0, np.int64)
    parts = [_count(int(n), k, points.eigenvalues.shape[1]) for k, n in enumerate(counts) if n]
    text += f"{_many(len(points), 'fixed point')}: {', '.join(parts)}" if parts else "no fixed point"
    text += f"; and {_many(len(points.slow), 'slow point')}, where the state nearly rests" if len(points.slow) else ""
    return text + ". Nothing proves that there are no others."


def _count(n: int, unstable: int, N: int) -> str:
    """So many points with so many unstable directions of N."""
    kind = _called(unstable, N)
    if kind != "saddle":
        return f"{n} {kind}"
    return f"{_many(n, kind)} with {_many(unstable, 'unstable direction')}"


def _singular(one: Settling) -> str:
    """Points that are not isolated, or nearly not."""
    if one.points is None or not len(one.points):
        return ""
    limit = 1 / (one.points.eigenvalues.shape[1] * np.finfo(one.points.s.dtype).eps)  # beyond it rounding alone decides
    count = int(np.count_nonzero(one.condition >= limit))
    if not count:
        return ""
    return (
        f"At {count} of these I − J is singular to rounding: such a point vanishes or splits at the next change of the "
        "network, or is one of a line or surface of fixed points, of which the search shows as many as it had starts."
    )


def _unfound(one: Settling) -> str:
    """Starts of Newton's method that came to nothing."""
    if one.points is None:
        return ""
    names, counts = np.unique(one.points.status, return_counts=True)
    bad = [f"{n} {_STATUSES[str(name)]}" for name, n in zip(names, counts, strict=True) if str(name) in _STATUSES]
    return f"Of its starts {', '.join(bad)}." if bad else ""


def _followed(one: Settling) -> str:
    outcome = ", ".join(f"{n} {_OUTCOMES[name]}" for name, n in one.outcome.items())
    return f"Of {_many(one.starts, 'state')} followed by themselves for at most {one.steps} steps, {outcome}."


def _rate(m: Measured, one: Settling) -> list[str]:
    """What the first trajectory's end says of gradients, beside what was measured."""
    end, k, sample = str(one.end[0]), int(one.end_index[0]), int(one.samples[0])
    if k < 0:
        return [
            f"Sample {sample} is {_where(one, 0)}, so no ρ(J) says at what rate its gradients change in the long run."
        ]
    log_rate = float(one.log_rate[0])
    rate = short(float(np.exp(log_rate)))
    if end == "point":
        place, value = f"point {k + 1}", f"ρ(J) = {rate}"
    else:
        place, value = f"cycle {k + 1}", f"the product of its Jacobians changes by {rate} per step"
    does = "fade by this factor per step" if log_rate < 0 else "grow by this factor per step"
    does = does if log_rate else "keep their size"
    lines = [
        f"Sample {sample} is {_where(one, 0)}. At {place} {value}: along a trajectory that stays there gradients "
        f"{does} in the long run, ln ρ = {short(log_rate)}.",
        _measured(m, sample),
    ]
    if end == "point" and one.points is not None and not one.points.stable[k]:
        lines.append("That point is not stable: the trajectory stays only because nothing disturbs it.")
    return lines


def _measured(m: Measured, sample: int) -> str:
    """Rates of the record itself."""
    parts = []
    if m.lyapunov is not None:
        parts.append(f"its largest Lyapunov exponent is {short(float(m.lyapunov.exponents[sample, 0]))}")
    if not np.isnan(m.constants.chain.rate):
        every = " of all samples" if sum(m.held) > 1 else ""
        parts.append(
            f"the median norm of the chain Φ{every} changes by {short(m.constants.chain.rate)} over the longer half of "
            "the lags"
        )
    if not parts:
        return "The record is too short for a measured rate beside it."
    return (
        f"Measured along the record (natural logarithm, per step): {'; '.join(parts)}. Where these differ from ln ρ, "
        "the record was not at rest there yet, or its lags are too short for a J that is not normal."
    )


def _undrawn(one: Settling) -> str:
    """Why there is no portrait, where that is not plain."""
    if one.portrait is not None or one.points is None or not len(one.points) + len(one.points.slow):
        return ""
    return "There is no portrait: it takes two states or more."


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
