"""Rows of arrays by their numbers: copied, added, looked at for what is not zero, and their norms."""

import functools
import math

import numba
import numpy as np

from ... import _cuda
from ..._math import log
from . import block, pieces
from .graded import make_live
from .resident import in_float64

cuda = _cuda.load()

_LANES = 32  # parts of a sum over a row, and threads of a block
_LN2 = math.log(2.0)


@functools.cache
def make_put(more, scaled):
    """Kernel ``run(out, to, values, source, factors)``: out[to[r]] = values[source[r]], times factors[r] if ``scaled``.

    If ``more``, added to what is there.
    """

    @_cuda.Kernel
    def run(out, to, values, source, factors):
        C = out.shape[1]
        for item in range(cuda.grid(1), to.size * C, cuda.gridsize(1)):
            r, c = item // C, item % C
            value = values[source[r], c]
            if scaled:
                value *= factors[r]
            if more:
                value += out[to[r], c]
            out[to[r], c] = value

    return run


def put_rows(out, to, values, source, more=False, factors=None):
    """out[to[r]] = factors[r] values[source[r]] of device arrays (X, C) and (Y, C); the CPU's contract."""
    items = to.size * out.shape[1]
    if items:
        threads, scaled = _cuda.threads(items), factors is not None
        weights = values if factors is None else _cuda.upload(factors)
        run = make_put(bool(more), scaled)
        run(-(-items // threads), threads, 0, out, _cuda.upload(to), values, _cuda.upload(source), weights)


def live_rows(x):
    """Which rows of a device array (R, C) hold a number that is not zero, (R,) of bool on the host."""
    R, C = x.shape
    live, threads = _cuda.upload(np.zeros((1, R), np.uint8)), _cuda.threads(R * C)
    make_live(np.dtype(x.dtype))(-(-R * C // threads), threads, 0, live, x.reshape(1, R, C))
    out = np.empty((1, R), np.uint8)
    _cuda.download(live, out)
    return out[0] != 0


@functools.cache
def make_changing():
    """Kernel ``run(found, x)``: found[b] is set where x[t, b, :] is not x[0, b, :] for some t."""

    @_cuda.Kernel
    def run(found, x):
        T, B, m = x.shape
        for item in range(cuda.grid(1), T * B * m, cuda.gridsize(1)):
            b, i = item // m % B, item % m
            if x[item // (B * m), b, i] != x[0, b, i]:
                found[b] = 1  # whichever thread comes last

    return run


def changing(x):
    """Which columns of a device array (T, B, m) differ from what they are at the first step, (B,) on the host."""
    found, threads = _cuda.upload(np.zeros(x.shape[1], np.uint8)), _cuda.threads(x.size)
    make_changing()(-(-x.size // threads), threads, 0, found, x)
    out = np.empty(x.shape[1], np.uint8)
    _cuda.download(found, out)
    return out != 0


@functools.cache
def make_norms(logarithm):
    """Kernel ``run(out, rows, exponent)``: ||rows[r] 2^exponent[r]||, or its logarithm; one block per row at a time."""

    @_cuda.Kernel
    def run(out, rows, exponent):
        R, n = rows.shape
        tops = cuda.shared.array(_LANES, numba.int32)
        parts = cuda.shared.array(_LANES, numba.float64)
        for r in range(cuda.blockIdx.x, R, cuda.gridDim.x):
            for lane in range(cuda.threadIdx.x, _LANES, cuda.blockDim.x):
                key = np.int32(0)
                for i in range(lane, n, _LANES):
                    key = max(key, block.exponent_key(rows[r, i]))
                tops[lane] = key
            cuda.syncthreads()
            key = tops[0]
            for lane in range(1, _LANES):
                key = max(key, tops[lane])
            shift = block.exponent_of(key, 1.0)  # so that no square over- or underflows
            for lane in range(cuda.threadIdx.x, _LANES, cuda.blockDim.x):
                total = 0.0
                for i in range(lane, n, _LANES):
                    x = block.times_power(rows[r, i], -shift)
                    total += x * x
                parts[lane] = total
            cuda.syncthreads()
            if cuda.threadIdx.x == 0:
                square = 0.0
                for lane in range(_LANES):
                    square += parts[lane]
                if not logarithm:
                    out[r] = block.times_power(math.sqrt(square), exponent[r] + shift)
                elif 0.0 < square < math.inf:
                    out[r] = log(square) / 2.0 + (exponent[r] + shift) * _LN2
                else:  # no number stays none
                    out[r] = -math.inf if square == 0.0 else square
            cuda.syncthreads()

    return run


def row_log_norms(out, rows, exponent):
    """out[r] = ln ||rows[r] 2^exponent[r]|| of rows (R, n), in float64; the CPU's contract."""
    _norms(True, out, rows, exponent)


def row_lengths(out, rows):
    """out[r] = ||rows[r]|| of rows (R, C), in float64, on the host; the CPU's contract."""
    _norms(False, out, rows, np.zeros(rows.shape[0], np.int64))


def _norms(logarithm, out, rows, exponent):
    operands = [pieces.written(out, 0), pieces.read(in_float64(rows), 0), pieces.read(exponent, 0)]

    def piece(start, stop, *arrays):
        make_norms(logarithm)(min(stop - start, 32 * _cuda.processors()), _cuda.threads(_LANES), 0, *arrays)

    pieces.run(piece, rows.shape[0], operands, "the norm of one row")
