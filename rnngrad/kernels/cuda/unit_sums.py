"""Sums over the steps of all samples, for every unit: a thread for each of them and each part of the sum."""

import functools

import numpy as np

from ... import _cuda
from ...unit_terms import COUNT, terms
from . import pieces
from .products import added

cuda = _cuda.load()

_LANES = 64  # parts of a sum


@functools.cache
def make(kind):
    """Kernel ``run(parts, z, column, first, lengths, start, low, high, level)``; one for all dtypes.

    parts[L, 4, n] grow by the terms of z[T, B, C, n], whose first step is ``start``.
    """

    @_cuda.Kernel
    def run(parts, z, column, first, lengths, start, low, high, level):
        lanes, n, steps, B = parts.shape[0], parts.shape[2], z.shape[0], z.shape[1]
        for item in range(cuda.grid(1), lanes * n, cuda.gridsize(1)):
            lane, i = item // n, item % n
            lower, upper, values, slopes = parts[lane, 0, i], parts[lane, 1, i], parts[lane, 2, i], parts[lane, 3, i]
            for r in range((lane - start * B) % lanes, steps * B, lanes):  # whatever the pieces, the same rows
                t, b = r // B, r % B
                if first <= start + t < lengths[b]:
                    below, above, value, slope = terms(kind, np.float64(z[t, b, column, i]), low, high, level)
                    lower += below
                    upper += above
                    values += value
                    slopes += slope
            parts[lane, 0, i], parts[lane, 1, i], parts[lane, 2, i], parts[lane, 3, i] = lower, upper, values, slopes

    return run


@functools.cache
def unit_sums(kind):
    """Kernel ``launch(z, column, first, lengths, levels)``; the CPU's contract, the sums where z lies."""

    def launch(z, column, first, lengths, levels):
        T, n = z.shape[0], z.shape[3]
        parts, lengths = _cuda.upload(np.zeros((_LANES, COUNT, n))), _cuda.upload(lengths)
        threads = _cuda.threads(_LANES * n)

        def piece(start, stop, z):
            numbers = (np.float64(level) for level in levels)
            make(kind)(-(-_LANES * n // threads), threads, 0, parts, z, column, first, lengths, start, *numbers)

        pieces.run(piece, T, [pieces.read(z, 0)], "the units of one step", (parts.nbytes, 0))
        return added(parts.reshape(-1), _LANES, (COUNT, n), _cuda.is_device_array(z))

    return launch
