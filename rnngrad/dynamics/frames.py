"""Orthonormal tangent frames carried along trajectories: what Lyapunov exponents and covariant vectors are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import copied, empty_beside, zeros_beside
from ..kernels import backend as find_backend

_LN2 = float(np.log(2.0))
LOST = 1 << 40  # what stands in the place of a stretch, as ``orthonormalize`` says


def random_frames(B: int, k: int, state_shape: tuple[int, int], dtype: Any, rng: np.random.Generator) -> NDArray:
    """k orthonormal vectors in general position for each of B samples, (B, k, S, n)."""
    S, n = state_shape
    q = orthonormalize(rng.standard_normal((B, k, S * n)), np.zeros((B, k), np.int64))[0]
    return np.ascontiguousarray(q.reshape(B, k, S, n), dtype)


@dataclass
class Carried:
    """Frames on their way, and what was met.

    Attributes
    ----------
    frames : ndarray (B, k, S, n)
        Orthonormal vectors, which lie where the Jacobians do; changed in place by :func:`carry`. The rest is on the
        host.
    interval : ndarray (B,)
        Steps until the next QR.
    lost_at : ndarray (B,)
        First step at which a direction was lost to zero, or to rounding; -1 where there was none.
    qrs : ndarray (B,)
        QRs so far.
    log_stretch : ndarray (B,)
        Logarithm of the largest stretch within a frame between two QRs.
    """

    frames: NDArray
    interval: NDArray[np.int64]
    lost_at: NDArray[np.int64]
    qrs: NDArray[np.int64]
    log_stretch: NDArray[np.float64]

    @classmethod
    def start(cls, frames: NDArray) -> Carried:
        """Frames that have not moved yet."""
        B = frames.shape[0]
        zero = np.zeros(B, np.int64)
        return cls(frames, np.ones(B, np.int64), np.full(B, -1), zero, np.zeros(B))


def carry(jacobians: Any, carried: Carried, t_from: int, blocks: int, length: int, origin: int = 0) -> NDArray:
    """Carry frames ``blocks`` blocks of ``length`` steps on from state t_from.

    The steps between two QRs follow the stretch of the frame: few enough that the triangular factor stays accurate
    to about 1e-11 (4e-6 in float32).

    Parameters
    ----------
    jacobians : FactoredJacobians, DenseJacobians or StackJacobians
    carried : Carried
        Changed in place.
    origin : int
        What to add to a step in messages and in ``lost_at``.

    Returns
    -------
    ndarray (blocks, B, k)
        Logarithm of what each block stretched direction c by, given the directions before it; -inf for a direction
        that was lost.

    Raises
    ------
    OverflowError
        A tangent is no finite number.
    """
    B, k = carried.frames.shape[:2]
    logs = np.zeros((blocks, B, k))
    found = np.zeros((B, 4), np.int64)
    found[:, 0] = -1
    if hasattr(jacobians, "frames"):
        jacobians.frames(carried.frames, logs, carried.interval, found, t_from, length)
    else:
        _step_by_step(jacobians, carried, logs, found, t_from, length)
    if found[:, 1].any():
        b = int(np.argmax(found[:, 1]))
        raise not_finite(b, int(found[b, 0]) + origin)
    lost = (found[:, 0] >= 0) & (carried.lost_at < 0)
    carried.lost_at = np.where(lost, found[:, 0] + origin, carried.lost_at)
    carried.qrs = carried.qrs + found[:, 2]
    carried.log_stretch = np.maximum(carried.log_stretch, found[:, 3] * _LN2)
    return logs


def not_finite(sample: int, step: int) -> OverflowError:
    """The error of a Jacobian with which nothing can be followed; ``orthonormalize`` finds it."""
    return OverflowError(
        f"the Jacobian of sample {sample} is not finite at step {step}: its entries, or their products with unit "
        "vectors, are beyond the dtype"
    )


def _step_by_step(jacobians: Any, carried: Carried, logs: NDArray, found: NDArray, t_from: int, length: int) -> None:
    """The same for Jacobians whose steps are composed in Python: a QR at every step."""
    frames = carried.frames
    B, k, S, n = frames.shape
    none, sample = np.zeros(B * k, np.int64), np.repeat(np.arange(B), k)
    for t in range(len(logs) * length):
        rows, exponents = jacobians.tangent(frames.reshape(B * k, S, n), none, sample, t_from + t, 1)
        Q, R, shift, stretch = orthonormalize(
            rows[0].reshape(B, k, S * n), exponents[0].reshape(B, k), jacobians.backend
        )
        bad, broken = stretch >= LOST, stretch >= 2 * LOST
        found[:, 1] |= broken
        found[:, 0] = np.where(broken | (bad & (found[:, 0] < 0)), t_from + t, found[:, 0])
        if found[:, 1].any():
            return
        found[:, 2] += 1
        found[:, 3] = np.where(bad, found[:, 3], np.maximum(found[:, 3], stretch))
        frames[:] = Q.reshape(frames.shape)
        with np.errstate(divide="ignore"):
            logs[t // length] += np.log(np.diagonal(R, axis1=1, axis2=2).astype(np.float64)) + shift * _LN2


def orthonormalize(Y: NDArray, exponents: NDArray, backend: str = "auto") -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """QR of the frames Y[B, k, N] 2^exponents[B, k]; results lie where Y does, the stretch on the host.

    Returns
    -------
    Q : ndarray (B, k, N)
        Orthonormal rows: row c of the input is 2^exponents[c] sum_{j <= c} R[j, c] Q[j].
    R : ndarray (B, k, k)
        Upper triangular; a zero on the diagonal for a row that depends on those before it.
    exponents : ndarray (B, k)
    stretch : ndarray (B,)
        log2 of the stretch within the frame; beyond 2^40 where a row was lost (2^41: no finite number, nothing done).
    """
    B, k, _ = Y.shape
    Q, out, R = copied(Y), copied(exponents), empty_beside(Y, (B, k, k), Y.dtype)
    stretch = np.zeros(B, np.int64)
    find_backend(backend).orthonormalize(Q, R, out, stretch)
    return Q, R, out, stretch


def covariant(
    C: Any, Q: Any, R: Any, exponents: Any, states: int, backend: str = "auto"
) -> tuple[NDArray, NDArray[np.float64], NDArray[np.float64]]:
    """Covariant vectors at the first ``states`` of the states that frames Q (M+1, B, k, N) stand at, where these lie.

    ``C`` (B, k, k), float64 and upper triangular, are the coefficients of the vectors in the last frame; it is used up.
    R (M, B, k, k) and exponents (M, B, k) are what :func:`orthonormalize` made of each step.

    Returns
    -------
    vectors : ndarray (states, B, k, N)
        Unit vectors.
    log_growth : ndarray (states - 1, B, k)
        ln ||J_t v||.
    mean : ndarray (B, k)
        Mean of it over the steps.
    """
    _, B, k, N = Q.shape
    vectors = empty_beside(Q, (states, B, k, N), Q.dtype)
    log_growth, mean = (empty_beside(Q, (states - 1, B, k), np.float64), zeros_beside(Q, (B, k), np.float64))
    find_backend(backend).covariant_vectors(C, mean, vectors, log_growth, Q, R, exponents, 1 / (states - 1))
    return vectors, log_growth, mean


def is_singular(jacobians: Any, t: int, b: int, dtype: Any) -> bool:
    """Whether J_t of sample b is singular to the rounding of ``dtype``, whatever the scales of its rows and columns."""
    net = jacobians.net
    if hasattr(jacobians, "J"):
        scaled = jacobians.J[t, b].astype(np.float64)
    else:
        eye = np.eye(net.N, dtype=net.dtype).reshape(net.N, *net.state_shape)
        columns, exponents = jacobians.tangent(eye, np.zeros(net.N, np.int64), np.full(net.N, b), t, 1)
        scaled = np.ldexp(columns[0].reshape(net.N, net.N).astype(np.float64), exponents[0][:, None].astype(np.int32))
    for _ in range(4):
        for axis in (0, 1):
            top = np.abs(scaled).max(axis=axis, keepdims=True)
            if (top == 0).any():
                return True
            scaled = np.ldexp(scaled, -np.frexp(top)[1])
    sigma = np.linalg.svd(scaled, compute_uv=False)
    return bool(sigma[-1] <= 4 * len(scaled) * np.finfo(dtype).eps * sigma[0])
