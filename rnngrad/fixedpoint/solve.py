"""Solving h* = f(h*, x) with the input held, for every sample of a batch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._memory import empty
from .._results import Result
from ..dynamics.jacobian import local_jacobians
from ..dynamics.rollout import (
    Trajectory,
    drive,
    hidden,
    initial_state,
    readout,
    tile_rows,
)
from ..dynamics.system import System
from ..errors import ConvergenceError
from ..kernels import backend as find_backend
from . import newton, spectrum
from .maps import Clamped, clamped, lengths_of

Method = Literal["picard", "anderson", "newton", "newton_krylov"]
METHODS = ("picard", "anderson", "newton", "newton_krylov")
_LIMITS = {"picard": 1000, "anderson": 1000, "newton": 100, "newton_krylov": 100}
_CYCLES = 16  # periods up to which a state that does not settle is looked at
_SETTLED = 1e-8  # of a step: what comes back so close is on a cycle; a slow spiral comes back nearly, each time
_RETURNED = 1e-3  # of a step, at most, where rounding is more than that
_TAIL = 10  # iterations whose mean is the measured contraction


@dataclass(frozen=True)
class FixedPoint(Result):
    """States s* = f(s*, x), one for each sample.

    Attributes
    ----------
    s : ndarray (B, S, n)
        The states; where ``status`` is not "converged", the last ones.
    h, y : ndarray (B, n), (B, p)
        Hidden output of s*, and the readout.
    residual : ndarray (B,)
        ||f(s) - s||, Euclidean.
    iterations : ndarray (B,)
    history : ndarray (K+1, B)
        Residual before each iteration; NaN after the last.
    contraction : ndarray (B,)
        Factor by which an iteration shrank the residual, geometric mean over the last ten at most. Of plain Picard
        iteration an estimate of the spectral radius.
    status : ndarray (B,) of str
        "converged"; "rounding": tol is below what rounding leaves, the residual is as small as it gets; "oscillating":
        on a cycle (its length is in ``cycle``); "diverged": grew or left the finite numbers; "outside": f is not finite
        at the start; "invalid": the start is not finite; "limit", "singular": out of iterations, where I - J is regular
        or singular.
    cycle : ndarray (B,)
        Length of the cycle a sample is on, 0 where none was seen.
    method : str
    tol : float
    """

    DERIVED: ClassVar[tuple[str, ...]] = ("converged",)

    s: NDArray
    h: NDArray
    y: NDArray
    residual: NDArray[np.float64]
    iterations: NDArray[np.int64]
    history: NDArray[np.float64]
    contraction: NDArray[np.float64]
    status: NDArray[np.str_]
    cycle: NDArray[np.int64]
    method: str
    tol: float
    map: Clamped = field(repr=False, metadata={"saved": False})

    @property
    def converged(self) -> NDArray[np.bool_]:
        """Where ``status`` is "converged", (B,)."""
        return self.status == "converged"

    @cached_property
    def step(self) -> Trajectory:
        """One step of f from the states, (2, B, S, n): s and f(s)."""
        return self.map.trajectory(self.s)

    @cached_property
    def traj(self) -> Trajectory:
        """One step at the fixed points, from s* to s*: what Jacobians and gradients are taken of."""
        return at_rest(self.step)

    @cached_property
    def local(self) -> Any:
        """The Jacobians in the form that suits the system, with products, for one step."""
        return local_jacobians(self.traj)

    @cached_property
    def jacobian(self) -> NDArray:
        """J = df/ds at the fixed points, (B, N, N)."""
        return np.array(self.local.dense()[0])

    @cached_property
    def spectral_radius(self) -> NDArray[np.float64]:
        """rho(J), (B,): below 1 the fixed point is stable, and Picard iteration and its adjoint converge nearby.

        Of all eigenvalues for N <= 1000, by Arnoldi iteration above.
        """
        return spectrum.spectral_radius(self.local, self.s.shape)

    @cached_property
    def condition(self) -> NDArray[np.float64]:
        """Condition number of I - J in the 2-norm, (B,); inf where it is singular."""
        return spectrum.condition(self.jacobian)

    def require_converged(self) -> None:
        """Raise ``ConvergenceError`` if a sample is not at a fixed point; it says which and why."""
        bad = np.flatnonzero(~self.converged)
        if bad.size:
            b = int(bad[0])
            raise ConvergenceError(
                f"{bad.size} of {len(self.s)} samples are not at a fixed point: sample {b} is "
                f"{str(self.status[b])!r} with residual {self.residual[b]:.3g} (tol is {self.tol:g}) after "
                f"{int(self.iterations[b])} iterations of {self.method}; {self._advice(b)}"
            )

    def _advice(self, b: int) -> str:
        if self.status[b] == "rounding":
            return f"a tol of {2 * self.residual[b]:.1g} can be met"
        if self.status[b] == "oscillating":
            return f"it is on a cycle of {int(self.cycle[b])} steps; method='newton' finds the fixed point inside"
        if self.status[b] in ("invalid", "outside"):
            return "start it where f is finite"
        return "try method='newton', another s0, or smaller recurrent weights"


def solve_fixed_point(
    net: Any,
    x: Any = None,
    method: Method = "anderson",
    tol: float = 1e-10,
    *,
    s0: Any = None,
    max_iterations: int | None = None,
    window: int = 5,
    damping: float = 1.0,
    backend: str = "auto",
) -> FixedPoint:
    """Solve s* = f(s*, x) with the input x held, for every sample by itself.

    Parameters
    ----------
    net : Network (any cell) or System
    x : array (B, m) or (m,)
        The held input of each sample; None: zero input.
    method : "picard", "anderson", "newton" or "newton_krylov"
        s <- s + damping (f(s) - s); the same mixed over the last ``window`` steps (Anderson 1965; Walker & Ni 2011);
        Newton's method with line search, with a dense Jacobian or (for large n) with GMRES on products with it.
        Picard needs rho(J) < 1 at the fixed point; Anderson often does without; Newton does.
    tol : float
        Largest ||f(s*) - s*|| (Euclidean) that counts as converged.
    s0 : array (B, S, n), (S, n) or (n,)
        Start; zeros by default. A sample that starts at NaN or infinity is "invalid", the others are solved.
    max_iterations : int
        1000, for Newton 100.
    window : int
        Of Anderson mixing, 1 or more.
    damping : float
        In (0, 1]; of Picard and Anderson.

    Returns
    -------
    FixedPoint
        With a status per sample; nothing is raised where one does not converge (``require_converged`` does).

    Raises
    ------
    ValueError
        An argument is out of range or does not fit.

    Notes
    -----
    An iteration of Picard or Anderson costs one step of the network; one of Newton O(N^3) per sample.
    """
    _checks.choice("method", method, METHODS)
    tol = _checks.number("tol", tol, 0.0, open_low=True)
    limit = _LIMITS[method] if max_iterations is None else _checks.integer("max_iterations", max_iterations, 1)
    window = _checks.integer("window", window, 1, 50)
    damping = _checks.number("damping", damping, 0.0, 1.0, open_low=True)
    starts = None if s0 is None else _checks.numbers("s0", s0)
    shared = x is None or _checks.numbers("x", x).ndim == 1  # then the starts say how many samples there are
    B = len(starts) if shared and starts is not None and starts.ndim == 3 else None
    here = clamped(net, x, B, 1, backend)
    if not len(here.x):
        name, value = ("x", x) if B is None else ("s0", s0)
        raise ValueError(f"{name} has shape {np.shape(value)}; it must hold one sample or more")
    s, invalid = start_states(net, starts, len(here.x), "s0")
    if method in ("newton", "newton_krylov"):
        done = newton.solve(here, s, tol, limit, krylov=method == "newton_krylov")
        residuals, iterations, status = done.history, done.iterations, done.status
        s = done.s
    else:
        settings = (tol, limit, window if method == "anderson" else 0, damping, tile_rows(here.net.n))
        residuals, iterations, status = iterate(here, s, settings)
    status[invalid] = "invalid"
    residual = residuals[iterations, np.arange(len(s))]
    status[~np.isfinite(residual) & (iterations == 0) & ~invalid] = "outside"
    last = here.trajectory(s)
    rest = at_rest(last)
    fp = FixedPoint(
        s=s, h=rest.h[0], y=rest.y[0], residual=residual, iterations=iterations, history=residuals,
        contraction=contraction(residuals, iterations), status=status, cycle=cycles(here, s, status, residual),
        method=method, tol=tol, map=here,
    )  # fmt: skip
    fp.__dict__.update(step=last, traj=rest)  # cached, so that nobody takes this step again
    return fp


def at_rest(traj: Trajectory) -> Trajectory:
    """The trajectory of one step from fixed points, as one that ends where it starts."""
    net, states = traj.net, np.repeat(traj.states[:1], 2, axis=0)
    h = hidden(net, states[1:], traj.backend)
    y = readout(net, np.ascontiguousarray(h), traj.backend)
    return dataclasses.replace(traj, states=states, h=h, y=y)


def start_states(net: Any, starts: NDArray | None, B: int, name: str) -> tuple[NDArray, NDArray[np.bool_]]:
    """Start states (B, S, n), and which of them are not finite (those are 0)."""
    if starts is None:
        return np.zeros((B, *net.state_shape), net.dtype), np.zeros(B, np.bool_)
    finite = np.isfinite(starts)
    given = starts if finite.all() else np.where(finite, starts, starts.dtype.type(0))
    s = np.array(initial_state(net, given, B, name), order="C")
    bad = ~(finite.reshape(B, net.N).all(axis=1) if starts.ndim == 3 else np.full(B, finite.all()))
    s[bad] = 0
    return s, bad


def iterate(here: Clamped, s: NDArray, settings: tuple[Any, ...]) -> tuple[NDArray, NDArray, NDArray]:
    """Move s (B, S, n) in place to where the iteration ends: (history (K+1, B), iterations, status)."""
    net, kernels, B = here.net, find_backend(here.backend), len(s)
    residuals, iterations, ends = history_arrays(settings[1], B)
    if isinstance(net, System):
        system = kernels.system_fixed_point(net.map)
        with np.errstate(all="ignore"):
            system(s, residuals, iterations, ends, settings, (here.x, net.params))
    else:
        shapes = ((B, len(gates), net.n) for gates in (net.cell.gates, net.cell.gates2))
        a, a2 = (empty(shape, net.dtype) for shape in shapes)
        drive(net, here.x, a, a2, here.backend)
        kernels.fixed_point(net.cell, net.phi)(
            s, residuals, iterations, ends, settings, a, a2, net.W, net.second_weights, net.unit_constants
        )
    return ended(residuals, iterations), iterations, statuses(ends)


def history_arrays(limit: int, B: int) -> tuple[NDArray, NDArray, NDArray]:
    """Room for the residuals (limit+1, B), iterations (B,) and ends (B,) of an iteration."""
    return empty((limit + 1, B), np.float64), np.zeros(B, np.int64), np.zeros(B, np.int64)


def ended(residuals: NDArray, iterations: NDArray) -> NDArray:
    """The residuals that there are, NaN after each sample's last."""
    kept = residuals[: int(iterations.max(initial=0)) + 1]
    return np.where(np.arange(len(kept))[:, None] <= iterations, kept, np.nan)


