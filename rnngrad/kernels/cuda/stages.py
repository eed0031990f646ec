"""A step of a chain of Jacobians without its products: what comes before, between and after them, unit by unit.

Written once for the kernels that take all steps with their products in one launch, and for those of many units, whose
products are a library's. All stages are for the rows ``first`` … ``first + count`` of one block. A unit of a row is
always the same thread's, so that arrays of rows need no barrier; ``room`` does, around each product. z[rows, G, n],
z2[rows, P2, n], and the others [rows, n] lie in the flat ``room`` from the places of these names on, for this block's
rows. ``driven``: with charges or changes dz, dz2 of the pre-activations.
"""

import functools

from ... import _cuda

cuda = _cuda.load()


@functools.cache
def adjoint_stages(dtype, driven):
    """Device functions (before, between, after) of new[r] = y[r] J_t.

    With W, W2 by rows: before; dq = z2 W2; between; dq = z W; after. The two in the middle are for P2 > 0.
    """
    zero = dtype.type(0)

    @_cuda.function
    def before(y, new, first, count, sample, t, factors, masks, room, z, z2, G, P2, dz, dz2):
        update_s, update_a, update_a2, inner_s, inner_a, emit_s = factors
        by_s, by_a, by_a2, in_s, in_a, by_e = masks
        S, n = y.shape[1], y.shape[2]
        P = update_a.shape[3] if driven else G
        for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
            r, i = item // n, item % n
            row = first + r
            b = sample[row]
            for p in range(P):
                total = dz[row, p, i] if driven else zero
                for s in range(S):
                    if by_a[s, p]:
                        total += y[row, s, i] * update_a[t, b, s, p, i]
                if p < G:
                    room[z + (r * G + p) * n + i] = total
                if driven:
                    dz[row, p, i] = total
            for p in range(P2):
                total = dz2[row, p, i] if driven else zero
                for s in range(S):
                    if by_a2[s, p]:
                        total += y[row, s, i] * update_a2[t, b, s, p, i]
                room[z2 + (r * P2 + p) * n + i] = total
                if driven:
                    dz2[row, p, i] = total
            for c in range(S):
                total = new[row, c, i] if driven else zero
                for s in range(S):
                    if by_s[s, c]:
                        total += y[row, s, i] * update_s[t, b, s, c, i]
                new[row, c, i] = total

    @_cuda.function
    def between(new, first, count, sample, t, factors, masks, room, z, dq, G, dz):
        update_s, update_a, update_a2, inner_s, inner_a, emit_s = factors
        by_s, by_a, by_a2, in_s, in_a, by_e = masks
        S, n = new.shape[1], new.shape[2]
        P = update_a.shape[3] if driven else G
        for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
            r, i = item // n, item % n
            row = first + r
            b, received = sample[row], room[dq + item]
            for p in range(P):
                if in_a[p]:
                    more = received * inner_a[t, b, p, i]
                    if p < G:
                        room[z + (r * G + p) * n + i] += more
                    if driven:
                        dz[row, p, i] += more
            for c in range(S):
                if in_s[c]:
                    new[row, c, i] += received * inner_s[t, b, c, i]

    @_cuda.function
    def after(new, first, count, sample, t, factors, masks, room, dq, emits_state):
        emit_s, by_e = factors[5], masks[5]
        S, n = new.shape[1], new.shape[2]
        for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
            row, i = first + item // n, item % n
            received = room[dq + item]
            if emits_state:
                new[row, 0, i] += received
            else:
                b = sample[row]
                for c in range(S):
                    if by_e[c]:
                        new[row, c, i] += received * emit_s[t, b, c, i]

    return before, between, after


@functools.cache
def tangent_stages(dtype, driven):
    """Device functions (before, between, after) of new[r] = J_t v[r].

    With transposed weights: before; z = sent W; between; z2 = sent W2; after. The two in the middle are for P2 > 0, and
    ``between`` also for ``driven``.
    """
    zero = dtype.type(0)

    @_cuda.function
    def before(v, first, count, sample, t, factors, masks, room, sent, emits_state):
        emit_s, by_e = factors[5], masks[5]
        S, n = v.shape[1], v.shape[2]
        for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
            row, i = first + item // n, item % n
            if emits_state:
                room[sent + item] = v[row, 0, i]
            else:
                total = zero
                for s in range(S):
                    if by_e[s]:
                        total += v[row, s, i] * emit_s[t, sample[row], s, i]
                room[sent + item] = total

    @_cuda.function
    def between(v, first, count, sample, t, factors, masks, room, sent, z, G, P2, dz):
        update_s, update_a, update_a2, inner_s, inner_a, emit_s = factors
        by_s, by_a, by_a2, in_s, in_a, by_e = masks
        S, n, P = v.shape[1], v.shape[2], update_a.shape[3]
        for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
            r, i = item // n, item % n
            row = first + r
            b = sample[row]
            if driven:
                for p in range(P):
                    if p < G:
                        dz[row, p, i] += room[z + (r * G + p) * n + i]
                        room[z + (r * G + p) * n + i] = dz[row, p, i]
            if P2 > 0:
                total = zero
                for s in range(S):
                    if in_s[s]:
                        total += v[row, s, i] * inner_s[t, b, s, i]
                for p in range(P):
                    if in_a[p]:
                        if p < G:
                            total += room[z + (r * G + p) * n + i] * inner_a[t, b, p, i]
                        elif driven:
                            total += dz[row, p, i] * inner_a[t, b, p, i]
                room[sent + item] = total

    @_cuda.function
    def after(v, new, first, count, sample, t, factors, masks, room, z, z2, G, P2, dz, dz2):
        update_s, update_a, update_a2, inner_s, inner_a, emit_s = factors
        by_s, by_a, by_a2, in_s, in_a, by_e = masks
        S, n, P = v.shape[1], v.shape[2], update_a.shape[3]
        for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
            r, i = item // n, item % n
            row = first + r
            b = sample[row]
            if driven:
                for p in range(P2):
                    dz2[row, p, i] += room[z2 + (r * P2 + p) * n + i]
                    room[z2 + (r * P2 + p) * n + i] = dz2[row, p, i]
            for c in range(S):
                total = zero
                for s in range(S):
                    if by_s[c, s]:
                        total += update_s[t, b, c, s, i] * v[row, s, i]
                for p in range(P):
                    if by_a[c, p]:
                        if p < G:
                            total += update_a[t, b, c, p, i] * room[z + (r * G + p) * n + i]
                        elif driven:
                            total += update_a[t, b, c, p, i] * dz[row, p, i]
                for p in range(P2):
                    if by_a2[c, p]:
                        total += update_a2[t, b, c, p, i] * room[z2 + (r * P2 + p) * n + i]
                new[row, c, i] = total

    return before, between, after
