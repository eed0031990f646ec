"""Loops without formulae, one folder per backend: ``cpu``, and ``cuda`` when it comes, with the same names."""

from __future__ import annotations

from types import ModuleType

from .. import _checks, _cuda
from ..errors import BackendError


def backend(name: str = "auto") -> ModuleType:
    """The kernels of a backend: "cpu", "cuda" or "auto".

    Raises
    ------
    BackendError
        CUDA was asked for and cannot run; it is never replaced by the CPU without a word.
    """
    _checks.choice("backend", name, ("auto", "cpu", "cuda"))
    if name == "cuda":
        _cuda.require()
        raise BackendError("backend is 'cuda', but this version has no CUDA kernels; use backend='cpu' or 'auto'")
    from . import cpu

    return cpu
