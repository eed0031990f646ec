"""Products of Jacobians: many adjoint rows carried back through time at once, or many tangent columns forward.

Row y of a cotangent goes y_{t-1} = y_t J_t, a tangent v_t = J_t v_{t-1}, stored as a row too. W is shared, so the rows
of the whole batch make one product with W per step; the diagonals are applied on the way. Rows are independent and
carry an exponent each, so a row never over- or underflows: its value is mantissa * 2^exponent.
"""

import functools

import numpy as np

from ..._gemm import onward_product
from ..._jit import MULTIPLY_ADDS, kernel
from .scaling import ROWS, limits, rescale
from .steps import ADJOINT, TANGENT, adjoint_step, factored, prepared, tangent_step, times_diagonal


@functools.cache
def _carry(form, forward):
    """Kernel for one form of the local Jacobians."""
    step, room = (TANGENT if forward else ADJOINT)[form]

    @kernel(
        "tangent_chain" if forward else "adjoint_chain",
        form,
        tasks=lambda out, *rest: -(-out.shape[1] // ROWS),
        work=lambda out, *rest: out.size * (1 + rest[-1] * out.shape[3] / MULTIPLY_ADDS),
    )
    def run(start, stop, out, exponents, y, exponent, sample, t_from, system, gates):
        steps, R, S, n = out.shape
        scratch = room(system, y[: min(R, ROWS)])
        count = np.empty(ROWS, np.int64)
        for task in range(start, stop):
            r0 = task * ROWS
            r1 = min(R, r0 + ROWS)
            current, own, counts = y[r0:r1], sample[r0:r1], count[: r1 - r0]
            for r in range(r0, r1):
                counts[r - r0] = exponent[r]
            for d in range(steps):
                place = d if forward else steps - 1 - d
                new = out[place, r0:r1]
                step(system, scratch, current, new, own, t_from + d if forward else t_from - 1 - d)
                rescale(new, S * n, counts)
                for r in range(r0, r1):  # an assignment of slices would compile messages for shapes that differ
                    exponents[place, r] = counts[r - r0]
                current = new

    return run


@kernel(
    "adjoint_chain",
    "D W",
    tasks=lambda out, *rest: -(-out.shape[1] // ROWS),
    work=lambda out, *rest: out.size * (1 + out.shape[3] / MULTIPLY_ADDS),
)
def _adjoint_of_scaled(start, stop, out, exponents, y, exponent, sample, t_from, system):
    """Rows back through J = D W: y_{t-1} = (y_t D_t) W, and with it, from the same registers, y_{t-1} D_{t-1}."""
    steps, R, _, n = out.shape
    update_a, W = system
    both, count = np.empty((2, min(R, ROWS), 1, n), y.dtype), np.empty(ROWS, np.int64)
    within, (least, beyond) = np.empty(1, np.int64), limits(y)
    for task in range(start, stop):
        r0 = task * ROWS
        r1 = min(R, r0 + ROWS)
        own, counts = sample[r0:r1], count[: r1 - r0]
        for r in range(r0, r1):
            counts[r - r0] = exponent[r]
        times_diagonal(both[0], y[r0:r1], update_a[t_from - 1], own)
        for d in range(steps):
            place, t = steps - 1 - d, max(t_from - 2 - d, 0)
            new = out[place, r0:r1]
            within[0] = 1
            onward_product(
                r1 - r0, n, both[d % 2], W, new, update_a[t], own, both[(d + 1) % 2], within, least, beyond
            )  # fmt: skip
            if within[0] == 0:
                rescale(new, n, counts)
                times_diagonal(both[(d + 1) % 2], new, update_a[t], own)
            to = exponents[place, r0:r1]
            for r in range(to.size):
                to[r] = counts[r]


@functools.cache
def _drive(forward):
    """Kernel for the factored form with charges or changes at every step, whose rows are all of one scale."""
    step = tangent_step if forward else adjoint_step

    @kernel(
        "driven_tangent" if forward else "driven_adjoint",
        tasks=lambda out, *rest: -(-out.shape[1] // ROWS),
        work=lambda out, *rest: out.size * (1 + rest[-1] * out.shape[3] / MULTIPLY_ADDS),
    )
    def run(start, stop, out, y, sample, t_from, dz, dz2, system, gates):
        factors, weights, masks, emits_state, G = system
        steps, R, _, n = out.shape
        e, q = np.empty((ROWS, n), y.dtype), np.empty((ROWS, n), y.dtype)
        for task in range(start, stop):
            r0 = task * ROWS
            r1 = min(R, r0 + ROWS)
            rows = r1 - r0
            current = y[r0:r1]
            for d in range(steps):
                place = d if forward else steps - 1 - d
                t = t_from + d if forward else t_from - 1 - d
                new = out[place, r0:r1]
                if forward:
                    scratch = (dz[place, r0:r1], dz2[place, r0:r1], e[:rows], q[:rows])
                else:
                    scratch = (dz[place, r0:r1], dz2[place, r0:r1], q[:rows])
                step(current, new, scratch, sample[r0:r1], t, factors, weights, masks, emits_state, G, True)
                current = new

    return run


def carry(forward, out, exponents, y, exponent, sample, t_from, dz, dz2, system):
    """See ``adjoint_chain`` and ``tangent_chain``."""
    gates = len(system[1]) + len(system[2])
    if dz.shape[0] > 0:
        exponents[:] = exponent
        _drive(forward)(out, y, sample, t_from, dz, dz2, factored(forward, system), gates)
        return
    form, operands = prepared(forward, system)
    if form == "scaled" and not forward:
        _adjoint_of_scaled(out, exponents, y, exponent, sample, t_from, operands)
    else:
        _carry(form, forward)(out, exponents, y, exponent, sample, t_from, operands, gates)


def adjoint_chain(out, exponents, y, exponent, sample, t_from, dz, dz2, system):
    """Carry y[R, S, n] (with exponent[R]) from step t_from back; out[-1 - d], exponents[-1 - d] hold it d + 1 earlier.

    So out is in the order of time. sample[R] is each row's place in the batch axis of the factored Jacobians,
    whose ``system`` is (factors, W, W2, masks, emits_state).

    dz[D, R, P, n], dz2[D, R, P2, n] are charges to the pre-activations at each step, and out holds on entry charges to
    the states; or D = 0: none. With charges given, no exponent is taken out, and dz, dz2 hold the adjoints of the
    pre-activations on return.
    """
    carry(False, out, exponents, y, exponent, sample, t_from, dz, dz2, system)
