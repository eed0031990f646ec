"""Recurrent dropout without loss of memory: masks on what is written, never on what is kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import _checks
from .cells import MASKED
from .network import Network
from .stack import Stack, kind

Policy = Literal["step", "sequence"]


@dataclass(frozen=True)
class Dropout:
    """Masks on the value gate v of an LSTM, or the candidate of a GRU (Semeniuta et al. 2016).

    A unit is dropped with probability ``rate``: m = 0, else m = 1/(1 - rate) ("inverted", the mean of m is 1 and the
    plain network is the expectation form) or m = 1 (as in the paper; the expectation form scales by 1 - rate).

    Attributes
    ----------
    rate : float
        In [0, 1).
    policy : "step" or "sequence"
        A new mask at every step, or one for each sequence.
    seed : int
        The same seed, shapes and policy give the same masks. Layers of a stack draw masks of their own.
    inverted : bool
    training : bool
        False is the expectation form: every mask is its mean.
    """

    rate: float
    policy: Policy = "step"
    seed: int = 0
    inverted: bool = True
    training: bool = True

    def __post_init__(self) -> None:
        if _checks.number("rate", self.rate, 0.0, 1.0) == 1.0:
            raise ValueError("rate is 1; it must be in [0, 1): nothing would be written")
        _checks.choice("policy", self.policy, ("step", "sequence"))
        _checks.integer("seed", self.seed, 0)

    def expectation(self) -> Dropout:
        """The same dropout with every mask replaced by its mean, for inference."""
        return replace(self, training=False)

    def masks(self, T: int, B: int, n: int, dtype: Any = "float64", stream: int = 0) -> NDArray:
        """m as (T, B, n), or (1, B, n) for one mask per sequence; ``stream`` tells layers apart."""
        kept = 1.0 - self.rate
        high = 1.0 / kept if self.inverted else 1.0
        steps = T if self.policy == "step" else 1
        if not self.training:
            return np.full((1, 1, n), high * kept, dtype)
        rng = np.random.default_rng([self.seed, stream])
        return np.where(rng.random((steps, B, n)) < kept, high, 0.0).astype(dtype)

    def apply(self, net: Network | Stack, T: int, B: int) -> Network | Stack:
        """The network with masks for T steps of B samples among its constants.

        Raises
        ------
        ValueError
            The cell has no value to mask.
        """
        if isinstance(net, Stack):
            stream, rows = 0, []
            for row in net.layers:
                rows.append(tuple(self._masked(one, T, B, stream + i) for i, one in enumerate(row)))
                stream += len(row)
            return replace(net, layers=tuple(rows))
        return self._masked(net, T, B, 0)

    def _masked(self, net: Network, T: int, B: int, stream: int) -> Network:
        if kind(net) not in MASKED:
            raise ValueError(
                f"dropout masks the value gate of an LSTM or the candidate of a GRU; the cell is {kind(net)!r}, it "
                f"must be one of {', '.join(MASKED)}"
            )
        mask = self.masks(T, B, net.n, net.dtype, stream)
        return replace(net, cell=MASKED[net.cell.name], constants={"mask": mask})
