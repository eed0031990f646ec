"""What carried frames say of Lyapunov exponents: means over blocks of steps, with confidence intervals."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

from .._results import Result
from ..dynamics.frames import Carried, carry, is_singular
from ..errors import PrecisionWarning
from .batch_means import FEWEST, mean_interval

_BLOCKS = 256  # at most, of the series that intervals and history are made from
_LENGTH = 16  # steps of a block at least, where that leaves enough of them: a QR ends every block

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
            half = special.stdtrit(B - 1, 0.975) * self.exponents.std(axis=0, ddof=1) / np.sqrt(B)
        return middle, np.stack([middle - half, middle + half], axis=-1)


def measure_exponents(
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
