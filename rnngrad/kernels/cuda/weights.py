"""What tangents along single weights need beside the chain: where a weight enters, and what a loss makes of them."""

import functools

import numpy as np

from ... import _cuda
from . import pieces
from .resident import in_float64

cuda = _cuda.load()


@functools.cache
def make_drive(dtype):
    """Kernel ``run(dz, source, column, gate, unit)``."""
    zero = dtype.type(0)

    @_cuda.Kernel
    def run(dz, source, column, gate, unit):
        # dz[B, K, P, n]  source[B, L]
        B, K, P, n = dz.shape
        for item in range(cuda.grid(1), B * K * P * n, cuda.gridsize(1)):
            i, p = item % n, item // n % P
            k, b = item // (n * P) % K, item // (n * P * K)
            dz[b, k, p, i] = source[b, column[k]] if gate[k] == p and unit[k] == i else zero

    return run


def weight_drive(dz, source, column, gate, unit):
    """dz[b, k, p, i] = source[b, column[k]] where p = gate[k] and i = unit[k], 0 elsewhere; the CPU's contract."""
    operands = [pieces.written(dz, 1), pieces.whole(source), *(pieces.read(array, 0) for array in (column, gate, unit))]
    kernel, each = make_drive(np.dtype(dz.dtype)), dz.shape[0] * dz.shape[2] * dz.shape[3]

    def piece(start, stop, *arrays):
        threads = _cuda.threads(each)
        kernel(-(-(stop - start) * each // threads), threads, 0, *arrays)

    pieces.run(piece, dz.shape[1], operands, "the drive of one weight")


@functools.cache
def make_charge():
    """Kernel ``run(total, direct, v)``, a thread for each column."""

    @_cuda.Kernel
    def run(total, direct, v):
        # total[K]  direct[B, N]  v[B, K, N]
        B, K, N = v.shape
        for k in range(cuda.grid(1), K, cuda.gridsize(1)):
            more = 0.0
            for b in range(B):
                for s in range(N):
                    more += direct[b, s] * v[b, k, s]
            total[k] += more

    return run


def charge_columns(total, direct, v):
    """total[k] += sum_b <direct[b], v[b, k]> in float64; the CPU's contract."""
    operands = [pieces.changed(total, 0), pieces.whole(in_float64(direct)), pieces.read(in_float64(v), 1)]

    def piece(start, stop, *arrays):
        threads = _cuda.threads(stop - start)
        make_charge()(-(-(stop - start) // threads), threads, 0, *arrays)

    pieces.run(piece, v.shape[1], operands, "the tangents along one weight")
