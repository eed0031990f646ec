"""Loops without formulae, one folder per backend, ``cpu`` and ``cuda``, with the same names."""

from __future__ import annotations

from types import ModuleType

from .. import _checks, _cuda
from .choice import Work, automatic


def backend(name: str = "auto", work: Work | None = None) -> ModuleType:
    """The kernels of a backend: "cpu", "cuda" or "auto"; see :func:`chosen`."""
    if chosen(name, work) == "cuda":
        _cuda.require()
        from . import cuda

        return cuda
    from . import cpu

    return cpu


def chosen(name: str, work: Work | None = None) -> str:
    """The backend itself, "cpu" or "cuda".

    "auto" is CUDA where a device is present, `rnngrad doctor --measure` has measured both backends on this machine, and
    predicts CUDA to be clearly faster for so much work (:mod:`rnngrad.kernels.choice`); else it is the CPU, also where
    the work is not known. Arrays that lie on a GPU go to CUDA in any case.

    Raises
    ------
    BackendError
        CUDA was asked for and cannot run, or has no such kernel; it is never replaced by the CPU without a word.
    """
    _checks.choice("backend", name, ("auto", "cpu", "cuda"))
    return automatic(work) if name == "auto" else name
