"""What the second partials of a cell add to the adjoints of its tangent: the R-operator, unit by unit."""

import functools

import numpy as np

from ..._dual import STEP, dual
from ..._jit import inner, kernel
from ..tuples import PUT, TAKE


@inner(forced=True)
def _lift(out, value, change):
    """out[p, n] = value + STEP change, as dual numbers."""
    for p in range(out.shape[0]):
        for i in range(out.shape[1]):
            out[p, i] = complex(value[p, i], STEP * change[p, i])


@inner(forced=True)
def _add(out, rows, first):
    """out[p, n] += the change that rows[first + p, n] carry."""
    for p in range(out.shape[0]):
        for i in range(out.shape[1]):
            out[p, i] += rows[first + p, i].imag / STEP


@functools.cache
def curvature(cell, phi):
    """Kernel ``run(ds, da, da2, moved, charged, point, adjoints, lengths, consts)``.

    With g = dL/ds_{t+1}, dq, de the adjoints at step t and R the derivative along a direction, it adds to
    ds[T+1, R, S, n], da[T, R, P, n], da2[T, R, P2, n] what R{g . ds'/d(s, a, a2)} holds beside (Rg) . ds'/d(s, a, a2),
    and all of R{dq . dq/d(s, a)}, R{de . de/ds} and R{gh . dh/ds} for what is charged to q, e and h directly.

    moved = (Rs[T+1, R, S, n], Ra, Ra2); charged = (Rgh, Rdq, Rde)[T, R, n], the latter two without what comes by way
    of the adjoints; point = (states, a, a2) and adjoints = (gs, gh, dq, de) have the batch B for R, row r is of sample
    r % B. Arrays that the cell has no use for are not read. All are float64.
    """
    unit = cell.module
    S, P, P2, K = cell.n_states, len(cell.gates), len(cell.gates2), len(cell.constants)
    take_s, take_a, take_a2, take_k = TAKE[S], TAKE[P], TAKE[P2], TAKE[K]
    put_s, put_a, put_a2 = PUT[S], PUT[P], PUT[P2]
    update_vjp = dual(unit.update_vjp)
    emits_state, two_stage, outputs_state = cell.emits_state, cell.two_stage, cell.outputs_state
    emit_vjp = None if emits_state else dual(unit.emit_vjp)
    inner_vjp = dual(unit.inner_vjp) if two_stage else None
    output_vjp = None if outputs_state else dual(unit.output_vjp)

    @kernel(
        "curvature",
        cell.name,
        phi,
        cached=cell.built_in,
        tasks=lambda ds, *rest: len(ds),
        work=lambda ds, da, *rest: 20 * (ds.size + da.size),
    )
    def run(start, stop, ds, da, da2, moved, charged, point, adjoints, lengths, consts):
        Rs, Ra, Ra2 = moved
        Rgh, Rdq, Rde = charged
        states, a, a2 = point
        gs, gh, dq, de = adjoints
        steps, rows, _, n = ds.shape
        B = states.shape[1]
        still = np.zeros((max(S, K), n))
        s_row = np.empty((S, n), np.complex128)
        a_row = np.empty((P, n), np.complex128)
        a2_row = np.empty((P2, n), np.complex128)
        k_row = np.empty((K, n), np.complex128)
        g_row = np.empty((S, n), np.complex128)
        one = np.empty((1, n), np.complex128)
        out = np.empty((S + P + P2, n), np.complex128)
        for t in range(start, stop):
            for r in range(rows):
                b = r % B
                _lift(s_row, states[t, b], Rs[t, r])
                if not outputs_state and t > 0:
                    k = consts[min(t - 1, consts.shape[0] - 1), min(b, consts.shape[1] - 1)]
                    _lift(k_row, k, still)
                    _lift(one, gh[t - 1, b : b + 1], Rgh[t - 1, r : r + 1])
                    for i in range(n):
                        put_s(out, 0, i, output_vjp(phi, take_s(s_row, i), take_k(k_row, i), one[0, i]))
                    _add(ds[t, r], out, 0)
                if t >= lengths[b]:
                    continue
                k = consts[min(t, consts.shape[0] - 1), min(b, consts.shape[1] - 1)]
                _lift(k_row, k, still)
                _lift(a_row, a[t, b], Ra[t, r])
                _lift(a2_row, a2[t, b], Ra2[t, r])
                _lift(g_row, gs[t + 1, b], still)
                for i in range(n):
                    d = update_vjp(
                        phi, take_s(s_row, i), take_a(a_row, i), take_a2(a2_row, i), take_k(k_row, i), take_s(g_row, i)
                    )
                    put_s(out, 0, i, d[0])
                    put_a(out, S, i, d[1])
                    put_a2(out, S + P, i, d[2])
                _add(ds[t, r], out, 0)
                _add(da[t, r], out, S)
                _add(da2[t, r], out, S + P)
                if two_stage:
                    _lift(one, dq[t, b : b + 1], Rdq[t, r : r + 1])
                    for i in range(n):
                        d2 = inner_vjp(phi, take_s(s_row, i), take_a(a_row, i), take_k(k_row, i), one[0, i])
                        put_s(out, 0, i, d2[0])
                        put_a(out, S, i, d2[1])
                    _add(ds[t, r], out, 0)
                    _add(da[t, r], out, S)
                if not emits_state:
                    _lift(one, de[t, b : b + 1], Rde[t, r : r + 1])
                    for i in range(n):
                        put_s(out, 0, i, emit_vjp(phi, take_s(s_row, i), take_k(k_row, i), one[0, i]))
                    _add(ds[t, r], out, 0)

    return run
