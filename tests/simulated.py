"""Tests that Numba's CUDA simulator runs: it is chosen when Numba is imported, so they need a process of their own.

A file of such tests marks them ``inside``; ``conftest.py`` leaves them out of every other process, and a test of the
file starts a ``session`` of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import rnngrad as rg
from rnngrad import _cuda

SIMULATED = _cuda.simulated()
inside = pytest.mark.simulated
outside = pytest.mark.skipif(SIMULATED, reason="this is the simulator")
DTYPES = {"float64": 1e-12, "float32": 1e-5}

if SIMULATED:
    import simulator

    simulator.install()


def sessions(file: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """The tests of a file that run the simulator's: those that are quick, and those at length."""

    @outside
    def quick() -> None:
        session(file, "-m", "not slow", seconds=1800)

    @pytest.mark.slow
    @outside
    def at_length() -> None:
        session(file, "-m", "slow", seconds=3600)

    return quick, at_length


def session(file: str, *arguments: str, seconds: float) -> None:
    """Run the tests of a file in the simulator; at least one must be there, and all must pass."""
    root = str(Path(rg.__file__).parents[1])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": path}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", file, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
