"""Losses L = sum_{t,b} w_{t,b} l(y_{t,b}, z_{t,b}): values and derivatives with respect to the output y.

Weights choose what counts: all steps (None), t >= tau or a mask ((T,) or (T, B) numbers), the last step only
(``last_step``). With one weight per step, many-to-one and many-to-many are the same code. For sequences of different
lengths the padded steps weigh nothing, and ``last_step`` means each sequence's own last step. A target may lie on a GPU
as the outputs do; weights are given on the host. The formulae are in ``loss_terms``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import _checks, _cuda
from ._arrays import contiguous, empty_beside
from .device_input import device_target
from .kernels import backend as find_backend

Reduction = Literal["sum", "mean"]

#: Weight of the last step of each sequence only (many-to-one).
last_step = "last"


def from_step(tau: int, T: int) -> NDArray[np.float64]:
    """Weights of the loss over t >= tau, steps counted from 1: (T,) zeros, then ones."""
    _checks.integer("tau", tau, 1, T)
    return (np.arange(1, T + 1) >= tau).astype(float)


@dataclass(frozen=True)
class LossValue:
    """A loss at one output.

    Attributes
    ----------
    value : float
        L, the weighted sum (or mean).
    steps : ndarray (T, B)
        Contribution of each step; they sum to ``value``.
    dy : ndarray (T, B, p)
        dL/dy.
    """

    value: float
    steps: NDArray
    dy: NDArray


@dataclass(frozen=True)
class Loss:
    """A loss with its target, waiting for an output. Made by the functions of this module."""

    kind: str
    target: Any
    weights: Any = None
    reduction: Reduction = "sum"

    def __call__(self, y: Any, lengths: NDArray | None = None, backend: str = "auto") -> LossValue:
        """Evaluate at outputs y (T, B, p); where y lies on a GPU, there, and ``steps`` and ``dy`` stay there.

        Raises
        ------
        ValueError
            Target or weights do not fit the output.
        """
        on_device = _cuda.is_device_array(y)
        kernels = find_backend("cuda" if on_device else backend)
        weights, target = self._at(y, lengths)
        steps, dy = empty_beside(y, y.shape[:2], y.dtype), empty_beside(y, y.shape, y.dtype)
        kernels.loss(self.kind)(steps, dy, contiguous(y), target, weights)
        if on_device:
            value = kernels.total(steps)
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                value = float(np.sum(steps, dtype=np.float64))
        if not np.isfinite(value) and not _cuda.is_device_array(self.target):
            _checks.finite("target", target)
        return LossValue(value, steps, dy)

    def curvature(self, y: Any, u: Any, lengths: NDArray | None = None, backend: str = "auto") -> Any:
        """Second derivative along u: d^2L/dy^2 u at outputs y (T, B, p), for directions u (T, R, p).

        Row r is a direction of sample r % B. Softmax and cross-entropy count as one convex function, so it is positive
        semidefinite for every loss of this module. On a GPU if y and u lie there. Errors as for calling the loss.
        """
        kernels = find_backend("cuda" if _cuda.is_device_array(y) else backend)
        weights, target = self._at(y, lengths)
        out = empty_beside(u, u.shape, u.dtype)
        kernels.loss_curvature(self.kind)(out, contiguous(u), contiguous(y), target, weights)
        return out

    def _at(self, y: NDArray, lengths: NDArray | None) -> tuple[NDArray, NDArray]:
        """Weights (T, B) with the reduction in them, in the dtype of y, and target (T, B, p)."""
        T, B, p = y.shape
        weights = self._weights(T, B, lengths)
        target = self._target(y, weights)
        if self.reduction == "mean":
            total = weights.sum() * (1 if self.kind == "cross_entropy" else p)
            if total == 0:
                raise ValueError("weights sum to 0; a mean needs a positive total weight")
            weights = weights / total
        return weights.astype(y.dtype), target

    def _weights(self, T: int, B: int, lengths: NDArray | None) -> NDArray:
        ends = np.full(B, T) if lengths is None else lengths
        step = np.arange(1, T + 1)[:, None]
        if self.weights is None:
            return (step <= ends).astype(float)
        if isinstance(self.weights, str):
            _checks.choice("weights", self.weights, (last_step,))
            return (step == ends).astype(float)
        weights = _checks.numbers("weights", self.weights).astype(float)
        if weights.shape not in ((T,), (T, B)):
            raise ValueError(f"weights has shape {weights.shape}; it must be ({T},) or ({T}, {B}) like the output")
        _checks.finite("weights", weights)
        if (weights < 0).any():
            raise ValueError("weights has a negative entry; all must be at least 0")
        return np.where(step <= ends, weights[:, None] if weights.ndim == 1 else weights, 0.0)

    def _target(self, y: Any, weights: NDArray) -> Any:
        """Target as (T, B, p); where the weight is 0 it may hold anything, such as NaN or -100."""
        T, B, p = y.shape
        target = self.target
        if _cuda.is_device_array(target):
            if not _cuda.is_device_array(y):
                raise ValueError("target lives on a GPU, and the outputs do not; they must lie on the same side")
            within = (0.0, 1.0) if self.kind == "binary_cross_entropy" else (-np.inf, np.inf)
            return device_target(target, y, weights, self.kind == "cross_entropy", within)
        labels = self.kind == "cross_entropy" and target.dtype.kind in "iu"
        wanted = (T, B) if labels else (T, B, p)
        if B == 1 and target.ndim == len(wanted) - 1:
            target = target[:, None]  # one sequence without its batch axis
        if target.shape != wanted:
            raise ValueError(f"target has shape {self.target.shape}; it must have shape {wanted} like the output")
        counts = weights != 0
        if labels:
            target = np.where(counts, target, 0)
            if target.min() < 0 or target.max() >= p:
                raise ValueError(
                    f"target has labels in {target.min()}…{target.max()}; they must be in 0…{p - 1} (p = {p} outputs)"
                )
            return np.eye(p, dtype=y.dtype)[target]
        if not counts.all():
            target = np.where(counts[..., None], target, 0)
        if self.kind == "binary_cross_entropy" and (target.min() < 0 or target.max() > 1):
            raise ValueError(f"target is in [{target.min()}, {target.max()}]; it must be in [0, 1]")
        return target.astype(y.dtype, copy=False)


def _make(kind: str, target: Any, weights: Any, reduction: Reduction) -> Loss:
    _checks.choice("reduction", reduction, ("sum", "mean"))
    if _cuda.is_device_array(weights):
        raise ValueError("weights live on a GPU; they must be given on the host, whatever the target is")
    if not _cuda.is_device_array(target):
        target = _checks.numbers("target", target)
    return Loss(kind, target, weights, reduction)


def squared_error(target: Any, weights: Any = None, *, reduction: Reduction = "sum") -> Loss:
    """l = 1/2 ||y - z||^2.

    Parameters
    ----------
    target : array (T, B, p), or (T, p) for one sequence
        On the host, or on a GPU if the outputs are there.
    weights : None, "last", or array (T,) or (T, B)
    reduction : "sum" or "mean"
        "mean" divides by (sum of weights) p.
    """
    return _make("squared_error", target, weights, reduction)


def sum_of_squares(target: Any, weights: Any = None, *, reduction: Reduction = "sum") -> Loss:
    """l = ||y - z||^2. Arguments as for :func:`squared_error`."""
    return _make("sum_of_squares", target, weights, reduction)


def cross_entropy(target: Any, weights: Any = None, *, reduction: Reduction = "sum") -> Loss:
    """l = -sum_i z_i log softmax(y)_i; y are logits.

    Parameters
    ----------
    target : integer labels (T, B), or probabilities (T, B, p)
    weights, reduction
        As for :func:`squared_error`; "mean" divides by the sum of weights.
    """
    return _make("cross_entropy", target, weights, reduction)


def binary_cross_entropy(target: Any, weights: Any = None, *, reduction: Reduction = "sum") -> Loss:
    """l = -sum_i [z_i log s(y_i) + (1 - z_i) log(1 - s(y_i))], s the logistic function; y are logits.

    Parameters
    ----------
    target : array (T, B, p) of numbers in [0, 1]
    weights, reduction
        As for :func:`squared_error`.
    """
    return _make("binary_cross_entropy", target, weights, reduction)
