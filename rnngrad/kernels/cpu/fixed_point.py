"""Iterations s <- g(s) of many samples at once, plain or accelerated: forward to a fixed point, and its adjoint.

The iteration knows nothing of what it iterates: ``_make`` takes the map as two loop nests, ``room(like, system)`` for
its scratch and ``apply(pair, first, scratch, system)`` for pair[1, r] = g(pair[0, r]) of the samples first + r.
"""

import functools

import numpy as np

from ..._gemm import pack
from ..._jit import MULTIPLY_ADDS, inner, kernel
from ..iteration import DEPENDENT, PATIENCE, ROUNDING, ending, mixture
from ..tuples import copy_rows
from .rollout import step
from .steps import ADJOINT, TANGENT, prepared
from .sums import dot, square_distance
from .system import written


@inner()
def _mix(s, r, past, gram, factors, gamma, k, damping):
    """s += damping r - sum_i gamma_i (steps_i + damping changes_i) over the last steps, for one sample.

    r is the residual of iteration k, past = (s and r of the iteration before, steps, changes) and gram what the window
    holds; all are brought up to date. factors and gamma are scratch.
    """
    last_s, last_r, steps, changes = past
    N, window = s.size, len(steps)
    eps = 1.1920929e-07 if s.itemsize == 4 else 2.220446049250313e-16
    beta, kept = s.dtype.type(damping), min(k, window)
    if k > 0:
        new = (k - 1) % window
        for i in range(N):
            steps[new, i] = s[i] - last_s[i]
            changes[new, i] = r[i] - last_r[i]
        for j in range(kept):
            value = dot(changes[new], changes[j])
            gram[new, j] = value
            gram[j, new] = value
    for j in range(kept):
        gamma[j] = dot(changes[(k - 1 - j) % window], r)
    used = mixture(gram, factors, gamma, k, window, kept, DEPENDENT * eps)
    for i in range(N):
        last_s[i], last_r[i] = s[i], r[i]
        s[i] += beta * r[i]
    for j in range(used):
        a, g = (k - 1 - j) % window, s.dtype.type(gamma[j])
        for i in range(N):
            s[i] -= g * (steps[a, i] + beta * changes[a, i])


