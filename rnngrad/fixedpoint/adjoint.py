"""Gradient of a loss at a fixed point by the implicit function: z = J^T z + (dL/ds*)^T, dL/dw = z^T df/dw.

Almeida (1987), Pineda (1987); in terms of the implicit function theorem Bai, Kolter & Koltun (2019). A wrong z is worse
than none, so every answer is judged: beside each sample's own right-hand side a random one is solved by the same
method. It meets every direction of I - J: if J has an eigenvalue beyond the unit circle the iteration of the random one
grows even where the loss does not excite that direction; if I - J is singular it has no solution; and its length
estimates ||(I - J)^-1||, which makes an error of the residual. That the fixed point itself is known to so many digits
only is judged by the Jacobian a Newton step further on.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from ..dynamics.jacobian import local_jacobians
from ..dynamics.rollout import Trajectory
from ..errors import ConvergenceError, SingularError
from ..gradients.assemble import Gradients, evaluate, explicit_gradients, readout_gradients, state_adjoint
from ..losses import Loss
from . import spectrum
from .linear import SOLVERS, directions, iteration
from .maps import Clamped, lengths_of
from .solve import FixedPoint, at_rest

Method = Literal["iteration", "neumann", "cg", "gmres", "bicgstab", "lu"]
_ROUNDS = 4  # of refinement
_MARGIN, _LEAST = 0.5, 1e-13  # of the accuracy that is still missing; no method reduces a residual further at once
_TENTH = 0.1
_WORKS_ANYWHERE = ("lu", "gmres")
_EPS = float(np.finfo(np.float64).eps)
_POINT = _EPS**0.5  # half of the digits of z must stand while h* moves as far as it is uncertain
_ROUGHLY, _FINELY = 0.05, 1e-4  # residual of a Newton step, by how much it has to bring; J is of its beginning
_STEPS = 12  # of Newton, with one Jacobian, to polish a fixed point


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
    fp : FixedPoint
        Of :func:`rnngrad.solve_fixed_point`; every sample must have converged.
    loss : Loss
        Of the outputs y (B, p): targets (B, p), or (1, B, p) as for one step.
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
    ImplicitGradients

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
    g = state_adjoint(traj, value.dy)[0].astype(np.float64)
    if not np.isfinite(g).all():
        raise ConvergenceError("dL/ds* is not finite")
    top = np.abs(g).max(axis=(1, 2), initial=0.0)
    top[top == 0] = 1.0  # in units of it no square leaves the numbers
    g /= top[:, None, None]
    rng = seed if isinstance(seed, np.random.Generator) else np.random.default_rng(_checks.integer("seed", seed, 0))
    rest, local, beyond, inverse = _polished(fp, method, tol, limit, rng)
    if terms is not None:
        z, residual, error, iterations = _neumann(fp, local, g, _checks.integer("terms", terms, 1))
    else:
        z, residual, error, iterations, inverse = _judged(fp, local, g, method, tol, limit, inverse)
    error = error + _uncertain(fp, local, beyond, z, inverse, method, tol, limit)
    with np.errstate(over="ignore"):
        z = z * top[:, None, None]
    if not (np.isfinite(z).all() and np.isfinite(error).all()):
        raise ConvergenceError(f"the adjoint by {method!r} leaves the numbers: scale the loss down")
    dtype = fp.s.dtype
    parts = {name: grad.astype(dtype, copy=False) for name, grad in explicit_gradients(rest, local, z[None]).items()}
    parts["x"] = parts["x"][0]
    return ImplicitGradients(
        loss=value.value, **parts, **readout_gradients(traj, value.dy), z=z, residual=residual, error=error,
        iterations=iterations, method=method, fixed_point=fp,
    )  # fmt: skip


def _polished(
    fp: FixedPoint, method: str, tol: float, limit: int, rng: np.random.Generator
) -> tuple[Trajectory, Any, Any, NDArray[np.float64]]:
    """One step at the fixed points in float64, its Jacobians, those as far away as the points are uncertain, and an
    estimate of ||(I - J)^-1||.

    Uncertain they are by a Newton step, from a residual that is wrong by the rounding of s*. It is taken while it could
    change z by more than ``tol``, and halves the residual.
    """
    here, traj = fp.map, fp.step
    if here.net.dtype != np.float64:
        here = dataclasses.replace(here, net=here.net.astype("float64"), x=here.x.astype(np.float64))
        traj = here.trajectory(fp.s.astype(np.float64))
    local = local_jacobians(traj)
    inverse = _inverse_norm(fp, local, method, limit, rng)
    usual = inverse * min(1.0, 2 / np.sqrt(fp.s[0].size))  # twice what a direction grows by in the mean
    step = directions(local, fp.s.shape, method, limit)
    noise = _EPS * rng.uniform(-2, 2, fp.s.shape)
    moved = False
    for left in range(_STEPS, -1, -1):
        r = traj.states[1] - traj.states[0]
        size, s = lengths_of(r), traj.states[0]
        enough = tol * np.maximum(1.0, lengths_of(s)) / usual  # a Newton step that is as short as that is none
        needed = (enough / np.maximum(size * usual, enough)).min()
        away = step(r + noise * np.abs(s), float(np.clip(needed, _FINELY, _ROUGHLY)))
        lost = ~np.isfinite(away).all(axis=(1, 2))
        if lost.any():
            raise _failure(fp, local, method, np.flatnonzero(lost), "no Newton step can be taken from h*")
        short = lengths_of(away) <= enough
        if left == 0 or short.all():
            break
        trial = here.trajectory(s + away)
        better = lengths_of(trial.states[1] - trial.states[0]) <= size / 2
        better &= ~short
        if not better.any():
            break
        traj, moved = _chosen(here, trial, traj, better), True
    if moved:
        local = local_jacobians(traj)
    return at_rest(traj), local, local_jacobians(here.trajectory(traj.states[0] + away)), inverse


def _chosen(here: Clamped, trial: Trajectory, traj: Trajectory, better: NDArray[np.bool_]) -> Trajectory:
    """The trial for the samples where it is better."""
    if better.all():
        return trial
    return here.trajectory(np.where(better[:, None, None], trial.states[0], traj.states[0]))


def _uncertain(
    fp: FixedPoint, local: Any, beyond: Any, z: NDArray, inverse: NDArray, method: str, tol: float, limit: int
) -> NDArray[np.float64]:
    """Relative change of z as the Jacobians become those ``beyond``; raises where it is not small.

    To first order it solves the adjoint for z (J' - J): at most ``inverse`` times as long, and solved for only where
    that is not enough.
    """
    at = np.arange(len(z))
    change = _times_jacobian(beyond, z, at) - _times_jacobian(local, z, at)
    size, allowed = lengths_of(z), max(tol, _POINT)
    size[size == 0] = 1.0
    out = lengths_of(change) * inverse / size
    open_ = np.flatnonzero(~(out <= allowed))
    if open_.size:
        solved, _, done = _solver(method)(local, change[open_], at[open_], limit, _TENTH)
        out[open_[done]] = lengths_of(solved[done]) / size[open_[done]]
    bad = np.flatnonzero(~(out <= allowed))
    if bad.size:
        raise _failure(fp, local, method, bad, "h* is not known well enough", change=out)
    return out


def _solver(method: str) -> Any:
    """How judgements about a method's answer are solved for: as that is, those about a series by elimination."""
    return SOLVERS.get(method, SOLVERS["lu"])


def of_one_step(loss: Any, y: NDArray) -> Any:
    """The loss with target and weights as for one step of time: (B, p) becomes (1, B, p), and so on."""
    if not isinstance(loss, Loss):
        return loss  # whoever evaluates it says what it must be
    labels = loss.kind == "cross_entropy" and loss.target.dtype.kind in "iu"
    if loss.target.ndim == (1 if labels else 2) and y.shape[1] == len(loss.target):
        loss = dataclasses.replace(loss, target=loss.target[None])
    if loss.weights is not None and not isinstance(loss.weights, str) and np.shape(loss.weights) == y.shape[1:2]:
        loss = dataclasses.replace(loss, weights=np.asarray(loss.weights)[None])
    return loss


def _misses(local: Any, z: NDArray, g: NDArray, at: NDArray) -> NDArray:
    """g - (z - z J) of rows z, g (R, S, n), each at its place."""
    return _times_jacobian(local, z, at) + (g - z)


def _times_jacobian(local: Any, z: NDArray, at: NDArray) -> NDArray:
    """z J of rows z (R, S, n), each at its place."""
    zJ, exponents = local.adjoint(z, np.zeros(len(z), np.int64), at, 1, 1)
    return np.ldexp(zJ[0], exponents[0].astype(np.int32)[:, None, None]) if exponents.any() else zJ[0]


def _neumann(fp: FixedPoint, local: Any, g: NDArray, terms: int) -> tuple[NDArray, ...]:
    """sum over k < terms of g J^k."""
    radius = spectrum.spectral_radius(local, g.shape)
    if not (radius < 1).all():
        b = int(np.argmax(np.where(radius < 1, -1.0, radius)))
        raise _failure(fp, local, "neumann", np.array([b]), "the series diverges")
    at = np.arange(len(g))
    z, iterations, _ = iteration(local, g, at, 0, 0.0, terms=terms)
    missing = _misses(local, z, g, at)
    rest = SOLVERS["lu"](local, missing, at, 1, 0.0)[0]
    scale, size = lengths_of(g), lengths_of(z + rest)
    with np.errstate(invalid="ignore", divide="ignore"):
        residual = np.where(scale > 0, lengths_of(missing) / scale, 0.0)
        error = np.where(size > 0, lengths_of(rest) / size, 0.0)
    return z, residual, error, iterations


def _judged(
    fp: FixedPoint, local: Any, g: NDArray, method: str, tol: float, limit: int, inverse: NDArray
) -> tuple[NDArray, ...]:
    """z, residual, error, iterations and ||(I - J)^-1||; raises for a sample whose answer cannot be trusted."""
    B, at = len(g), np.arange(len(g))
    scale = lengths_of(g)
    scale[scale == 0] = 1.0
    wanted = g / scale[:, None, None]
    z, iterations = np.zeros_like(wanted), np.zeros(B, np.int64)
    misses, open_ = wanted, at
    residual, error = np.ones(B), np.ones(B)
    for _ in range(_ROUNDS):
        if method != "lu" and int(iterations[open_].max()) >= limit:
            what = f"{limit} products with J leave an error of {error[open_].max():.2g}"
            raise _failure(fp, local, method, open_, what)
        aim = float((tol / (error * inverse)[open_]).min())  # of the residual: what it may be over what it is
        left_over = limit - int(iterations[open_].max())
        step, count, done = SOLVERS[method](
            local, misses, open_, left_over, float(np.clip(_MARGIN * aim, _LEAST, _TENTH))
        )
        iterations[open_] += count
        if not done.all():
            raise _failure(fp, local, method, open_[~done], f"not converged in {int(iterations.max())} iterations")
        z[open_] += step
        misses = _misses(local, z[open_], wanted[open_], open_)
        residual[open_] = lengths_of(misses)
        size = lengths_of(z)
        inverse = np.maximum(inverse, size)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.where(residual > 0, residual * inverse / size, 0.0)
        left = ~(error[open_] <= tol)
        misses, open_ = misses[left], open_[left]
        if not open_.size:
            break
    else:
        what = f"an error of {tol:g} cannot be reached: the estimate is {error.max():.2g}"
        raise _failure(fp, local, method, open_, what)
    return z * scale[:, None, None], residual, error, iterations, inverse


def _inverse_norm(fp: FixedPoint, local: Any, method: str, limit: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """An estimate of ||(I - J)^-1|| for each sample: how long the answer to a random right-hand side becomes.

    It is solved until a direction with the expected share 1/sqrt(N) of it must be right to a tenth.
    """
    shape = fp.s.shape
    N, at = int(np.prod(shape[1:])), np.arange(shape[0])
    probes = rng.uniform(-1, 1, shape)
    probes /= lengths_of(probes)[:, None, None]
    z, count, done = _solver(method)(local, probes, at, limit, _TENTH / np.sqrt(N))
    if not done.all():
        bad = at[~done]
        raise _failure(fp, local, method, bad, f"not converged in {int(count[bad].max())} iterations")
    inverse = np.sqrt(N) * lengths_of(z)
    singular = ~(inverse < 1 / (np.sqrt(N) * N * 100 * _EPS))  # or not a number
    if singular.any():
        raise _failure(fp, local, method, np.flatnonzero(singular), "the inverse of I - J is beyond rounding")
    return inverse


def _failure(
    fp: FixedPoint, local: Any, method: str, bad: NDArray, what: str, change: NDArray | None = None
) -> Exception:
    """The error for samples ``bad``, with rho(J) and the condition number of the worst, and what would work.

    ``change`` (B,): of z, within the uncertainty of h*.
    """
    J = local.dense()[0][bad]
    outside = ~np.isfinite(J).all(axis=(1, 2))
    if outside.any():
        b = int(bad[np.argmax(outside)])
        return SingularError(f"J is not finite at the fixed point of sample {b}: f has no derivative there")
    condition, radius = spectrum.condition(J), spectrum.moduli(J).max(axis=1)
    worst = int(np.argmax(condition if change is None else change[bad]))
    lost = change is not None and not change[bad[worst]] < _TENTH
    if lost or condition[worst] * J.shape[1] * _EPS >= 1:
        return SingularError(
            f"I - J is singular at the fixed point of sample {int(bad[worst])} (condition number "
            f"{condition[worst]:.2g}, rho(J) = {radius[worst]:.6g}): h* is not isolated or about to vanish, and has no "
            "gradient there; "
            f"change a parameter or the input ({method}: {what})"
        )
    if change is None and (radius >= 1).any():
        worst = int(np.argmax(radius))
    others = [name for name in _WORKS_ANYWHERE if name != method]
    advice = f"I - J is regular (condition number {condition[worst]:.3g}): use method={' or '.join(map(repr, others))}"
    rho = f"rho(J) = {radius[worst]:.6g}"
    if change is not None:
        size = change[bad[worst]]
        advice = (
            f"a condition number of {condition[worst]:.3g} makes a change of {size:.2g} in z of what h* is uncertain "
            f"by: a tol of {2 * size:.1g} can be met"
        )
    elif method in ("iteration", "neumann") and radius[worst] >= 1:
        rho += " >= 1, so it cannot converge"
    elif method == "iteration":
        rho += f": it takes about {np.log(1e-11) / np.log(radius[worst]):.0f} iterations (max_iterations)"
    elif method == "lu":
        advice = f"the condition number of I - J is {condition[worst]:.3g}: use a larger tol"
    elif condition[worst] > 1e4:
        advice = f"the condition number of I - J is {condition[worst]:.3g}: use method='lu', or a larger tol"
    return ConvergenceError(
        f"the adjoint by {method!r} failed for {bad.size} of {len(fp.s)} samples ({what}); sample "
        f"{int(bad[worst])}: {rho}; {advice}"
    )
