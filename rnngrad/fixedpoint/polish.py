"""Fixed points made as good as an adjoint needs them, and how far from the true ones they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import copied, placed_beside
from ..dynamics.jacobian import local_jacobians
from ..dynamics.placed import add, add_products, in_dtype, lengths, put_rows
from .judged import failure, inverse_norm
from .linear import directions
from .maps import Clamped, residuals
from .result import FixedPoint, at_rest

_EPS = float(np.finfo(np.float64).eps)
_ROUGHLY, _FINELY = 0.05, 1e-4  # residual of a Newton step, by how much it has to bring; J is of its beginning
_STEPS = 12  # of Newton, with one Jacobian, to polish a fixed point


def polished(
    fp: FixedPoint, method: str, tol: float, limit: int, rng: np.random.Generator
) -> tuple[Any, Any, Any, NDArray[np.float64]]:
    """One step at the fixed points in float64, its Jacobians, those as far away as the points are uncertain, and an
    estimate of ||(I - J)^-1||.

    Uncertain they are by a Newton step, from a residual that is wrong by the rounding of s*. It is taken while it could
    change z by more than ``tol``, and halves the residual.
    """
    here, traj = fp.map.in_float64(), fp.step
    if here is not fp.map:
        traj = here.trajectory(in_dtype(fp.s, np.float64))
    local = local_jacobians(traj)
    drawn = rng.uniform(-1, 1, tuple(fp.s.shape))
    inverse = inverse_norm(fp, local, method, limit, drawn)
    usual = inverse * min(1.0, 2 / np.sqrt(here.net.N))  # twice what a direction grows by in the mean
    step = directions(local, tuple(fp.s.shape), method, limit)
    rounding = _rounding(_lower_digits(drawn))
    either = placed_beside(fp.s, rounding), placed_beside(fp.s, -rounding)
    moved = False
    for left in range(_STEPS, -1, -1):
        r, s = residuals(traj), traj.states[0]
        size = lengths(r)
        enough = tol * np.maximum(1.0, lengths(s)) / usual  # a Newton step that is as short as that is none
        needed = (enough / np.maximum(size * usual, enough)).min()
        away = step(_wrong_by(r, s, either), float(np.clip(needed, _FINELY, _ROUGHLY)))
        far = lengths(away)
        lost = ~np.isfinite(far)
        if lost.any():
            raise failure(fp, local, method, np.flatnonzero(lost), "no Newton step can be taken from h*")
        short = far <= enough
        if left == 0 or short.all():
            break
        trial = here.trajectory(_plus(s, away))
        better = lengths(residuals(trial)) <= size / 2
        better &= ~short
        if not better.any():
            break
        traj, moved = _chosen(here, trial, traj, better), True
    if moved:
        local = local_jacobians(traj)
    return at_rest(traj), local, local_jacobians(here.trajectory(_plus(traj.states[0], away))), inverse


def _lower_digits(drawn: NDArray) -> NDArray:
    """Numbers in [-1, 1] from the lower half of the bits of such numbers drawn from a uniform distribution.

    They know nothing of the numbers that the upper half makes, and drawing as many anew takes as long as a step.
    """
    shifted = drawn * 2.0**26
    return 2 * (shifted - np.rint(shifted))


def _rounding(drawn: NDArray) -> NDArray:
    """What numbers may be wrong by, over their size: one to two units of rounding, of either sign.

    Never less than one, or a state of few units would seem to be known exactly once in a while.
    """
    return _EPS * (drawn + np.copysign(1.0, drawn))


def _wrong_by(r: Any, s: Any, either: tuple[Any, Any]) -> Any:
    """r + rounding s, or r - rounding s where that is longer, row by row: what is uncertain must not cancel r."""
    out, other = r, copied(r)
    add_products(out, either[0], s)
    add_products(other, either[1], s)
    longer = np.flatnonzero(lengths(other) > lengths(out))
    put_rows(out, longer, other, longer)
    return out


def _plus(s: Any, more: Any) -> Any:
    out = copied(s)
    add(out, more)
    return out


def _chosen(here: Clamped, trial: Any, traj: Any, better: NDArray[np.bool_]) -> Any:
    """The trial for the samples where it is better."""
    if better.all():
        return trial
    s, rows = copied(traj.states[0]), np.flatnonzero(better)
    put_rows(s, rows, trial.states[0], rows)
    return here.trajectory(s)
