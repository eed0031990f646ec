"""The batch-normalised LSTM: statistics over the batch couple all samples of a step, so a step is a few launches.

A thread for each unit of a sample; sums over the batch are those of ``statistics``. The arrays of all steps stay on the
device from the first step to the last.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from ... import _cuda
from ...normalization import affine, output_slope, pre_activation
from ..tuples import PUT, TAKE
from . import pieces
from .products import _product
from .statistics import columnwise, make_normalize, make_through

cuda = _cuda.load()

take_s, take_a, put_s, put_a = TAKE[2], TAKE[4], PUT[2], PUT[4]


@functools.cache
def make_cell_state(cell, phi, dtype):
    """Kernel ``run(a, c, states, h_hat, x_hat, gamma_h, gamma_x, bias, t)``: pre-activations, and c_t (c[1, B, n])."""
    update = cell.module.update
    zero, one = dtype.type(0), dtype.type(1)

    @_cuda.Kernel
    def run(a, c, states, h_hat, x_hat, gamma_h, gamma_x, bias, t):
        B, n = states.shape[1], states.shape[3]
        for item in range(cuda.grid(1), B * n, cuda.gridsize(1)):
            b, i = item // n, item % n
            for g in range(4):
                a[t, b, g, i] = pre_activation(
                    h_hat[t, b, g * n + i], x_hat[t, b, g * n + i], gamma_h[g, i], gamma_x[g, i], bias[g, i]
                )
            c[0, b, i] = update(phi, take_s(states[t, b], i), take_a(a[t, b], i), (), (one, zero))[1]

    return run


@functools.cache
def make_update(cell, phi):
    """Kernel ``run(states, a, mean, std, gamma_c, beta_c, t)``: s_t, of whose cell state mean, std[T, n] normalise."""
    update = cell.module.update

    @_cuda.Kernel
    def run(states, a, mean, std, gamma_c, beta_c, t):
        B, n = states.shape[1], states.shape[3]
        for item in range(cuda.grid(1), B * n, cuda.gridsize(1)):
            b, i = item // n, item % n
            k = affine(gamma_c[i], beta_c[i], mean[t, i], std[t, i])
            put_s(states[t + 1, b], 0, i, update(phi, take_s(states[t, b], i), take_a(a[t, b], i), (), k))

    return run


@functools.cache
def make_slope(phi):
    """Kernel ``run(dz, g, gh, a, c_hat, gamma_c, beta_c, t, from_, to, rows, charged)``.

    dz[to + r, B, n] = g[from_ + r] dh/dz of step t; g[X, B, 2, n] receives gh[t, B, n] first, if ``charged``.
    """

    @_cuda.Kernel
    def run(dz, g, gh, a, c_hat, gamma_c, beta_c, t, from_, to, rows, charged):
        B, n = g.shape[1], g.shape[3]
        for item in range(cuda.grid(1), rows * B * n, cuda.gridsize(1)):
            r, b, i = item // (B * n), item // n % B, item % n
            if charged:
                g[from_ + r, b, 0, i] += gh[t, b, i]
            z = gamma_c[i] * c_hat[t, b, i] + beta_c[i]
            dz[to + r, b, i] = g[from_ + r, b, 0, i] * output_slope(phi, a[t, b, 3, i], z)

    return run


@functools.cache
def make_adjoint(cell, phi):
    """Kernel ``run(out, da, g, dz, dc, states, a, c_hat, c_std, gamma_c, beta_c, t, from_, to, rows)``.

    out[to + r, B, 2, n] and da[to + r, B, 4, n] are g[from_ + r] through the update of step t; dc[to + r, B, n] is what
    comes of dz by way of the norm of c.
    """
    update_vjp = cell.module.update_vjp

    @_cuda.Kernel
    def run(out, da, g, dz, dc, states, a, c_hat, c_std, gamma_c, beta_c, t, from_, to, rows):
        B, n = g.shape[1], g.shape[3]
        for item in range(cuda.grid(1), rows * B * n, cuda.gridsize(1)):
            r, b, i = item // (B * n), item // n % B, item % n
            scale = gamma_c[i] / c_std[t, i]
            shift = gamma_c[i] * c_hat[t, b, i] + beta_c[i] - scale * states[t + 1, b, 1, i]
            # the cell passes scale dz on to c by itself; the statistics' part is added to what c receives
            received = g[from_ + r, b, 1, i] + dc[to + r, b, i] - scale * dz[to + r, b, i]
            s, pre, charge = take_s(states[t, b], i), take_a(a[t, b], i), (g[from_ + r, b, 0, i], received)
            ds, dg, _ = update_vjp(phi, s, pre, (), (scale, shift), charge)
            put_s(out[to + r, b], 0, i, ds)
            put_a(da[to + r, b], 0, i, dg)

    return run


def _units(kernel, items, *args):
    threads = _cuda.threads(items)
    kernel(-(-items // threads), threads, 0, *args)


def _in_time(count, operands, scratch, what, whole, halves):
    """Run ``whole(start, stop, *device arrays)`` if all steps fit at once, else ``halves(steps of the first half)``."""
    if count > 1 and pieces.fitting(count, operands, scratch) < count:
        halves(count // 2)
    else:
        pieces.run(whole, count, operands, what, scratch)


def batchnorm_rollout(cell, phi, states, a, hats, stds, moments, x_hat, W, parameters, given, eps):
    """States s_1 … of a batch-normalised LSTM from s_0 = states[0].

    states[T+1, B, 2, n]  a[T, B, 4, n]  hats = (h_hat[T, B, 4 n], c_hat[T, B, n])  stds = (h_std[T, 4 n], c_std[T, n])
    moments = (h_mean, h_var[T, 4 n], c_mean, c_var[T, n]) of the batch, and ``given`` those to be used for it, or None;
    x_hat[T, B, 4 n]  W[4, n, n]  parameters = (gamma_h, gamma_x, b[4, n], gamma_c, beta_c[n]).
    """
    T, B, _, n = a.shape
    dtype, coupled = np.dtype(a.dtype), given is None
    arrays = (states[1:], a, *hats, *stds, *moments)
    operands = [pieces.written(array, 0) for array in arrays]
    operands += [pieces.read(array, 0) for array in (x_hat, *(() if coupled else given))]
    operands += [pieces.whole(array) for array in (states[0], W.ravel(), *parameters)]

    def whole(start, stop, states_, a, h_hat, c_hat, h_std, c_std, h_mean, h_var, c_mean, c_var, x_hat, *rest):
        fixed = (h_mean, h_var, c_mean, c_var) if coupled else rest[:4]
        s0, W, gamma_h, gamma_x, bias, gamma_c, beta_c = rest[-7:]
        states = _cuda.empty((stop - start + 1, B, 2, n), dtype)
        states[0].copy_to_device(s0)
        term, c = _cuda.empty((1, B, 4 * n), dtype), _cuda.empty((1, B, n), dtype)
        flat, small = states.reshape(-1), dtype.type(eps)
        for t in range(stop - start):
            place = (t * B * 2 * n, 2 * n, 1), (0, 1, n), (0, 4 * n, 0)
            _product(term.reshape(-1), flat, W, None, B, n, 4 * n, *place)
            columnwise(
                make_normalize(dtype), 4 * n, h_hat, h_mean, h_var, h_std, term, *fixed[:2], small, not coupled, t, 0
            )
            _units(make_cell_state(cell, phi, dtype), B * n, a, c, states, h_hat, x_hat, gamma_h, gamma_x, bias, t)
            columnwise(make_normalize(dtype), n, c_hat, c_mean, c_var, c_std, c, *fixed[2:], small, not coupled, t, 0)
            _units(make_update(cell, phi), B * n, states, a, fixed[2], c_std, gamma_c, beta_c, t)
        states_.copy_to_device(states[1:])

    def halves(half):
        for part in (slice(half), slice(half, None)):
            last = None if part.stop is None else half + 1
            batchnorm_rollout(
                cell, phi, states[part.start or 0 : last], a[part], tuple(x[part] for x in hats),
                tuple(x[part] for x in stds), tuple(x[part] for x in moments), x_hat[part], W, parameters,
                None if coupled else tuple(x[part] for x in given), eps,
            )  # fmt: skip

    one = B * n * dtype.itemsize
    _in_time(T, operands, (7 * one, 2 * one), "one step of a batch-normalised network", whole, halves)


def batchnorm_backprop(cell, phi, gs, da, dterm, dz, gh, states, a, hats, stds, W, parameters, coupled):
    """Adjoints of a batch-normalised LSTM: gs[T+1, B, 2, n] from gs[T] on, and da, dterm[T, B, 4 n], dz[T, B, n].

    gh[T, B, n] is charged to h_1 … h_T. dterm is what arrives at W h, dz what arrives at BN(c); parameters are
    (gamma_h[4, n], gamma_c, beta_c[n]), the others as of ``batchnorm_rollout``.
    """
    T, B, _, n = a.shape
    dtype = np.dtype(a.dtype)
    operands = [pieces.written(gs[:T], 0), pieces.written(da, 0), pieces.written(dterm, 0), pieces.written(dz, 0)]
    operands += [pieces.read(array, 0) for array in (gh, states[1:], a, *hats, *stds)]
    operands += [pieces.whole(array) for array in (states[0], gs[T], W.ravel(), *parameters)]

    def whole(start, stop, gs_, da, dterm, dz, gh, later, a, h_hat, c_hat, h_std, c_std, s0, last, W, *parameters):
        steps = stop - start
        g, states = (_cuda.empty((steps + 1, B, 2, n), dtype) for _ in range(2))
        g[steps].copy_to_device(last)
        states[0].copy_to_device(s0)
        states[1:].copy_to_device(later)
        dc, kept = _cuda.empty((steps, B, n), dtype), _Kept(states, a, h_hat, c_hat, h_std, c_std)
        for t in range(steps - 1, -1, -1):
            rows = _Rows(g, t + 1, t, 1)
            _adjoint(cell, phi, g, rows, (da, dterm, dz, dc), kept, (W, *parameters), t, gh, coupled)
        gs_.copy_to_device(g[:steps])
        _cuda.download(g[steps], gs[T])  # with the charge of the last step

    def halves(half):
        for part in (slice(half, None), slice(half)):
            first, stop = part.start or 0, None if part.stop is None else half + 1
            batchnorm_backprop(
                cell, phi, gs[first:stop], da[part], dterm[part], dz[part], gh[part], states[first:stop], a[part],
                tuple(x[part] for x in hats), tuple(x[part] for x in stds), W, parameters, coupled,
            )  # fmt: skip

    one = B * n * dtype.itemsize
    _in_time(T, operands, (4 * one, 5 * one), "one step back through a batch-normalised network", whole, halves)


def batchnorm_jacobian(J, cell, phi, states, a, hats, stds, W, parameters, coupled):
    """J[T, B N, B, 2, n]: rows of the whole batch's Jacobian at every step; arrays as of ``batchnorm_backprop``."""
    T, R, B, _, n = J.shape
    dtype = np.dtype(a.dtype)
    operands = [pieces.written(J, 0)] + [pieces.read(x, 0) for x in (states[:-1], states[1:], a, *hats, *stds)]
    operands += [pieces.whole(array) for array in (W.ravel(), *parameters)]
    scratch = R * B * (2 + 4 + 4 + 1 + 1) * n * dtype.itemsize + 2 * states[0].nbytes

    def piece(start, stop, J, before, after, a, h_hat, c_hat, h_std, c_std, W, *parameters):
        eye = _cuda.upload(np.eye(R, dtype=dtype).reshape(R, B, 2, n))
        wide = [_cuda.empty((R, B, 4 * n), dtype) for _ in range(2)]
        narrow = [_cuda.empty((R, B, n), dtype) for _ in range(2)]
        states = _cuda.empty((stop - start + 1, B, 2, n), dtype)
        states[: stop - start].copy_to_device(before)
        states[stop - start].copy_to_device(after[stop - start - 1])
        kept = _Kept(states, a, h_hat, c_hat, h_std, c_std)
        for t in range(stop - start):
            beside = (*wide, *narrow)
            _adjoint(cell, phi, J[t], _Rows(eye, 0, 0, R), beside, kept, (W, *parameters), t, None, coupled)

    pieces.run(piece, T, operands, "the Jacobian of one step of the batch", (scratch, 0))


