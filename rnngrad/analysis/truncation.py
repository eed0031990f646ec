"""What truncation does to the gradient: bias and cosine against the window, and the smallest window that will do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._blas import one_blas_thread
from .._results import Result
from ..gradients.bptt import bptt
from ..gradients.overlap import ScaledNorm, overlap
from ..gradients.truncated import truncated_gradients
from ..losses import Loss
from .products import log_spaced, steps

CRITERIA = ("bias", "cosine")
_EVERY = 64  # records up to this long have every window looked at
_COUNT = 48  # windows of a longer one, before the search between two of them


@dataclass(frozen=True)
class TruncationBias(Result):
    """The truncated gradient g_w against the full gradient g.

    Attributes
    ----------
    windows : ndarray (L,)
        w (k2 where ``k1`` > 1), in steps, ascending.
    k1 : int
        Steps between two truncated passes; 1 is the form with one window for every loss.
    bias : ndarray (L,)
        ||g_w - g||/||g||.
    cosine : ndarray (L,)
        <g_w, g>/(||g_w|| ||g||); NaN where g_w is zero.
    norm : ndarray (L,)
        ||g_w||.
    full_norm : float
        ||g||.
    parameters : tuple of str
        What g consists of.
    parameter_bias, parameter_cosine : dict of ndarray (L,)
        The same of every parameter by itself, those that g leaves out included; NaN where its full gradient is zero.
    criterion, wanted : str, float
        "bias" or "cosine", and the value asked for.
    smallest : float
        Smallest window from which on every window looked at keeps the accuracy; inf where the largest does not.
    """

    windows: NDArray[np.int64]
    k1: int
    bias: NDArray[np.float64]
    cosine: NDArray[np.float64]
    norm: NDArray[np.float64]
    full_norm: float
    parameters: tuple[str, ...]
    parameter_bias: dict[str, NDArray[np.float64]]
    parameter_cosine: dict[str, NDArray[np.float64]]
    criterion: str
    wanted: float
    smallest: float

    def at(self, window: int) -> dict[str, float]:
        """Bias, cosine and norm at one of the windows looked at."""
        i = int(np.flatnonzero(self.windows == _checks.choice("window", window, self.windows.tolist()))[0])
        return {name: float(getattr(self, name)[i]) for name in ("bias", "cosine", "norm")}


@dataclass(frozen=True)
class TruncationComparison(Result):
    """Several networks' truncation bias on the same task.

    Attributes
    ----------
    parts : dict of TruncationBias by name
    lag, lag_name : int, str
        The lag that matters, and what it is.
    title : str
        What the comparison shows.
    """

    parts: dict[str, TruncationBias]
    lag: int
    lag_name: str
    title: str


def truncation_bias(
    traj: Any,
    loss: Loss,
    windows: Any = None,
    *,
    k1: int = 1,
    wanted: float = 0.1,
    criterion: str = "bias",
    parameters: Sequence[str] | None = None,
    longest: int | None = None,
) -> TruncationBias:
    """Bias and direction of truncated backpropagation through time, for many windows from one walk.

    g_w = sum over t - k < w of dL_t/ds_t Phi(t, k) d+s_k/dtheta is what :func:`rnngrad.truncated_bptt` gives for
    ``window=w`` (for ``k1=k1, k2=w`` on request), and g its limit w = T. The bias need not fall with w: pieces of
    opposite sign may cancel, so the smallest window is the one from which on the accuracy is kept.

    Parameters
    ----------
    traj : Trajectory, DeviceTrajectory or StackTrajectory
        Of one on a GPU all gradients stay there, and norms, gaps and inner products come to the host.
    loss : Loss
    windows : integers (L,)
        Windows to look at, in k1…T. By default every one of a record of up to 64 steps; of a longer one 48, evenly in
        their logarithm and T among them, then every window between the last that is not good enough and the first
        from which on all are, so that ``smallest`` is right to the step unless the bias crosses ``wanted`` more than
        once between two neighbours of the 48. Windows that are given are not added to.
    longest : int
        Largest of the windows chosen by default, where T of them are too dear.
    k1 : int
        Steps between two truncated passes.
    wanted : float
        Relative bias, or cosine, that is good enough.
    criterion : str
        "bias" (at most ``wanted``, in (0, 1]) or "cosine" (at least ``wanted``, in (0, 1]).
    parameters : names
        What g consists of, by the names of the gradients ("W", "U", …; "W_l0", … of a stack); all by default. The
        readout V, c of a network without feedback has no memory to cut, and its share of g makes the bias smaller.

    Returns
    -------
    TruncationBias

    Raises
    ------
    ValueError
        An argument is out of range, the full gradient is zero, or the trajectory is not finite.
    OverflowError
        The full gradient is beyond the dtype.

    Notes
    -----
    All windows share pieces, so they come from one walk: T/k1 rows per sample go back max(windows) steps together,
    and every window adds the explicit gradients of one backward pass. With all windows of a network that is O(T^2 B)
    products of a vector with W where L separate computations take O(L T^2 B). The search takes a second walk, to the
    window found.
    """
    k1 = _checks.integer("k1", k1, 1, traj.T)
    criterion = _checks.choice("criterion", criterion, CRITERIA)
    wanted = _checks.number("wanted", wanted, 0.0, 1.0, open_low=True)
    given = windows is not None
    if given:
        windows = np.unique(steps("windows", windows, k1, traj.T))
    else:
        longest = traj.T if longest is None else _checks.integer("longest", longest, k1, traj.T)
        coarse = np.arange(longest + 1) if longest <= _EVERY else log_spaced(longest, _COUNT)
        windows = np.unique(np.maximum(coarse, k1))
    with one_blas_thread():
        full = _Full(bptt(traj, loss), parameters, getattr(traj, "backend", "auto"))
        rows = dict(_compared(traj, loss, windows, k1, full))
        if not given:
            first = _smallest(rows, criterion, wanted)
            failing = [w for w in windows if w < first]
            between = range(int(failing[-1]) + 1, int(first)) if failing and np.isfinite(first) else range(0)
            if between:
                rows |= dict(_compared(traj, loss, between, k1, full))
    listed = sorted(rows)
    table = {name: np.array([rows[w][name] for w in listed]) for name in rows[listed[0]]}  # (L, 3) each
    total = table.pop("")
    return TruncationBias(
        windows=np.array(listed, np.int64),
        k1=k1,
        bias=total[:, 0],
        cosine=total[:, 1],
        norm=total[:, 2],
        full_norm=full.norm,
        parameters=full.chosen,
        parameter_bias={name: values[:, 0] for name, values in table.items()},
        parameter_cosine={name: values[:, 1] for name, values in table.items()},
        criterion=criterion,
        wanted=wanted,
        smallest=float(_smallest(rows, criterion, wanted)),
    )


def _smallest(rows: dict[int, Any], criterion: str, wanted: float) -> float:
    """Window from which on all of them are good enough; inf where the largest is not."""
    smallest = np.inf
    for window in sorted(rows, reverse=True):
        bias, cosine, _ = rows[window][""]
        if not (bias <= wanted if criterion == "bias" else cosine >= wanted):  # a NaN is not good enough
            break
        smallest = window
    return smallest


class _Full:
    """The full gradient, to compare truncated ones with.

    Every vector is divided by its own largest entry before squaring: a truncated gradient may be 1e-200 of an
    exploding one, and a parameter's as little of another's.
    """

    def __init__(self, grads: Any, parameters: Sequence[str] | None, backend: str) -> None:
        self.all, self.backend = dict(grads.parameters()), backend
        names = tuple(self.all)
        self.chosen = names if parameters is None else tuple(_checks.choice("parameters", p, names) for p in parameters)
        if not self.chosen:
            raise ValueError(f"parameters is {parameters!r}; it must name at least one of {', '.join(names)}")
        self.norms = {name: overlap(g, g, backend).first for name, g in self.all.items()}
        if not all(np.isfinite(top) for top, _ in self.norms.values()):
            raise OverflowError(
                f"the full gradient is beyond {self.all[names[0]].dtype.name}: it explodes, and no truncated one has "
                "a finite bias; gradient_reach and verdict work with logarithms"
            )
        self.norms[""] = _together(self.norms, self.chosen)
        self.norm = float(np.prod(self.norms[""]))
        if self.norms[""][0] == 0:
            raise ValueError(
                "the full gradient is zero: no weight, no error, or no path; a bias relative to it means nothing"
            )

    def compare(self, grads: Any) -> dict[str, tuple[float, float, float]]:
        """(bias, cosine, norm) of every parameter by name, and of the chosen ones together as ""."""
        own, gap, inner = {}, {}, {}
        for name, g in grads.parameters():
            found = overlap(g, self.all[name], self.backend)
            own[name], gap[name], inner[name] = found.first, found.gap, found.inner
        own[""], gap[""] = _together(own, self.chosen), _together(gap, self.chosen)
        top, full_top = own[""][0] or 1.0, self.norms[""][0]
        shares = [inner[name] * (own[name][0] / top) * (self.norms[name][0] / full_top) for name in self.chosen]
        inner[""] = sum(shares)
        return {name: self._row(own[name], gap[name], inner[name], self.norms[name]) for name in own}

    def _row(self, own: ScaledNorm, gap: ScaledNorm, inner: float, full: ScaledNorm) -> tuple[float, float, float]:
        norm = own[0] * own[1]
        if full[0] == 0:
            return np.nan, np.nan, norm
        # between parallel vectors the cosine is 1, whatever the last digit of the sums says
        cosine = np.nan if own[0] == 0 else float(np.clip(inner / (own[1] * full[1]), -1, 1))
        return (gap[0] / full[0]) * (gap[1] / full[1]), cosine, norm


def _together(norms: dict[str, ScaledNorm], names: Sequence[str]) -> ScaledNorm:
    """Norm of several vectors end to end, as (largest entry, norm divided by it)."""
    top = max(norms[name][0] for name in names)
    if top == 0:
        return 0.0, 1.0
    return top, float(np.sqrt(sum((norms[name][0] / top * norms[name][1]) ** 2 for name in names)))


def _compared(
    traj: Any, loss: Loss, windows: Sequence[int] | NDArray, k1: int, full: _Full
) -> Iterator[tuple[int, dict[str, tuple[float, float, float]]]]:
    for window, grads in truncated_gradients(traj, loss, [int(w) for w in windows], k1=k1):
        yield window, full.compare(grads)
