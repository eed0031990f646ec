"""Batch-normalised LSTM along its inputs: with given statistics an LSTM at every step; those of the batch couple it.

At each step BN is an affine map whose coefficients come from the batch, so a step is the cell "lstm_scaled" with
constants of its own, and its adjoint is that cell's plus what the statistics depend on:

    dL/dz = gamma/sigma (g - mean(g) - z^ mean(g z^)),   z^ = (z - mean)/sigma,  means over the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from ..batchnorm import BatchNormLSTM, Statistics
from ..cells import LSTM_SCALED
from ..kernels import backend as find_backend
from .chain import JacobianChain, jacobian_chain
from .jacobian import local_jacobians
from .rollout import first_divergence, readout, run
from .steps import Steps
from .system import DenseJacobians


@dataclass(frozen=True)
class BatchNormTrajectory(Steps):
    """States of a batch-normalised LSTM along its inputs, and the statistics it met.

    Attributes
    ----------
    net : BatchNormLSTM
    x, states, h, y : ndarray
        As of any trajectory.
    statistics : Statistics
        Of this batch, for every step; variances unbiased.
    a : ndarray (T, B, 4, n)
        Pre-activations.
    h_hat, x_hat, c_hat : ndarray (T, B, 4, n), (T, B, 4, n), (T, B, n)
        Normalised terms.
    h_std, x_std, c_std : ndarray (T, 4, n), (T, 4, n), (T, n)
        sqrt(var + eps) that they were divided by.
    """

    net: BatchNormLSTM
    x: NDArray
    states: NDArray
    h: NDArray
    y: NDArray
    lengths: NDArray
    diverged: NDArray
    statistics: Statistics
    a: NDArray
    h_hat: NDArray
    x_hat: NDArray
    c_hat: NDArray
    h_std: NDArray
    x_std: NDArray
    c_std: NDArray
    backend: str = "auto"

    @property
    def coupled(self) -> bool:
        """Whether the samples meet in the statistics."""
        return self.net.statistics is None


@run.register
def _run_batchnorm(
    net: BatchNormLSTM, x: NDArray, s0: NDArray, lengths: NDArray, backend: str, quiet: bool = False
) -> BatchNormTrajectory:
    T, B, _ = x.shape
    if lengths.min() < T:
        raise ValueError("lengths differ from T; a batch-normalised network takes sequences of one length")
    given = net.statistics
    if given is None and B < 2:
        raise ValueError("x has a batch of 1; batch normalisation in training mode needs at least 2 samples")
    n, dtype, update = net.n, net.dtype, find_backend(backend).update(LSTM_SCALED, net.phi)
    states = np.empty((T + 1, B, 2, n), dtype)
    states[0] = s0
    a, h_hat = np.empty((T, B, 4, n), dtype), np.empty((T, B, 4, n), dtype)
    c_hat, h_std, c_std = np.empty((T, B, n), dtype), np.empty((T, 4, n), dtype), np.empty((T, n), dtype)
    found: dict[str, list[NDArray]] = {"h_mean": [], "h_var": [], "c_mean": [], "c_var": []}
    x_term = np.einsum("tbm,gnm->tbgn", x, net.U)
    x_mean, x_var = _moments(x_term, 1)
    at = np.minimum(np.arange(T), 0 if given is None else len(given.c_mean) - 1)
    used = (x_mean, x_var) if given is None else (given.x_mean[at], given.x_var[at])
    x_std = np.sqrt(used[1] + net.eps).astype(dtype)
    x_hat = (x_term - used[0][:, None]) / x_std[:, None]
    W = net.W.reshape(4 * n, n)
    neutral = np.stack([np.ones(n, dtype), np.zeros(n, dtype)])
    for t in range(T):
        term = (states[t, :, 0] @ W.T).reshape(B, 4, n)
        found_h = _moments(term, 0)
        mean, var = found_h if given is None else (given.h_mean[at[t]], given.h_var[at[t]])
        h_std[t] = np.sqrt(var + net.eps)
        h_hat[t] = (term - mean) / h_std[t]
        a[t] = net.gamma_h * h_hat[t] + net.gamma_x * x_hat[t] + net.b
        update(states[t + 1], states[t], a[t], neutral)  # c first: its statistics decide how it leaves
        c = states[t + 1, :, 1]
        found_c = _moments(c, 0)
        mean, var = found_c if given is None else (given.c_mean[at[t]], given.c_var[at[t]])
        c_std[t] = np.sqrt(var + net.eps)
        c_hat[t] = (c - mean) / c_std[t]
        scale = net.gamma_c / c_std[t]
        update(states[t + 1], states[t], a[t], np.stack([scale, net.beta_c - scale * mean]).astype(dtype))
        for name, value in zip(found, (*found_h, *found_c), strict=True):
            found[name].append(value)
    unbiased = B / (B - 1) if B > 1 else 1.0
    moments = {name: np.stack(values) * (unbiased if "var" in name else 1) for name, values in found.items()}
    statistics = Statistics(x_mean=x_mean, x_var=x_var * unbiased, **moments)
    h = np.ascontiguousarray(states[1:, :, 0])
    return BatchNormTrajectory(
        net, x, states, h, readout(net, h, backend), lengths, first_divergence(states, quiet), statistics,
        a, h_hat, x_hat, c_hat, h_std, x_std, c_std, backend,
    )  # fmt: skip


def _moments(z: NDArray, axis: int) -> tuple[NDArray, NDArray]:
    """Mean and biased variance over the batch."""
    mean = z.mean(axis=axis, keepdims=True)
    return mean.squeeze(axis), np.mean(np.square(z - mean), axis=axis)


def _through_norm(g: NDArray, hat: NDArray, std: NDArray, coupled: bool) -> NDArray:
    """g (R, B, …) back through z^ = (z - mean)/std, with mean and std of the batch where ``coupled``."""
    if coupled:
        g = g - g.mean(axis=1, keepdims=True) - hat * np.mean(g * hat, axis=1, keepdims=True)
    return g / std


def step_adjoint(traj: BatchNormTrajectory, t: int, g: NDArray) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Rows g (R, B, 2, n) at s_{t+1}, all samples together, carried to s_t.

    Returns (rows at s_t, da (R, B, 4, n), d(W h) (R, B, 4, n), d(BN(c)) (R, B, n)).
    """
    net, kernels, coupled = traj.net, find_backend(traj.backend), traj.coupled
    R, B, _, n = g.shape
    scale = net.gamma_c / traj.c_std[t]
    z = net.gamma_c * traj.c_hat[t] + net.beta_c  # what enters the tanh
    slope = np.empty_like(z)
    kernels.gated_slope(net.phi)(slope, np.ascontiguousarray(traj.a[t, :, 3]), z)
    dz = g[:, :, 0] * slope
    # the cell passes scale dz on to c by itself; the statistics' part is added to what c receives
    through = _through_norm(net.gamma_c * dz, traj.c_hat[t], traj.c_std[t], coupled)
    g = np.stack([g[:, :, 0], g[:, :, 1] + through - scale * dz], axis=2)
    shift = z - scale * traj.states[t + 1, :, 1]  # the same for every sample
    constants = np.stack([scale, shift[0]]).astype(g.dtype)
    gs, da = np.empty((R * B, 2, n), g.dtype), np.empty((R * B, 4, n), g.dtype)
    place = np.tile(np.arange(B), R)
    kernels.update_vjp(LSTM_SCALED, net.phi)(
        gs, da, traj.states[t], traj.a[t], constants, g.reshape(R * B, 2, n), place
    )
    gs, da = gs.reshape(R, B, 2, n), da.reshape(R, B, 4, n)
    dterm = _through_norm(net.gamma_h * da, traj.h_hat[t], traj.h_std[t], coupled)
    gs[:, :, 0] += (dterm.reshape(R * B, 4 * n) @ net.W.reshape(4 * n, n)).reshape(R, B, n)
    return gs, da, dterm, dz


