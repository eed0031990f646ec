"""The lag axis in decades, each with a label of its own: a network may be healthy to 20 steps and vanish beyond."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .._results import Result

LOST = 1e-3  # a gradient below this share of its size does not teach
GROWN = 1e3  # growth that makes one step of gradient descent leap
RARE = 0.9  # quantile of the reference steps that decides on explosion: one in ten is enough to break training


@dataclass(frozen=True)
class LagRange(Result):
    """What becomes of the gradient between two lags; logarithms are natural, of ||dL_t/ds_{t-lag}||/||dL_t/ds_t||.

    Attributes
    ----------
    first, last : int
        Lags of the range, both included.
    label : str
        "exploding": somewhere in it one reference step in ten has grown by GROWN; else "vanishing": at its end the
        median is below LOST; else "healthy".
    since : float
        Lag of the range from which that is so: the first growth by GROWN, or the lag from which the median stays below
        LOST up to the end. NaN for a healthy one.
    log_median : float
        Median at the last lag.
    log_rare : float
        Largest quantile RARE within the range.
    log_rate : float
        Change of the median per step within the range.
    """

    first: int
    last: int
    label: str
    since: float
    log_median: float
    log_rare: float
    log_rate: float

    def __str__(self) -> str:
        where = f"{self.first}–{self.last}" if self.last > self.first else f"{self.last}"
        since = f" from {self.since:.0f} on" if self.since > self.first else ""
        return f"{where} {self.label}{since}"


def label_of(median: float, rare: NDArray) -> str:
    """The rule: of the median at a lag, and the quantile RARE at all lags up to it that count."""
    if (rare >= np.log(GROWN)).any():
        return "exploding"
    return "vanishing" if median < np.log(LOST) else "healthy"


def lag_ranges(lags: NDArray, median: NDArray, rare: NDArray) -> tuple[LagRange, ...]:
    """Ranges 1–10, 11–100, 101–1000, … of ascending lags (from 0), the last one as far as anything was measured.

    ``median`` and ``rare`` are the quantiles 0.5 and RARE of the log-ratios at every lag.
    """
    measured = np.flatnonzero(~np.isnan(median))
    out, first, end = [], 1, 10
    while measured.size and first <= lags[measured[-1]]:
        inside = measured[(lags[measured] >= first) & (lags[measured] <= end)]
        if inside.size:
            out.append(_range(lags, median, rare, inside))
        first, end = end + 1, 10 * end
    return tuple(out)


def _range(lags: NDArray, median: NDArray, rare: NDArray, inside: NDArray) -> LagRange:
    label, since = label_of(median[inside[-1]], rare[inside]), np.nan
    if label == "exploding":
        since = lags[inside[np.argmax(rare[inside] >= np.log(GROWN))]]
    elif label == "vanishing":
        kept = np.flatnonzero(median[inside] >= np.log(LOST))
        since = lags[inside[kept[-1] + 1 if kept.size else 0]]
    before, last = inside[0] - 1, inside[-1]
    if np.isneginf(median[last]):
        rate = -np.inf
    else:
        rate = (median[last] - median[before]) / (lags[last] - lags[before])
    return LagRange(
        int(lags[inside[0]]),
        int(lags[last]),
        label,
        float(since),
        float(median[last]),
        float(rare[inside].max()),
        float(rate),
    )
