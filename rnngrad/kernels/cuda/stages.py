"""A step of a chain of Jacobians without its products: what comes before, between and after them, unit by unit.

Written once for the kernels that take all steps with their products in one launch, and for those of many units, whose
products are a library's. Every stage is a device function of the same arguments:

    stage(y, new, first, count, sample, t, system, room, places, dz, dz2)

for the rows ``first`` … ``first + count`` of one block, with ``system`` as :mod:`.steps` passes it to kernels. A unit
of a row is always the same thread's, so that arrays of rows need no barrier; the flat ``room`` does, around each
product. In it z[rows, G, n], z2[rows, P2, n] and a vector [rows, n] of this block begin at ``places``. ``driven``: with
charges or changes dz, dz2 of the pre-activations.
"""

import functools

from ... import _cuda

cuda = _cuda.load()


@functools.cache
def make(forward, dtype, driven):
    """Device functions (before, between, after) of a step.

    Of new[r] = y[r] J_t, with W, W2 by rows: before; vector = z2 W2; between; vector = z W; after. Of new[r] = J_t y[r]
    (``forward``), with transposed weights: before; z = vector W; between; z2 = vector W2; after. The two in the middle
    are for P2 > 0, and ``between`` also for ``driven`` forward.
    """
    return (_tangent if forward else _adjoint)(dtype, driven)


def _adjoint(dtype, driven):
    zero = dtype.type(0)

    @_cuda.function
    def before(y, new, first, count, sample, t, system, room, places, dz, dz2):
        update_s, update_a, update_a2 = system[:3]
        by_s, by_a, by_a2 = system[8:11]
        G, P2 = system[14:16]
        z, z2, _ = places
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
    def between(y, new, first, count, sample, t, system, room, places, dz, dz2):
        inner_s, inner_a = system[3:5]
        in_s, in_a = system[11:13]
        G = system[14]
        z, _, vector = places
        S, n = new.shape[1], new.shape[2]
        P = inner_a.shape[2] if driven else G
        for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
            r, i = item // n, item % n
            row = first + r
            b, received = sample[row], room[vector + item]
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
    def after(y, new, first, count, sample, t, system, room, places, dz, dz2):
        emit_s, by_e, emits_state = system[5], system[13], system[16]
        vector = places[2]
        S, n = new.shape[1], new.shape[2]
        for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
            row, i = first + item // n, item % n
            received = room[vector + item]
            if emits_state:
                new[row, 0, i] += received
            else:
                b = sample[row]
                for c in range(S):
                    if by_e[c]:
                        new[row, c, i] += received * emit_s[t, b, c, i]

    return before, between, after


def _tangent(dtype, driven):
    zero = dtype.type(0)

    @_cuda.function
    def before(y, new, first, count, sample, t, system, room, places, dz, dz2):
        emit_s, by_e, emits_state = system[5], system[13], system[16]
        vector = places[2]
        S, n = y.shape[1], y.shape[2]
        for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
            row, i = first + item // n, item % n
            if emits_state:
                room[vector + item] = y[row, 0, i]
            else:
                total = zero
                for s in range(S):
                    if by_e[s]:
                        total += y[row, s, i] * emit_s[t, sample[row], s, i]
                room[vector + item] = total

    @_cuda.function
    def between(y, new, first, count, sample, t, system, room, places, dz, dz2):
        inner_s, inner_a = system[3:5]
        in_s, in_a = system[11:13]
        G, P2 = system[14:16]
        z, _, vector = places
        S, n, P = y.shape[1], y.shape[2], dz.shape[1] if driven else G
        for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
            r, i = item // n, item % n
            row = first + r
            b = sample[row]
            if driven:
                for p in range(G):
                    dz[row, p, i] += room[z + (r * G + p) * n + i]
                    room[z + (r * G + p) * n + i] = dz[row, p, i]
            if P2 > 0:
                total = zero
                for s in range(S):
                    if in_s[s]:
                        total += y[row, s, i] * inner_s[t, b, s, i]
                for p in range(P):
                    if in_a[p]:
                        if p < G:
                            total += room[z + (r * G + p) * n + i] * inner_a[t, b, p, i]
                        elif driven:
                            total += dz[row, p, i] * inner_a[t, b, p, i]
                room[vector + item] = total

    @_cuda.function
    def after(y, new, first, count, sample, t, system, room, places, dz, dz2):
        update_s, update_a, update_a2 = system[:3]
        by_s, by_a, by_a2 = system[8:11]
        G, P2 = system[14:16]
        z, z2, _ = places
        S, n, P = y.shape[1], y.shape[2], update_a.shape[3] if driven else G
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
                        total += update_s[t, b, c, s, i] * y[row, s, i]
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
