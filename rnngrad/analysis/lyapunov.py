"""Lyapunov exponents: the mean rates at which a trajectory's tangent directions stretch, with confidence intervals.

lambda_i = lim 1/t log sigma_i(Phi(t, 0)), by repeated QR of a tangent frame (Benettin, Galgani, Giorgilli & Strelcyn
1980; for driven recurrent networks Engelken, Wolf & Abbott 2023, and Vogt, Puelma Touzel, Shlizerman & Lajoie 2022).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from .. import _checks
from .._results import Result
from ..dynamics.frames import Carried, carry, is_singular, random_frames
from ..dynamics.jacobian import local_jacobians
from ..dynamics.rollout import initial_state, rollout
from ..dynamics.system import DenseJacobians, System
from ..errors import PrecisionWarning
from ..network import Network
from ..stack import Stack
from .batch_means import FEWEST, mean_interval

_BLOCKS = 256  # at most, of the series that intervals and history are made from
_LENGTH = 16  # steps of a block at least, where that leaves enough of them: a QR ends every block
_PIECE = 1 << 26  # bytes of the trajectory and its Jacobians held at once
_STEPS = 10_000

Tick = Callable[[float], Any]


@dataclass(frozen=True)
class LyapunovSpectrum(Result):
    """Lyapunov exponents, natural logarithm per step, descending.

    Attributes
    ----------
    exponents : ndarray (B, k)
        Mean stretch over the measured steps. -inf for a direction that some step maps to zero, within rounding.
    local : ndarray (M, B, k)
        Mean stretch over each of the M blocks of steps.
    lengths : ndarray (M,)
        Steps of each block.
    kaplan_yorke : ndarray (B,)
        Kaplan-Yorke dimension j + (lambda_1 + … + lambda_j)/|lambda_{j+1}|, j the last with a sum of at least 0; NaN
        where fewer exponents were asked for than it takes.
    transient : int
        Steps before the measured ones, that only settled the state and the frame.
    state_size : int
        N; of which k exponents.
    steps_per_qr : ndarray (B,)
        Steps between two re-orthonormalisations on average. They adapt: the frame is let stretch by
        about 2^16.
    log_stretch : ndarray (B,)
        Logarithm of the largest stretch within the frame between two of them. Times eps it is the relative error of
        the smallest factor.
    lost_at : ndarray (B,)
        First step at which a direction was lost (exponent -inf), counted from the first of the transient; -1 for none.
    """

    DERIVED: ClassVar[tuple[str, ...]] = ("stderr", "interval", "history", "steps")

    exponents: NDArray[np.float64]
    local: NDArray[np.float64]
    lengths: NDArray[np.int64]
    kaplan_yorke: NDArray[np.float64]
    transient: int
    state_size: int
    steps_per_qr: NDArray[np.float64]
    log_stretch: NDArray[np.float64]
    lost_at: NDArray[np.int64]

    @property
    def steps(self) -> int:
        """Steps measured."""
        return int(self.lengths.sum())

    @property
    def history(self) -> NDArray[np.float64]:
        """Mean over the first 1 … M blocks, (M, B, k): how the exponents settle."""
        weights = self.lengths[:, None, None]
        return np.cumsum(self.local * weights, axis=0) / np.cumsum(weights, axis=0)

    @cached_property
    def _error(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return mean_interval(self.local)

    @property
    def stderr(self) -> NDArray[np.float64]:
        """Standard error of each exponent of one sample by itself, (B, k); NaN for fewer than 16 blocks and for -inf.

        From the blocks and what neighbours among them share, see :mod:`rnngrad.analysis.batch_means`. It knows only
        what the run has met: where orbits dwell for longer than a run near one part of the attractor (intermittency,
        islands of a Hamiltonian map), take several ``samples`` and :meth:`mean`.
        """
        return self._error[0]

    @property
    def interval(self) -> NDArray[np.float64]:
        """95 % confidence interval of each exponent of one sample by itself, (B, k, 2)."""
        half = self._error[1]
        with np.errstate(invalid="ignore"):
            return np.stack([self.exponents - half, self.exponents + half], axis=-1)

    def mean(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean over the samples (k,), and its 95 % confidence interval (k, 2) from their spread.

        For samples that are runs of one system: whatever the correlation in time, the runs are independent.

        Raises
        ------
        ValueError
            There are fewer than two samples.
        """
        B = len(self.exponents)
        if B < 2:
            raise ValueError("there is one sample; the spread over samples takes two or more")
        middle = self.exponents.mean(axis=0)
        with np.errstate(invalid="ignore"):  # -inf - -inf
            half = stats.t.ppf(0.975, B - 1) * self.exponents.std(axis=0, ddof=1) / np.sqrt(B)
        return middle, np.stack([middle - half, middle + half], axis=-1)


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
        Inputs; the exponents are those of the driven system, conditional on them. None: zero input.
    s0 : array (B, S, n), (S, n) or (n,)
        Initial state. By default a random one: standard normal, for a System uniform in (0, 1); the zero state of a
        network without biases is a fixed point, whose exponents say nothing of the attractor.
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
    """
    if not isinstance(net, (Network, Stack, System)):
        raise ValueError(f"net is {type(net).__name__}; it must be a Network, a Stack or a System")
    rng = _generator(seed)
    k = net.N if k is None else _checks.integer("k", k, 1, net.N)
    if x is not None:
        if steps is not None:
            raise ValueError(f"steps is {steps} beside x; the steps of x that follow the transient are measured")
        x = _checks.sequence("x", x, net.m, net.dtype)
        total = len(x)
        transient = _transient(transient, total, total)
        steps = total - transient
    else:
        steps = _checks.integer("steps", _STEPS if steps is None else steps, FEWEST)
        transient = _transient(transient, steps, None)
    state = _start(net, x, s0, samples, rng)
    pieces = _trajectory(net, x, state, transient + steps, backend)
    start = Carried.start(random_frames(len(state), k, net.state_shape, np.float64, rng))
    return _measure(pieces, start, steps, transient, net.N, _piece(net, len(state)), progress)


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
    return _measure(pieces, start, T - transient, transient, N, T, None)


def lyapunov_along(
    traj: Any, k: int | None = None, *, transient: int | None = None, seed: int | np.random.Generator = 0
) -> LyapunovSpectrum:
    """Lyapunov exponents along a trajectory that is there already; its state must be settled after the transient.

    Parameters
    ----------
    traj : Trajectory or StackTrajectory
    k, transient, seed
        As for :func:`lyapunov_spectrum` with an input of T steps.

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
    start = Carried.start(random_frames(traj.B, k, net.state_shape, np.float64, _generator(seed)))
    pieces = ((local_jacobians(one).in_float64(), T) for one in [traj])
    return _measure(pieces, start, T - transient, transient, net.N, T, None)


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


