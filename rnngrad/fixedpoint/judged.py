"""Adjoints at fixed points that can be trusted: solved, refined, and refused where they cannot.

A right-hand side that is random is solved beside the loss's own, by the same method. It meets every direction of
I - J: if I - J is singular it has no solution, if J has an eigenvalue beyond the unit circle its iteration grows, and
its length estimates ||(I - J)^-1||, which makes an error of a residual.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import on_host, placed_beside
from ..dynamics.placed import add, add_rows, filled, lengths, minus, take_rows, times_rows
from ..dynamics.scaled import unscaled
from ..errors import ConvergenceError, SingularError
from . import spectrum
from .linear import SOLVERS, iteration
from .result import FixedPoint

_ROUNDS = 4  # of refinement
_MARGIN, _LEAST = 0.5, 1e-13  # of the accuracy that is still missing; no method reduces a residual further at once
_TENTH = 0.1
_WORKS_ANYWHERE = ("lu", "gmres")
_EPS = float(np.finfo(np.float64).eps)
_POINT = _EPS**0.5  # half of the digits of z must stand while h* moves as far as it is uncertain


def _misses(local: Any, z: Any, g: Any, at: NDArray) -> Any:
    """g - (z - z J) of rows z, g (R, S, n), each at its place."""
    out = minus(g, z)
    add(out, _times_jacobian(local, z, at))
    return out


def _times_jacobian(local: Any, z: Any, at: NDArray) -> Any:
    """z J of rows z (R, S, n), each at its place."""
    zJ, exponents = local.adjoint(z, np.zeros(z.shape[0], np.int64), at, 1, 1)
    return unscaled(zJ[0], exponents[0])


def neumann(fp: FixedPoint, local: Any, g: Any, terms: int) -> tuple[Any, ...]:
    """sum over k < terms of g J^k."""
    radius = spectrum.spectral_radius(local, g.shape)
    if not (radius < 1).all():
        b = int(np.argmax(np.where(radius < 1, -1.0, radius)))
        raise failure(fp, local, "neumann", np.array([b]), "the series diverges")
    at = np.arange(g.shape[0])
    z, iterations, _ = iteration(local, g, at, 0, 0.0, terms=terms)
    missing = _misses(local, z, g, at)
    rest = SOLVERS["lu"](local, missing, at, 1, 0.0)[0]
    scale, far = lengths(g), lengths(rest)
    add(rest, z)
    size = lengths(rest)
    with np.errstate(invalid="ignore", divide="ignore"):
        residual = np.where(scale > 0, lengths(missing) / scale, 0.0)
        error = np.where(size > 0, far / size, 0.0)
    return z, residual, error, iterations


def judged(
    fp: FixedPoint, local: Any, g: Any, method: str, tol: float, limit: int, inverse: NDArray
) -> tuple[Any, ...]:
    """z, residual, error, iterations and ||(I - J)^-1||; raises for a sample whose answer cannot be trusted."""
    B, at = g.shape[0], np.arange(g.shape[0])
    scale = lengths(g)
    scale[scale == 0] = 1.0
    wanted = times_rows(g, 1 / scale)
    z, iterations = filled(g, tuple(g.shape), g.dtype), np.zeros(B, np.int64)
    misses, open_ = wanted, at
    residual, error = np.ones(B), np.ones(B)
    for _ in range(_ROUNDS):
        if method != "lu" and int(iterations[open_].max()) >= limit:
            what = f"{limit} products with J leave an error of {error[open_].max():.2g}"
            raise failure(fp, local, method, open_, what)
        aim = float((tol / (error * inverse)[open_]).min())  # of the residual: what it may be over what it is
        left_over = limit - int(iterations[open_].max())
        step, count, done = SOLVERS[method](
            local, misses, open_, left_over, float(np.clip(_MARGIN * aim, _LEAST, _TENTH))
        )
        iterations[open_] += count
        if not done.all():
            raise failure(fp, local, method, open_[~done], f"not converged in {int(iterations.max())} iterations")
        add_rows(z, open_, step)
        misses = _misses(local, take_rows(z, open_), take_rows(wanted, open_), open_)
        residual[open_] = lengths(misses)
        size = lengths(z)
        inverse = np.maximum(inverse, size)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.where(residual > 0, residual * inverse / size, 0.0)
        left = np.flatnonzero(~(error[open_] <= tol))
        if not left.size:
            break
        misses, open_ = take_rows(misses, left), open_[left]
    else:
        what = f"an error of {tol:g} cannot be reached: the estimate is {error.max():.2g}"
        raise failure(fp, local, method, open_, what)
    return times_rows(z, scale), residual, error, iterations, inverse


def inverse_norm(fp: FixedPoint, local: Any, method: str, limit: int, drawn: NDArray) -> NDArray[np.float64]:
    """An estimate of ||(I - J)^-1|| for each sample: how long the answer to a random right-hand side becomes.

    That has the direction of ``drawn`` (B, S, n). It is solved until a direction with the expected share 1/sqrt(N) of
    it must be right to a tenth.
    """
    shape = fp.s.shape
    N, at = int(np.prod(shape[1:])), np.arange(shape[0])
    probes = drawn / lengths(drawn)[:, None, None]
    z, count, done = _solver(method)(local, placed_beside(fp.s, probes), at, limit, _TENTH / np.sqrt(N))
    if not done.all():
        bad = at[~done]
        raise failure(fp, local, method, bad, f"not converged in {int(count[bad].max())} iterations")
    inverse = np.sqrt(N) * lengths(z)
    singular = ~(inverse < 1 / (np.sqrt(N) * N * 100 * _EPS))  # or not a number
    if singular.any():
        raise failure(fp, local, method, np.flatnonzero(singular), "the inverse of I - J is beyond rounding")
    return inverse


def failure(
    fp: FixedPoint, local: Any, method: str, bad: NDArray, what: str, change: NDArray | None = None
) -> Exception:
    """The error for samples ``bad``, with rho(J) and the condition number of the worst, and what would work.

    ``change`` (B,): of z, within the uncertainty of h*.
    """
    J = local.dense()
    J = on_host(take_rows(J.reshape(J.shape[1:]), bad))
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


def uncertain(
    fp: FixedPoint, local: Any, beyond: Any, z: Any, inverse: NDArray, method: str, tol: float, limit: int
) -> NDArray[np.float64]:
    """Relative change of z as the Jacobians become those ``beyond``; raises where it is not small.

    To first order it solves the adjoint for z (J' - J): at most ``inverse`` times as long, and solved for only where
    that is not enough.
    """
    at = np.arange(z.shape[0])
    change = minus(_times_jacobian(beyond, z, at), _times_jacobian(local, z, at))
    size, allowed = lengths(z), max(tol, _POINT)
    size[size == 0] = 1.0
    out = lengths(change) * inverse / size
    open_ = np.flatnonzero(~(out <= allowed))
    if open_.size:
        solved, _, done = _solver(method)(local, take_rows(change, open_), at[open_], limit, _TENTH)
        out[open_[done]] = lengths(solved)[done] / size[open_[done]]
    bad = np.flatnonzero(~(out <= allowed))
    if bad.size:
        raise failure(fp, local, method, bad, "h* is not known well enough", change=out)
    return out


def _solver(method: str) -> Any:
    """How judgements about a method's answer are solved for: as that is, those about a series by elimination."""
    return SOLVERS.get(method, SOLVERS["lu"])
