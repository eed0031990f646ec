"""Which of the states that many starts came to are one point, and which points follow each other on a cycle."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..dynamics.placed import lengths
from . import newton
from .maps import Clamped

_POLISH = 20  # iterations for the point that follows another
_LARGEST_ERROR = 1e-3  # relative, of a point that is merged with another on account of its own error


def distinct(
    here: Clamped, s: NDArray, chosen: NDArray, merge: float, *, errors: bool
) -> tuple[NDArray, NDArray[np.int64]]:
    """Representatives (K, S, n) of the chosen states, and the one that each state belongs to (-1: not chosen).

    A representative is the state of its group with the smallest residual. With ``errors`` the length of a further
    Newton step says how far from the point each one is: at a multiple root starts end far apart.
    """
    point = np.full(len(s), -1)
    rows = np.flatnonzero(chosen)
    residual = here.size(s[rows], rows)
    rows = rows[np.argsort(residual, kind="stable")]
    flat = s.reshape(len(s), int(np.prod(s.shape[1:])))
    radius = merge * np.maximum(1.0, lengths(s))
    centres: list[int] = []
    left = rows
    while left.size:
        first = left[0]
        near = lengths(flat[left] - flat[first]) <= radius[first]
        point[left[near]] = len(centres)
        centres.append(int(first))
        left = left[~near]
    groups = np.array(centres, np.int64)
    if errors and len(groups) > 1:  # of a single one there is nothing to merge
        traj = here.trajectory(s[groups], groups)
        step, regular = here.jacobians(traj).newton(traj.states[-1] - s[groups])
        bound = _LARGEST_ERROR * np.maximum(1.0, lengths(s[groups]))
        error = np.where(regular, np.minimum(4 * lengths(step), bound), 0.0)
        kept: list[int] = []
        for k in range(len(groups)):
            away = lengths(flat[groups[np.array(kept, np.int64)]] - flat[groups[k]])
            same = np.flatnonzero(away <= error[np.array(kept, np.int64)] + error[k])
            if same.size:
                point[point == k] = kept[same[0]]
            else:
                kept.append(k)
        point[point >= 0] = np.searchsorted(kept, point[point >= 0])
        groups = groups[kept]
    return s[groups], point


def cycles(
    here: Clamped, s: NDArray, point: NDArray, tol: float, merge: float
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """The points and those that follow them, the one that each start belongs to, and each one's cycle and its length.

    What follows a point is one too: Newton's method keeps it from drifting off an unstable cycle.
    """
    if here.period == 1:
        return s, point, np.arange(len(s)), np.ones(len(s), np.int64)
    once = Clamped(here.net, here.x[:1], 1, here.backend)
    known, follower = -1, np.full(0, -1)
    while len(s) != known:  # what follows the last ones is not known yet
        known = len(s)
        done = newton.solve(here.at(len(s)), once.at(len(s)).image(s), tol, _POLISH, otherwise="stop")
        good = np.isin(done.status, ("converged", "rounding"))
        both = np.concatenate([s, done.s])
        chosen = np.concatenate([np.ones(known, np.bool_), good])
        s, group = distinct(here.at(len(both)), both, chosen, merge, errors=True)
        point = np.where(point >= 0, group[:known][point], -1)
        follower = np.full(len(s), -1)
        follower[group[:known]] = group[known:]
    number, length = np.arange(len(s)), np.zeros(len(s), np.int64)
    for k in range(len(s)):
        if length[k]:
            continue
        orbit = [k]
        while len(orbit) < here.period and follower[orbit[-1]] not in (-1, k):
            orbit.append(int(follower[orbit[-1]]))
        if follower[orbit[-1]] == k:
            number[orbit], length[orbit] = k, len(orbit)
    return s, point, number, length
