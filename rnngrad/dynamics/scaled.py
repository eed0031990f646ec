"""Numbers beyond the range of floats: rows (or columns) of mantissas with a power of two each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .. import _cuda
from .._arrays import contiguous, copied, empty_beside
from .._blas import one_blas_thread
from ..kernels import backend as find_backend

_LN2 = np.log(2.0)

Norm = Literal[2, "fro"]

#: rows[D, R, ...] and exponents[D, R]: each row is its mantissa times 2^exponent
Scaled = tuple[NDArray, NDArray]


def scaled_arrays(steps: int, rows: NDArray) -> Scaled:
    """Room for ``steps`` times as many rows, where they lie."""
    return empty_beside(rows, (steps, *rows.shape), rows.dtype), empty_beside(rows, (steps, len(rows)), np.int64)


@dataclass(frozen=True)
class ScaledMatrices:
    """Matrices kept as mantissa[..., B, N, N] 2^exponent[..., B, N], one exponent per row (or per column).

    ``axis`` says which: -2 when each row has its own, -1 when each column has.
    """

    mantissa: NDArray
    exponent: NDArray
    axis: int

    def common(self) -> tuple[NDArray, NDArray]:
        """(matrix[..., N, N], exponent[...]) with one exponent per matrix; entries below it round to 0."""
        live = np.any(self.mantissa != 0, axis=-1 if self.axis == -2 else -2)
        top = np.max(np.where(live, self.exponent, np.iinfo(np.int64).min // 2), axis=-1)
        top = np.where(live.any(axis=-1), top, 0)
        shift = np.clip(self.exponent - top[..., None], -4000, 0)
        shift = np.expand_dims(shift, -1 if self.axis == -2 else -2)
        return np.ldexp(self.mantissa, shift.astype(np.int32)), top

    def dense(self) -> NDArray:
        """The matrices themselves, made in place: the mantissas are used up.

        Raises
        ------
        OverflowError
            An entry is beyond the dtype; its logarithm is not (use the log-norms).
        """
        rows = np.ascontiguousarray(self.mantissa if self.axis == -2 else self.mantissa.swapaxes(-1, -2))
        if find_backend().fold(rows.reshape(-1, rows.shape[-1]), np.ascontiguousarray(self.exponent).reshape(-1)):
            top = int(self.exponent.max()) - 1
            raise OverflowError(f"the product has entries above 2^{top}, beyond {rows.dtype.name}; use log_norm")
        return rows if self.axis == -2 else rows.swapaxes(-1, -2)

    def log_norm(self, ord: Norm = 2) -> NDArray[np.float64]:
        """Natural logarithm of the norm of every matrix; -inf for a zero matrix."""
        matrix, top = self.common()
        if ord == 2:
            norm = _singular_values(matrix)[..., 0]
        else:
            norm = np.linalg.norm(matrix.astype(np.float64), axis=(-2, -1))
        with np.errstate(divide="ignore"):
            return np.log(norm) + top * _LN2


def _singular_values(matrix: NDArray) -> NDArray[np.float64]:
    with one_blas_thread():
        return np.linalg.svd(matrix.astype(np.float64), compute_uv=False)


def scaled(rows: NDArray) -> tuple[NDArray, NDArray[np.int64]]:
    """Rows (R, ...) as mantissas of magnitude below 1 and an exponent each: one product cannot overflow them."""
    if _cuda.is_device_array(rows):
        mantissas, counts = copied(rows), _cuda.upload(np.zeros(rows.shape[0], np.int64))
        find_backend("cuda").normalize(mantissas.reshape(rows.shape[0], 1, -1), counts)
        return mantissas, counts
    largest = np.abs(rows.reshape(len(rows), -1)).max(axis=1, initial=0)
    exponent = np.frexp(largest)[1].astype(np.int64)
    return np.ldexp(rows, -exponent.astype(np.int32).reshape(-1, *[1] * (rows.ndim - 1))), exponent


def unscaled(rows: NDArray, exponent: NDArray[np.int64]) -> NDArray:
    """rows 2^exponent of rows (R, ...), which may be used up; what is beyond the dtype becomes infinite."""
    if _cuda.is_device_array(rows):
        find_backend("cuda").times_powers(rows.reshape(rows.shape[0], -1), exponent)
        return rows
    if not exponent.any():
        return rows
    return np.ldexp(rows, exponent.astype(np.int32).reshape(-1, *[1] * (rows.ndim - 1)))


def log_norms(rows: NDArray, exponent: NDArray[np.int64], backend: str = "auto") -> NDArray[np.float64]:
    """log||row 2^exponent|| of rows (R, ...), -inf for a row of zeros; (R,), where they lie."""
    R = rows.shape[0]
    out = empty_beside(rows, (R,), np.float64)
    if R:
        find_backend(backend).row_log_norms(out, contiguous(rows).reshape(R, -1), exponent)
    return out
