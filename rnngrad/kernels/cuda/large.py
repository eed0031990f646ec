"""Chains of Jacobians of many units: products by the library, and a launch for what is between two of them.

The stages are those of the kernels that take all steps in one launch, and so are the results, to rounding.
"""

import functools

import numba

from ... import _cuda
from . import block, library
from .block import KEYS, MOST_ROWS, TILE
from .stages import adjoint_stages, tangent_stages

cuda = _cuda.load()


@functools.cache
def make_adjoint(dtype, driven):
    """Kernel: the end of step d - 1 of ``adjoint_chain`` (if d > 0) and the beginning of step d (if d < steps)."""
    before, _, after = adjoint_stages(dtype, driven)
    widest = block.widest(dtype.type(1))

    @_cuda.Kernel
    def run(
        out, exponents, y, exponent, sample, dz, dz2, update_s, update_a, update_a2, inner_s, inner_a, emit_s,
        by_s, by_a, by_a2, in_s, in_a, by_e, room, d, G, P2, emits_state,
    ):  # fmt: skip
        steps, R, n = out.shape[0], out.shape[1], out.shape[3]
        first = cuda.blockIdx.x * TILE
        count = min(TILE, R - first)
        keys = cuda.shared.array(KEYS, numba.int32)
        taken = cuda.shared.array(MOST_ROWS, numba.int64)
        for r in range(cuda.threadIdx.x, KEYS, cuda.blockDim.x):
            keys[r] = 0
        for r in range(cuda.threadIdx.x, count, cuda.blockDim.x):
            taken[r] = exponent[first + r] if d < 2 else exponents[steps - d + 1, first + r]
        cuda.syncthreads()
        factors = (update_s, update_a, update_a2, inner_s, inner_a, emit_s)
        masks = (by_s, by_a, by_a2, in_s, in_a, by_e)
        z, z2, dq = first * G * n, (R * G + first * P2) * n, (R * (G + P2) + first) * n
        current = y
        if d > 0:
            current = out[steps - d]
            after(current, first, count, sample, steps - d, factors, masks, room, dq, emits_state)
            if not driven:
                block.rescale(current, first, count, keys, taken, 0, widest)
            for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
                if item % n == 0:  # the thread that counts for this row
                    exponents[steps - d, first + item // n] = taken[item // n]
        if d < steps:
            t = steps - d - 1
            at = t if driven else 0
            before(current, out[t], first, count, sample, t, factors, masks, room, z, z2, G, P2, dz[at], dz2[at])

    return run


@functools.cache
def make_adjoint_between(dtype, driven):
    """Kernel: what is between the two products of step ``t`` of ``adjoint_chain``."""
    between = adjoint_stages(dtype, driven)[1]

    @_cuda.Kernel
    def run(
        out, sample, dz, update_s, update_a, update_a2, inner_s, inner_a, emit_s, by_s, by_a, by_a2, in_s, in_a, by_e,
        room, t, G, P2,
    ):  # fmt: skip
        R, n = out.shape[1], out.shape[3]
        first = cuda.blockIdx.x * TILE
        factors = (update_s, update_a, update_a2, inner_s, inner_a, emit_s)
        masks = (by_s, by_a, by_a2, in_s, in_a, by_e)
        z, dq = first * G * n, (R * (G + P2) + first) * n
        at = t if driven else 0
        between(out[t], first, min(TILE, R - first), sample, t, factors, masks, room, z, dq, G, dz[at])

    return run


@functools.cache
def make_tangent(dtype, driven):
    """Kernel: the end of step d - 1 of ``tangent_chain`` (if d > 0) and the beginning of step d (if d < steps)."""
    before, _, after = tangent_stages(dtype, driven)
    widest = block.widest(dtype.type(1))

    @_cuda.Kernel
    def run(
        out, exponents, v, exponent, sample, dz, dz2, update_s, update_a, update_a2, inner_s, inner_a, emit_s,
        by_s, by_a, by_a2, in_s, in_a, by_e, room, d, G, P2, emits_state,
    ):  # fmt: skip
        steps, R, n = out.shape[0], out.shape[1], out.shape[3]
        first = cuda.blockIdx.x * TILE
        count = min(TILE, R - first)
        keys = cuda.shared.array(KEYS, numba.int32)
        taken = cuda.shared.array(MOST_ROWS, numba.int64)
        for r in range(cuda.threadIdx.x, KEYS, cuda.blockDim.x):
            keys[r] = 0
        for r in range(cuda.threadIdx.x, count, cuda.blockDim.x):
            taken[r] = exponent[first + r] if d < 2 else exponents[d - 2, first + r]
        cuda.syncthreads()
        factors = (update_s, update_a, update_a2, inner_s, inner_a, emit_s)
        masks = (by_s, by_a, by_a2, in_s, in_a, by_e)
        z, z2, sent = first * G * n, (R * G + first * P2) * n, (R * (G + P2) + first) * n
        current = v
        if d > 1:
            current = out[d - 2]
        if d > 0:
            new = out[d - 1]
            at = d - 1 if driven else 0
            after(current, new, first, count, sample, d - 1, factors, masks, room, z, z2, G, P2, dz[at], dz2[at])
            if not driven:
                block.rescale(new, first, count, keys, taken, 0, widest)
            for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
                if item % n == 0:  # the thread that counts for this row
                    exponents[d - 1, first + item // n] = taken[item // n]
            current = new
        if d < steps:
            before(current, first, count, sample, d, factors, masks, room, sent, emits_state)

    return run


@functools.cache
def make_tangent_between(dtype, driven):
    """Kernel: what is between the two products of step ``t`` of ``tangent_chain``."""
    between = tangent_stages(dtype, driven)[1]

    @_cuda.Kernel
    def run(
        out, v, sample, dz, update_s, update_a, update_a2, inner_s, inner_a, emit_s, by_s, by_a, by_a2, in_s, in_a,
        by_e, room, t, G, P2,
    ):  # fmt: skip
        R, n = out.shape[1], out.shape[3]
        first = cuda.blockIdx.x * TILE
        factors = (update_s, update_a, update_a2, inner_s, inner_a, emit_s)
        masks = (by_s, by_a, by_a2, in_s, in_a, by_e)
        z, sent = first * G * n, (R * (G + P2) + first) * n
        at = t if driven else 0
        current = v
        if t > 0:
            current = out[t - 1]
        between(current, first, min(TILE, R - first), sample, t, factors, masks, room, sent, z, G, P2, dz[at])

    return run


def adjoint(arrays, G, P2, emits_state, driven):
    """All steps of ``adjoint_chain`` for device arrays: those of its kernel, but for the weights in their places."""
    out, exponents, y, exponent, sample, dz, dz2, *factors_weights_masks = arrays
    factors, (W, W2), masks = _apart(factors_weights_masks)
    steps, R, _, n = out.shape
    dtype, room = out.dtype, _cuda.empty((R * (G + P2 + 1) * n,), out.dtype)
    edge, between = make_adjoint(dtype, driven), make_adjoint_between(dtype, driven)
    blocks, threads, dq = -(-R // TILE), _cuda.threads(TILE * n), (R * (G + P2) * n, n)

    for d in range(steps + 1):
        edge(
            blocks, threads, 0, out, exponents, y, exponent, sample, dz, dz2, *factors, *masks, room, d, G, P2,
            emits_state,
        )  # fmt: skip
        if d < steps and P2:
            z2 = R * G * n, P2 * n, 1
            library.multiply(room, room, W2, R, P2 * n, n, z2, (0, n, 1), dq)
            between(blocks, threads, 0, out, sample, dz, *factors, *masks, room, steps - d - 1, G, P2)
        if d < steps:
            library.multiply(room, room, W, R, G * n, n, (0, G * n, 1), (0, n, 1), dq)


def tangent(arrays, G, P2, emits_state, driven):
    """All steps of ``tangent_chain`` for device arrays: those of its kernel, but for the weights in their places."""
    out, exponents, v, exponent, sample, dz, dz2, *factors_weights_masks = arrays
    factors, (W, W2), masks = _apart(factors_weights_masks)
    steps, R, _, n = out.shape
    dtype, room = out.dtype, _cuda.empty((R * (G + P2 + 1) * n,), out.dtype)
    edge, between = make_tangent(dtype, driven), make_tangent_between(dtype, driven)
    blocks, threads, sent = -(-R // TILE), _cuda.threads(TILE * n), (R * (G + P2) * n, n, 1)

    for d in range(steps + 1):
        edge(
            blocks, threads, 0, out, exponents, v, exponent, sample, dz, dz2, *factors, *masks, room, d, G, P2,
            emits_state,
        )  # fmt: skip
        if d == steps:
            return
        library.multiply(room, room, W, R, n, G * n, sent, (0, G * n, 1), (0, G * n))
        if driven or P2:
            between(blocks, threads, 0, out, v, sample, dz, *factors, *masks, room, d, G, P2)
        if P2:
            library.multiply(room, room, W2, R, n, P2 * n, sent, (0, P2 * n, 1), (R * G * n, P2 * n))


def _apart(arrays):
    """(six factors, two weights, six masks) as they follow each other."""
    return arrays[:6], arrays[6:8], arrays[8:]