class _Kept(NamedTuple):
    """What a rollout keeps for the way back: states[T+1, B, 2, n], and the others as of ``batchnorm_rollout``."""

    states: Any
    a: Any
    h_hat: Any
    c_hat: Any
    h_std: Any
    c_std: Any


class _Rows(NamedTuple):
    """``number`` rows g[first + r, B, 2, n], whose results are kept at ``to`` + r."""

    g: Any
    first: int
    to: int
    number: int


def _adjoint(cell, phi, out, rows, beside, kept, parameters, t, gh, coupled):
    """Carry rows back through step t into out[to + r]; gh[T, B, n], if given, is charged to h_{t+1} before.

    beside = (da, dterm[X, B, 4 n], dz, dc[X, B, n]) receive the adjoints within the step; parameters = (W, gamma_h,
    gamma_c, beta_c).
    """
    g, first, to, count = rows
    da, dterm, dz, dc = beside
    W, gamma_h, gamma_c, beta_c = parameters
    B, n, X = g.shape[1], g.shape[3], da.shape[0]
    dtype, items = np.dtype(g.dtype), count * g.shape[1] * g.shape[3]
    norm, places = make_through(dtype), (t, first, to, count)
    charge, charged = (dz, False) if gh is None else (gh, True)
    _units(make_slope(phi), items, dz, g, charge, kept.a, kept.c_hat, gamma_c, beta_c, *places, charged)
    columnwise(norm, count * n, dc, dz, gamma_c, kept.c_hat, kept.c_std, t, 0, to, count, coupled)
    _units(
        make_adjoint(cell, phi), items, out, da.reshape(X, B, 4, n), g, dz, dc, kept.states, kept.a, kept.c_hat,
        kept.c_std, gamma_c, beta_c, *places,
    )  # fmt: skip
    gamma = gamma_h.reshape(4 * n)
    columnwise(norm, count * 4 * n, dterm, da, gamma, kept.h_hat, kept.h_std, t, 0, to, count, coupled)
    place = (to * B * 4 * n, 4 * n, 1), (0, n, 1), (to * B * 2 * n, 2 * n, 0)
    _product(out.reshape(-1), dterm.reshape(-1), W, None, count * B, 4 * n, n, *place, more=True)