def full_jacobians(traj: BatchNormTrajectory) -> NDArray:
    """Jacobians of the whole batch at once, (T, B N, B N): row = output, samples one after the other.

    In training mode every sample's next state depends on every sample's state, through the statistics; the block
    (b, b) is what is left when the other samples are held fixed, and what :func:`rnngrad.jacobians` gives. In inference
    mode the blocks off the diagonal are zero.
    """
    traj.require_finite()
    B, N = traj.B, traj.net.N
    eye = np.eye(B * N, dtype=traj.net.dtype).reshape(B * N, B, *traj.net.state_shape)
    rows = [step_adjoint(traj, t, eye)[0].reshape(B * N, B * N) for t in range(traj.T)]
    return np.stack(rows)


@local_jacobians.register
def batchnorm_jacobians(traj: BatchNormTrajectory) -> DenseJacobians:
    """J (T, B, N, N) of each sample, the others held fixed."""
    full = full_jacobians(traj).reshape(traj.T, traj.B, traj.net.N, traj.B, traj.net.N)
    own = np.ascontiguousarray(np.einsum("tbibj->tbij", full))
    return DenseJacobians(traj.net, own, traj.backend)


@jacobian_chain.register
def batchnorm_chain(traj: BatchNormTrajectory) -> JacobianChain:
    """The chain of the whole batch: one system of B N numbers, ("b0", "h") … as its blocks.

    Samples meet at every step in training mode, so a product over several steps has no meaning for one sample alone.
    """
    B, N = traj.B, traj.net.N
    blocks = {f"b{b}": slice(b * N, (b + 1) * N) for b in range(B)}
    for b in range(B):
        for name, part in traj.net.blocks.items():
            blocks[f"{name}_b{b}"] = slice(b * N + part.start, b * N + part.stop)
    net = SimpleNamespace(N=B * N, n=B * N, state_shape=(1, B * N), blocks=blocks, dtype=traj.net.dtype)
    whole = SimpleNamespace(net=net, T=traj.T, B=1, backend=traj.backend)
    jacobians = DenseJacobians(net, full_jacobians(traj)[:, None], traj.backend)
    return JacobianChain(whole, jacobians)  # type: ignore[arg-type]
