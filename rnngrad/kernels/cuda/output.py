"""What the readout sees, h = output(s), for cells whose state is not h itself; a thread for each unit."""

import functools

from ... import _cuda
from ..tuples import PUT, TAKE
from . import pieces

cuda = _cuda.load()


@functools.cache
def make_output(cell, phi):
    """Kernel ``run(h, states, consts)``."""
    take_s, take_k = TAKE[cell.n_states], TAKE[len(cell.constants)]
    unit_output = cell.module.output

    @_cuda.Kernel
    def run(h, states, consts):
        steps, B, n = h.shape
        for item in range(cuda.grid(1), steps * B * n, cuda.gridsize(1)):
            t, b, i = item // (B * n), item // n % B, item % n
            k = consts[min(t, consts.shape[0] - 1), min(b, consts.shape[1] - 1)]
            h[t, b, i] = unit_output(phi, take_s(states[t, b], i), take_k(k, i))

    return run


@functools.cache
def make_output_vjp(cell, phi):
    """Kernel ``run(gs, gh, states, consts)``."""
    S = cell.n_states
    take_s, take_k, put_s = TAKE[S], TAKE[len(cell.constants)], PUT[S]
    unit_vjp = cell.module.output_vjp

    @_cuda.Kernel
    def run(gs, gh, states, consts):
        steps, B, n = gh.shape
        for item in range(cuda.grid(1), steps * B * n, cuda.gridsize(1)):
            t, b, i = item // (B * n), item // n % B, item % n
            k = consts[min(t, consts.shape[0] - 1), min(b, consts.shape[1] - 1)]
            put_s(gs[t, b], 0, i, unit_vjp(phi, take_s(states[t, b], i), take_k(k, i), gh[t, b, i]))

    return run


def _launch(kernel, count, operands, each):
    def piece(start, stop, *arrays):
        threads = _cuda.threads(each)
        kernel(-(-(stop - start) * each // threads), threads, 0, *arrays)

    pieces.run(piece, count, operands, "one step of the outputs")


@functools.cache
def output(cell, phi):
    """Kernel ``launch(h, states, consts)``: h[t] = output(states[t])."""

    def launch(h, states, consts):
        operands = [pieces.written(h, 0), pieces.read(states, 0), pieces.read(consts, 0)]
        _launch(make_output(cell, phi), len(h), operands, h[0].size)

    return launch


@functools.cache
def output_vjp(cell, phi):
    """Kernel ``launch(gs, gh, states, consts)``: gs[t] = gh[t] dh_t/ds_t."""

    def launch(gs, gh, states, consts):
        operands = [pieces.written(gs, 0), pieces.read(gh, 0), pieces.read(states, 0), pieces.read(consts, 0)]
        _launch(make_output_vjp(cell, phi), len(gs), operands, gh[0].size)

    return launch
