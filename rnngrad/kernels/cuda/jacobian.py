"""Local Jacobians ds_t/ds_{t-1}: as pointwise partial derivatives around W, and dense; the arrays of the CPU's kernels.

A thread makes the partials of one unit at one step, and an element of a dense Jacobian.
"""

import functools

import numba

from ... import _cuda
from ..tuples import PUT, TAKE
from . import block, pieces

cuda = _cuda.load()


@functools.cache
def make_factors(cell, phi, dtype):
    """Kernel ``run(update_s, …, emit_s, states, a, a2, lengths, consts, t0)``: partials of steps t0, t0 + 1, …"""
    unit = cell.module
    S, P, P2 = cell.n_states, len(cell.gates), len(cell.gates2)
    take_s, take_a, take_a2, take_k = TAKE[S], TAKE[P], TAKE[P2], TAKE[len(cell.constants)]
    put_s, put_a, put_a2 = PUT[S], PUT[P], PUT[P2]
    update_vjp = unit.update_vjp
    emits_state, two_stage = cell.emits_state, cell.two_stage
    emit_vjp = None if emits_state else unit.emit_vjp
    inner_vjp = unit.inner_vjp if two_stage else None
    number = dtype.type
    zero, one = number(0), number(1)
    dtype = numba.from_dtype(dtype)

    @_cuda.Kernel
    def run(update_s, update_a, update_a2, inner_s, inner_a, emit_s, states, a, a2, lengths, consts, t0):
        steps, B, n = a.shape[0], a.shape[1], a.shape[3]
        g = cuda.local.array((S, 1), dtype)  # a cotangent of one unit
        for item in range(cuda.grid(1), steps * B * n, cuda.gridsize(1)):
            t, b, i = item // (B * n), item // n % B, item % n
            padded = t0 + t >= lengths[b]  # such a step copies the state
            s, at, at2 = take_s(states[t, b], i), take_a(a[t, b], i), take_a2(a2[t, b], i)
            k = take_k(consts[min(t, consts.shape[0] - 1), min(b, consts.shape[1] - 1)], i)
            for r in range(S):
                for c in range(S):
                    g[c, 0] = one if c == r else zero
                if padded:
                    for c in range(S):
                        update_s[t, b, r, c, i] = g[c, 0]
                    for p in range(P):
                        update_a[t, b, r, p, i] = zero
                    for p in range(P2):
                        update_a2[t, b, r, p, i] = zero
                else:
                    ds, da, da2 = update_vjp(phi, s, at, at2, k, take_s(g, 0))
                    put_s(update_s[t, b, r], 0, i, ds)
                    put_a(update_a[t, b, r], 0, i, da)
                    put_a2(update_a2[t, b, r], 0, i, da2)
            if two_stage:
                if padded:
                    for c in range(S):
                        inner_s[t, b, c, i] = zero
                    for p in range(P):
                        inner_a[t, b, p, i] = zero
                else:
                    dq, dqa = inner_vjp(phi, s, at, k, one)
                    put_s(inner_s[t, b], 0, i, dq)
                    put_a(inner_a[t, b], 0, i, dqa)
            if emits_state or padded:
                for c in range(S):
                    emit_s[t, b, c, i] = one if c == 0 and not padded else zero
            else:
                put_s(emit_s[t, b], 0, i, emit_vjp(phi, s, k, one))

    return run


