"""Covariant Lyapunov vectors: the directions that grow at each exponent and that the dynamics maps onto themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._blas import one_blas_thread
from .._results import Result
from ..dynamics.frames import orthonormalize, random_frames
from ..dynamics.jacobian import local_jacobians
from ..errors import SingularError

_LN2 = float(np.log(2.0))
_SEED = (0, 0x636C)


@dataclass(frozen=True)
class CovariantVectors(Result):
    """Covariant Lyapunov vectors along a part of a trajectory.

    Attributes
    ----------
    times : ndarray (W+1,)
        Steps at which the vectors stand.
    vectors : ndarray (W+1, B, k, N)
        Unit vectors v_i(t), by descending exponent; J_t v_i(t-1) is parallel to v_i(t). The sign is open.
    log_growth : ndarray (W, B, k)
        ln ||J_t v_i(t-1)||: local exponents, whose mean over a long part are the Lyapunov exponents.
    exponents : ndarray (B, k)
        That mean.
    """

    times: NDArray[np.int64]
    vectors: NDArray
    log_growth: NDArray[np.float64]
    exponents: NDArray[np.float64]

    @property
    def angles(self) -> NDArray[np.float64]:
        """Angle between the lines of vectors i and j, in [0, pi/2], (W+1, B, k, k)."""
        v = self.vectors.astype(np.float64)
        cosine = np.abs(np.einsum("tbin,tbjn->tbij", v, v))
        rest = v[..., :, None, :] - np.einsum("tbin,tbjn->tbij", v, v)[..., None] * v[..., None, :, :]
        return np.arctan2(np.linalg.norm(rest, axis=-1), cosine)  # accurate at 0, where arccos is not

    def angle_between(self, split: int) -> NDArray[np.float64]:
        """Smallest angle between the span of the first ``split`` vectors and that of the others, (W+1, B).

        Where it comes near 0 the splitting into expanding and contracting directions is about to break (a tangency).

        Raises
        ------
        ValueError
            Not 1 <= split < k, or k is 1.
        """
        k = self.vectors.shape[2]
        if k < 2:
            raise ValueError("there is one covariant vector; a splitting takes two or more")
        split = _checks.integer("split", split, 1, k - 1)
        q = [
            np.linalg.qr(part.astype(np.float64).swapaxes(-1, -2))[0]
            for part in (self.vectors[:, :, :split], self.vectors[:, :, split:])
        ]
        cosine = np.linalg.svd(q[0].swapaxes(-1, -2) @ q[1], compute_uv=False)[..., 0]
        return np.arccos(np.minimum(cosine, 1.0))


def covariant_vectors(traj: Any, k: int | None = None, *, settle: int | None = None) -> CovariantVectors:
    """Covariant Lyapunov vectors by a forward and a backward pass (Ginelli et al. 2007).

    Forward, a frame is carried with a QR at every step, J_t Q_{t-1} = Q_t R_t. Backward, coefficients C_{t-1} =
    R_t^{-1} C_t turn into those of the covariant vectors, V_t = Q_t C_t.

    Parameters
    ----------
    traj : Trajectory or StackTrajectory
        T steps on the attractor; give ``rollout`` a transient first.
    k : int
        Leading vectors wanted, 1…N; all by default.
    settle : int
        Steps at each end that only turn the frame (at the start) and the coefficients (at the end); T // 4 by default.

    Returns
    -------
    CovariantVectors
        For the T - 2 settle steps between.

    Raises
    ------
    ValueError
        An argument is out of range, the trajectory is not finite, or sequences differ in length.
    SingularError
        A Jacobian maps one of the directions to zero: it cannot be followed backward. Ask for fewer.

    Notes
    -----
    Two exponents closer than 1/settle are not told apart: their vectors are then some pair in the same plane. Memory
    is T B k (N + k) numbers.
    """
    traj.require_host()
    N, T, B = traj.net.N, traj.T, traj.B
    k = N if k is None else _checks.integer("k", k, 1, N)
    if (traj.lengths < T).any():
        raise ValueError(f"traj has lengths {traj.lengths.tolist()}; covariant vectors need sequences of equal length")
    if settle is None and T < 4:
        raise ValueError(f"traj has {T} step{'s' * (T > 1)}; with fewer than 4 no vector settles")
    settle = _checks.integer("settle", T // 4 if settle is None else settle, 0, (T - 1) // 2)
    Q, R, exponent = _forward(traj, k, settle)
    window = slice(0, T - 2 * settle + 1)
    C = np.triu(np.random.default_rng((*_SEED, 1)).standard_normal((B, k, k))) + 4 * np.eye(k)
    C /= np.linalg.norm(C, axis=1, keepdims=True)
    vectors = np.empty((window.stop, B, k, N), traj.net.dtype)
    log_growth = np.empty((window.stop - 1, B, k))
    for i in range(len(R), -1, -1):  # C belongs to the i-th state kept
        if i < window.stop:
            vectors[i] = np.einsum("bjc,bjn->bcn", C, Q[i])
        if i == 0:
            break
        top = exponent[i - 1].max(axis=-1)
        with one_blas_thread():
            C = np.linalg.solve(R[i - 1].astype(np.float64), C)
        C = np.ldexp(C, (top[:, None] - exponent[i - 1])[..., None].astype(np.int32))
        length = np.linalg.norm(C, axis=1, keepdims=True)
        C /= length
        if i <= window.stop - 1:
            log_growth[i - 1] = top[:, None] * _LN2 - np.log(length[:, 0])
    times = np.arange(settle, T - settle + 1)
    exponents = log_growth.mean(axis=0) if len(log_growth) else np.full((B, k), np.nan)
    return CovariantVectors(times, vectors, log_growth, exponents)


def _forward(traj: Any, k: int, settle: int) -> tuple[NDArray, NDArray, NDArray]:
    """Q (T-settle+1, B, k, N) from step ``settle`` on, R (T-settle, B, k, k) and the exponents of its columns."""
    net, T, B = traj.net, traj.T, traj.B
    jacobians, (S, n) = local_jacobians(traj), net.state_shape
    frames = random_frames(B, k, (S, n), net.dtype, np.random.default_rng(_SEED)).reshape(B, k, net.N)
    sample, none = np.repeat(np.arange(B), k), np.zeros(B * k, np.int64)
    Q = np.empty((T - settle + 1, B, k, net.N), net.dtype)
    R, exponent = np.empty((T - settle, B, k, k), net.dtype), np.empty((T - settle, B, k), np.int64)
    Q[0] = frames
    for t in range(T):
        rows, e = jacobians.tangent(frames.reshape(B * k, S, n), none, sample, t, 1)
        frames, factor, shift, _ = orthonormalize(rows[0].reshape(B, k, net.N), e[0].reshape(B, k), jacobians.backend)
        if t < settle:
            Q[0] = frames
            continue
        i = t - settle
        Q[i + 1], R[i], exponent[i] = frames, factor, shift
        lost = np.diagonal(factor, axis1=1, axis2=2) == 0
        if lost.any():
            b, c = np.argwhere(lost)[0]
            raise SingularError(
                f"the Jacobian of step {t + 1} maps covariant direction {c} of sample {b} to zero; ask for k <= {c}"
            )
    return Q, R, exponent
