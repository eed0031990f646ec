"""Loops without formulae, one folder per backend, ``cpu`` and ``cuda``, with the same names."""

from __future__ import annotations

from types import ModuleType

from .. import _checks, _cuda


def backend(name: str = "auto") -> ModuleType:
    """The kernels of a backend: "cpu", "cuda" or "auto".

    "auto" is the CPU, also where there is a GPU: from which size on CUDA pays is not measured yet
    (``scripts/gpu_check.py`` measures it). Arrays that lie on a GPU go to CUDA in any case.

    Raises
    ------
    BackendError
        CUDA was asked for and cannot run, or has no such kernel; it is never replaced by the CPU without a word.
    """
    _checks.choice("backend", name, ("auto", "cpu", "cuda"))
    if name == "cuda":
        _cuda.require()
        from . import cuda

        return cuda
    from . import cpu

    return cpu
