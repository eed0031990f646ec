"""Results on where a network goes while its input does not change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .._results import Result
from ..fixedpoint.find import FixedPoints
from ..fixedpoint.portrait import FixedPointPortrait


@dataclass(frozen=True)
class Cycle(Result):
    """A cycle that starts settle on.

    Attributes
    ----------
    s : ndarray (p, S, n)
        Its points, p of them.
    eigenvalues : ndarray (N,)
        Of df^p/ds, by descending modulus.
    attracted : int
        Starts that settle on it.
    """

    DERIVED: ClassVar[tuple[str, ...]] = ("length", "log_rate")

    s: NDArray
    eigenvalues: NDArray[np.complex128]
    attracted: int

    @property
    def length(self) -> int:
        """p."""
        return len(self.s)

    @property
    def log_rate(self) -> float:
        """ln|largest eigenvalue|/p: what ||Phi|| changes by per step on the cycle in the long run."""
        return log_modulus(self.eigenvalues) / self.length


@dataclass(frozen=True)
class PointSpectrum(Result):
    """Eigenvalues of J at fixed points, slow points and around cycles, for a figure.

    Attributes
    ----------
    stable, unstable, slow : ndarray (K, N)
        Of the points of each kind.
    cycles : ndarray (C, N)
        Of df^p/ds around cycles of p steps.
    end : complex
        The eigenvalue of largest modulus at the fixed point where the first trajectory ends; NaN where it ends at none.
    """

    stable: NDArray[np.complex128]
    unstable: NDArray[np.complex128]
    slow: NDArray[np.complex128]
    cycles: NDArray[np.complex128]
    end: complex


@dataclass(frozen=True)
class Settling(Result):
    """What a network does under one held input; Q trajectories of it are followed.

    Attributes
    ----------
    x : ndarray (m,)
        The input.
    samples : ndarray (Q,)
        Which samples of the trajectory these are.
    points : FixedPoints or None
        Fixed and slow points; None where they were not searched.
    condition : ndarray (K,)
        Condition number of I - J at the fixed points, 2-norm.
    attracted : ndarray (K,)
        Starts that come to rest at each fixed point.
    cycles : tuple of Cycle
        On which starts settle.
    end : ndarray (Q,) of str
        What becomes of each trajectory: "point": it comes to rest at the fixed point ``end_index``; "rest": it comes to
        rest, and which point that is, is not known; "cycle": it settles on the cycle ``end_index`` (-1: one whose
        points were not found) of ``end_length`` steps; "moving": it had not settled after ``steps`` more steps;
        "diverged": it left the finite numbers.
    end_index, end_length : ndarray (Q,)
        -1 and 0 where there is none.
    distance : ndarray (Q,)
        From the last state of the record to the state of rest or the nearest point of the cycle; NaN where it goes to
        none.
    speed, last_speed : ndarray (Q,)
        ||f(s) - s|| at the end of the record, and ``steps`` further on at most.
    outcome : dict of int
        How many of all starts end in which way.
    starts, steps : int
        States that were followed by iteration, and for how long at most.
    searched : int
        Starts of Newton's method; 0 where there was no search.
    portrait : FixedPointPortrait or None
        With trajectories from some of the starts; None for a single state, or without points.
    """

    DERIVED: ClassVar[tuple[str, ...]] = ("log_radius", "log_rate")

    x: NDArray
    samples: NDArray[np.int64]
    points: FixedPoints | None
    condition: NDArray[np.float64]
    attracted: NDArray[np.int64]
    cycles: tuple[Cycle, ...]
    end: NDArray[np.str_]
    end_index: NDArray[np.int64]
    end_length: NDArray[np.int64]
    distance: NDArray[np.float64]
    speed: NDArray[np.float64]
    last_speed: NDArray[np.float64]
    outcome: dict[str, int]
    starts: int
    steps: int
    searched: int
    portrait: FixedPointPortrait | None

    @property
    def log_radius(self) -> NDArray[np.float64]:
        """ln rho(J) at each fixed point, (K,)."""
        return np.array([log_modulus(row) for row in ([] if self.points is None else self.points.eigenvalues)])

    @property
    def log_rate(self) -> NDArray[np.float64]:
        """ln rho(J) where each trajectory ends, of a cycle per step, (Q,); NaN where no point or cycle is known."""
        radius = self.log_radius
        rates = {"point": lambda k: radius[k], "cycle": lambda k: self.cycles[k].log_rate}
        ends = zip(self.end, self.end_index, strict=True)
        return np.array([rates[str(end)](k) if k >= 0 else np.nan for end, k in ends])

    @property
    def spectrum(self) -> PointSpectrum | None:
        """The eigenvalues of a figure; None where there is no point."""
        points = self.points
        if points is None or not (len(points) or len(points.slow) or self.cycles):
            return None
        N = points.eigenvalues.shape[1]
        first = points.eigenvalues[self.end_index[0], 0] if self.end[0] == "point" else complex(np.nan)
        return PointSpectrum(
            stable=points.eigenvalues[points.stable],
            unstable=points.eigenvalues[~points.stable],
            slow=points.slow.eigenvalues,
            cycles=np.array([cycle.eigenvalues for cycle in self.cycles], complex).reshape(-1, N),
            end=complex(first),
        )


def log_modulus(eigenvalues: NDArray) -> float:
    """ln of the largest |eigenvalue|; -inf for 0."""
    with np.errstate(divide="ignore"):
        return float(np.log(np.abs(eigenvalues).max()))
