"""Covariant Lyapunov vectors: the directions that grow at each exponent and that the dynamics maps onto themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks, _cuda
from .._arrays import assign, empty_beside, on_host, placed_beside
from .._results import Result
from ..dynamics.device import is_on_device
from ..dynamics.frames import LOST, covariant, not_finite, orthonormalize, random_frames
from ..dynamics.jacobian import local_jacobians
from ..errors import SingularError

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


@dataclass(frozen=True)
class DeviceCovariantVectors(CovariantVectors):
    """Covariant vectors along a :class:`rnngrad.DeviceTrajectory`: all device arrays but ``times``.

    They have ``__cuda_array_interface__``, so CuPy and PyTorch read them in place. Angles, files and figures are made
    on the host, of a copy; for more than one of them take :meth:`to_host` once.
    """

    @property
    def angles(self) -> NDArray[np.float64]:
        """Angles between the lines of vectors i and j, on the host, of a copy; see :class:`CovariantVectors`."""
        return self.to_host().angles

    def angle_between(self, split: int) -> NDArray[np.float64]:
        """Smallest angle between two spans, on the host, of a copy; see :class:`CovariantVectors`."""
        return self.to_host().angle_between(split)

    def plot(self, ax: Any = None) -> Any:
        """Draw a copy on the host."""
        return self.to_host().plot(ax)

    def to_host(self) -> CovariantVectors:
        """The same as NumPy arrays: everything is copied."""
        parts = (on_host(array) for array in (self.vectors, self.log_growth, self.exponents))
        return CovariantVectors(self.times, *parts)

    def _saved(self) -> list[tuple[str, Any]]:
        return self.to_host()._saved()


def covariant_vectors(traj: Any, k: int | None = None, *, settle: int | None = None) -> CovariantVectors:
    """Covariant Lyapunov vectors by a forward and a backward pass (Ginelli et al. 2007).

    Forward, a frame is carried with a QR at every step, J_t Q_{t-1} = Q_t R_t. Backward, coefficients C_{t-1} =
    R_t^{-1} C_t turn into those of the covariant vectors, V_t = Q_t C_t.

    Parameters
    ----------
    traj : Trajectory, DeviceTrajectory or StackTrajectory
        T steps on the attractor; give ``rollout`` a transient first.
    k : int
        Leading vectors wanted, 1…N; all by default.
    settle : int
        Steps at each end that only turn the frame (at the start) and the coefficients (at the end); T // 4 by default.

    Returns
    -------
    CovariantVectors or DeviceCovariantVectors
        For the T - 2 settle steps between. Of a DeviceTrajectory, device arrays; a number for each sample and step,
        whether a direction was lost, comes to the host.

    Raises
    ------
    ValueError
        An argument is out of range, the trajectory is not finite, or sequences differ in length.
    OverflowError
        A Jacobian is not finite.
    SingularError
        A Jacobian maps one of the directions to zero: it cannot be followed backward. Ask for fewer.

    Notes
    -----
    Two exponents closer than 1/settle are not told apart: their vectors are then some pair in the same plane. Memory
    is T B k (N + k) numbers.
    """
    T, B, N = traj.T, traj.B, traj.net.N
    k = N if k is None else _checks.integer("k", k, 1, N)
    if (traj.lengths < T).any():
        raise ValueError(f"traj has lengths {traj.lengths.tolist()}; covariant vectors need sequences of equal length")
    if settle is None and T < 4:
        raise ValueError(f"traj has {T} step{'s' * (T > 1)}; with fewer than 4 no vector settles")
    settle = _checks.integer("settle", T // 4 if settle is None else settle, 0, (T - 1) // 2)
    jacobians = local_jacobians(traj)
    Q, R, exponent = _forward(traj, jacobians, k, settle)
    C = np.triu(np.random.default_rng((*_SEED, 1)).standard_normal((B, k, k))) + 4 * np.eye(k)
    C /= np.linalg.norm(C, axis=1, keepdims=True)
    times = np.arange(settle, T - settle + 1)
    parts = covariant(placed_beside(traj.x, C), Q, R, exponent, len(times), jacobians.backend)
    if is_on_device(traj):  # whoever reads them in place is told of no stream to wait for
        _cuda.synchronize()
        return DeviceCovariantVectors(times, *parts)
    return CovariantVectors(times, *parts)


def _forward(traj: Any, jacobians: Any, k: int, settle: int) -> tuple[NDArray, NDArray, NDArray]:
    """Q (T-settle+1, B, k, N) from step ``settle`` on, R (T-settle, B, k, k) and the exponents of its columns."""
    net, T, B, x = traj.net, traj.T, traj.B, traj.x
    (S, n), backend = net.state_shape, jacobians.backend
    frames = placed_beside(x, random_frames(B, k, (S, n), net.dtype, np.random.default_rng(_SEED)).reshape(B, k, net.N))
    sample, none = placed_beside(x, np.repeat(np.arange(B), k)), placed_beside(x, np.zeros(B * k, np.int64))
    M = T - settle
    Q, R = empty_beside(x, (M + 1, B, k, net.N), net.dtype), empty_beside(x, (M, B, k, k), net.dtype)
    exponent = empty_beside(x, (M, B, k), np.int64)
    assign(Q[0], frames)
    for t in range(T):
        rows, e = jacobians.tangent(frames.reshape(B * k, S, n), none, sample, t, 1)
        frames, factor, shift, stretch = orthonormalize(rows[0].reshape(B, k, net.N), e[0].reshape(B, k), backend)
        if (stretch >= 2 * LOST).any():
            raise not_finite(int(np.argmax(stretch)), t)
        i = t - settle
        assign(Q[max(i + 1, 0)], frames)
        if i < 0:
            continue
        assign(R[i], factor)
        assign(exponent[i], shift)
        if (stretch >= LOST).any():
            b, c = np.argwhere(np.diagonal(on_host(factor), axis1=1, axis2=2) == 0)[0]
            raise SingularError(
                f"the Jacobian of step {t + 1} maps covariant direction {c} of sample {b} to zero; ask for k <= {c}"
            )
    return Q, R, exponent
