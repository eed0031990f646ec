"""One step of many rows through the local Jacobians, forward or back, in each of their forms.

``step(system, scratch, current, new, sample, t)`` with scratch from ``room(system, like)`` for rows shaped as ``like``
(R, S, n). The system, as ``prepared`` makes it, is (factors, weights, masks, emits_state, gates) in factored form;
(update_a, W packed) where that comes to J = D W, a system so small that passing it on costs nothing beside a product of
16 x 16; or (J[T, B, N, N],) with S = 1, of which a step uses the sample of its first row. Nothing here depends on the
cell.
"""

import numpy as np

from ..._gemm import add_packed_product, fill_panels, flat, pack, packed_product, panel_width
from ..._jit import inner
from .rowwise import run_end, scaled_rows, through


@inner(forced=True)
def _spread(out, q, partial, mask, sample):
    """out[r, p, n] += q[r, n] partial[b, p, n] over the structural non-zeros p that out has."""
    R, n = q.shape
    B, P, _ = partial.shape
    through(out, q.reshape(R, 1, n), partial.reshape(B, 1, P, n), mask.reshape(1, P), sample, False, True)


@inner(forced=True)
def _gather(out, v, partial, mask, sample, more):
    """out[r, n] = sum_s v[r, s, n] partial[b, s, n] over the structural non-zeros; ``more``: added to out."""
    R, n = out.shape
    B, S, _ = partial.shape
    through(out.reshape(R, 1, n), v, partial.reshape(B, S, 1, n), mask.reshape(S, 1), sample, False, more)


@inner()
def adjoint_step(y, new, scratch, sample, t, factors, weights, masks, emits_state, G, driven):
    """new[r] = y[r] J_t of the sample of row r.

    scratch = (z[rows, P, n], z2[rows, P2, n], dq[rows, n]), where the G gates that W acts on will do for P; sample[r]
    is the row's place in the batch axis of the factored Jacobians; weights = (W, W2) packed; masks are the structural
    non-zeros, in the order of ``factors``. ``driven``: what z, z2 and new hold on entry is charged to the
    pre-activations and to the state as well, and z, z2 hold their whole adjoints on return.
    """
    update_s, update_a, update_a2, inner_s, inner_a, emit_s = factors
    by_s, by_a, by_a2, in_s, in_a, by_e = masks
    z, z2, dq = scratch
    W, W2 = weights
    rows, S, n = y.shape
    P, P2 = z.shape[1], z2.shape[1]
    through(z, y, update_a[t], by_a, sample, False, driven)
    through(new, y, update_s[t], by_s, sample, False, driven)
    if P2 > 0:
        through(z2, y, update_a2[t], by_a2, sample, False, driven)
        packed_product(rows, P2 * n, z2, P2 * n, 1, W2, n, dq, n)
        _spread(z, dq, inner_a[t], in_a, sample)
        _spread(new, dq, inner_s[t], in_s, sample)
    if emits_state:
        add_packed_product(rows, G * n, z, P * n, 1, W, n, new, S * n)
    else:
        packed_product(rows, G * n, z, P * n, 1, W, n, dq, n)
        _spread(new, dq, emit_s[t], by_e, sample)


@inner()
def tangent_step(v, new, scratch, sample, t, factors, weights, masks, emits_state, G, driven):
    """new[r] = J_t v[r], plus, if ``driven``, partials times the changes that z, z2 hold on entry.

    scratch = (z[rows, P, n], z2[rows, P2, n], e[rows, n], q[rows, n]); the rest as for ``adjoint_step``.
    """
    update_s, update_a, update_a2, inner_s, inner_a, emit_s = factors
    by_s, by_a, by_a2, in_s, in_a, by_e = masks
    z, z2, e, q = scratch
    W, W2 = weights
    rows, S, n = v.shape
    P, P2 = z.shape[1], z2.shape[1]
    if not driven:
        z[:] = 0
        z2[:] = 0
    if emits_state:
        add_packed_product(rows, n, v, S * n, 1, W, G * n, z, P * n)
    else:
        _gather(e, v, emit_s[t], by_e, sample, False)
        add_packed_product(rows, n, e, n, 1, W, G * n, z, P * n)
    if P2 > 0:
        _gather(q, v, inner_s[t], in_s, sample, False)
        _gather(q, z, inner_a[t], in_a, sample, True)
        add_packed_product(rows, n, q, n, 1, W2, P2 * n, z2, P2 * n)
    through(new, v, update_s[t], by_s, sample, True, False)
    through(new, z, update_a[t], by_a, sample, True, True)
    through(new, z2, update_a2[t], by_a2, sample, True, True)