def _make(name, key, cached, room, apply, cost):
    """Kernel ``run(s, residuals, iterations, ends, settings, system)`` of one map; s[B, S, n] is moved in place.

    settings = (tol, limit, window, damping, tile): stop where |g(s) - s| <= tol, or after ``limit`` iterations; mix the
    last ``window`` steps (0: none); ``tile`` samples iterate together. residuals[k, b] = |g(s_k) - s_k| for
    k <= iterations[b]; ends[b] says why it ended. What s holds at the end is the state whose residual comes last.
    """

    @inner(name, *key, cached=cached)
    def iterate_tile(pair, b0, past, small, scratch, s, record, settings, system):
        # until the last sample of the tile has ended. A kernel counts every view of what it made itself, so the
        # loops over its scratch are here, where all is borrowed
        tol, limit, window, damping, _ = settings
        residuals, iterations, ends = record
        last_s, last_r, steps, changes = past
        gram, factors, gamma, best, since, live = small
        rows, N = pair.shape[1], last_s.shape[1]
        eps = 1.1920929e-07 if s.itemsize == 4 else 2.220446049250313e-16
        near, most = ROUNDING * eps * np.sqrt(N), 1 / (eps * eps)
        whole, states, beta = s.reshape(len(s), N), pair.reshape(2, rows, N), s.dtype.type(damping)
        best[:rows] = np.inf
        since[:rows] = 0
        live[:rows] = True
        left = rows
        for b in range(rows):
            for i in range(N):
                states[0, b, i] = whole[b0 + b, i]
        k = 0
        while left > 0:
            apply(pair, b0, scratch, system)
            for b in range(rows):
                if not live[b]:
                    continue
                own, moved = states[0, b], states[1, b]
                size = np.sqrt(square_distance(moved, own))
                residuals[k, b0 + b] = size
                since[b] = 0 if size < best[b] else since[b] + 1
                length = np.sqrt(dot(own, own)) if since[b] >= PATIENCE else 0.0
                end = ending(size, residuals[0, b0 + b], since[b], length, tol, near, most, k, limit)
                best[b] = min(best[b], size)
                if end >= 0:
                    ends[b0 + b] = end
                    iterations[b0 + b] = k
                    live[b] = False
                    left -= 1
                    for i in range(N):
                        whole[b0 + b, i] = own[i]
                elif window == 0:
                    for i in range(N):
                        own[i] += beta * (moved[i] - own[i])
                else:
                    for i in range(N):
                        moved[i] -= own[i]
                    _mix(own, moved, (last_s[b], last_r[b], steps[b], changes[b]), gram[b], factors, gamma, k, damping)
            k += 1

    @kernel(
        name,
        *key,
        cached=cached,
        tasks=lambda s, residuals, iterations, ends, settings, *rest: -(-len(s) // settings[4]),
        work=lambda s, *rest: 30 * s.size * (8 + cost(s) / MULTIPLY_ADDS),
    )
    def run(start, stop, s, residuals, iterations, ends, settings, system):
        window, tile = settings[2], settings[4]
        B, S, n = s.shape
        row, many, dtype = (tile, S * n), (tile, window, S * n), s.dtype
        past = np.empty(row, dtype), np.empty(row, dtype), np.empty(many, dtype), np.empty(many, dtype)
        mixing = np.empty((tile, window, window)), np.empty((window, window)), np.empty(window)
        small = (*mixing, np.empty(tile), np.empty(tile, np.int64), np.empty(tile, np.bool_))
        for task in range(start, stop):
            b0 = task * tile
            rows = min(B, b0 + tile) - b0
            scratch = room(s[b0 : b0 + rows], system)
            pair = np.empty((2, rows, S, n), dtype)
            iterate_tile(pair, b0, past, small, scratch, s, (residuals, iterations, ends), settings, system)

    return run


@functools.cache
def fixed_point(cell, phi):
    """Kernel ``launch(s, residuals, iterations, ends, settings, drive, drive2, W, W2, consts)`` of a cell; see _make.

    drive[B, P, n], drive2[B, P2, n] are U x + b.
    """
    one_step = step(cell, phi)
    P, P2 = len(cell.gates), len(cell.gates2)
    E, Q = 0 if cell.emits_state else 1, 1 if cell.two_stage else 0

    @inner(cell.name, phi, forced=True)
    def room(like, system):
        rows, _, n = like.shape
        dtype = like.dtype
        return (
            np.empty((1, rows, P, n), dtype),
            np.empty((1, rows, P2, n), dtype),
            np.empty((E, rows, n), dtype),
            np.empty((Q, rows, n), dtype),
            np.full(rows, 1),
        )

    @inner(cell.name, phi, forced=True)
    def apply(pair, first, scratch, system):
        drive, drive2, weights, consts = system
        a, a2, e, q, lengths = scratch
        rows = pair.shape[1]
        for r in range(rows):
            copy_rows(a[0, r], drive[first + r], 0)
            copy_rows(a2[0, r], drive2[first + r], 0)
        one_step(pair, a, a2, e, q, weights, consts[0], 0, lengths, 0, rows)

    products = cell.recurrent + P2
    run = _make("fixed_point", (cell.name, phi), cell.built_in, room, apply, lambda s: products * s.shape[2])

    def launch(s, residuals, iterations, ends, settings, drive, drive2, W, W2, consts):
        weights = pack(W, transposed=True), pack(W2, transposed=True)
        run(s, residuals, iterations, ends, settings, (drive, drive2, weights, consts))

    return launch


@functools.cache
def system_fixed_point(user):
    """Kernel ``run(s, residuals, iterations, ends, settings, (x, params))`` of a user's function; see _make."""
    call = written(user)

    @inner(forced=True)
    def room(like, system):
        return np.empty(like.shape[2], like.dtype)

    @inner(forced=True)
    def apply(pair, first, scratch, system):
        x, params = system
        for r in range(pair.shape[1]):
            for i in range(pair.shape[3]):
                scratch[i] = pair[0, r, 0, i]
            call(pair[1, r, 0], scratch, x[first + r], params)

    return _make("system_fixed_point", (), False, room, apply, lambda s: s.shape[2])


@inner(forced=True)
def _add(new, g):
    for r in range(new.shape[0]):
        for p in range(new.shape[1]):
            for i in range(new.shape[2]):
                new[r, p, i] += g[r, p, i]


@functools.cache
def _linear(form, forward):
    """Kernel of y <- y J + g, or of y <- J y + g, system = (Jacobians of one step, g, sample)."""
    step, step_room = (TANGENT if forward else ADJOINT)[form]
    one_by_one = form == "dense"  # whose step is of one sample

    @inner(form, forward, forced=True)
    def room(like, system):
        return step_room(system[0], like)

    @inner(form, forward, forced=True)
    def apply(pair, first, scratch, system):
        jacobians, g, sample = system
        y, new = pair[0], pair[1]
        if one_by_one:
            for r in range(y.shape[0]):
                at = first + r
                step(jacobians, scratch, y[r : r + 1], new[r : r + 1], sample[at : at + 1], 0)
        else:
            step(jacobians, scratch, y, new, sample[first : first + y.shape[0]], 0)
        _add(new, g[first : first + y.shape[0]])

    name = "tangent_fixed_point" if forward else "adjoint_fixed_point"
    return _make(name, (form,), True, room, apply, lambda s: s.shape[2])


def _iterate(forward, y, residuals, iterations, ends, settings, g, sample, system):
    form, jacobians = prepared(forward, system)
    _linear(form, forward)(y, residuals, iterations, ends, settings, (jacobians, g, sample))


def adjoint_fixed_point(z, residuals, iterations, ends, settings, g, sample, system):
    """The iteration z <- z J + g of rows z, g[R, S, n], each with the factored Jacobian of sample[r]; see _make."""
    _iterate(False, z, residuals, iterations, ends, settings, g, sample, system)


def tangent_fixed_point(d, residuals, iterations, ends, settings, r, sample, system):
    """The iteration d <- J d + r of columns d, r[R, S, n]; the rest as for ``adjoint_fixed_point``."""
    _iterate(True, d, residuals, iterations, ends, settings, r, sample, system)


def dense_adjoint_fixed_point(z, residuals, iterations, ends, settings, g, sample, J):
    """The iteration z <- z J + g for dense Jacobians J[1, B, N, N]."""
    _linear("dense", False)(z, residuals, iterations, ends, settings, ((J,), g, sample))


def dense_tangent_fixed_point(d, residuals, iterations, ends, settings, r, sample, J):
    """The iteration d <- J d + r for dense Jacobians J[1, B, N, N]."""
    _linear("dense", True)(d, residuals, iterations, ends, settings, ((J,), r, sample))
