"""Where a network goes while its input does not change: its fixed points and cycles, and how fast gradients fade there.

With a held input the network is one map s -> f(s). A trajectory that comes to rest at a fixed point has J_t -> J there,
so ||Phi(t, k)|| changes by rho(J) a step in the long run: ln rho(J) is its largest Lyapunov exponent.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._arrays import on_host
from ..dynamics.placed import changing, take_rows
from ..dynamics.rollout import rollout
from ..dynamics.unit_means import mean_square
from ..fixedpoint.find import FixedPoints, find_fixed_points
from ..fixedpoint.portrait import FixedPointPortrait, fixed_point_portrait
from ..fixedpoint.result import FixedPoint
from ..fixedpoint.solve import solve_fixed_point
from ..fixedpoint.spectrum import condition
from .products import spaced, steps
from .settled import Cycle, Settling

_PATHS, _PATH_STEPS = 24, 100  # trajectories of the portrait, and their length
_LEAST_NOISE = 0.1  # of the root mean square of the states
_BETWEEN = 4  # starts for one that lies between states at rest


def held_inputs(traj: Any) -> list[NDArray[np.int64]]:
    """Samples that hold the same input, in the order of the first of each.

    Raises
    ------
    ValueError
        The input of a sample changes.
    """
    if changing(traj.x).any():
        raise ValueError("the input of traj changes in time; fixed points need one that is held")
    groups: dict[bytes, list[int]] = {}
    for b, row in enumerate(on_host(traj.x[0]) + 0):  # -0 becomes 0
        groups.setdefault(row.tobytes(), []).append(b)
    return [np.array(group, np.int64) for group in groups.values()]


def settling(
    traj: Any,
    samples: Any = None,
    *,
    starts: int = 128,
    max_steps: int = 1000,
    search: bool = True,
    max_iterations: int = 200,
    seed: int | np.random.Generator = 0,
) -> Settling:
    """Follow trajectories on under their held input, and find the fixed points and cycles that organise them.

    Parameters
    ----------
    traj : Trajectory or DeviceTrajectory
        Of a Network or a System. Of one on a GPU the held input and the states that are followed come to the host,
        ``starts`` + 2 Q of them; from these the searches run as of any trajectory of that backend.
    samples : integers (Q,)
        Which samples are followed; all by default. They hold one input.
    starts : int
        Further states that are followed, and from which Newton's method starts: states of these trajectories, every
        second with noise: from a tenth of the root mean square r of their states to max(1, r), log-uniform. 0: the
        trajectories' ends alone.
    max_steps : int
        Steps by which the states are followed on, at most.
    search : bool
        Find fixed points and cycles (False where N is too large for it).
    max_iterations : int
        Of Newton's method from one start.
    seed : int or Generator
        Of the noise.

    Returns
    -------
    Settling

    Raises
    ------
    ValueError
        The input of a sample changes, or the samples hold different inputs; an argument is out of range.

    Notes
    -----
    Newton's method starts from the states that are followed, from where they come to rest, and from between these,
    where saddles lie. Everything runs on the trajectory's backend.
    """
    traj.require_finite()
    samples = np.arange(traj.B) if samples is None else steps("samples", samples, 0, traj.B - 1)
    starts = _checks.integer("starts", starts, 0)
    max_steps = _checks.integer("max_steps", max_steps, 1)
    inputs = on_host(traj.x[0])[samples]
    if changing(traj.x)[samples].any() or (inputs != inputs[:1]).any():
        raise ValueError(f"the samples {samples.tolist()} of traj do not hold one input all the time")
    net, held, rng = traj.net, np.ascontiguousarray(inputs[0]), np.random.default_rng(seed)
    begin = _starts(traj, samples, starts, rng)
    rows = np.ascontiguousarray(np.broadcast_to(held, (len(begin), net.m)))
    gone = solve_fixed_point(net, rows, "picard", s0=begin, max_iterations=max_steps, backend=traj.backend)
    rest = np.isin(gone.status, ("converged", "rounding"))
    home = np.full(len(begin), -1)
    cycles: list[Cycle] = []
    points, searched, place = None, 0, np.full(len(begin), -1)
    if search:
        settled = gone.s[rest]
        more = np.concatenate([settled, begin, _between(settled, starts // _BETWEEN, rng)])
        points = find_fixed_points(net, more, held, max_iterations=max_iterations, backend=traj.backend)
        searched = len(more)
        home[rest] = points.point[: len(settled)]
        cycles, place = _cycles(net, held, gone, traj.backend)
    return _settling(traj, samples, held, begin, gone, rest, home, points, searched, cycles, place, max_steps)


# -- how -------------------------------------------------------------------------------------------------------


def _starts(traj: Any, samples: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray:
    """The last states of Q samples, the first ones, and ``count`` others, every second with noise: (…, S, n)."""
    T, B, Q, states = traj.T, traj.B, len(samples), traj.states
    rows = [T * B + samples]
    if count:
        at = np.round(np.linspace(0, T, count)).astype(np.int64)
        rows += [samples, at * B + samples[np.arange(count) % Q]]
    taken = on_host(take_rows(states.reshape((T + 1) * B, *traj.net.state_shape), np.concatenate(rows)))
    if not count:
        return taken
    noisy = taken[2 * Q :].astype(np.float64)
    size = float(np.sqrt(mean_square(traj, samples))) or 1.0
    # states at rest near 0 say nothing of how far other points are, and for most cells that is about 1
    amount = np.exp(rng.uniform(np.log(_LEAST_NOISE * size), np.log(max(size, 1.0)), count)) * (np.arange(count) % 2)
    noisy += amount[:, None, None] * rng.standard_normal(noisy.shape)
    return np.concatenate([taken[: 2 * Q], noisy.astype(taken.dtype)])


def _between(settled: NDArray, count: int, rng: np.random.Generator) -> NDArray:
    """States on the lines between pairs of states at rest."""
    if not len(settled):
        return settled
    first, second = settled[rng.integers(0, len(settled), (2, count))]
    return first + rng.random((count, 1, 1)).astype(settled.dtype) * (second - first)


def _cycles(net: Any, held: NDArray, gone: FixedPoint, backend: str) -> tuple[list[Cycle], NDArray[np.int64]]:
    """The cycles on which states settled, and the index of each state's; -1 where it is on none, or was not found."""
    cycles: list[Cycle] = []
    place = np.full(len(gone.s), -1)
    for p in np.unique(gone.cycle[gone.cycle > 1]):
        rows = np.flatnonzero(gone.cycle == p)
        found = find_fixed_points(net, gone.s[rows], held, period=int(p), backend=backend)
        number = np.where(found.point >= 0, found.cycle[found.point], -1) if len(found) else found.point
        for one in np.unique(number[number >= 0]):
            on = found.cycle == one
            if found.cycle_length[on][0] == p:
                place[rows[number == one]] = len(cycles)
                values = found.eigenvalues[on][0]
                cycles.append(Cycle(found.s[on], values, int(np.count_nonzero(number == one))))
    return cycles, place


