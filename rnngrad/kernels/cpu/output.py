"""What the readout sees, h = output(s), for cells whose state is not h itself."""

import functools

from ..._jit import kernel
from ..tuples import PUT, TAKE


@functools.cache
def output(cell, phi):
    """Kernel ``run(h, states, consts)``: h[t] = output(states[t])."""
    S = cell.n_states
    take_s, take_k = TAKE[S], TAKE[len(cell.constants)]
    unit_output = cell.module.output

    @kernel(
        "output", cell.name, phi, cached=cell.built_in, tasks=lambda h, *rest: len(h), work=lambda h, *rest: 4 * h.size
    )
    def run(start, stop, h, states, consts):
        _, B, n = h.shape
        for t in range(start, stop):
            for b in range(B):
                k = consts[min(t, consts.shape[0] - 1), min(b, consts.shape[1] - 1)]
                for i in range(n):
                    h[t, b, i] = unit_output(phi, take_s(states[t, b], i), take_k(k, i))

    return run


@functools.cache
def output_vjp(cell, phi):
    """Kernel ``run(gs, gh, states, consts)``: gs[t] = gh[t] dh_t/ds_t."""
    S = cell.n_states
    take_s, take_k, put_s = TAKE[S], TAKE[len(cell.constants)], PUT[S]
    unit_vjp = cell.module.output_vjp

    @kernel(
        "output_vjp",
        cell.name,
        phi,
        cached=cell.built_in,
        tasks=lambda gs, *rest: len(gs),
        work=lambda gs, *rest: 4 * gs.size,
    )
    def run(start, stop, gs, gh, states, consts):
        _, B, n = gh.shape
        for t in range(start, stop):
            for b in range(B):
                k = consts[min(t, consts.shape[0] - 1), min(b, consts.shape[1] - 1)]
                for i in range(n):
                    put_s(gs[t, b], 0, i, unit_vjp(phi, take_s(states[t, b], i), take_k(k, i), gh[t, b, i]))

    return run
