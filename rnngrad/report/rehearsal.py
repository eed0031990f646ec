"""Kernels compiled ahead: a second process goes through the job in small, while the first is at its beginning.

Most of the time of a first report is spent compiling, on one processor. What the other process compiles lies in the
cache when the job itself gets there, and is loaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.core import event

from .._cache import KernelCache
from ..kernels.choice import measured
from ..network import Network
from ..stack import Stack

UNITS = 4  # of a network in small
STEPS, SAMPLES = 64, 2  # of its input

_COMPILING = "numba:compile"


class Missed(event.Listener):
    """While active, says when a kernel is compiled that could have been in the cache; a context manager.

    A job whose kernels are all there is not told anything, and need not be helped.
    """

    def __init__(self, tell: Callable[[], Any]) -> None:
        self._tell = tell

    def __enter__(self) -> Missed:
        event.register(_COMPILING, self)
        return self

    def __exit__(self, *_: object) -> None:
        event.unregister(_COMPILING, self)

    def on_start(self, event: Any) -> None:
        """Numba begins to compile a function that it did not find."""
        if isinstance(event.data["dispatcher"]._cache, KernelCache):
            self._tell()

    def on_end(self, event: Any) -> None:
        """It has compiled it."""


def rehearse(job: Callable[..., Any], *arguments: Any) -> None:
    """Call what goes through the job in small, for its kernels: results and warnings are of no interest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        job(*arguments)


def pays(backend: str) -> bool:
    """Whether it is certain that the job runs on the CPU; what is small may run elsewhere than what is not."""
    return backend == "cpu" or (backend == "auto" and measured() is None)


def in_small(net: Any) -> tuple[Any, ...] | None:
    """A network like this one, as ``build`` takes it; None where its kernels are not kept in the cache."""
    rows = net.layers if isinstance(net, Stack) else ((net,),)
    if not all(isinstance(one, Network) and one.cell.built_in for row in rows for one in row):
        return None
    said = [[(one.cell.name, one.activation) for one in row] for row in rows]
    feedback = net.feedback if isinstance(net, Stack) else None
    return said, min(net.m, UNITS), net.V is not None, net.dtype.name, feedback


def build(rows: list[list[tuple[str, str]]], m: int, readout: bool, dtype: str, feedback: bool | None) -> Any:
    """The small network; ``feedback`` is None where it is no stack."""
    p = UNITS if readout else 0
    if feedback is None:
        ((cell, activation),) = rows[0]
        return Network.init(cell, m, UNITS, p, activation=activation, dtype=dtype)
    last = UNITS * len(rows[-1])
    m += (p or last) if feedback else 0
    layers = []
    for row in rows:
        layers.append([Network.init(cell, m, UNITS, activation=phi, dtype=dtype) for cell, phi in row])
        m = UNITS * len(row)
    V = np.ones((p, last), dtype) if readout else None
    return Stack.from_layers(layers, V, np.zeros(p, dtype) if readout else None, feedback=feedback)