@functools.cache
def factors(cell, phi):
    """Kernel ``run(update_s, update_a, update_a2, inner_s, inner_a, emit_s, states, a, a2, lengths, consts)``."""

    def launch(update_s, update_a, update_a2, inner_s, inner_a, emit_s, states, a, a2, lengths, consts):
        kernel = make_factors(cell, phi, a.dtype)
        steps, B, _, n = a.shape
        results = (update_s, update_a, update_a2, inner_s, inner_a, emit_s)
        operands = [pieces.written(array, 0) for array in results]
        operands += [pieces.read(array, 0) for array in (states[:-1], a, a2)]
        operands += [pieces.whole(lengths), pieces.read(consts, 0)]

        def piece(start, stop, *arrays):
            threads = _cuda.threads(B * n)
            kernel(-(-(stop - start) * B * n // threads), threads, 0, *arrays, start)

        pieces.run(piece, steps, operands, "one step of the factored Jacobians")

    return launch


@functools.cache
def make_dense(dtype):
    """Kernel ``run(J, update_s, …, emit_s, W, W2, K, W2K, G, P2)``, one block per step and sample at a time."""
    multiply = block.product(dtype)
    zero = dtype.type(0)

    @_cuda.function
    def element(own, partial, W, es, i, j, G):
        # of a diagonal plus sum_g diag(partial[g]) W[g] diag(es), at (i, j)
        n = es.size
        total = own if i == j else zero
        for g in range(G):
            factor = partial[g, i]
            if factor != zero:
                total += factor * W[(g * n + i) * n + j] * es[j]
        return total

    @_cuda.Kernel
    def run(J, update_s, update_a, update_a2, inner_s, inner_a, emit_s, W, W2, K, W2K, G, P2):
        # K[blocks, n, S n] = dq/ds, W2K[blocks, P2 n, S n], flat
        steps, B, S, n = update_s.shape[0], update_s.shape[1], update_s.shape[2], update_s.shape[4]
        N = S * n
        k0, w0 = cuda.blockIdx.x * n * N, cuda.blockIdx.x * P2 * n * N
        for tb in range(cuda.blockIdx.x, steps * B, cuda.gridDim.x):
            t, b = tb // B, tb % B
            if P2 > 0:
                for item in range(cuda.threadIdx.x, n * N, cuda.blockDim.x):
                    i, c, j = item // N, item % N // n, item % n
                    K[k0 + item] = element(inner_s[t, b, c, i], inner_a[t, b], W, emit_s[t, b, c], i, j, G)
                cuda.syncthreads()
                multiply(W2K, w0, N, W2, 0, n, K, k0, N, P2 * n, n, N)
                cuda.syncthreads()
            for item in range(cuda.threadIdx.x, N * N, cuda.blockDim.x):
                row, column = item // N, item % N
                r, i, c, j = row // n, row % n, column // n, column % n
                total = element(update_s[t, b, r, c, i], update_a[t, b, r], W, emit_s[t, b, c], i, j, G)
                for p in range(P2):
                    factor = update_a2[t, b, r, p, i]
                    if factor != zero:
                        total += factor * W2K[w0 + (p * n + i) * N + column]
                J[t, b, row, column] = total
            cuda.syncthreads()

    return run


def dense(J, update_s, update_a, update_a2, inner_s, inner_a, emit_s, W, W2):
    """J[T, B, S*n, S*n] from the factored form; independent of the cell."""
    T, B, S, _, n = update_s.shape
    kernel = make_dense(J.dtype)
    G, P2, N = len(W), len(W2), S * n
    bytes_each = (1 + P2) * n * N * J.dtype.itemsize if P2 else 0
    blocks = pieces.blocks_with_room(min(T * B, 4 * _cuda.processors()), bytes_each)
    partials = (update_s, update_a, update_a2, inner_s, inner_a, emit_s)
    operands = [pieces.written(J, 0)] + [pieces.read(array, 0) for array in partials]
    operands += [pieces.whole(W.ravel()), pieces.whole(W2.ravel())]

    def piece(start, stop, *arrays):
        K, W2K = (_cuda.empty((size if P2 else 1,), J.dtype) for size in (blocks * n * N, blocks * P2 * n * N))
        kernel(min(blocks, (stop - start) * B), _cuda.threads(N * N), 0, *arrays, K, W2K, G, P2)

    pieces.run(piece, T, operands, "one step of the dense Jacobians", (blocks * bytes_each, 0))
