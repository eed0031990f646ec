"""Fixed points made as good as an adjoint needs them, and how far from the true ones they are."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dynamics.jacobian import local_jacobians
from ..dynamics.rollout import Trajectory
from .judged import failure, inverse_norm
from .linear import directions
from .maps import Clamped, lengths_of
from .solve import FixedPoint, at_rest

_EPS = float(np.finfo(np.float64).eps)
_ROUGHLY, _FINELY = 0.05, 1e-4  # residual of a Newton step, by how much it has to bring; J is of its beginning
_STEPS = 12  # of Newton, with one Jacobian, to polish a fixed point


def polished(
    fp: FixedPoint, method: str, tol: float, limit: int, rng: np.random.Generator
) -> tuple[Trajectory, Any, Any, NDArray[np.float64]]:
    """One step at the fixed points in float64, its Jacobians, those as far away as the points are uncertain, and an
    estimate of ||(I - J)^-1||.

    Uncertain they are by a Newton step, from a residual that is wrong by the rounding of s*. It is taken while it could
    change z by more than ``tol``, and halves the residual.
    """
    here, traj = fp.map, fp.step
    if here.net.dtype != np.float64:
        here = dataclasses.replace(here, net=here.net.astype("float64"), x=here.x.astype(np.float64))
        traj = here.trajectory(fp.s.astype(np.float64))
    local = local_jacobians(traj)
    inverse = inverse_norm(fp, local, method, limit, rng)
    usual = inverse * min(1.0, 2 / np.sqrt(fp.s[0].size))  # twice what a direction grows by in the mean
    step = directions(local, fp.s.shape, method, limit)
    noise = _EPS * rng.uniform(-2, 2, fp.s.shape)
    moved = False
    for left in range(_STEPS, -1, -1):
        r = traj.states[1] - traj.states[0]
        size, s = lengths_of(r), traj.states[0]
        enough = tol * np.maximum(1.0, lengths_of(s)) / usual  # a Newton step that is as short as that is none
        needed = (enough / np.maximum(size * usual, enough)).min()
        away = step(r + noise * np.abs(s), float(np.clip(needed, _FINELY, _ROUGHLY)))
        lost = ~np.isfinite(away).all(axis=(1, 2))
        if lost.any():
            raise failure(fp, local, method, np.flatnonzero(lost), "no Newton step can be taken from h*")
        short = lengths_of(away) <= enough
        if left == 0 or short.all():
            break
        trial = here.trajectory(s + away)
        better = lengths_of(trial.states[1] - trial.states[0]) <= size / 2
        better &= ~short
        if not better.any():
            break
        traj, moved = _chosen(here, trial, traj, better), True
    if moved:
        local = local_jacobians(traj)
    return at_rest(traj), local, local_jacobians(here.trajectory(traj.states[0] + away)), inverse


def _chosen(here: Clamped, trial: Trajectory, traj: Trajectory, better: NDArray[np.bool_]) -> Trajectory:
    """The trial for the samples where it is better."""
    if better.all():
        return trial
    return here.trajectory(np.where(better[:, None, None], trial.states[0], traj.states[0]))
