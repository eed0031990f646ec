"""Products of Jacobians: adjoint rows carried back through time, or tangent columns forward, a block for a few of them.

The arrays and their meaning are those of the CPU's kernels: y_{t-1} = y_t J_t or v_t = J_t v_{t-1}, a mantissa and an
exponent for each row; columns are stored as rows. One launch takes all steps; the weights lie in shared memory where
they fit. Products of many units are the library's, step by step.
"""

import functools

import numba
import numpy as np

from ... import _cuda
from . import block, large, library, pieces, steps
from .block import KEYS, MOST_ROWS

cuda = _cuda.load()


@functools.cache
def make(form, forward, dtype, level, driven):
    """Kernel of ``carry`` for one form of the local Jacobians of as many steps as ``out`` has."""
    step, begin = steps.make(form, forward, dtype, driven), steps.begin(form, dtype, level)
    widest = block.widest(dtype.type(1))

    @_cuda.Kernel
    def run(out, exponents, y, exponent, sample, dz, dz2, system, scratch, rows, row):
        count_of_steps, R, n = out.shape[0], out.shape[1], out.shape[3]
        first = cuda.blockIdx.x * rows
        count = min(rows, R - first)
        keys = cuda.shared.array(KEYS, numba.int32)
        taken = cuda.shared.array(MOST_ROWS, numba.int64)
        where = begin(scratch, rows * row, system, n)
        for r in range(cuda.threadIdx.x, MOST_ROWS, cuda.blockDim.x):
            keys[r] = 0
            keys[MOST_ROWS + r] = 0
            if r < count:
                taken[r] = exponent[first + r]
        cuda.syncthreads()
        current = y
        for d in range(count_of_steps):
            t = d if forward else count_of_steps - 1 - d
            new = out[t]
            at = t if driven else 0
            step(current, new, first, count, rows, sample, t, system, where, dz[at], dz2[at])
            if not driven:
                block.rescale(new, first, count, keys, taken, d % 2, widest)
            for item in range(cuda.threadIdx.x, count * n, cuda.blockDim.x):
                if item % n == 0:  # the thread that counts for this row
                    exponents[t, first + item // n] = taken[item // n]
            current = new

    return run


def carry(forward, out, exponents, y, exponent, sample, dz, dz2, system):
    """Carry y through every step of the system; out and exponents are in the order of time."""
    count, R, _, n = out.shape
    driven, itemsize = len(dz) > 0, out.dtype.itemsize
    level, fits = block.placement(itemsize, system.weights, system.row, _cuda.shared_limit())
    by_library = system.form == "factored" and library.pays(n)
    least = min(R, library.ROWS) if by_library else 1
    cut = [pieces.changed(out, 1) if driven else pieces.written(out, 1), pieces.written(exponents, 1)]
    cut += [pieces.read(array, 0) for array in (y, exponent, sample)]
    cut += [pieces.changed(array, 1) if driven else pieces.whole(array) for array in (dz, dz2)]
    cut += system.operands(pieces.whole)
    spare = (0, system.row * itemsize) if by_library else block.spare(level, system.row * itemsize)
    if (
        count > 1 and pieces.fitting(R, cut, spare) < least
    ):  # not even the fewest rows: half of the steps, then the rest
        half = count // 2
        parts, at = ((0, half), (half, count)), half - 1 if forward else half
        for start, stop in parts if forward else parts[::-1]:
            own = slice(start, stop)
            carry(
                forward, out[own], exponents[own], y, exponent, sample, dz[own], dz2[own], system.steps(start, stop)
            )  # fmt: skip
            y, exponent = out[at], exponents[at]
        return

    def piece(start, stop, *arrays):
        if by_library:
            large.carry(forward, arrays, system.scalars, driven)
            return
        blocks, rows = pieces.blocks_and_rows(stop - start, fits)
        scratch, shared = block.scratch(level, blocks, rows * system.row, system.weights, out.dtype)
        passed = (*arrays[7:], *system.scalars)
        kernel = make(system.form, forward, np.dtype(out.dtype), level, driven)
        kernel(blocks, _cuda.threads(rows * n), shared, *arrays[:7], passed, scratch, rows, system.row)

    pieces.run(piece, R, cut, "one row of a chain of Jacobians", spare, least)


def adjoint_chain(out, exponents, y, exponent, sample, t_from, dz, dz2, system):
    """Carry y[R, S, n] (with exponent[R]) from step t_from back; out[-1 - d], exponents[-1 - d] hold it d + 1 earlier.

    The contract of the CPU's kernel: with charges dz[D, R, P, n], dz2 (D > 0) ``out`` holds on entry charges to the
    states, no exponent is taken out, and dz, dz2 return the adjoints of the pre-activations.
    """
    system = steps.factored(False, system)
    carry(False, out, exponents, y, exponent, sample, dz, dz2, system.steps(t_from - len(out), t_from))


def tangent_chain(out, exponents, v, exponent, sample, t_from, dz, dz2, system):
    """Carry v[R, S, n] (with exponent[R]) from state t_from on; out[d], exponents[d] hold it d + 1 steps later.

    The contract of the CPU's kernel: with changes dz[D, R, P, n], dz2 (D > 0) of the pre-activations no exponent is
    taken out, and they return the tangents of the pre-activations.
    """
    system = steps.factored(True, system)
    carry(True, out, exponents, v, exponent, sample, dz, dz2, system.steps(t_from, t_from + len(out)))


def dense_chain(out, exponents, y, exponent, sample, t_from, J, forward):
    """Carry rows y[R, n] back through J[T, B, n, n] from state t_from, or columns forward; out in the order of time."""
    count, R, n = out.shape
    start = t_from if forward else t_from - count
    none = np.empty((0, 0, 0, 0), out.dtype)
    system = steps.dense(J[start : start + count])
    rows = out.reshape(count, R, 1, n), exponents, y.reshape(R, 1, n), exponent
    carry(forward, *rows, sample, none, none, system)
