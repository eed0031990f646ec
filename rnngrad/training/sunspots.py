"""Monthly sunspot numbers, 1749–1983: a real series whose cycle of about 132 months is a long dependency.

The data are the monthly mean relative sunspot numbers of the Swiss Federal Observatory, Zurich (until 1960) and the
Tokyo Astronomical Observatory, as printed by Andrews & Herzberg (1985): 2820 facts of public record.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from .. import _checks, losses
from .._results import Result
from ..dynamics.rollout import rollout
from ..network import Network
from .fit import Progress, fit
from .optimizers import Adam, cosine

CYCLE = 132  # months
HORIZON = 12  # months ahead, all at once
LENGTH = 2 * CYCLE  # of a subsequence: the cycle before lies inside it
WARM_UP = 24  # months the zero state has to settle before predictions count
TRAINING_SHARE = 0.8

# Chosen on the last fifth of the training months (1899–1936), never on the test months.
_LEARNING_RATE = 0.02
_CLIP = 0.5
_SCHEME = "xavier"


@dataclass(frozen=True)
class Scale(Result):
    """z = (sqrt(v) - mean)/std, with statistics of the training months; the root makes a count's spread even."""

    mean: float
    std: float

    def forward(self, value: NDArray) -> NDArray[np.float64]:
        """Sunspot numbers to z."""
        return (np.sqrt(value) - self.mean) / self.std

    def back(self, z: NDArray) -> NDArray[np.float64]:
        """z to sunspot numbers; below the image of 0 it is 0."""
        return np.maximum(z * self.std + self.mean, 0.0) ** 2


@dataclass(frozen=True)
class TrainedSunspots(Result):
    """A network trained to predict the sunspot numbers of the next 12 months, and how well it does.

    Attributes
    ----------
    net : Network
        One input, 12 outputs, float64; ``save`` leaves it out (see :func:`rnngrad.interop.files.save`).
    x : ndarray (264, B, 1)
        Scaled inputs of consecutive windows of the test months, which training never saw.
    target : ndarray (264, B, 12)
        Scaled values 1 … 12 months after each of them.
    start : ndarray (B,) of str
        First month of each window, such as "1937-01".
    loss_history : ndarray (steps,)
        Minibatch loss: mean of 1/2 (y - z)^2 in scaled units.
    test_error, persistence_error, cycle_error : ndarray (12,)
        Root mean square error at horizons 1 … 12 months over the test months, in sunspot numbers: of the network, of
        answering the present value, and of answering the value 132 months before the month asked for.
    scale : Scale
        From sunspot numbers to the network's units and back.
    """

    net: Network = field(metadata={"saved": False})
    x: NDArray[np.float64]
    target: NDArray[np.float64]
    start: NDArray[np.str_]
    loss_history: NDArray[np.float64]
    test_error: NDArray[np.float64]
    persistence_error: NDArray[np.float64]
    cycle_error: NDArray[np.float64]
    scale: Scale


def series() -> tuple[NDArray[np.datetime64], NDArray[np.float64]]:
    """(months (2820,), monthly mean sunspot numbers (2820,)), January 1749 to December 1983."""
    text = resources.files(__package__).joinpath("data", "sunspots_monthly.csv").read_text(encoding="utf-8")
    rows = [line.split(",") for line in text.splitlines()[1:] if line]
    return (
        np.array([month.strip('"') for month, _ in rows], dtype="datetime64[M]"),
        np.array([float(value) for _, value in rows]),
    )


def train(
    cell: str, *, n_hidden: int = 32, steps: int = 300, seed: int = 0, progress: Progress | None = None
) -> TrainedSunspots:
    """Train a network on the first 80 % of the series and test it on the rest.

    Input: the present month; outputs: the next 12 months; squared error, from the 25th month of a subsequence on.
    Subsequences of 264 months, batches of 16, Adam with a falling learning rate, norm clipping, full backpropagation
    through time. The same arguments give the same numbers on any number of threads.

    Parameters
    ----------
    cell : str
        One of ``rnngrad.CELLS``; learning rate and length suit "vanilla" and "lstm" (forget bias 1).
    n_hidden : int
    steps : int
        Minibatches; 300 take about 2 s (vanilla) and 3 s (lstm) on two cores.
    seed : int
        Of the initial weights and the minibatches.
    progress : callable
        Called as ``progress(step, steps, loss)``.

    Returns
    -------
    TrainedSunspots
    """
    seed = _checks.integer("seed", seed, 0)
    months, value = series()
    split = int(TRAINING_SHARE * len(value))
    root = np.sqrt(value[:split])
    scale = Scale(float(root.mean()), float(root.std()))
    z = scale.forward(value)
    x, target = z[:-HORIZON, None], _ahead(z)
    last = split - HORIZON  # inputs before it have all their targets among the training months
    net = Network.init(cell, 1, n_hidden, HORIZON, scheme=_SCHEME, seed=seed)
    weights = losses.from_step(WARM_UP + 1, LENGTH)
    fitted = fit(
        net,
        x[:last],
        target[:last],
        steps=steps,
        length=LENGTH,
        loss=functools.partial(losses.squared_error, weights=weights, reduction="mean"),
        optimizer=Adam(_LEARNING_RATE),
        clip=_CLIP,
        schedule=cosine,
        seed=seed,
        progress=progress,
    )
    # one pass over all months: the test begins with the state that the months before it leave
    predicted = scale.back(rollout(fitted.net, x).y[split:, 0])
    truth = _ahead(value)[split:]
    present = value[split:-HORIZON, None]
    cycle_before = _ahead(value[: len(value) - CYCLE])[split - CYCLE :]
    first = split + LENGTH * np.arange((len(x) - split) // LENGTH)
    window = first + np.arange(LENGTH)[:, None]  # (LENGTH, B)
    return TrainedSunspots(
        net=fitted.net,
        x=x[window],
        target=target[window],
        start=months[first].astype(str),
        loss_history=fitted.loss_history,
        test_error=_rms(predicted - truth),
        persistence_error=_rms(present - truth),
        cycle_error=_rms(cycle_before - truth),
        scale=scale,
    )


def _ahead(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values 1 … 12 months after each month that has them all, (len - 12, 12)."""
    return np.lib.stride_tricks.sliding_window_view(value[1:], HORIZON)


def _rms(error: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(np.mean(error**2, axis=0))
