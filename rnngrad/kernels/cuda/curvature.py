"""What the second partials of a cell add to the adjoints of its tangent: a thread for a unit of a row at one step.

The units run over dual numbers, as on the CPU; everything is float64.
"""

import functools

import numba

from ... import _cuda
from ..._dual import STEP, dual
from ..tuples import PUT, TAKE
from . import pieces

cuda = _cuda.load()


@functools.cache
def lift(count):
    """Device function ``run(out, value, change, i)``: the dual numbers out[:count, 0] = (value + STEP change)[:, i]."""

    @_cuda.function
    def run(out, value, change, i):
        for p in range(count):
            out[p, 0] = complex(value[p, i], STEP * change[p, i])

    return run


@functools.cache
def still(count):
    """Device function ``run(out, value, i)``: the dual numbers out[:count, 0] = value[:, i], which do not change."""

    @_cuda.function
    def run(out, value, i):
        for p in range(count):
            out[p, 0] = complex(value[p, i], 0.0)

    return run


@functools.cache
def make(cell, phi):
    """Kernel ``run(ds, da, da2, Rs, …, consts, t0)``: all but what is charged to h, of steps t0, t0 + 1, …"""
    unit = cell.module
    S, P, P2, K = cell.n_states, len(cell.gates), len(cell.gates2), len(cell.constants)
    take_s, take_a, take_a2, take_k = TAKE[S], TAKE[P], TAKE[P2], TAKE[K]
    put_s, put_a, put_a2 = PUT[S], PUT[P], PUT[P2]
    lift_s, lift_a, lift_a2, still_s, still_k = lift(S), lift(P), lift(P2), still(S), still(K)
    update_vjp = dual(unit.update_vjp)
    emits_state, two_stage = cell.emits_state, cell.two_stage
    emit_vjp = None if emits_state else dual(unit.emit_vjp)
    inner_vjp = dual(unit.inner_vjp) if two_stage else None
    rows_a, rows_a2, rows_k = max(P, 1), max(P2, 1), max(K, 1)  # no array has no rows

    @_cuda.Kernel
    def run(ds, da, da2, Rs, Ra, Ra2, Rdq, Rde, states, a, a2, gs, dq, de, lengths, consts, t0):
        # ds, Rs[T, R, S, n]  da, Ra[T, R, P, n]  da2, Ra2[T, R, P2, n]  Rdq, Rde[T, R, n], and B for R in the others;
        # gs[t] is that of the state after the step
        steps, R, n, B = ds.shape[0], ds.shape[1], ds.shape[3], states.shape[1]
        s = cuda.local.array((S, 1), numba.complex128)
        x = cuda.local.array((rows_a, 1), numba.complex128)
        x2 = cuda.local.array((rows_a2, 1), numba.complex128)
        k = cuda.local.array((rows_k, 1), numba.complex128)
        g = cuda.local.array((S, 1), numba.complex128)
        out_s = cuda.local.array((S, 1), numba.complex128)
        out_a = cuda.local.array((rows_a, 1), numba.complex128)
        out_a2 = cuda.local.array((rows_a2, 1), numba.complex128)
        for item in range(cuda.grid(1), steps * R * n, cuda.gridsize(1)):
            t, r, i = item // (R * n), item // n % R, item % n
            b = r % B
            if t0 + t >= lengths[b]:
                continue
            lift_s(s, states[t, b], Rs[t, r], i)
            lift_a(x, a[t, b], Ra[t, r], i)
            lift_a2(x2, a2[t, b], Ra2[t, r], i)
            still_s(g, gs[t, b], i)
            still_k(k, consts[min(t, consts.shape[0] - 1), min(b, consts.shape[1] - 1)], i)
            d = update_vjp(phi, take_s(s, 0), take_a(x, 0), take_a2(x2, 0), take_k(k, 0), take_s(g, 0))
            put_s(out_s, 0, 0, d[0])
            put_a(out_a, 0, 0, d[1])
            put_a2(out_a2, 0, 0, d[2])
            for p in range(S):
                ds[t, r, p, i] += out_s[p, 0].imag / STEP
            for p in range(P):
                da[t, r, p, i] += out_a[p, 0].imag / STEP
            for p in range(P2):
                da2[t, r, p, i] += out_a2[p, 0].imag / STEP
            if two_stage:
                charge = complex(dq[t, b, i], STEP * Rdq[t, r, i])
                d2 = inner_vjp(phi, take_s(s, 0), take_a(x, 0), take_k(k, 0), charge)
                put_s(out_s, 0, 0, d2[0])
                put_a(out_a, 0, 0, d2[1])
                for p in range(S):
                    ds[t, r, p, i] += out_s[p, 0].imag / STEP
                for p in range(P):
                    da[t, r, p, i] += out_a[p, 0].imag / STEP
            if not emits_state:
                charge = complex(de[t, b, i], STEP * Rde[t, r, i])
                put_s(out_s, 0, 0, emit_vjp(phi, take_s(s, 0), take_k(k, 0), charge))
                for p in range(S):
                    ds[t, r, p, i] += out_s[p, 0].imag / STEP

    return run


