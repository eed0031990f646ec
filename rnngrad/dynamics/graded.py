"""All singular values of Phi(t, k), the small ones too: the product in triangular form, by QR at every few steps.

A product that is multiplied out keeps what is within eps of its largest singular value. Here rows are orthonormalised
on the way, Phi = Q' T Q, and T = R R' R'' … is kept as rows with a power of two each. The basis at t is that of the
whole chain (carried there from a random one), so T comes out graded, its rows fall off as the singular values do, and
each is known to its own relative accuracy.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import copied, empty_beside, on_host
from ..errors import ConvergenceError, PrecisionWarning
from ..kernels import backend as find_backend
from .frames import LOST, Carried, carry, is_singular, not_finite, orthonormalize, random_frames
from .placed import in_dtype

_SEED = (0, 0x6772)  # of the basis that is turned into that of the chain; any in general position will do
_AIM, _LIMIT = 16, 22  # log2 of the stretch between two QRs: aimed at, and largest
_LONGEST = 64  # steps between two QRs


@dataclass(frozen=True)
class Graded:
    """Matrices T (B, N, N) up to orthogonal factors: row i is mantissa[b, i] 2^exponent[b, i]; on the host or a GPU."""

    mantissa: Any
    exponent: Any

    def log_singular_values(self, backend: str = "auto") -> Any:
        """Natural logarithms of the singular values, descending, (B, N) where the rows lie; -inf for 0.

        Raises
        ------
        ConvergenceError
            The rotations did not come to an end.
        """
        B, N, _ = self.mantissa.shape
        out, sweeps = empty_beside(self.mantissa, (B, N), np.float64), np.empty(B, np.int64)
        find_backend(backend).graded_singular_values(out, copied(self.mantissa), copied(self.exponent), sweeps)
        _require_rotated(sweeps, "sample", backend)
        return out

    def then(self, R: Any, exponents: Any, backend: str = "auto") -> Graded:
        """R 2^exponents T for an upper triangular R (B, N, N), with an exponent for each of its columns."""
        shape = tuple(self.mantissa.shape)
        rows, exponent = (empty_beside(R, *of) for of in ((shape, np.float64), (shape[:2], np.int64)))
        find_backend(backend).graded_product(rows, exponent, R, exponents, self.mantissa, self.exponent)
        return Graded(rows, exponent)


def log_singular_values(matrices: Any, backend: str = "auto") -> NDArray[np.float64]:
    """Natural logarithms of the singular values of matrices (R, N, N), descending, (R, N) on the host.

    Of each matrix as it stands: values below N eps of its largest are rounding. Errors as for :class:`Graded`.
    """
    R, N, _ = matrices.shape
    out, sweeps = empty_beside(matrices, (R, N), np.float64), np.empty(R, np.int64)
    find_backend(backend).log_singular_values(out, copied(in_dtype(matrices, np.float64)), sweeps)
    _require_rotated(sweeps, "matrix", backend)
    return on_host(out)


def _require_rotated(sweeps: NDArray[np.int64], of: str, backend: str) -> None:
    limit = find_backend(backend).SWEEPS
    if (sweeps > limit).any():
        raise ConvergenceError(
            f"singular values of {of} {int(np.argmax(sweeps))}: {limit} sweeps of Jacobi rotations were not enough; is "
            "an entry not finite?"
        )


def graded_products(
    jacobians: Any,
    B: int,
    net: Any,
    t: int,
    lags: Sequence[int] | NDArray,
    place: Callable[[NDArray], Any] = np.ascontiguousarray,
) -> Iterator[Graded]:
    """Phi(t, t - lag) of every sample for ascending lags, up to orthogonal factors; see the module.

    ``place`` brings an array to where the Jacobians lie, and everything that is large stays there.
    """
    N, longest = net.N, int(lags[-1])
    jacobians = jacobians.in_float64()  # float32 would lose, at one step of an LSTM, half of its directions
    frames = place(random_frames(B, N, net.state_shape, np.float64, np.random.default_rng(_SEED)))
    carry(jacobians, Carried.start(frames), t - longest, 1, longest)
    back = _Walk(jacobians, frames, t)
    product = Graded(place(np.broadcast_to(np.eye(N), (B, N, N))), place(np.zeros((B, N), np.int64)))
    for before, lag in zip([0, *lags[:-1]], lags, strict=True):
        for R, exponents in back.over(int(lag) - int(before)):
            product = product.then(R, exponents, jacobians.backend)
        yield product


class _Walk:
    """Orthonormal frames (B, N, S, n) on their way back in time, with a QR as often as the stretch asks."""

    def __init__(self, jacobians: Any, frames: Any, at: int) -> None:
        self.jacobians, self.frames, self.at = jacobians, frames, at
        self.wanted, self.lost = 1, np.zeros(len(frames), bool)

    def over(self, count: int) -> Iterator[tuple[Any, Any]]:
        """R (B, N, N) and the exponents of its columns, QR by QR, until ``count`` steps are done."""
        B, k, S, n = self.frames.shape
        sample, none = np.repeat(np.arange(B), k), np.zeros(B * k, np.int64)
        while count:
            steps = min(self.wanted, count)
            rows, exponents = self.jacobians.adjoint(self.frames.reshape(B * k, S, n), none, sample, self.at, steps)
            Q, R, e, stretch = orthonormalize(
                rows[0].reshape(B, k, S * n), exponents[0].reshape(B, k), self.jacobians.backend
            )
            most = int(stretch.max())
            if most > _LIMIT and steps > 1:
                self.wanted = max(1, steps // 2)
                continue
            self.frames, self.at, count = Q.reshape(self.frames.shape), self.at - steps, count - steps
            if most >= LOST:
                self._lost(stretch)
            yield R, e
            self.wanted = max(1, min(_AIM * steps // max(most, 1), 2 * steps, _LONGEST))

    def _lost(self, stretch: NDArray) -> None:
        """The step after ``at`` has lost a direction of some samples: to a zero, or to rounding."""
        if stretch.max() >= 2 * LOST:
            raise not_finite(int(np.argmax(stretch)), self.at)
        fresh = np.flatnonzero((stretch >= LOST) & ~self.lost)
        self.lost[fresh] = True
        for b in fresh:
            if not is_singular(self.jacobians, self.at, int(b), self.frames.dtype):
                warnings.warn(
                    f"at step {self.at} of sample {b} a direction shrank below what {self.frames.dtype} resolves "
                    "beside the others; its singular value reads -inf, but is only very small",
                    PrecisionWarning,
                    stacklevel=5,
                )
                self.lost[:] = True  # once is enough
                return
