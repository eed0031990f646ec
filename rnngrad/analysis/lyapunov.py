"""Lyapunov exponents: the mean rates at which a trajectory's tangent directions stretch, with confidence intervals.

lambda_i = lim 1/t log sigma_i(Phi(t, 0)), by repeated QR of a tangent frame (Benettin, Galgani, Giorgilli & Strelcyn
1980; for driven recurrent networks Engelken, Wolf & Abbott 2023, and Vogt, Puelma Touzel, Shlizerman & Lajoie 2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import _checks
from .._arrays import contiguous, placed_beside
from ..dynamics.frames import Carried, random_frames
from ..dynamics.jacobian import local_jacobians
from ..dynamics.rollout import initial_state, rollout, sequence
from ..dynamics.system import DenseJacobians, System
from ..network import Network
from ..stack import Stack
from .batch_means import FEWEST
from .exponents import LyapunovSpectrum, Tick, measure_exponents

_PIECE = 1 << 26  # bytes of the trajectory and its Jacobians held at once
_STEPS = 10_000


def lyapunov_spectrum(
    net: Any,
    x: Any = None,
    s0: Any = None,
    steps: int | None = None,
    k: int | None = None,
    *,
    transient: int | None = None,
    samples: int | None = None,
    seed: int | np.random.Generator = 0,
    backend: str = "auto",
    progress: Tick | None = None,
) -> LyapunovSpectrum:
    """Lyapunov exponents of a network, autonomous or driven, or of a user's system.

    Parameters
    ----------
    net : Network, Stack or System
    x : array (T, B, m) or (T, m)
        Inputs; the exponents are those of the driven system, conditional on them. None: zero input. An array on a GPU
        (B given) stays there with all that is made of it; see the notes.
    s0 : array (B, S, n), (S, n) or (n,)
        Initial state; (B, S, n) where it lies on a GPU, as x must then. By default a random one: standard normal, for a
        System uniform in (0, 1); the zero state of a network without biases is a fixed point, whose exponents say
        nothing of the attractor.
    steps : int
        Steps measured, after the transient; 10 000 by default. With x: all that follow the transient.
    k : int
        Leading exponents wanted, 1…N; all by default. They cost k/N of all.
    transient : int
        Steps before the measurement, which bring the state to the attractor and turn the frame into its directions.
        By default a tenth of ``steps`` (of T, with x), at least 100 where that leaves half.
    samples : int
        B, where neither x nor s0 says it.
    seed : int or Generator
        Of the initial state and the initial frame.
    progress : function
        Called with the share of the steps that is done.

    Returns
    -------
    LyapunovSpectrum

    Raises
    ------
    ValueError
        An argument is out of range or does not fit; T leaves fewer than 16 steps; the trajectory is not finite.
    OverflowError
        A Jacobian is not finite.

    Warns
    -----
    PrecisionWarning
        A direction shrank in a single step below what rounding resolves, by a Jacobian that is not singular: its
        exponent is finite but reads -inf.

    Notes
    -----
    N k (2 N + 2 k) flops per step, less where QRs are far apart. The first block takes the steps that do not fill
    another. Memory is bounded: the trajectory is computed, used and forgotten in pieces of 64 MB. The frame is carried
    in float64 whatever the network's precision: float32 cannot resolve the directions that one step of a chaotic
    network contracts.

    Of inputs on a GPU the trajectory, its Jacobians and the frames stay there. What comes to the host is what the
    result, NumPy arrays, is made of: a number for each direction and block of steps, of about 256 blocks.
    """
    if not isinstance(net, (Network, Stack, System)):
        raise ValueError(f"net is {type(net).__name__}; it must be a Network, a Stack or a System")
    rng = _generator(seed)
    k = net.N if k is None else _checks.integer("k", k, 1, net.N)
    if x is not None:
        if steps is not None:
            raise ValueError(f"steps is {steps} beside x; the steps of x that follow the transient are measured")
        x = sequence(net, x, backend)
        total = x.shape[0]
        transient = _transient(transient, total, total)
        steps = total - transient
    else:
        steps = _checks.integer("steps", _STEPS if steps is None else steps, FEWEST)
        transient = _transient(transient, steps, None)
    state = _start(net, x, s0, samples, rng)
    B = state.shape[0]
    pieces = _trajectory(net, x, state, transient + steps, backend)
    start = Carried.start(placed_beside(x, random_frames(B, k, net.state_shape, np.float64, rng)))
    return measure_exponents(pieces, start, steps, transient, net.N, _piece(net, B), progress)


def lyapunov_of(
    matrices: Any,
    k: int | None = None,
    *,
    transient: int = 0,
    seed: int | np.random.Generator = 0,
    backend: str = "auto",
) -> LyapunovSpectrum:
    """Lyapunov exponents of a bare product … J_3 J_2 J_1.

    Parameters
    ----------
    matrices : array (T, N, N) or (T, B, N, N)
        J_t, row = output, in the order in which they act; float64 or float32.
    k : int
        Leading exponents wanted; all by default.
    transient : int
        Matrices that only turn the frame. With 0 the sum of all exponents is the mean of log|det J_t|.

    Returns
    -------
    LyapunovSpectrum

    Raises
    ------
    ValueError
        The shape does not fit, or an entry is not finite.
    """
    given = _checks.numbers("matrices", matrices)
    dtype = given.dtype if given.dtype in _checks.FLOATS else None
    J = _checks.array("matrices", matrices, ("T", "N", "N") if given.ndim == 3 else ("T", "B", "N", "N"), dtype)
    J = J[:, None] if J.ndim == 3 else J
    T, B, N, columns = J.shape
    if columns != N or not J.size:
        raise ValueError(f"matrices has shape {given.shape}; it must be (T, N, N) or (T, B, N, N), none of them 0")
    k = N if k is None else _checks.integer("k", k, 1, N)
    transient = _checks.integer("transient", transient, 0, T - 1)
    start = Carried.start(random_frames(B, k, (1, N), np.float64, _generator(seed)))
    pieces = ((DenseJacobians(None, part, backend).in_float64(), len(part)) for part in [J])
    return measure_exponents(pieces, start, T - transient, transient, N, T, None)


def lyapunov_along(
    traj: Any, k: int | None = None, *, transient: int | None = None, seed: int | np.random.Generator = 0
) -> LyapunovSpectrum:
    """Lyapunov exponents along a trajectory that is there already; its state must be settled after the transient.

    Parameters
    ----------
    traj : Trajectory, DeviceTrajectory or StackTrajectory
    k, transient, seed
        As for :func:`lyapunov_spectrum` with an input of T steps, or with one on a GPU.

    Returns
    -------
    LyapunovSpectrum

    Raises
    ------
    ValueError
        An argument is out of range, T < 16, or sequences differ in length.
    """
    net, T = traj.net, traj.T
    if (traj.lengths < T).any():
        raise ValueError(f"traj has lengths {traj.lengths.tolist()}; exponents need sequences of equal length")
    k = net.N if k is None else _checks.integer("k", k, 1, net.N)
    transient = _transient(transient, T, T)
    frames = random_frames(traj.B, k, net.state_shape, np.float64, _generator(seed))
    start = Carried.start(placed_beside(traj.x, frames))
    pieces = ((local_jacobians(one).in_float64(), T) for one in [traj])
    return measure_exponents(pieces, start, T - transient, transient, net.N, T, None)


# -- how -------------------------------------------------------------------------------------------------------


def _generator(seed: Any) -> np.random.Generator:
    """A stream of its own: a network drawn with the same seed must not be aligned with the frame."""
    if isinstance(seed, np.random.Generator):
        return seed
    return np.random.default_rng([_checks.integer("seed", seed, 0), 0x6C79])


def _transient(given: int | None, steps: int, total: int | None) -> int:
    """Steps before the measurement; out of ``total`` where that is fixed."""
    room = steps if total is None else total - FEWEST
    if room < 0:
        raise ValueError(f"x has {total} steps; exponents take at least {FEWEST}, and a transient before them")
    if given is not None:
        return _checks.integer("transient", given, 0, None if total is None else room)
    wanted = max(steps // 10, min(100, steps // 2))
    return min(wanted, room) if total is not None else wanted


def _start(net: Any, x: Any, s0: Any, samples: int | None, rng: np.random.Generator) -> Any:
    """Initial states (B, S, n), where x lies."""
    batched = s0 is not None and np.ndim(s0) == 3
    B = x.shape[1] if x is not None else len(s0) if batched else 1
    if samples is not None:
        if (x is not None or batched) and samples != B:
            raise ValueError(f"samples is {samples}, but {'x' if x is not None else 's0'} has {B}")
        B = _checks.integer("samples", samples, 1)
    if s0 is not None:
        return initial_state(net, s0, B, beside=x)
    shape = (B, *net.state_shape)
    drawn = rng.random(shape) if isinstance(net, System) else rng.standard_normal(shape)
    return placed_beside(x, drawn.astype(net.dtype))


def _piece(net: Any, B: int) -> int:
    """Steps of which the trajectory and its Jacobians fit into the memory meant for them."""
    numbers = net.N * net.N if isinstance(net, System) else 32 * net.N
    return max(1, _PIECE // (B * numbers * net.dtype.itemsize))


def _trajectory(net: Any, x: Any, state: Any, total: int, backend: str) -> Iterator[tuple[Any, int]]:
    """(local Jacobians, number of steps) piece by piece."""
    B = state.shape[0]
    piece, done = _piece(net, B), 0
    while done < total:
        count = min(piece, total - done)
        part = np.zeros((count, B, net.m), net.dtype) if x is None else x[done : done + count]
        traj = rollout(net, part, s0=state, backend=backend)
        if (traj.diverged >= 0).any():
            b = int(np.argmax(traj.diverged >= 0))
            raise ValueError(
                f"the trajectory is not finite from step {done + int(traj.diverged[b])} on (sample {b}), the transient "
                "counted; take fewer steps, or scale the recurrent weights down"
            )
        yield local_jacobians(traj).in_float64(), count
        state, done = contiguous(traj.states[count]).reshape(state.shape), done + count