def _start(net: Any, x: Any, s0: Any, samples: int | None, rng: np.random.Generator) -> NDArray:
    """Initial states (B, S, n)."""
    batched = s0 is not None and np.ndim(s0) == 3
    B = x.shape[1] if x is not None else len(s0) if batched else 1
    if samples is not None:
        if (x is not None or batched) and samples != B:
            raise ValueError(f"samples is {samples}, but {'x' if x is not None else 's0'} has {B}")
        B = _checks.integer("samples", samples, 1)
    if s0 is not None:
        return initial_state(net, s0, B)
    shape = (B, *net.state_shape)
    drawn = rng.random(shape) if isinstance(net, System) else rng.standard_normal(shape)
    return drawn.astype(net.dtype)


def _piece(net: Any, B: int) -> int:
    """Steps of which the trajectory and its Jacobians fit into the memory meant for them."""
    numbers = net.N * net.N if isinstance(net, System) else 32 * net.N
    return max(1, _PIECE // (B * numbers * net.dtype.itemsize))


def _trajectory(net: Any, x: Any, state: NDArray, total: int, backend: str) -> Iterator[tuple[Any, int]]:
    """(local Jacobians, number of steps) piece by piece."""
    piece, done = _piece(net, len(state)), 0
    while done < total:
        count = min(piece, total - done)
        part = np.zeros((count, len(state), net.m), net.dtype) if x is None else x[done : done + count]
        traj = rollout(net, part, s0=state, backend=backend)
        if (traj.diverged >= 0).any():
            b = int(np.argmax(traj.diverged >= 0))
            raise ValueError(
                f"the trajectory is not finite from step {done + int(traj.diverged[b])} on (sample {b}), the transient "
                "counted; take fewer steps, or scale the recurrent weights down"
            )
        yield local_jacobians(traj).in_float64(), count
        state, done = np.ascontiguousarray(traj.states[-1]).reshape(state.shape), done + count


def _measure(
    pieces: Iterator[tuple[Any, int]],
    carried: Carried,
    steps: int,
    transient: int,
    N: int,
    piece: int,
    progress: Tick | None,
) -> LyapunovSpectrum:
    """Carry the frames over all pieces and make the result of what each block stretched them by."""
    length = max(1, min(max(-(-steps // _BLOCKS), min(_LENGTH, steps // FEWEST)), piece))
    first = length + steps % length  # the first block takes what does not fill another
    at, lost_before, qrs_before, logs = 0, carried.lost_at, carried.qrs, []
    open_block, wanted = np.zeros(carried.frames.shape[:2]), transient or first
    for jacobians, count in pieces:
        t = 0
        while t < count:
            whole = (count - t) // length * length
            if wanted == length and whole:
                advance = whole
                logs.append(carry(jacobians, carried, t, whole // length, length, at - t))
            else:  # the transient, the first block, or a block that two pieces share
                advance = min(count - t, wanted)
                open_block = open_block + carry(jacobians, carried, t, 1, advance, at - t)[0]
                wanted -= advance
                if not wanted:
                    if at + advance == transient:
                        wanted, qrs_before = first, carried.qrs
                    else:
                        logs.append(open_block[None])
                        wanted = length
                    open_block = np.zeros_like(open_block)
            t, at = t + advance, at + advance
            if progress is not None:
                progress(at / (transient + steps))
        _warn_if_lost(jacobians, carried, lost_before, at - count)
        lost_before = carried.lost_at
    lengths = np.full(steps // length, length)
    lengths[0] = first
    return _result(np.concatenate(logs), lengths, carried, qrs_before, transient, N)


def _result(
    logs: NDArray, lengths: NDArray, carried: Carried, qrs_before: NDArray, transient: int, N: int
) -> LyapunovSpectrum:
    """From what each block (M,) of so many steps stretched the directions by, (M, B, k)."""
    order = np.argsort(-logs.sum(axis=0), axis=-1, kind="stable")
    logs = np.take_along_axis(logs, order[None], axis=-1)
    steps = int(lengths.sum())
    exponents = logs.sum(axis=0) / steps
    return LyapunovSpectrum(
        exponents=exponents,
        local=logs / lengths[:, None, None],
        lengths=lengths,
        kaplan_yorke=np.array([kaplan_yorke(row, N) for row in exponents]),
        transient=transient,
        state_size=N,
        steps_per_qr=steps / np.maximum(carried.qrs - qrs_before, 1),
        log_stretch=carried.log_stretch,
        lost_at=carried.lost_at,
    )


def kaplan_yorke(exponents: NDArray, N: int) -> float:
    """Kaplan-Yorke dimension of descending exponents (k,) of an N-dimensional system; NaN if k < N are too few.

    Kaplan & Yorke (1979). 0 where the first is negative, N where the sum of all is not.
    """
    sums = np.cumsum(exponents)
    below = np.flatnonzero(sums < 0)
    if not below.size:
        return float(N) if len(exponents) == N else np.nan
    j = int(below[0])
    if j == 0:
        return 0.0
    return j + float(sums[j - 1] / -exponents[j]) if np.isfinite(exponents[j]) else float(j)


def _warn_if_lost(jacobians: Any, carried: Carried, lost_before: NDArray, origin: int) -> None:
    """Say so where a direction was lost by a Jacobian that is not singular, only graded beyond rounding."""
    fresh = np.flatnonzero((carried.lost_at >= 0) & (lost_before < 0))
    for b in fresh:
        if not is_singular(jacobians, int(carried.lost_at[b]) - origin, int(b), carried.frames.dtype):
            warnings.warn(
                f"at step {int(carried.lost_at[b])} of sample {b} a direction shrank below what {carried.frames.dtype} "
                "resolves beside the others; its exponent reads -inf, but is only very negative",
                PrecisionWarning,
                stacklevel=4,
            )
            return
