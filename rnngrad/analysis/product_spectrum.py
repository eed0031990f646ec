"""Eigenvalues of the products Phi(t, k) = ds_t/ds_k, also where the product is beyond the range of floats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from .._arrays import on_host, placed_beside
from .._blas import one_blas_thread
from .._results import Result
from ..dynamics.jacobian import local_jacobians
from ..dynamics.scaled import ScaledMatrices
from .products import log_spaced, steps
from .spectra import dense_at

_PIECE = 16  # steps whose products are held at once


@dataclass(frozen=True)
class ProductSpectrum(Result):
    """Eigenvalues of Phi(t, t - lag) of one sample, for L lags.

    Attributes
    ----------
    time : int
        t.
    lags : ndarray (L,)
        Ascending, at least 1.
    eigenvalues : complex ndarray (L, N)
        Of Phi over exp(log_scale), by falling magnitude; NaN where rounding has swallowed them.
    log_scale : ndarray (L,)
        Natural logarithm of the factor taken out.
    log_magnitude : ndarray (L, N)
        ln|lambda| of Phi itself; -inf for the zeros of a zero matrix, NaN where rounding has swallowed it.
    log_floor : ndarray (L,)
        Every eigenvalue that is NaN lies below exp(log_floor).
    log_norm : ndarray (L,)
        ln||Phi||_2.
    log_circular_radius : ndarray (L,)
        sum over the steps of ln(||J_j||_F/sqrt(N)): logarithm of the radius that the eigenvalues of a product of
        independent matrices of such entries would fill, those of its root of order lag evenly.
    """

    time: int
    lags: NDArray[np.int64]
    eigenvalues: NDArray[np.complex128]
    log_scale: NDArray[np.float64]
    log_magnitude: NDArray[np.float64]
    log_floor: NDArray[np.float64]
    log_norm: NDArray[np.float64]
    log_circular_radius: NDArray[np.float64]

    @property
    def log_radius(self) -> NDArray[np.float64]:
        """Logarithm of the spectral radius (L,)."""
        return self.log_magnitude[:, 0]


def product_spectrum(traj: Any, *, time: int | None = None, lags: Any = None, sample: int = 0) -> ProductSpectrum:
    """Eigenvalues of the Jacobian chain against lag.

    Their rates ln|lambda|/lag tend to the Lyapunov exponents; at short lags ||Phi|| can be far above the spectral
    radius.

    Parameters
    ----------
    traj : Trajectory, DeviceTrajectory, or StackTrajectory of a forward stack
        Of one on a GPU the product stays there; single N x N matrices, J_t and the products at the lags, come to the
        host, where their eigenvalues are found.
    time : int
        t in 1…T; the last step by default.
    lags : integers (L,)
        In 1…t; by default at most 12, spaced evenly in their logarithm.
    sample : int
        Which sample of the batch.

    Returns
    -------
    ProductSpectrum

    Raises
    ------
    ValueError
        A step, a lag or the sample is out of range.

    Notes
    -----
    The product carries a power of two for each row, so none of it is lost on the way. Of its eigenvalues, those survive
    whose magnitude is above their own uncertainty, about N eps ||Phi||_2 times their condition number: with exponents
    that spread over many orders of magnitude the small ones are out of reach of any product (their number shrinks
    as the lag grows), and read NaN.
    """
    sample = int(steps("sample", sample, 0, traj.B - 1)[0])
    time = int(steps("time", traj.T if time is None else time, 1, traj.T)[0])
    lags = log_spaced(time, 13)[1:] if lags is None else np.unique(steps("lags", lags, 1, time))
    jacobians, N = local_jacobians(traj), traj.net.N
    eye, none = np.eye(N, dtype=traj.net.dtype).reshape(N, *traj.net.state_shape), np.zeros(N, np.int64)
    rows, exponent, samples = (placed_beside(traj.x, array) for array in (eye, none, np.full(N, sample)))
    at = time
    found, log_radius, log_scale = [], [], []
    total = 0.0
    for lag in lags:
        while at > time - lag:
            count = min(at - (time - int(lag)), _PIECE)
            for t in range(at, at - count, -1):
                total += _log_frobenius(dense_at(jacobians, traj, t, sample))
            out, exponents = jacobians.adjoint(rows, exponent, samples, at, count)
            rows, exponent, at = out[0], exponents[0], at - count  # the earliest step comes first
        matrix, top = ScaledMatrices(on_host(rows).reshape(N, N), on_host(exponent), -2).common()
        found.append(_eigenvalues(matrix.astype(np.float64), float(np.finfo(traj.net.dtype).eps)))
        log_radius.append(total)
        log_scale.append(float(top) * np.log(2.0))
    eigenvalues, floor, norm = (np.array(column) for column in zip(*found, strict=True))
    scale = np.array(log_scale)
    with np.errstate(divide="ignore"):
        return ProductSpectrum(
            time=time,
            lags=lags,
            eigenvalues=eigenvalues,
            log_scale=scale,
            log_magnitude=np.log(np.abs(eigenvalues)) + scale[:, None],
            log_floor=np.log(floor) + scale,
            log_norm=np.log(norm) + scale,
            log_circular_radius=np.array(log_radius),
        )


def _log_frobenius(J: NDArray) -> float:
    """ln(||J||_F/sqrt(N))."""
    with np.errstate(divide="ignore"):
        return float(np.log(np.linalg.norm(J.astype(np.float64)) / np.sqrt(len(J))))


def _eigenvalues(A: NDArray, precision: float) -> tuple[NDArray[np.complex128], float, float]:
    """Eigenvalues by falling magnitude, NaN where uncertain; a bound of those that are; and ||A||_2.

    To first order a change E of A moves a simple eigenvalue by at most ||E||_2/|y^H x|, x and y its unit right and left
    eigenvectors.
    """
    with one_blas_thread():
        norm = float(np.linalg.norm(A, ord=2))
        values, left, right = scipy.linalg.eig(A, left=True, right=True)
    if norm == 0:
        return values, 0.0, 0.0
    cosine = np.abs(np.einsum("ij,ij->j", left.conj(), right))
    with np.errstate(divide="ignore"):
        uncertainty = len(A) * precision * norm / cosine
    order = np.argsort(-np.abs(values), kind="stable")
    values, uncertainty = values[order], uncertainty[order]
    lost = np.abs(values) <= uncertainty
    floor = float(np.max(np.abs(values[lost]) + np.minimum(uncertainty[lost], norm), initial=0.0))
    return np.where(lost, complex(np.nan, np.nan), values), floor, norm
