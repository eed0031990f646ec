"""Eigenvalues of W and of J_t, and how far from normal each matrix is.

An eigenvalue says where a product of equal matrices tends to; for a non-normal matrix the way there can lead through
growth by orders of magnitude. So the largest singular value, Henrici's departure and the numerical abscissa stand
beside every spectral radius.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from .._blas import one_blas_thread
from .._results import Result
from ..dynamics.jacobian import local_jacobians
from ..dynamics.rollout import Trajectory
from ..network import Network
from .products import spaced, steps


@dataclass(frozen=True)
class Spectrum(Result):
    """Spectra of K matrices.

    Attributes
    ----------
    labels : tuple of str (K,)
        What each matrix is, such as "W f" or "J 120".
    eigenvalues : complex ndarray (K, N)
    radius : ndarray (K,)
        Spectral radius, the largest |eigenvalue|.
    sigma_max : ndarray (K,)
        2-norm.
    henrici : ndarray (K,)
        Departure from normality over the Frobenius norm, sqrt(||A||_F^2 - sum |lambda|^2)/||A||_F, in [0, 1]: 0 for a
        normal matrix, 1 for a nilpotent one (Henrici 1962).
    abscissa : ndarray (K,)
        Numerical abscissa, the largest eigenvalue of (A + A^T)/2.
    circular_radius : ndarray (K,)
        ||A||_F/sqrt(N): the disc of the circular law, which a matrix of independent entries of that size would fill.
    """

    labels: tuple[str, ...]
    eigenvalues: NDArray[np.complex128]
    radius: NDArray[np.float64]
    sigma_max: NDArray[np.float64]
    henrici: NDArray[np.float64]
    abscissa: NDArray[np.float64]
    circular_radius: NDArray[np.float64]


def weight_spectrum(net: Network) -> Spectrum:
    """Spectra of the recurrent matrices, one per gate (W first, then W2).

    Raises
    ------
    ValueError
        The network has none (a user's system).
    """
    if not isinstance(net, Network):
        raise ValueError("weight_spectrum needs a Network; a user's system has no W")
    cell = net.cell
    matrices = [*net.W, *(net.W2 if cell.two_stage else ())]
    names = [*cell.gates[: cell.recurrent], *cell.gates2]
    return _spectrum(tuple("W" if len(matrices) == 1 else f"W, {name}" for name in names), matrices)


def jacobian_spectrum(traj: Trajectory, *, times: Any = None, sample: int = 0) -> Spectrum:
    """Spectra of J_t = ds_t/ds_{t-1} at chosen steps of one sample.

    Parameters
    ----------
    traj : Trajectory or DeviceTrajectory
        Of one on a GPU the K matrices alone come to the host, where they are decomposed.
    times : integers (K,)
        Steps in 1…T; four spread evenly by default, the last step among them.
    sample : int
        Which sample of the batch.

    Raises
    ------
    ValueError
        A step or the sample is out of range.
    """
    sample = int(steps("sample", sample, 0, traj.B - 1)[0])
    times = spaced(max(1, traj.T // 4), traj.T, 4) if times is None else steps("times", times, 1, traj.T)
    jacobians = local_jacobians(traj)
    matrices = [dense_at(jacobians, traj, int(t), sample) for t in times]
    return _spectrum(tuple(f"J, t = {t}" for t in times), matrices)


def dense_at(jacobians: Any, traj: Trajectory, t: int, sample: int) -> NDArray:
    """J_t of one sample, (N, N) on the host, without making the others dense."""
    net, N = traj.net, traj.net.N
    rows = np.eye(N, dtype=net.dtype).reshape(N, *net.state_shape)
    out, exponents = jacobians.adjoint(rows, np.zeros(N, np.int64), np.full(N, sample), t, 1)
    return np.ldexp(out[0].reshape(N, N), exponents[0].astype(np.int32)[:, None])


def _spectrum(labels: tuple[str, ...], matrices: list[NDArray]) -> Spectrum:
    with one_blas_thread():
        columns = list(zip(*(_measures(A.astype(np.float64)) for A in matrices), strict=True))
    eigenvalues, *numbers = (np.array(column) for column in columns)
    return Spectrum(labels, eigenvalues, *numbers)


def _measures(A: NDArray) -> tuple[NDArray, float, float, float, float, float]:
    """Eigenvalues, spectral radius, 2-norm, relative departure, numerical abscissa, radius of the circular law."""
    eigenvalues, departure = schur(A)
    frobenius = float(np.linalg.norm(A))
    symmetric = scipy.linalg.eigvalsh((A + A.T) / 2, subset_by_index=[len(A) - 1, len(A) - 1])
    return (
        eigenvalues,
        float(np.abs(eigenvalues).max()),
        float(np.linalg.norm(A, ord=2)),
        departure / frobenius if frobenius > 0 else 0.0,
        float(symmetric[0]),
        frobenius / np.sqrt(len(A)),
    )


def schur(A: NDArray) -> tuple[NDArray[np.complex128], float]:
    """Eigenvalues of A and Henrici's departure from normality: the norm of the strict upper triangle of its Schur form.

    Read off the Schur form because ||A||_F^2 - sum |lambda|^2 leaves only half of the digits.
    """
    R = scipy.linalg.schur(A, output="real")[0]
    first = np.flatnonzero(np.diag(R, -1))  # LAPACK's 2 x 2 blocks are [[a, b], [c, a]] with b c < 0
    b, c = R[first, first + 1], R[first + 1, first]
    eigenvalues = np.diag(R).astype(complex)
    height = np.sqrt(np.abs(b)) * np.sqrt(np.abs(c))
    eigenvalues[first] += 1j * height
    eigenvalues[first + 1] -= 1j * height
    upper = np.triu(R, 1)
    upper[first, first + 1] = b + c  # by which such a block alone departs: a rotation has c = -b
    return eigenvalues, float(np.linalg.norm(upper))
