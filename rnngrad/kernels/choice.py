"""What ``backend="auto"`` is: by what a few jobs of known work took on this machine, measured once.

``rnngrad doctor --measure`` runs a gradient and a chain of Jacobians at a few sizes on both backends and fits

    seconds = c0 + c1 steps + c2 multiply-adds + c3 bytes,    all c >= 0,

for each backend and dtype: the overhead of a job, the latency of one step of its recurrence, arithmetic, and what is
carried over the bus. "auto" is CUDA where a device is present, such a measurement of this device exists, and it
predicts CUDA to be ``CLEARLY`` times as fast; it is the CPU in every other case.
"""

from __future__ import annotations

import functools
import json
import math
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import _cache, _cuda, _jit

VERSION = 1  # of the rule: what is measured, fitted and predicted
CLEARLY = 1.5  # times as fast as the CPU: for less, two fits of a few jobs each are not to be trusted
BACKENDS, DTYPES = ("cpu", "cuda"), ("float64", "float32")


@dataclass(frozen=True)
class Work:
    """What a job asks of a backend.

    Attributes
    ----------
    steps : float
        Steps of a recurrence, one after the other.
    multiply_adds : float
        Of its matrix products.
    bytes : float
        Of the arrays it reads and writes, which CUDA carries to the card and back.
    dtype : str
    """

    steps: float
    multiply_adds: float
    bytes: float
    dtype: str

    @property
    def terms(self) -> tuple[float, ...]:
        """What the coefficients of a fit belong to."""
        return 1.0, self.steps, self.multiply_adds, self.bytes


@dataclass(frozen=True)
class Measurement:
    """Coefficients of the fits, ``coefficients[dtype][backend]``: four numbers each."""

    coefficients: Mapping[str, Mapping[str, tuple[float, ...]]]

    def seconds(self, work: Work) -> tuple[float, float]:
        """What the job is predicted to take on the CPU and on CUDA."""
        cpu, cuda = (
            sum(c * term for c, term in zip(self.coefficients[work.dtype][backend], work.terms, strict=True))
            for backend in BACKENDS
        )
        return cpu, cuda


def automatic(work_of: Callable[[], Work | None]) -> str:
    """What "auto" is for a job: "cuda" where that is measured to pay, else "cpu"; "cpu" if its work is not known."""
    measurement = measured()
    work = None if measurement is None else work_of()  # counted only where it matters
    if measurement is None or work is None:
        return "cpu"
    cpu, cuda = measurement.seconds(work)
    return "cuda" if CLEARLY * cuda < cpu else "cpu"


@functools.cache
def measured() -> Measurement | None:
    """The measurement of this device, if there are both; asked once, and without one nothing of CUDA is loaded."""
    if not any(folder().glob(f"backends-{VERSION}-*.json")) or _cuda.missing() is not None:
        return None
    path = file()
    if not path.exists():
        return None
    try:
        return Measurement(_checked(json.loads(path.read_text())))
    except (OSError, ValueError, TypeError, KeyError) as problem:
        warnings.warn(
            f"{path} holds no measurement of the backends ({type(problem).__name__}: {problem}), so backend='auto' is "
            "the CPU; `rnngrad doctor --measure` writes it anew",
            stacklevel=4,
        )
        return None


def _checked(data: Any) -> Mapping[str, Mapping[str, tuple[float, ...]]]:
    """The coefficients of a file, if they are what they must be."""
    found = {}
    for dtype in DTYPES:
        found[dtype] = {backend: tuple(map(float, data["coefficients"][dtype][backend])) for backend in BACKENDS}
        for backend, values in found[dtype].items():
            if len(values) != 4 or not all(math.isfinite(c) and c >= 0 for c in values) or not any(values):
                raise ValueError(f"coefficients of {backend}, {dtype}, are {values}; they must be four numbers >= 0")
    return found


def folder() -> Path:
    """Where measurements are kept: beside the folders of compiled kernels, which change with their sources."""
    return _cache.cache_folder().parent


def file() -> Path:
    """The measurement of the current device, with so many threads of the CPU."""
    device = re.sub(r"[^A-Za-z0-9]+", "-", _cuda.device_model()).strip("-")
    return folder() / f"backends-{VERSION}-{device}-{_jit.num_threads()}-threads.json"


def keep(coefficients: Mapping[str, Mapping[str, Any]], jobs: Any) -> Path:
    """Write what was fitted, and to what; later choices follow it."""
    path = file()
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    data = {"device": _cuda.device_model(), "threads": _jit.num_threads(), "coefficients": coefficients, "jobs": jobs}
    new.write_text(json.dumps(data, indent=1) + "\n")
    new.replace(path)
    measured.cache_clear()
    return path


def explained() -> str:
    """What "auto" is here, and why, in words."""
    missing = _cuda.missing()
    if missing is not None:
        return f"the CPU: {missing}"
    if measured() is None:
        return f"the CPU: {_cuda.device_model()} is not measured; rnngrad doctor --measure does it in a minute"
    return f"CUDA where it is predicted to be {CLEARLY:g} times as fast as the CPU, by {file()}"
