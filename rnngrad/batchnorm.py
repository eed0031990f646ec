"""Batch-normalised LSTM (Cooijmans et al. 2017): parameters, statistics, and the plain LSTM it folds into."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _checks
from .cells import LSTM_SCALED
from .network import Network

_OWN = ("gamma_h", "gamma_x", "gamma_c", "beta_c")


@dataclass(frozen=True)
class Statistics:
    """Mean and variance of every normalised quantity, for each step up to a maximum; later steps use the last one.

    Attributes
    ----------
    h_mean, h_var, x_mean, x_var : ndarray (K, 4, n)
        Of W h_{t-1} and U x_t.
    c_mean, c_var : ndarray (K, n)
        Of c_t.
    """

    h_mean: NDArray
    h_var: NDArray
    x_mean: NDArray
    x_var: NDArray
    c_mean: NDArray
    c_var: NDArray

    @classmethod
    def average(cls, batches: Sequence[Statistics], steps: int) -> Statistics:
        """Mean over batches, for ``steps`` steps; the last one stands for itself and all later steps."""
        joined = {}
        for name in (item.name for item in dataclasses.fields(cls)):
            mean = np.mean([getattr(batch, name) for batch in batches], axis=0)
            joined[name] = np.concatenate([mean[: steps - 1], mean[steps - 1 :].mean(axis=0, keepdims=True)])
        return cls(**joined)


@dataclass(frozen=True)
class BatchNormLSTM:
    """LSTM with batch normalisation of the recurrent, the input and the cell term.

        a_t = BN(W h_{t-1}; gamma_h) + BN(U x_t; gamma_x) + b
        c_t = f c_{t-1} + i v,   h_t = o tanh(BN(c_t; gamma_c, beta_c))

    with BN(z; gamma, beta) = gamma (z - mean)/sqrt(var + eps) + beta, mean and (biased) variance over the batch, step
    by step. In training mode (no ``statistics``) samples are coupled through them; with ``statistics`` each step is an
    LSTM, see :meth:`folded`. The shift of the two products is b alone, as in the paper.

    Attributes
    ----------
    lstm : Network
        W, U, b, and V, c if there is a readout.
    gamma_h, gamma_x, gamma_c, beta_c : ndarray (4, n), (4, n), (n,), (n,)
    eps : float
    statistics : Statistics or None
    """

    lstm: Network
    gamma_h: NDArray
    gamma_x: NDArray
    gamma_c: NDArray
    beta_c: NDArray
    eps: float = 1e-5
    statistics: Statistics | None = None

    @classmethod
    def init(
        cls, n_inputs: int, n_hidden: int, n_outputs: int = 0, *, gamma: float = 0.1, eps: float = 1e-5, **options: Any
    ) -> BatchNormLSTM:
        """Random network; gamma = 0.1 keeps tanh from saturating at the start (the paper's advice).

        ``options`` are those of :meth:`Network.init`.
        """
        return cls.from_lstm(Network.init("lstm", n_inputs, n_hidden, n_outputs, **options), gamma=gamma, eps=eps)

    @classmethod
    def from_lstm(cls, lstm: Network, *, gamma: float = 0.1, eps: float = 1e-5) -> BatchNormLSTM:
        """An LSTM's parameters, normalised; every gamma the same, beta_c = 0.

        Raises
        ------
        ValueError
            Not a plain tanh LSTM, or eps is not positive.
        """
        if not isinstance(lstm, Network) or lstm.cell.name != "lstm":
            raise ValueError(f"lstm is {lstm!r}; it must be a Network with the cell 'lstm'")
        gamma, n = _checks.number("gamma", gamma), lstm.n
        _checks.number("eps", eps, 0.0, open_low=True)
        by_h, by_x, by_c = (_frozen(np.full(shape, gamma, lstm.dtype)) for shape in ((4, n), (4, n), (n,)))
        return cls(lstm, by_h, by_x, by_c, _frozen(np.zeros(n, lstm.dtype)), float(eps))

    def replace(self, **changes: Any) -> BatchNormLSTM:
        """A copy with some parameters replaced; arrays are checked. Statistics stay as they are."""
        own = {name: changes.pop(name) for name in _OWN if name in changes}
        new: dict[str, Any] = {
            name: _frozen(_checks.array(name, value, getattr(self, name).shape, self.dtype))
            for name, value in own.items()
        }
        return dataclasses.replace(self, lstm=self.lstm.replace(**changes) if changes else self.lstm, **new)

    def with_statistics(self, batches: Any, steps: int | None = None) -> BatchNormLSTM:
        """Inference mode, with the statistics of training trajectories of the same length averaged.

        Parameters
        ----------
        batches : trajectory, or a sequence of them
            In training mode; variances are made unbiased, B/(B - 1).
        steps : int
            Steps with statistics of their own (by default all); the last one, averaged, serves every later step.
        """
        batches = [batches] if hasattr(batches, "statistics") else list(batches)
        if not batches or len({traj.T for traj in batches}) != 1:
            raise ValueError(
                f"batches are of {sorted({traj.T for traj in batches})} steps; all must have the same number"
            )
        if any(traj.B < 2 or not traj.coupled for traj in batches):
            raise ValueError("batches hold one of a single sample, or in inference mode; statistics come from training")
        steps = batches[0].T if steps is None else _checks.integer("steps", steps, 1, batches[0].T)
        return dataclasses.replace(self, statistics=Statistics.average([traj.statistics for traj in batches], steps))

    def astype(self, dtype: str) -> BatchNormLSTM:
        """The same network in float64 or float32."""
        to = _checks.float_dtype(dtype)
        own: dict[str, Any] = {name: _frozen(getattr(self, name).astype(to)) for name in _OWN}
        return dataclasses.replace(self, lstm=self.lstm.astype(dtype), **own)

    def training(self) -> BatchNormLSTM:
        """The same network with the statistics of each batch."""
        return dataclasses.replace(self, statistics=None)

    def folded(self, step: int | None = None) -> Network:
        """The plain network that step ``step`` (from 1; by default the last with statistics) is in inference mode.

        Everything that normalises the products goes into W, U and b: exactly those of an LSTM. Its cell state passes
        an affine map of each unit on its way out (the constants scale and shift of the cell "lstm_scaled").
        """
        s = self.statistics
        if s is None:
            raise ValueError("the network has no statistics yet; give it some: net.with_statistics(trajectory)")
        K = len(s.c_mean)
        at = K - 1 if step is None else min(_checks.integer("step", step, 1) - 1, K - 1)
        by_h, by_x = (
            gamma / np.sqrt(var[at] + self.eps) for gamma, var in ((self.gamma_h, s.h_var), (self.gamma_x, s.x_var))
        )
        scale = self.gamma_c / np.sqrt(s.c_var[at] + self.eps)
        parameters = dict(self.lstm.parameters) | {
            "W": by_h[..., None] * self.lstm.W,
            "U": by_x[..., None] * self.lstm.U,
            "b": self.lstm.b - by_h * s.h_mean[at] - by_x * s.x_mean[at],
        }
        plain = Network.from_parameters("lstm", {k: a.astype(self.dtype) for k, a in parameters.items()})
        constants = {"scale": scale, "shift": self.beta_c - scale * s.c_mean[at]}
        return dataclasses.replace(
            plain, cell=LSTM_SCALED, constants={k: a.astype(self.dtype) for k, a in constants.items()}
        )

    # -- reading -----------------------------------------------------------------------------------------------

    def parameters(self) -> Iterator[tuple[str, NDArray]]:
        """(name, array) of each parameter."""
        yield from self.lstm.parameters.items()
        for name in _OWN:
            yield name, getattr(self, name)

    def __getattr__(self, name: str) -> Any:
        if name in ("W", "U", "b", "V", "c", "n", "m", "p", "S", "N", "dtype", "state_shape", "blocks", "phi"):
            return getattr(self.lstm, name)
        raise AttributeError(name)


def _frozen(value: NDArray) -> NDArray:
    value.flags.writeable = False
    return value