def _settling(
    traj: Any, samples: NDArray, held: NDArray, begin: NDArray, gone: FixedPoint, rest: NDArray, home: NDArray,
    points: FixedPoints | None, searched: int, cycles: list[Cycle], place: NDArray, max_steps: int,
) -> Settling:  # fmt: skip
    """The result, from where every state went."""
    Q, K = len(samples), 0 if points is None else len(points)
    lost = np.isin(gone.status, ("diverged", "outside", "invalid"))
    kind = np.select([home >= 0, rest, gone.cycle > 1, lost], ["point", "rest", "cycle", "diverged"], "moving")
    index = np.where(kind == "cycle", place, home)[:Q]
    distance = np.where(rest[:Q], _away(begin[:Q], gone.s[:Q]), np.nan)
    for q in np.flatnonzero((kind[:Q] == "cycle") & (index >= 0)):
        distance[q] = _away(begin[q], cycles[index[q]].s).min()
    names, counts = np.unique(kind, return_counts=True)
    return Settling(
        x=held,
        samples=samples,
        points=points,
        condition=np.zeros(0) if points is None else condition(points.jacobian),
        attracted=np.bincount(home[home >= 0], minlength=K),
        cycles=tuple(cycles),
        end=kind[:Q],
        end_index=index,
        end_length=np.where(kind[:Q] == "cycle", gone.cycle[:Q], 0),
        distance=distance,
        speed=gone.history[0, :Q],
        last_speed=gone.residual[:Q],
        outcome={str(name): int(count) for name, count in zip(names, counts, strict=True)},
        starts=len(begin),
        steps=max_steps,
        searched=searched,
        portrait=_portrait(traj, held, begin[Q:][~lost[Q:]], points, max_steps),
    )


def _away(first: NDArray, second: NDArray) -> NDArray[np.float64]:
    """Euclidean distances of states (…, S, n)."""
    return np.sqrt(np.sum(np.square(first.astype(np.float64) - second), axis=(-2, -1)))


def _portrait(
    traj: Any, held: NDArray, begin: NDArray, points: FixedPoints | None, max_steps: int
) -> FixedPointPortrait | None:
    """The points with trajectories from states that stay finite for ``max_steps``, spread over all of them."""
    net = traj.net
    if net.N < 2 or points is None or not len(points) + len(points.slow):
        return None
    if not len(begin):
        return fixed_point_portrait(points) if len(points) + len(points.slow) > 1 else None
    chosen = begin[spaced(0, len(begin) - 1, _PATHS)]
    T = min(max_steps, _PATH_STEPS)
    x = np.ascontiguousarray(np.broadcast_to(held, (T, len(chosen), net.m)))
    return fixed_point_portrait(points, rollout(net, x, chosen, backend=traj.backend), paths=_PATHS)
