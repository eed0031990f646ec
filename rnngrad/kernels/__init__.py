"""Loops without formulae, one folder per backend, ``cpu`` and ``cuda``, with the same names."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType

from .. import _checks, _cuda
from .choice import Work, automatic


def backend(name: str = "auto") -> ModuleType:
    """The kernels of a backend: "cpu" or "cuda"; "auto" is the CPU, where nobody says what the work is."""
    _checks.choice("backend", name, ("auto", "cpu", "cuda"))
    if name == "cuda":
        _cuda.require()
        from . import cuda

        return cuda
    return _cpu()


@functools.cache
def _cpu() -> ModuleType:
    """Loaded when it is first asked for; an import costs a microsecond each time."""
    from . import cpu

    return cpu


def chosen(name: str, work_of: Callable[[], Work | None]) -> str:
    """The backend itself, "cpu" or "cuda", for a job of the work that ``work_of()`` tells.

    "auto" is CUDA where a device is present, `rnngrad doctor --measure` has measured both backends on this machine, and
    predicts CUDA to be clearly faster for so much work (:mod:`rnngrad.kernels.choice`); else it is the CPU, also where
    the work is not known. Arrays that lie on a GPU go to CUDA in any case.

    Raises
    ------
    BackendError
        CUDA was asked for and cannot run, or has no such kernel; it is never replaced by the CPU without a word.
    """
    _checks.choice("backend", name, ("auto", "cpu", "cuda"))
    return automatic(work_of) if name == "auto" else name
