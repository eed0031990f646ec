"""Batch-normalised LSTM along its inputs: with given statistics an LSTM at every step; those of the batch couple it.

At each step BN is an affine map whose coefficients come from the batch, so a step is the cell "lstm_scaled" with
constants of its own, and its adjoint is that cell's plus what the statistics depend on:

    dL/dz = gamma/sigma (g - mean(g) - z^ mean(g z^)),   z^ = (z - mean)/sigma,  means over the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..batchnorm import BatchNormLSTM, Statistics
from ..cells import LSTM_SCALED
from ..kernels import backend as find_backend
from ..normalization import affine, for_arrays, normalized, pre_activation, through
from .chain import JacobianChain, jacobian_chain
from .jacobian import local_jacobians
from .rollout import first_divergence, input_runs, readout, run
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
    at = np.minimum(np.arange(T), 0 if given is None else len(given.c_mean) - 1)
    used = None if given is None else Statistics(**{name: value[at] for name, value in vars(given).items()})
    forward = _forward_on_cuda if backend == "cuda" else _forward
    arrays, moments = forward(net, x, s0, used, backend)
    unbiased = B / (B - 1) if B > 1 else 1.0
    found = Statistics(**{name: value * unbiased if "var" in name else value for name, value in moments.items()})
    states = arrays["states"]
    h = np.ascontiguousarray(states[1:, :, 0])
    return BatchNormTrajectory(
        net, x, h=h, y=readout(net, h, backend), lengths=lengths, diverged=first_divergence(states, quiet),
        statistics=found, backend=backend, **arrays,
    )  # fmt: skip


def _room(net: BatchNormLSTM, T: int, B: int) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
    """Arrays of a trajectory, and moments of its batch, to be filled."""
    columns: dict[str, tuple[int, ...]] = {"h": (4, net.n), "x": (4, net.n), "c": (net.n,)}
    arrays = {"states": np.empty((T + 1, B, 2, net.n), net.dtype), "a": np.empty((T, B, 4, net.n), net.dtype)}
    moments: dict[str, NDArray] = {}
    for name, shape in columns.items():
        arrays |= {f"{name}_hat": np.empty((T, B, *shape), net.dtype), f"{name}_std": np.empty((T, *shape), net.dtype)}
        moments |= {f"{name}_{moment}": np.empty((T, *shape), net.dtype) for moment in ("mean", "var")}
    return arrays, moments


_Forward = tuple[dict[str, NDArray], dict[str, NDArray]]


def _forward(net: BatchNormLSTM, x: NDArray, s0: NDArray, given: Statistics | None, backend: str) -> _Forward:
    """All steps, one after the other, over the whole batch; ``given`` has statistics for each."""
    T, B, _ = x.shape
    n, dtype, update = net.n, net.dtype, find_backend(backend).update(LSTM_SCALED, net.phi)
    arrays, moments = _room(net, T, B)
    states, a = arrays["states"], arrays["a"]
    states[0] = s0

    def norm(name: str, z: NDArray, at: Any) -> NDArray:
        """Normalise z (…, B, *columns) over the batch; the mean that is used."""
        std = arrays[f"{name}_std"]
        axis = z.ndim - std.ndim  # the batch's: std has time in its place
        found = _moments(z, axis)
        moments[f"{name}_mean"][at], moments[f"{name}_var"][at] = found
        mean, var = found if given is None else (getattr(given, f"{name}_{of}")[at] for of in ("mean", "var"))
        std[at] = np.sqrt(var + net.eps)
        centre, size = np.expand_dims(mean, axis), np.expand_dims(std[at], axis)
        arrays[f"{name}_hat"][at] = for_arrays(normalized)(z, centre, size)
        return mean

    norm("x", np.einsum("tbm,gnm->tbgn", x, net.U), slice(None))
    W, neutral = net.W.reshape(4 * n, n), np.stack([np.ones(n, dtype), np.zeros(n, dtype)])
    for t in range(T):
        norm("h", (states[t, :, 0] @ W.T).reshape(B, 4, n), t)
        a[t] = for_arrays(pre_activation)(arrays["h_hat"][t], arrays["x_hat"][t], net.gamma_h, net.gamma_x, net.b)
        update(states[t + 1], states[t], a[t], neutral)  # c first: its statistics decide how it leaves
        mean = norm("c", states[t + 1, :, 1], t)
        constants = for_arrays(affine)(net.gamma_c, net.beta_c, mean, arrays["c_std"][t])
        update(states[t + 1], states[t], a[t], np.stack(constants).astype(dtype))
    return arrays, moments


def _forward_on_cuda(net: BatchNormLSTM, x: NDArray, s0: NDArray, given: Statistics | None, backend: str) -> _Forward:
    """The same by the kernels of CUDA, which take the four gates of a unit as so many columns."""
    T, B, m = x.shape
    n, kernels = net.n, find_backend(backend)
    arrays, moments = _room(net, T, B)
    arrays["states"][0] = s0
    flat: dict[str, Any] = {name: value.reshape(T, -1) for name, value in moments.items()}
    flat |= {name: value.reshape(T, B, -1) for name, value in arrays.items() if "hat" in name}
    flat |= {name: value.reshape(T, -1) for name, value in arrays.items() if "std" in name}
    fixed = {}
    if given is not None:
        fixed = {name: value.reshape(T, -1).astype(net.dtype) for name, value in vars(given).items()}
    term, still = np.empty((T * B, 4, n), net.dtype), np.zeros((4, n), net.dtype)
    kernels.affine(term, np.ascontiguousarray(x).reshape(T * B, m), net.U, still, input_runs(range(4)))
    own = tuple(flat[f"x_{name}"] for name in ("hat", "mean", "var", "std"))
    of_x = (fixed["x_mean"], fixed["x_var"]) if fixed else None
    kernels.normalize_batch(*own, term.reshape(T, B, 4 * n), of_x, net.eps)
    names = ("h_mean", "h_var", "c_mean", "c_var")
    kernels.batchnorm_rollout(
        LSTM_SCALED, net.phi, arrays["states"], arrays["a"], (flat["h_hat"], flat["c_hat"]),
        (flat["h_std"], flat["c_std"]), tuple(flat[name] for name in names), flat["x_hat"], net.W,
        (net.gamma_h, net.gamma_x, net.b, net.gamma_c, net.beta_c),
        tuple(fixed[name] for name in names) if fixed else None, net.eps,
    )  # fmt: skip
    return arrays, moments


def _moments(z: NDArray, axis: int) -> tuple[NDArray, NDArray]:
    """Mean and biased variance over the batch."""
    mean = z.mean(axis=axis, keepdims=True)
    return mean.squeeze(axis), np.mean(np.square(z - mean), axis=axis)


def _through_norm(g: NDArray, hat: NDArray, std: NDArray, coupled: bool) -> NDArray:
    """g (R, B, …) back through z^ = (z - mean)/std, with mean and std of the batch where ``coupled``."""
    means = (np.mean(of, axis=1, keepdims=True) for of in (g, g * hat)) if coupled else (0, 0)
    return for_arrays(through)(g, hat, *means, std)


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
    by_norm = _through_norm(net.gamma_c * dz, traj.c_hat[t], traj.c_std[t], coupled)
    g = np.stack([g[:, :, 0], g[:, :, 1] + by_norm - scale * dz], axis=2)
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


def on_cuda(traj: BatchNormTrajectory) -> tuple[Any, ...]:
    """What the adjoint kernels of CUDA take of a trajectory: (states, a, hats, stds, W, parameters, coupled)."""
    net, T, B = traj.net, traj.T, traj.B
    hats, stds = (traj.h_hat.reshape(T, B, -1), traj.c_hat), (traj.h_std.reshape(T, -1), traj.c_std)
    return traj.states, traj.a, hats, stds, net.W, (net.gamma_h, net.gamma_c, net.beta_c), traj.coupled


def full_jacobians(traj: BatchNormTrajectory) -> NDArray:
    """Jacobians of the whole batch at once, (T, B N, B N): row = output, samples one after the other.

    In training mode every sample's next state depends on every sample's state, through the statistics; the block
    (b, b) is what is left when the other samples are held fixed, and what :func:`rnngrad.jacobians` gives. In inference
    mode the blocks off the diagonal are zero.
    """
    traj.require_finite()
    B, N = traj.B, traj.net.N
    if traj.backend == "cuda":
        J = np.empty((traj.T, B * N, B, *traj.net.state_shape), traj.net.dtype)
        find_backend("cuda").batchnorm_jacobian(J, LSTM_SCALED, traj.net.phi, *on_cuda(traj))
        return J.reshape(traj.T, B * N, B * N)
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