@inner(forced=True)
def _factored_adjoint_room(system, like):
    R, _, n = like.shape
    gates, P2 = system[4], system[0][2].shape[3]
    return np.empty((R, gates, n), like.dtype), np.empty((R, P2, n), like.dtype), np.empty((R, n), like.dtype)


@inner(forced=True)
def _factored_adjoint(system, scratch, current, new, sample, t):
    factors, weights, masks, emits_state, gates = system
    z, z2, dq = scratch
    R = len(current)
    adjoint_step(
        current, new, (z[:R], z2[:R], dq[:R]), sample, t, factors, weights, masks, emits_state, gates, False
    )  # fmt: skip


@inner(forced=True)
def _factored_tangent_room(system, like):
    R, _, n = like.shape
    P, P2 = system[0][1].shape[3], system[0][2].shape[3]
    dtype = like.dtype
    return np.empty((R, P, n), dtype), np.empty((R, P2, n), dtype), np.empty((R, n), dtype), np.empty((R, n), dtype)


@inner(forced=True)
def _factored_tangent(system, scratch, current, new, sample, t):
    factors, weights, masks, emits_state, gates = system
    z, z2, e, q = scratch
    R = len(current)
    tangent_step(
        current, new, (z[:R], z2[:R], e[:R], q[:R]), sample, t, factors, weights, masks, emits_state, gates, False
    )  # fmt: skip


def factored(forward, system):
    """What steps of the factored form take of a system (factors, W, W2, masks, emits_state); ``forward``: columns."""
    factors, W, W2, masks, emits_state = system
    return factors, (pack(W, transposed=forward), pack(W2, transposed=forward)), masks, emits_state, len(W)


def prepared(forward, system):
    """(form, what its steps take) of a system; J = D W, one matrix with scaled rows, has a form of its own.

    That is one state of one gate with no path to itself beside W.
    """
    operands = factored(forward, system)
    factors, weights, masks, emits_state, _ = operands
    update_a, keeps = factors[1], masks[0][0, 0]
    if update_a.shape[2:4] == (1, 1) and not factors[2].shape[3] and emits_state and not keeps:
        return "scaled", (update_a, weights[0])
    return "factored", operands


@inner(forced=True)
def times_diagonal(out, rows, partial, sample):
    """out[r] = rows[r] diag(partial[b]) of out, rows[R, 1, n] (they may be one) and partial[B, 1, 1, n]."""
    R, _, n = rows.shape
    source, d, to = flat(rows), flat(partial), flat(out)
    r = 0
    while r < R:
        end = run_end(sample, r)
        scaled_rows(end - r, n, source, r * n, n, d, sample[r] * n, to, r * n, n)
        r = end


@inner(forced=True)
def _scaled_adjoint_room(system, like):
    return np.empty_like(like)


@inner(forced=True)
def _scaled_adjoint(system, scratch, current, new, sample, t):
    R, _, n = current.shape
    times_diagonal(scratch, current, system[0][t], sample)
    packed_product(R, n, scratch, n, 1, system[1], n, new, n)


@inner(forced=True)
def _scaled_tangent_room(system, like):
    return 0


@inner(forced=True)
def _scaled_tangent(system, scratch, current, new, sample, t):
    R, _, n = current.shape
    packed_product(R, n, current, n, 1, system[1], n, new, n)
    times_diagonal(new, new, system[0][t], sample)


@inner(forced=True)
def _dense_room(system, like):
    n = like.shape[2]
    width = panel_width(n, like.itemsize)
    return np.empty(((n + width - 1) // width, n, width), like.dtype)


def _dense(transposed):
    @inner(transposed, forced=True)
    def step(system, panels, current, new, sample, t):
        R, _, n = current.shape
        fill_panels(panels, 0, len(panels), system[0][t, sample[0]], transposed)
        packed_product(R, n, current, n, 1, panels, n, new, n)

    return step


#: form of the local Jacobians -> (step, room); rows v are columns that J acts on, rows y are acted on from the right
TANGENT = {
    "factored": (_factored_tangent, _factored_tangent_room),
    "scaled": (_scaled_tangent, _scaled_tangent_room),
    "dense": (_dense(True), _dense_room),
}
ADJOINT = {
    "factored": (_factored_adjoint, _factored_adjoint_room),
    "scaled": (_scaled_adjoint, _scaled_adjoint_room),
    "dense": (_dense(False), _dense_room),
}
