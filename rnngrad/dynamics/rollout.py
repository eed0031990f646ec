"""Forward pass: a network driven by inputs, and the trajectory that comes of it."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks, _cuda
from .._arrays import assign, contiguous, empty_beside, placed_beside
from .._memory import empty
from ..device_input import device_array
from ..dropout import Dropout
from ..errors import DivergenceWarning
from ..kernels import backend as find_backend
from ..kernels import chosen
from ..network import Network
from ..stack import Stack
from .device import DeviceTrajectory, device_inputs
from .placed import first_not_finite, first_states
from .steps import Steps
from .system import System
from .work import gradient_work


@dataclass(frozen=True)
class Trajectory(Steps):
    """States of a network along its inputs.

    Attributes
    ----------
    net : Network or System
    x : ndarray (T, B, m)
    states : ndarray (T+1, B, S, n)
        s_0 … s_T; for an LSTM ``states[..., 0, :]`` is h and ``states[..., 1, :]`` is c.
    h : ndarray (T, B, n)
        h_1 … h_T.
    y : ndarray (T, B, p)
        Outputs V h + c; h itself without a readout.
    lengths : ndarray (B,)
        A step t > lengths[b] is padding: it copies the state.
    a, a2 : ndarray (T, B, P, n), (T, B, P2, n)
        Pre-activations of the first and second product.
    diverged : ndarray (B,)
        First step with a NaN or an infinity in the state; -1 where there is none.
    """

    net: Any
    x: NDArray
    states: NDArray
    h: NDArray
    y: NDArray
    lengths: NDArray
    diverged: NDArray
    a: NDArray
    a2: NDArray
    emitted: NDArray
    inner: NDArray
    backend: str = "auto"


def rollout(
    net: Any,
    x: Any = None,
    s0: Any = None,
    lengths: Any = None,
    *,
    steps: int | None = None,
    batch_first: bool = False,
    dropout: Dropout | None = None,
    backend: str = "auto",
) -> Any:
    """Drive a network: s_t = f(s_{t-1}, x_t), y_t = V h_t + c.

    Parameters
    ----------
    net : Network, Stack, BatchNormLSTM or System
    x : array (T, B, m), or (T, m) for one sequence (then B = 1)
        Inputs; None runs ``steps`` steps with zero input. An array on a GPU (CuPy, PyTorch: anything with
        ``__cuda_array_interface__`` or DLPack) stays there, and the result is a :class:`DeviceTrajectory`.
    s0 : array (B, S, n), (S, n) or, with one state vector per unit, (n,)
        Initial state (of a stack: the joint state, S = 1 and n = N); zeros by default. Without the batch axis it starts
        every sample; without x its batch axis sets B.
    lengths : integers (B,)
        Steps of each sequence, 1…T; later steps change nothing.
    steps : int
        T, when there is no x.
    batch_first : bool
        x is (B, T, m), as PyTorch's modules of that name take it; results are time-major all the same.
    dropout : Dropout
        Recurrent dropout; ``traj.net`` then holds the masks, and every gradient is that of the masked network.
    backend : "auto", "cpu" or "cuda"
        "auto" is CUDA where `rnngrad doctor --measure` found that a rollout of this size and its gradients are clearly
        faster there, else the CPU. What is made of the trajectory runs where it did (``traj.backend``).

    Returns
    -------
    Trajectory, StackTrajectory or BatchNormTrajectory

    Raises
    ------
    ValueError
        Shapes, dtypes or lengths do not fit, or an input is not finite.

    Warns
    -----
    DivergenceWarning
        The state left the finite numbers; the step is named and kept in ``diverged``.
    """
    if run.dispatch(type(net)) is run.dispatch(object):
        raise ValueError(f"net is {type(net).__name__}; it must be a Network, a Stack, a BatchNormLSTM or a System")
    if _cuda.is_device_array(x):
        if batch_first or dropout is not None or steps is not None:
            raise ValueError("x lives on a GPU; batch_first, dropout and steps are for NumPy arrays")
        return _device_rollout(net, x, s0, lengths, backend)
    if batch_first and np.ndim(x) == 3:
        x = np.swapaxes(x, 0, 1)
    x = inputs(net, x, steps, _batch(s0))
    T, B, _ = x.shape
    lengths = _checks.lengths(lengths, T, B)
    if lengths.min() < T:  # padding may hold anything, and must not meet a product
        x = np.where((np.arange(T)[:, None] < lengths)[..., None], x, net.dtype.type(0))
    s0 = initial_state(net, s0, B)
    if dropout is not None:
        if not isinstance(net, (Network, Stack)):
            raise ValueError(f"dropout is given, but net is a {type(net).__name__}; it must be a Network or a Stack")
        net = dropout.apply(net, T, B)
    return run(net, x, s0, lengths, chosen(backend, functools.partial(gradient_work, net, T, B)))


def _device_rollout(net: Any, x: Any, s0: Any, lengths: Any, backend: str) -> DeviceTrajectory:
    """The rollout for inputs that lie on a GPU."""
    x = device_inputs(net, x, backend)
    T, B, _ = x.shape
    lengths = _checks.lengths(lengths, T, B)
    if lengths.min() < T:
        x = find_backend("cuda").contiguous(x, lengths)  # with zeros for padding, as on the host
    traj = run(net, x, initial_state(net, s0, B, beside=x), lengths, "cuda")
    _cuda.synchronize()  # whoever reads it in place is told of no stream to wait for
    return traj


@functools.singledispatch
def run(net: Any, x: Any, s0: Any, lengths: NDArray, backend: str, quiet: bool = False) -> Any:
    """The trajectory for arguments that are checked; one function for each kind of network. ``quiet``: no warning.

    Of a :class:`Network` the arrays lie where x does; s0 may lie on the host all the same.
    """
    raise NotImplementedError(type(net).__name__)


@run.register
def _run_system(
    net: System, x: NDArray, s0: NDArray, lengths: NDArray, backend: str, quiet: bool = False
) -> Trajectory:
    T, B, _ = x.shape
    states = empty((T + 1, B, 1, net.n), net.dtype)
    states[0] = s0
    find_backend(backend).system_rollout(net.map)(states, x, net.params, lengths)
    h, none = states[1:, :, 0], np.empty((0, B, 0, net.n))
    found = first_divergence(states, quiet)
    return Trajectory(net, x, states, h, h, lengths, found, none, none, none, none, backend)


@run.register
def _run_network(
    net: Network, x: Any, s0: Any, lengths: NDArray, backend: str, quiet: bool = False
) -> Trajectory | DeviceTrajectory:
    kernels = find_backend(backend)
    T, B, _ = x.shape
    n, dtype, cell = net.n, net.dtype, net.cell
    for name, value in net.constants.items():
        if value.ndim == 3 and (value.shape[0] not in (1, T) or value.shape[1] not in (1, B)):
            raise ValueError(
                f"net holds a {name} for {value.shape[0]} steps of {value.shape[1]} samples; x has {T} steps of {B} "
                "(take the network without it, and give dropout anew)"
            )
    states = empty_beside(x, (T + 1, B, net.S, n), dtype)
    assign(states[0], s0)
    a = empty_beside(x, (T, B, len(cell.gates), n), dtype)
    a2 = empty_beside(x, (T, B, len(cell.gates2), n), dtype)
    emitted = empty_beside(x, (0 if cell.emits_state else T, B, n), dtype)
    inner = empty_beside(x, (T if cell.two_stage else 0, B, n), dtype)
    drive(net, x.reshape(T * B, net.m), a, a2, backend)
    kernels.rollout(cell, net.phi)(
        states, a, a2, emitted, inner, net.W, net.second_weights, lengths, net.unit_constants, tile_rows(n)
    )
    h = hidden(net, states[1:], backend)
    if net.V is not None:
        h = contiguous(h)
    y = readout(net, h, backend)
    found = first_divergence(states, quiet)
    kind = DeviceTrajectory if _cuda.is_device_array(x) else Trajectory
    return kind(net, x, states, h, y, lengths, found, a, a2, emitted, inner, backend)


def drive(net: Network, x: Any, a: Any, a2: Any, backend: str) -> None:
    """a = U x + b, a2 = U2 x + b2 of rows x (R, m), into a (..., P, n) and a2 (..., P2, n) of R rows."""
    kernels, cell, R = find_backend(backend), net.cell, x.shape[0]
    kernels.affine(a.reshape(R, len(cell.gates), net.n), x, net.U, net.full_bias, input_runs(cell.inputs))
    if cell.two_stage:
        P2 = len(cell.gates2)
        kernels.affine(a2.reshape(R, P2, net.n), x, net.U2, net.b2, input_runs(range(P2)))


def hidden(net: Any, states: Any, backend: str) -> Any:
    """h (T, B, n), what the readout sees of states (T, B, S, n); on the host perhaps a view of them."""
    if isinstance(net, System) or net.cell.outputs_state:
        return first_states(states) if _cuda.is_device_array(states) else states[:, :, 0]
    h = empty_beside(states, (*states.shape[:2], net.n), net.dtype)
    find_backend(backend).output(net.cell, net.phi)(h, states, net.unit_constants)
    return h


def readout(net: Any, h: Any, backend: str) -> Any:
    """y = V h + c (T, B, p), or h itself where there is none."""
    if net.V is None:
        return h
    T, B, n = h.shape
    y, rows = empty_beside(h, (T, B, net.p), net.dtype), contiguous(h).reshape(T * B, n)
    find_backend(backend).affine(y.reshape(T * B, 1, -1), rows, net.V[None], net.c[None], input_runs((0,)))
    return y


def inputs(net: Any, x: Any, steps: int | None, B: int = 1) -> NDArray:
    """x as (T, B, m); without x, zeros for ``steps`` steps and B samples."""
    if x is None:
        if steps is None:
            raise ValueError("x is None and so is steps; give inputs x (T, B, m), or steps for zero input")
        return np.zeros((_checks.integer("steps", steps, 1), max(B, 1), net.m), net.dtype)
    if steps is not None:
        raise ValueError(f"steps is {steps} beside x; give one of them")
    return _checks.sequence("x", x, net.m, net.dtype)


def sequence(net: Any, x: Any, backend: str) -> Any:
    """Inputs as (T, B, m), checked where they lie; ``backend`` is the one that was asked for."""
    if _cuda.is_device_array(x):
        return device_inputs(net, x, backend)
    return _checks.sequence("x", x, net.m, net.dtype)


def _batch(s0: Any) -> int:
    """Samples that an initial state speaks of."""
    starts = None if s0 is None else _checks.numbers("s0", s0)
    return len(starts) if starts is not None and starts.ndim == 3 else 1


def initial_state(net: Any, s0: Any, B: int, name: str = "s0", beside: Any = None) -> Any:
    """s_0 as (B, S, n); beside inputs on a GPU it lies there too, contiguous."""
    S, n = net.state_shape
    if _cuda.is_device_array(beside):
        if _cuda.is_device_array(s0):
            return device_array(name, s0, (B, S, n), net.dtype)
        return placed_beside(beside, initial_state(net, s0, B, name))
    if s0 is None:
        return np.zeros((B, S, n), net.dtype)
    ndim = _checks.numbers(name, s0).ndim
    if ndim == 1 and S == 1:
        return np.broadcast_to(_checks.array(name, s0, (n,), net.dtype), (B, S, n))
    if ndim == 2 and np.shape(s0) == (S, n):
        return np.broadcast_to(_checks.array(name, s0, (S, n), net.dtype), (B, S, n))
    return _checks.array(name, s0, (B, S, n), net.dtype)


def input_runs(rows: Any) -> list[tuple[int, int, int]]:
    """(from, to, length) of each run of rows of U that lands on consecutive pre-activations."""
    runs: list[tuple[int, int, int]] = []
    for u, p in enumerate(rows):
        if runs and runs[-1][1] + runs[-1][2] == p:
            first, to, length = runs.pop()
            runs.append((first, to, length + 1))
        else:
            runs.append((u, p, 1))
    return runs


def tile_rows(n: int) -> int:
    """Samples of one task: more where a step of few is over before it has begun, or W is read from far away.

    A function of n alone, so that no result depends on the number of threads.
    """
    return 8 if 32 < n <= 128 else 16


def first_divergence(states: Any, quiet: bool = False) -> NDArray[np.int64]:
    """First step with a non-finite state per sample, -1 where there is none; warns if there is one."""
    T1, B, S, n = states.shape
    first = first_not_finite(states.reshape(T1, B, S * n))
    if not quiet and (first >= 0).any():
        b = int(np.argmin(np.where(first >= 0, first, T1)))
        warnings.warn(
            f"the rollout left the finite numbers at step {int(first[b])} (sample {b}; "
            f"{int((first >= 0).sum())} of {B} samples)",
            DivergenceWarning,
            stacklevel=3,
        )
    return first
