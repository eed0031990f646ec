"""Kernels compiled ahead: a second process goes through the job in small, while the first is at its beginning.

Most of the time of a first report is spent compiling, on one processor. What the other process compiles lies in the
cache when the job itself gets there, and is loaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from numba.core import event

from .._cache import KernelCache

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