def statuses(ends: NDArray) -> NDArray[np.str_]:
    """Why each iteration ended, in words."""
    kernels = find_backend()
    words = {
        kernels.CONVERGED: "converged",
        kernels.LIMIT: "limit",
        kernels.NOT_FINITE: "diverged",
        kernels.STALLED: "rounding",
    }
    return np.array([words[code] for code in range(len(words))], dtype="<U12")[ends]


def contraction(residuals: NDArray, iterations: NDArray) -> NDArray[np.float64]:
    """Mean factor of the last residuals, (B,); NaN without an iteration, or where one of them is 0 or not finite."""
    B = np.arange(residuals.shape[1])
    span = np.minimum(iterations, _TAIL)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(residuals[iterations, B]) - np.log(residuals[iterations - span, B])
        out = np.exp(logs / span)
    out[~np.isfinite(logs) | (span == 0)] = np.nan
    return out


def cycles(here: Clamped, s: NDArray, status: NDArray, residual: NDArray) -> NDArray[np.int64]:
    """Length of the cycle that each unfinished sample is on, 0 for none; their ``status`` becomes "oscillating"."""
    out = np.zeros(len(s), np.int64)
    open_ = np.flatnonzero((status == "limit") & np.isfinite(residual))
    if open_.size:
        traj = Clamped(here.net, here.x, _CYCLES, here.backend).trajectory(s[open_], open_)
        away = np.stack([lengths_of(state - s[open_]) for state in traj.states])
        rounding = 8 * np.finfo(s.dtype).eps * np.maximum(1.0, lengths_of(s[open_]))
        near = away <= np.minimum(_RETURNED * away[1], np.maximum(_SETTLED * away[1], rounding))
        near[:2] = False
        found = near.any(axis=0)
        out[open_[found]] = near.argmax(axis=0)[found]
        status[open_[found]] = "oscillating"
    return out
