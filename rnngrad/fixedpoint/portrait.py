"""Fixed points in the plane of the two leading principal components, with trajectories and the saddles' ways out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._results import Result
from .find import FixedPoints

_SHARE = 0.12  # of the picture's width: half the length of a mode


@dataclass(frozen=True)
class FixedPointPortrait(Result):
    """Projections on two principal components of the states, (…, 2).

    Attributes
    ----------
    points, slow : ndarray (K, 2), (L, 2)
        Fixed points, slow points.
    unstable : ndarray (K,)
        Unstable directions of each fixed point.
    paths : ndarray (Q, T+1, 2)
        Trajectories.
    modes : ndarray (M, 2, 2)
        Both ends of a segment through a saddle along each of its unstable eigenvectors (of a complex pair, the real
        and the imaginary part).
    variance : ndarray (2,)
        Share of the states' variance on each axis.
    state_size : int
        N.
    period : int
        The points are those of f^p.
    """

    points: NDArray[np.float64]
    slow: NDArray[np.float64]
    unstable: NDArray[np.int64]
    paths: NDArray[np.float64]
    modes: NDArray[np.float64]
    variance: NDArray[np.float64]
    state_size: int
    period: int


def fixed_point_portrait(points: FixedPoints, traj: Any = None, *, paths: int = 30) -> FixedPointPortrait:
    """Project fixed points, and a batch of trajectories, on the plane that holds most of the states' variance.

    After Sussillo & Barak (2013). The axes are those of the trajectory's states, without one those of the points.

    Parameters
    ----------
    points : FixedPoints
        Of N >= 2 states.
    traj : Trajectory
        Of the same network, with any input.
    paths : int
        Samples of it that are drawn, at most.

    Raises
    ------
    ValueError
        There is nothing to draw, or the trajectory is of another size.
    """
    if not isinstance(points, FixedPoints):
        raise ValueError(f"points is {type(points).__name__}; it must come from find_fixed_points")
    K, N = len(points), points.jacobian.shape[1]
    flat = points.s.reshape(K, N).astype(np.float64)
    slow = points.slow.s.reshape(len(points.slow), N).astype(np.float64)
    states = np.concatenate([flat, slow])
    walks = np.zeros((0, 1, N))
    if traj is not None:
        traj.require_finite()
        if traj.states[0, 0].size != N:
            raise ValueError(f"traj has states of {traj.states[0, 0].size} numbers; the points have {N}")
        paths = _checks.integer("paths", paths, 1)
        T, B = traj.T, traj.B
        states = traj.states.reshape((T + 1) * B, N).astype(np.float64)
        walks = np.moveaxis(traj.states.reshape(T + 1, B, N)[:, :paths], 1, 0).astype(np.float64)
    if len(states) < 2 or N < 2:
        raise ValueError(f"there are {len(states)} states of {N} numbers; a plane takes two of each at least")
    centre = states.mean(axis=0)
    _, lengths, axes = np.linalg.svd(states - centre, full_matrices=False)
    total = max(float(np.sum(lengths**2)), np.finfo(float).tiny)
    plane = axes[:2].T
    plane = plane * np.sign(plane[np.argmax(np.abs(plane), axis=0), [0, 1]])  # a sign that does not depend on LAPACK
    projected = (flat - centre) @ plane
    everything = np.concatenate([(states - centre) @ plane, projected])
    reach = _SHARE * float(np.ptp(everything, axis=0).max())
    segments = [
        np.stack([projected[k] - reach * way, projected[k] + reach * way])
        for k in np.flatnonzero(points.unstable)
        for way in _ways_out(points.jacobian[k].astype(np.float64), plane)
    ]
    return FixedPointPortrait(
        points=projected,
        slow=(slow - centre) @ plane,
        unstable=points.unstable,
        paths=(walks - centre) @ plane,
        modes=np.stack(segments) if segments else np.zeros((0, 2, 2)),
        variance=lengths[:2] ** 2 / total,
        state_size=N,
        period=points.period,
    )


def _ways_out(J: NDArray, plane: NDArray) -> list[NDArray]:
    """Unit eigenvectors of J with |eigenvalue| >= 1 in the plane, shortened as the projection shortens them."""
    values, vectors = np.linalg.eig(J)
    out = []
    for value, vector in zip(values, vectors.T, strict=True):
        if abs(value) < 1 or value.imag < 0:
            continue
        parts = [vector.real] if value.imag == 0 else [vector.real, vector.imag]
        out += [part @ plane / np.linalg.norm(part) for part in parts]
    return out
