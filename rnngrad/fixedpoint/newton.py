"""Damped Newton for s = f(s), batched: line search on ||f(s) - s||, and two ways on where the residual cannot shrink.

``descend``: Levenberg-Marquardt steps to a local minimum of the residual (or out of trouble); ``jump``: the Newton step
is taken all the same, no longer than the state, which leaves such minima.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, gmres

from .._arrays import copied, on_host, placed_beside
from .._blas import one_blas_thread
from ..dynamics.placed import add_rows, lengths, put_rows, take_rows
from .maps import Clamped, residuals
from .spectrum import products

_HALVINGS = 4  # of a Newton step before it is given up
_ENOUGH = 1e-4  # share of the predicted decrease that a step must bring (Armijo)
_FLAT, _NEARLY_FLAT = 1e-8, 1e-5  # |A^T r| / (|A| |r|) below which |r| is at a minimum; the same where no step helps
_STUCK = 1e8  # damping from which on a step changes nothing
_FIRST_DAMPING = 1e-3
_ROUNDING = 32  # times eps sqrt(N) max(1, |s|): no residual need become smaller than that
_FORCING = 1e-10  # relative residual of the linear systems of Newton-Krylov


@dataclass
class Outcome:
    """Where each start (R) came to: state (R, S, n), residuals (K+1, R), iterations, status."""

    s: Any
    history: NDArray[np.float64]
    iterations: NDArray[np.int64]
    status: NDArray[np.str_]


def solve(
    here: Clamped,
    s: Any,
    tol: float,
    limit: int,
    *,
    otherwise: Literal["stop", "descend", "jump"] = "jump",
    krylov: bool = False,
) -> Outcome:
    """Newton from every s (R, S, n), each by itself, halving a step until the residual shrinks.

    ``otherwise``: what a start does whose residual does not shrink along the Newton direction, or that has none.
    ``krylov``: directions by GMRES on products with J. Of states on a GPU only their residuals come to the host, and
    for what SciPy and LAPACK do there (GMRES; starts that are stuck) vectors and matrices.
    """
    R = s.shape[0]
    s = copied(s)
    iterations, status = np.zeros(R, np.int64), np.full(R, "limit", dtype="<U12")
    mu, since = np.zeros(R), np.zeros(R)  # damping, 0 for Newton; and the residual where it was taken up
    size = here.size(s)
    history = [size.copy()]
    status[~np.isfinite(size)] = "diverged"
    live = np.flatnonzero(np.isfinite(size))
    for k in range(limit + 1):
        live = _settle(live, size[live] <= tol, status, "converged")
        if not live.size or k == limit:
            break
        traj = here.trajectory(take_rows(s, live), live)
        r = residuals(traj)
        local = here.jacobians(traj)
        iterations[live] += 1
        d, regular = _krylov_directions(local, r) if krylov else local.newton(r)
        status[live] = np.where(regular, "limit", "singular")
        moved = np.zeros(len(live), np.bool_)
        newton = np.flatnonzero((mu[live] == 0) & regular)
        moved[newton] = _search(here, s, size, live[newton], d, newton)
        row = np.full(R, np.nan)
        stuck = np.flatnonzero(~moved)
        if stuck.size:
            own = live[stuck]
            least = size[own] <= _rounding(s, own)
            if otherwise != "jump" and least.any():  # as small a residual at its minimum is a slow point all the same
                least[least] = _slopes(_matrices(local, stuck[least]), _taken(r, stuck[least])) > _NEARLY_FLAT
            row[own] = size[own]
            if otherwise == "stop":
                _settle(live, ~moved, status, "stuck")
            elif otherwise == "descend":
                flat = _levenberg(here, s, size, mu, since, own, _taken(r, stuck), _matrices(local, stuck))
                status[own[flat <= _FLAT]] = "slow"
                still = (mu[own] > _STUCK) & (flat > _FLAT)
                nearly = _NEARLY_FLAT + _rounding(s, own) / row[own]  # the slope is known no better
                status[own[still]] = np.where(flat <= nearly, "slow", "stuck")[still]
            else:
                none = stuck[~regular[stuck]]
                if none.size:
                    damped = _damped(_matrices(local, none), _taken(r, none), np.full(len(none), _FIRST_DAMPING))[0]
                    put_rows(d, none, placed_beside(d, damped))
                _jump(here, s, size, own[~least], d, stuck[~least])
                status[own[~np.isfinite(size[own])]] = "diverged"
            status[own[least]] = "rounding"
            live = live[np.isin(status[live], ("limit", "singular"))]
        row[live] = size[live]
        history.append(row)
    return Outcome(s, np.stack(history), iterations, status)


def _taken(values: Any, rows: NDArray) -> NDArray:
    """values[rows] on the host."""
    return on_host(take_rows(values, rows))


def _rounding(s: Any, rows: NDArray) -> NDArray[np.float64]:
    """What rounding leaves of the residual at each of s[rows] (R, S, n)."""
    of_one = _ROUNDING * np.finfo(s.dtype).eps * np.sqrt(np.prod(s.shape[1:]))
    return of_one * np.maximum(1.0, lengths(take_rows(s, rows)))


def _settle(live: NDArray, done: NDArray, status: NDArray, word: str) -> NDArray:
    """Those that are left after some are done."""
    status[live[done]] = word
    return live[~done]


def _search(here: Clamped, s: Any, size: NDArray, rows: NDArray, d: Any, of: NDArray) -> NDArray[np.bool_]:
    """Move s[rows] along d[of], halved until the residual shrinks enough; where that was so."""
    moved = np.zeros(len(rows), np.bool_)
    at, share = np.arange(len(rows)), 1.0
    for _ in range(_HALVINGS + 1):
        if not at.size:
            break
        trial = take_rows(s, rows[at])
        add_rows(trial, np.arange(len(at)), d, of[at], factors=share)
        new = here.size(trial, rows[at])
        good = new <= (1 - _ENOUGH * share) * size[rows[at]]
        put_rows(s, rows[at[good]], trial, np.flatnonzero(good))
        size[rows[at[good]]] = new[good]
        moved[at[good]] = True
        at, share = at[~good], share / 2
    return moved


def _jump(here: Clamped, s: Any, size: NDArray, rows: NDArray, d: Any, of: NDArray) -> None:
    """Move s[rows] by d[of], at most as far as max(1, |s|)."""
    if not rows.size:
        return
    longest = np.maximum(1.0, lengths(take_rows(s, rows)))
    length = lengths(take_rows(d, of))
    share = np.divide(longest, length, out=np.ones_like(length), where=length > longest)
    add_rows(s, rows, d, of, factors=share)
    size[rows] = here.size(take_rows(s, rows), rows)


def _matrices(local: Any, rows: NDArray) -> NDArray[np.float64]:
    """I - J (R, N, N) of some samples, on the host."""
    J = local.dense()
    J = _taken(J.reshape(J.shape[1:]), rows).astype(np.float64)
    return np.eye(J.shape[1]) - J


def _damped(A: NDArray, r: NDArray, mu: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """d with (A^T A + mu |A|^2) d = A^T r; and A^T r and |A| (Frobenius)."""
    flat = r.reshape(len(r), -1).astype(np.float64)
    with one_blas_thread():
        down = np.einsum("rji,rj->ri", A, flat)
        square = np.einsum("rij,rij->r", A, A)
        shift = mu * np.where(square > 0, square, 1.0)
        normal = A.swapaxes(1, 2) @ A + shift[:, None, None] * np.eye(A.shape[1])
        d = np.linalg.solve(normal, down[..., None])[..., 0].reshape(r.shape).astype(r.dtype)
    return d, down, np.sqrt(square)


def _slopes(A: NDArray, r: NDArray) -> NDArray[np.float64]:
    """|A^T r| / ((1 + |A|) |r|), 0 at a minimum of |r|."""
    down = np.einsum("rji,rj->ri", A, r.reshape(len(r), -1).astype(np.float64))
    return lengths(down) / ((1 + lengths(A)) * lengths(r))


def _levenberg(
    here: Clamped, s: Any, size: NDArray, mu: NDArray, since: NDArray, rows: NDArray, r: NDArray, A: NDArray
) -> NDArray[np.float64]:
    """One Levenberg-Marquardt step of s[rows] where it helps; |A^T r| / ((1 + |A|) |r|) before it, 0 at a minimum.

    The damping falls by 3 after a step that helped and rises by 4 after one that did not (Marquardt 1963); the start is
    Newton's again when the residual has halved. ``r`` and ``A`` are on the host.
    """
    begins = rows[mu[rows] == 0]
    mu[begins], since[begins] = _FIRST_DAMPING, size[begins]
    d, down, norm = _damped(A, r, mu[rows])
    trial = take_rows(s, rows)
    add_rows(trial, np.arange(len(rows)), placed_beside(trial, d))
    new = here.size(trial, rows)
    slope = lengths(down) / ((1 + norm) * size[rows])
    good = new < size[rows]
    taken = rows[good]
    put_rows(s, taken, trial, np.flatnonzero(good))
    size[taken] = new[good]
    mu[rows] = np.where(good, np.maximum(mu[rows] / 3, 1e-15), mu[rows] * 4)
    mu[taken[size[taken] <= since[taken] / 2]] = 0
    return slope


def _krylov_directions(local: Any, r: Any) -> tuple[Any, NDArray[np.bool_]]:
    """(I - J)^-1 r by GMRES on the host, and where it converged."""
    given = on_host(r)
    N = given[0].size
    d, regular = np.empty_like(given), np.ones(len(given), np.bool_)
    for b in range(len(given)):
        J = products(local, given.shape, b)
        A = LinearOperator((N, N), matvec=lambda v, J=J: v - J @ v, dtype=np.float64)
        found, failed = gmres(A, given[b].ravel().astype(np.float64), rtol=_FORCING, atol=0.0, restart=min(N, 60))
        d[b], regular[b] = found.reshape(given[b].shape), not failed
    return placed_beside(r, d), regular
