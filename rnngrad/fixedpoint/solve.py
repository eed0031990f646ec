"""Solving h* = f(h*, x) with the input held, for every sample of a batch."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import _checks, _cuda
from .._arrays import empty_beside
from .._memory import empty
from ..dynamics.placed import lengths, minus, take_rows
from ..dynamics.rollout import drive, tile_rows
from ..dynamics.system import System
from ..kernels import backend as find_backend
from . import newton
from .arguments import clamped, numbers, start_states
from .maps import Clamped
from .result import DeviceFixedPoint, FixedPoint, at_rest

Method = Literal["picard", "anderson", "newton", "newton_krylov"]
METHODS = ("picard", "anderson", "newton", "newton_krylov")
_LIMITS = {"picard": 1000, "anderson": 1000, "newton": 100, "newton_krylov": 100}
_CYCLES = 16  # periods up to which a state that does not settle is looked at
_SETTLED = 1e-8  # of a step: what comes back so close is on a cycle; a slow spiral comes back nearly, each time
_RETURNED = 1e-3  # of a step, at most, where rounding is more than that
_TAIL = 10  # iterations whose mean is the measured contraction


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
        The held input of each sample; None: zero input. An array on a GPU (CuPy, PyTorch: anything with
        ``__cuda_array_interface__`` or DLPack) stays there, and so do the states.
    method : "picard", "anderson", "newton" or "newton_krylov"
        s <- s + damping (f(s) - s); the same mixed over the last ``window`` steps (Anderson 1965; Walker & Ni 2011);
        Newton's method with line search, with a dense Jacobian or (for large n) with GMRES on products with it.
        Picard needs rho(J) < 1 at the fixed point; Anderson often does without; Newton does.
    tol : float
        Largest ||f(s*) - s*|| (Euclidean) that counts as converged.
    s0 : array (B, S, n), (S, n) or (n,)
        Start; zeros by default. A sample that starts at NaN or infinity is "invalid", the others are solved. On a GPU
        it is (B, S, n), and x goes there too.
    max_iterations : int
        1000, for Newton 100.
    window : int
        Of Anderson mixing, 1 or more.
    damping : float
        In (0, 1]; of Picard and Anderson.

    Returns
    -------
    FixedPoint or DeviceFixedPoint
        With a status per sample; nothing is raised where one does not converge (``require_converged`` does). Of x or s0
        on a GPU the states are device arrays, and residuals, iterations and status are what comes to the host; the
        vectors too that "newton_krylov" gives to SciPy's GMRES, and of "newton" those of samples whose I - J is
        singular.

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
    starts = None if s0 is None else numbers("s0", s0)
    shared = x is None or numbers("x", x).ndim == 1  # then the starts say how many samples there are
    B = starts.shape[0] if shared and starts is not None and starts.ndim == 3 else None
    here = clamped(net, x, B, 1, backend, beside=starts)
    if not here.x.shape[0]:
        name, value = ("x", x) if B is None else ("s0", s0)
        raise ValueError(f"{name} has shape {np.shape(value)}; it must hold one sample or more")
    s, invalid = start_states(here, starts, here.x.shape[0], "s0")
    if method in ("newton", "newton_krylov"):
        done = newton.solve(here, s, tol, limit, krylov=method == "newton_krylov")
        residuals, iterations, status = done.history, done.iterations, done.status
        s = done.s
    else:
        settings = (tol, limit, window if method == "anderson" else 0, damping, tile_rows(here.net.n))
        residuals, iterations, status = iterate(here, s, settings)
    status[invalid] = "invalid"
    residual = residuals[iterations, np.arange(len(status))]
    status[~np.isfinite(residual) & (iterations == 0) & ~invalid] = "outside"
    last = here.trajectory(s)
    rest = at_rest(last)
    on_device = _cuda.is_device_array(s)
    kind = DeviceFixedPoint if on_device else FixedPoint
    fp = kind(
        s=s, h=rest.h[0], y=rest.y[0], residual=residual, iterations=iterations, history=residuals,
        contraction=contraction(residuals, iterations), status=status, cycle=cycles(here, s, status, residual),
        method=method, tol=tol, map=here,
    )  # fmt: skip
    fp.__dict__.update(step=last, traj=rest)  # cached, so that nobody takes this step again
    if on_device:  # whoever reads them in place is told of no stream to wait for
        _cuda.synchronize()
    return fp


def iterate(here: Clamped, s: Any, settings: tuple[Any, ...]) -> tuple[NDArray, NDArray, NDArray]:
    """Move s (B, S, n) in place to where the iteration ends: (history (K+1, B), iterations, status)."""
    net, kernels, B = here.net, find_backend(here.backend), s.shape[0]
    residuals, iterations, ends = history_arrays(settings[1], B)
    if isinstance(net, System):
        system = kernels.system_fixed_point(net.map)
        with np.errstate(all="ignore"):
            system(s, residuals, iterations, ends, settings, (here.x, net.params))
    else:
        shapes = ((B, len(gates), net.n) for gates in (net.cell.gates, net.cell.gates2))
        a, a2 = (empty_beside(s, shape, net.dtype) for shape in shapes)
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


def cycles(here: Clamped, s: Any, status: NDArray, residual: NDArray) -> NDArray[np.int64]:
    """Length of the cycle that each unfinished sample is on, 0 for none; their ``status`` becomes "oscillating"."""
    out = np.zeros(len(status), np.int64)
    open_ = np.flatnonzero((status == "limit") & np.isfinite(residual))
    if open_.size:
        begin = take_rows(s, open_)
        traj = Clamped(here.net, here.x, _CYCLES, here.backend).trajectory(begin, open_)
        away = np.stack([lengths(minus(traj.states[t], begin)) for t in range(_CYCLES + 1)])
        rounding = 8 * np.finfo(s.dtype).eps * np.maximum(1.0, lengths(begin))
        near = away <= np.minimum(_RETURNED * away[1], np.maximum(_SETTLED * away[1], rounding))
        near[:2] = False
        found = near.any(axis=0)
        out[open_[found]] = near.argmax(axis=0)[found]
        status[open_[found]] = "oscillating"
    return out
