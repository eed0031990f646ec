"""Sums over the steps of all samples, for every unit."""

import functools

import numpy as np

from ..._jit import kernel
from ...unit_terms import COUNT, terms

_LANES = 64  # parts of a sum


@functools.cache
def _parts(kind):
    @kernel("unit_sums", kind, tasks=lambda parts, *rest: len(parts), work=lambda parts, z, *rest: 8 * z[:, :, 0].size)
    def run(start, stop, parts, z, column, first, lengths, low, high, level):
        # parts[L, 4, n]  z[T, B, C, n]
        T, B, _, n = z.shape
        for lane in range(start, stop):
            out = parts[lane]
            for i in range(n):
                for q in range(COUNT):
                    out[q, i] = 0
            for r in range(lane, T * B, len(parts)):
                t, b = r // B, r % B
                if first <= t < lengths[b]:
                    row = z[t, b, column]
                    for i in range(n):
                        below, above, value, slope = terms(kind, np.float64(row[i]), low, high, level)
                        out[0, i] += below
                        out[1, i] += above
                        out[2, i] += value
                        out[3, i] += slope

    return run


@functools.cache
def unit_sums(kind):
    """Kernel ``launch(z, column, first, lengths, levels)``: sums (4, n) of the terms of z[T, B, C, n], float64.

    Over the steps first <= t < lengths[b] of column c; ``kind`` is the number of an activation, ``LOG_MAGNITUDE``
    or ``SQUARE``, and levels = (low, high, level), see :func:`rnngrad.unit_terms.terms`.
    """

    def launch(z, column, first, lengths, levels):
        parts = np.empty((_LANES, COUNT, z.shape[3]))
        _parts(kind)(parts, z, column, first, lengths, *levels)
        return parts.sum(axis=0)

    return launch
