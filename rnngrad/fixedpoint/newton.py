"""Damped Newton for s = f(s), batched: line search on ||f(s) - s||, and Levenberg-Marquardt where I - J is bad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, gmres

from .._blas import one_blas_thread
from .maps import Clamped, lengths_of
from .spectrum import products

_HALVINGS = 6  # of a Newton step before it is given up
_ENOUGH = 1e-4  # share of the predicted decrease that a step must bring (Armijo)
_FLAT = 1e-7  # cosine between the residual and the columns of I - J below which it is a local minimum of its length
_ROUNDING = 1e4  # times eps: no residual need become smaller than that
_FORCING = 1e-10  # relative residual of the linear systems of Newton-Krylov


@dataclass
class Outcome:
    """Where each start (R) came to: state (R, S, n), residuals (K+1, R), iterations, status.

    Status "slow": a local minimum of ||f(s) - s|| that is no fixed point.
    """

    s: NDArray
    history: NDArray[np.float64]
    iterations: NDArray[np.int64]
    status: NDArray[np.str_]


def solve(here: Clamped, s: NDArray, tol: float, limit: int, *, krylov: bool = False) -> Outcome:
    """Newton from every s (R, S, n), each by itself; ``krylov``: directions by GMRES on products with J.

    A Newton step is halved until the residual shrinks. Where I - J is singular or no halving helps, Levenberg-Marquardt
    steps (A^T A + mu |A|^2) d = A^T r, A = I - J, take over until the residual has halved (Marquardt 1963).
    """
    R, eps = len(s), np.finfo(s.dtype).eps
    s = np.array(s, order="C")
    iterations, status = np.zeros(R, np.int64), np.full(R, "limit", dtype="<U12")
    mu, since = np.zeros(R), np.zeros(R)  # damping, 0 for Newton; and the residual where it was taken up
    size = lengths_of(here.image(s) - s)
    history = [size.copy()]
    status[~np.isfinite(size)] = "diverged"
    live = np.flatnonzero(np.isfinite(size))
    for k in range(limit + 1):
        done = size[live] <= tol
        status[live[done]] = "converged"
        live = live[~done]
        if not live.size or k == limit:
            break
        iterations[live] += 1
        traj = here.trajectory(s[live], live)
        r = traj.states[-1] - s[live]
        local = here.jacobians(traj)
        fresh = mu[live] == 0
        d, regular = _krylov_directions(local, r) if krylov else local.newton(r)
        moved = np.zeros(len(live), np.bool_)
        newton = np.flatnonzero(fresh & regular)
        moved[newton] = _search(here, s, size, live[newton], d[newton])
        stuck = np.flatnonzero(~moved)
        if stuck.size:
            ended = _levenberg(here, s, size, mu, since, live[stuck], r[stuck], _rows(local, stuck))
            small = size[live[stuck]] <= _ROUNDING * eps * np.maximum(1.0, lengths_of(s[live[stuck]]))
            status[live[stuck[ended & small]]] = "rounding"
            status[live[stuck[ended & ~small]]] = "slow"
            live = np.setdiff1d(live, live[stuck[ended]])
        row = np.full(R, np.nan)
        row[live] = size[live]
        at_end = iterations == k + 1
        row[at_end] = size[at_end]
        history.append(row)
    status[(status == "limit") & (mu > 0)] = "singular"
    return Outcome(s, np.stack(history), iterations, status)


def _search(here: Clamped, s: NDArray, size: NDArray, rows: NDArray, d: NDArray) -> NDArray[np.bool_]:
    """Move s[rows] along d, halved until the residual shrinks enough; where that was so."""
    moved = np.zeros(len(rows), np.bool_)
    at, share = np.arange(len(rows)), 1.0
    for _ in range(_HALVINGS + 1):
        if not at.size:
            break
        trial = s[rows[at]] + s.dtype.type(share) * d[at]
        new = lengths_of(here.image(trial, rows[at]) - trial)
        good = new <= (1 - _ENOUGH * share) * size[rows[at]]
        taken = rows[at[good]]
        s[taken], size[taken] = trial[good], new[good]
        moved[at[good]] = True
        at, share = at[~good], share / 2
    return moved


def _rows(local: Any, rows: NDArray) -> NDArray:
    """I - J (R, N, N) of some samples, in float64."""
    J = local.dense()[0][rows].astype(np.float64)
    return np.eye(J.shape[1]) - J


def _levenberg(
    here: Clamped, s: NDArray, size: NDArray, mu: NDArray, since: NDArray, rows: NDArray, r: NDArray, A: NDArray
) -> NDArray[np.bool_]:
    """One Levenberg-Marquardt step of s[rows]; where the residual is at a local minimum of its length instead."""
    flat = r.reshape(len(rows), -1).astype(np.float64)
    begins = mu[rows] == 0
    mu[rows[begins]], since[rows[begins]] = 1e-3, size[rows[begins]]
    with one_blas_thread():
        down = np.einsum("rji,rj->ri", A, flat)
        scale = np.einsum("rij,rij->r", A, A)
        ended = lengths_of(down) <= _FLAT * np.sqrt(scale) * size[rows]
        shift = mu[rows] * np.where(scale > 0, scale, 1.0)
        normal = np.einsum("rji,rjk->rik", A, A) + shift[:, None, None] * np.eye(A.shape[1])
        d = np.linalg.solve(normal, down[..., None])[..., 0].reshape(r.shape).astype(s.dtype)
    trial = s[rows] + d
    new = lengths_of(here.image(trial, rows) - trial)
    good = (new < size[rows]) & ~ended
    taken = rows[good]
    s[taken], size[taken] = trial[good], new[good]
    mu[rows] = np.where(good, np.maximum(mu[rows] / 3, 1e-15), mu[rows] * 4)
    ended |= mu[rows] > 1e8  # no step, however small, makes it shorter
    mu[taken[size[taken] <= since[taken] / 2]] = 0
    return ended


def _krylov_directions(local: Any, r: NDArray) -> tuple[NDArray, NDArray[np.bool_]]:
    """(I - J)^-1 r by GMRES, and where it converged."""
    N = r[0].size
    d, regular = np.empty_like(r), np.ones(len(r), np.bool_)
    for b in range(len(r)):
        J = products(local, r.shape, b)
        A = LinearOperator((N, N), matvec=lambda v, J=J: v - J @ v, dtype=np.float64)
        found, failed = gmres(A, r[b].ravel().astype(np.float64), rtol=_FORCING, atol=0.0, restart=min(N, 60))
        d[b], regular[b] = found.reshape(r[b].shape), not failed
    return d, regular
