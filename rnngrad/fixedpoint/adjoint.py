"""Gradient of a loss at a fixed point by the implicit function: z = J^T z + (dL/ds*)^T, dL/dw = z^T df/dw.

Almeida (1987), Pineda (1987); in terms of the implicit function theorem Bai, Kolter & Koltun (2019). A wrong z is worse
than none, so every answer is judged (``judged``), and that the fixed point itself is known to so many digits only is
judged by the Jacobian a Newton step further on (``polish``).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import _checks, _cuda
from .._arrays import on_host
from ..dynamics.device import is_on_device
from ..dynamics.placed import all_finite, in_dtype
from ..dynamics.scaled import scaled, unscaled
from ..errors import ConvergenceError
from ..gradients.assemble import Gradients, evaluate, explicit_gradients, readout_gradients, state_adjoint
from ..losses import Loss
from .arguments import numbers
from .judged import judged, neumann, uncertain
from .linear import SOLVERS
from .polish import polished
from .result import FixedPoint

Method = Literal["iteration", "neumann", "cg", "gmres", "bicgstab", "lu"]


@dataclass(frozen=True)
class ImplicitGradients(Gradients):
    """Gradient of a loss at fixed points; parameters as in :class:`rnngrad.Gradients`, ``x`` is dL/dx (B, m).

    Attributes
    ----------
    z : ndarray (B, S, n)
        The adjoint, z (I - J) = dL/ds*.
    residual : ndarray (B,)
        ||z - z J - dL/ds*|| / ||dL/ds*||.
    error : ndarray (B,)
        Estimated relative error of z: the residual times an estimate of ||(I - J)^-1||, and what z changes by when J is
        taken a Newton step and the rounding of s* further on. Of a Neumann series, what its missing terms make.
    iterations : ndarray (B,)
        Products with J for the loss's own right-hand side; 0 of "lu".
    method : str
    fixed_point : FixedPoint
    """

    z: Any = None
    residual: Any = None
    error: Any = None
    iterations: Any = None
    method: str = ""
    fixed_point: Any = field(default=None, repr=False)

    @property
    def spectral_radius(self) -> NDArray[np.float64]:
        """rho(J) of each sample, (B,)."""
        return self.fixed_point.spectral_radius

    @property
    def condition(self) -> NDArray[np.float64]:
        """Condition number of I - J of each sample, (B,), in the 2-norm."""
        return self.fixed_point.condition


@dataclass(frozen=True)
class DeviceImplicitGradients(ImplicitGradients):
    """Gradients at a :class:`rnngrad.DeviceFixedPoint`: parameters, ``x`` and ``z`` are device arrays.

    They have ``__cuda_array_interface__``, so CuPy and PyTorch read them in place.
    """

    def norm(self) -> float:
        """Euclidean norm over all parameters, whose gradients are copied to the host for it."""
        return self.to_host().norm()

    def to_host(self) -> ImplicitGradients:
        """The same as NumPy arrays: everything is copied."""
        parts = {item.name: on_host(getattr(self, item.name)) for item in fields(self)}
        return ImplicitGradients(**parts | {"fixed_point": self.fixed_point.to_host()})


def implicit_gradient(
    fp: FixedPoint,
    loss: Loss,
    method: Method = "iteration",
    *,
    terms: int | None = None,
    tol: float = 1e-10,
    max_iterations: int = 10_000,
    seed: int | np.random.Generator = 0,
) -> ImplicitGradients:
    """Gradient of a loss at fixed points, without unrolling: all parameters, and the held input.

    Parameters
    ----------
    fp : FixedPoint or DeviceFixedPoint
        Of :func:`rnngrad.solve_fixed_point`; every sample must have converged.
    loss : Loss
        Of the outputs y (B, p): targets (B, p), or (1, B, p) as for one step; on a GPU if ``fp`` is there.
    method : str
        "iteration": z <- J^T z + dL/ds*, one product with J a time, needs rho(J) < 1. "neumann": its first ``terms`` K,
        which is truncated backpropagation over K steps at the fixed point; only for rho(J) < 1, and ``error`` says
        what is missing. "cg" (on the normal equations, squares the condition number), "gmres", "bicgstab": SciPy's, on
        products with J. "lu": dense, O(N^3). The last four need only a regular I - J.
    terms : int
        K >= 1 of "neumann".
    tol : float
        Largest estimated relative error of z for the J it is solved with; a method refines its answer until then.
    max_iterations : int
        Largest number of products with J for each right-hand side, refinements included.
    seed : int or Generator
        Of the random right-hand sides that judge the answer.

    Returns
    -------
    ImplicitGradients or DeviceImplicitGradients
        Of a DeviceFixedPoint, device arrays. "iteration" works on them where they lie, and numbers for each sample are
        what comes to the host; the other methods are SciPy's and LAPACK's, whose vectors or Jacobians are copied there,
        and so are the Jacobians of a Neumann series, whose rest is solved for.

    Raises
    ------
    ConvergenceError
        A sample is not at a fixed point; or the method does not converge: the message gives rho(J), and what works.
        Or h* is not known well enough: a Newton step from it, and the rounding of s*, change z by more than ``tol`` and
        more than 1.5e-8, half of the digits.
    SingularError
        I - J is singular to working precision, or z changes by a tenth within the uncertainty of h*: there is no
        gradient.
    ValueError
        Target or weights do not fit the output, or an argument is out of range.

    Notes
    -----
    In float64 also for a network in float32: with its weights, s* is polished by Newton steps (with one Jacobian) until
    where it is may change z by ``tol`` at most, or they help no more, and J and df/dw are taken there. dL/ds* is that
    of the y of ``fp``.
    """
    _checks.choice("method", method, (*SOLVERS, "neumann"))
    if (method == "neumann") != (terms is not None):
        raise ValueError(f"terms is {terms!r} and method is {method!r}; 'neumann' takes terms, the others do not")
    tol = _checks.number("tol", tol, 0.0, open_low=True)
    limit = _checks.integer("max_iterations", max_iterations, 1)
    if not isinstance(fp, FixedPoint):
        raise ValueError(f"fp is {type(fp).__name__}; it must come from solve_fixed_point")
    fp.require_converged()
    traj = fp.traj
    value = evaluate(traj, of_one_step(loss, traj.y))
    g = in_dtype(state_adjoint(traj, value.dy)[0], np.float64)
    if not all_finite(g):
        raise ConvergenceError("dL/ds* is not finite")
    g, exponent = scaled(g)  # so that no square leaves the numbers
    rng = seed if isinstance(seed, np.random.Generator) else np.random.default_rng(_checks.integer("seed", seed, 0))
    rest, local, beyond, inverse = polished(fp, method, tol, limit, rng)
    if terms is not None:
        z, residual, error, iterations = neumann(fp, local, g, _checks.integer("terms", terms, 1))
    else:
        z, residual, error, iterations, inverse = judged(fp, local, g, method, tol, limit, inverse)
    error = error + uncertain(fp, local, beyond, z, inverse, method, tol, limit)
    with np.errstate(over="ignore"):
        z = unscaled(z, exponent)
    if not (all_finite(z) and np.isfinite(error).all()):
        raise ConvergenceError(f"the adjoint by {method!r} leaves the numbers: scale the loss down")
    dtype = fp.s.dtype
    found = explicit_gradients(rest, local, z.reshape(1, *z.shape))
    parts = {name: in_dtype(grad, dtype) for name, grad in found.items()}
    parts["x"] = parts["x"][0]
    kind = ImplicitGradients
    if is_on_device(traj):  # whoever reads them in place is told of no stream to wait for
        _cuda.synchronize()
        kind = DeviceImplicitGradients
    return kind(
        loss=value.value, **parts, **readout_gradients(traj, value.dy), z=z, residual=residual, error=error,
        iterations=iterations, method=method, fixed_point=fp,
    )  # fmt: skip


def of_one_step(loss: Any, y: Any) -> Any:
    """The loss with target and weights as for one step of time: (B, p) becomes (1, B, p), and so on."""
    if not isinstance(loss, Loss):
        return loss  # whoever evaluates it says what it must be
    target = numbers("target", loss.target)
    labels = loss.kind == "cross_entropy" and target.dtype.kind in "iu"
    if target.ndim == (1 if labels else 2) and y.shape[1] == target.shape[0]:
        loss = dataclasses.replace(loss, target=target.reshape(1, *target.shape))
    if loss.weights is not None and not isinstance(loss.weights, str) and np.shape(loss.weights) == y.shape[1:2]:
        loss = dataclasses.replace(loss, weights=np.asarray(loss.weights)[None])
    return loss
