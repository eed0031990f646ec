"""The curve of fixed points s(p): residual, tangent, correction onto it, and the eigenvalues at its points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arguments import clamped
from .maps import Clamped

_CORRECTIONS = 8  # Newton iterations before a step is halved
_DIFFERENCE = 1e-6  # of the parameter, for df/dp by central differences; it steers and does not enter the result


@dataclass(frozen=True)
class Curve:
    """Points (s, p), flat, of size N + 1."""

    net_of: Callable[[float], Any]
    x: Any
    tol: float
    backend: str

    def at(self, p: float) -> Clamped:
        return clamped(self.net_of(float(p)), self.x, 1, 1, self.backend)

    def _residual(self, point: NDArray) -> NDArray:
        """s - f(s; p), (N,)."""
        here = self.at(point[-1])
        s = point[:-1].reshape(1, *here.net.state_shape)
        return (s - here.image(s)).ravel()

    def jacobian(self, point: NDArray) -> NDArray:
        """df/ds (N, N)."""
        here = self.at(point[-1])
        return here.jacobians(here.trajectory(point[:-1].reshape(1, *here.net.state_shape))).dense()[0, 0]

    def _derivative(self, point: NDArray) -> NDArray:
        """d(s - f)/d(s, p), (N, N + 1)."""
        h = _DIFFERENCE * max(1.0, abs(point[-1]))
        up, down = point.copy(), point.copy()
        up[-1] += h
        down[-1] -= h
        by_p = (self._residual(up) - self._residual(down)) / (2 * h)
        return np.column_stack([np.eye(len(by_p)) - self.jacobian(point), by_p])

    def tangent(self, point: NDArray, before: NDArray | None) -> NDArray:
        """Unit tangent of the curve, in the direction of the one before."""
        way = np.linalg.svd(self._derivative(point))[2][-1]
        return way if before is None or way @ before >= 0 else -way

    def correct(self, guess: NDArray, tangent: NDArray) -> NDArray | None:
        """The point of the curve in the plane through ``guess`` across the tangent; None without convergence."""
        point = guess.copy()
        for _ in range(_CORRECTIONS):
            residual = self._residual(point)
            if np.linalg.norm(residual) <= self.tol:
                return point
            bordered = np.vstack([self._derivative(point), tangent])
            try:
                point = point - np.linalg.solve(bordered, np.append(residual, tangent @ (point - guess)))
            except np.linalg.LinAlgError:
                return None
            if not np.isfinite(point).all():
                return None
        return None

    def eigenvalues(self, point: NDArray) -> NDArray:
        values = np.linalg.eigvals(self.jacobian(point)).astype(complex)
        return values[np.argsort(-np.abs(values), kind="stable")]

    def reaches(self, point: NDArray, tangent: NDArray) -> tuple[float, float]:
        """How far ahead along the curve, and behind, an eigenvalue meets the unit circle at the pace it has here."""
        values, V = np.linalg.eig(self.jacobian(point))
        h = _DIFFERENCE * max(1.0, float(np.abs(point).max()))
        change = (self.jacobian(point + h * tangent) - self.jacobian(point - h * tangent)) / (2 * h)
        try:
            moved = np.diagonal(np.linalg.solve(V, change @ V))
        except np.linalg.LinAlgError:  # equal eigenvalues without eigenvectors of their own: their pace is infinite
            return 0.0, 0.0
        size = np.abs(values)
        with np.errstate(divide="ignore", invalid="ignore"):
            at = (1 - size) * size / (values.conj() * moved).real
        return float(at[at > 0].min(initial=np.inf)), float(-at[at < 0].max(initial=-np.inf))

    def counts(self, point: NDArray) -> tuple[int, int, int]:
        """Eigenvalues on the unit circle or outside: real and positive, real and negative, complex."""
        values = self.eigenvalues(point)
        out = values[np.abs(values) >= 1]
        # an eigenvalue of multiplicity 2 comes out as a pair that far off the axis, or off by the error of the point
        real = np.abs(out.imag) <= max(self.tol, np.sqrt(np.finfo(float).eps)) * np.abs(out)
        up, down = int((real & (out.real > 0)).sum()), int((real & (out.real < 0)).sum())
        return up, down, len(out) - up - down