@functools.cache
def make_charged(cell, phi):
    """Kernel ``run(ds, Rs, Rgh, states, gh, consts)``: what is charged to h, the output of the state after a step."""
    S, K = cell.n_states, len(cell.constants)
    take_s, take_k, put_s = TAKE[S], TAKE[K], PUT[S]
    lift_s, still_k = lift(S), still(K)
    output_vjp, rows_k = dual(cell.module.output_vjp), max(K, 1)

    @_cuda.Kernel
    def run(ds, Rs, Rgh, states, gh, consts):
        # ds, Rs[T, R, S, n]  Rgh[T, R, n]  states[T, B, S, n]  gh[T, B, n]
        steps, R, n, B = ds.shape[0], ds.shape[1], ds.shape[3], states.shape[1]
        s = cuda.local.array((S, 1), numba.complex128)
        k = cuda.local.array((rows_k, 1), numba.complex128)
        out = cuda.local.array((S, 1), numba.complex128)
        for item in range(cuda.grid(1), steps * R * n, cuda.gridsize(1)):
            t, r, i = item // (R * n), item // n % R, item % n
            b = r % B
            lift_s(s, states[t, b], Rs[t, r], i)
            still_k(k, consts[min(t, consts.shape[0] - 1), min(b, consts.shape[1] - 1)], i)
            charge = complex(gh[t, b, i], STEP * Rgh[t, r, i])
            put_s(out, 0, 0, output_vjp(phi, take_s(s, 0), take_k(k, 0), charge))
            for p in range(S):
                ds[t, r, p, i] += out[p, 0].imag / STEP

    return run


@functools.cache
def curvature(cell, phi):
    """Kernel ``launch(ds, da, da2, moved, charged, point, adjoints, lengths, consts)``, the contract of the CPU's."""

    def launch(ds, da, da2, moved, charged, point, adjoints, lengths, consts):
        Rs, Ra, Ra2 = moved
        Rgh, Rdq, Rde = charged
        states, a, a2 = point
        gs, gh, dq, de = adjoints
        T, R, _, n = da.shape

        def run(kernel, changed, others, what, timed):
            def piece(start, stop, *arrays):
                threads = _cuda.threads(R * n)
                arguments = (*arrays, start) if timed else arrays
                kernel(-(-(stop - start) * R * n // threads), threads, 0, *arguments)

            pieces.run(piece, T, [pieces.changed(array, 0) for array in changed] + others, what)

        if not cell.outputs_state:
            others = [pieces.read(array, 0) for array in (Rs[1:], Rgh, states[1:], gh, consts)]
            run(make_charged(cell, phi), (ds[1:],), others, "the curvature of one step's outputs", timed=False)
        Rdq, dq = (Rdq, dq) if cell.two_stage else (_unread(Rdq), _unread(dq))
        Rde, de = (_unread(Rde), _unread(de)) if cell.emits_state else (Rde, de)
        others = (Rs[:-1], Ra, Ra2, Rdq, Rde, states[:-1], a, a2, gs[1:], dq, de)
        others = [pieces.read(array, 0) for array in others] + [pieces.whole(lengths), pieces.read(consts, 0)]
        run(make(cell, phi), (ds[:-1], da, da2), others, "the curvature of one step", timed=True)

    return launch


def _unread(array):
    """What goes to the device for an array that the cell has no use for."""
    return array if _cuda.is_device_array(array) else array[:0]
