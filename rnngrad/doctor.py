"""What this installation is made of, and whether every backend computes what it should: ``rnngrad doctor``."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
from threadpoolctl import threadpool_info

from . import __version__, _cache, _cuda, _jit, calibration
from .dynamics.chain import jacobian_chain
from .dynamics.rollout import rollout
from .errors import BackendError
from .gradients.bptt import bptt
from .kernels import choice
from .losses import squared_error
from .network import Network

_PACKAGES = ("numba", "llvmlite", "numpy", "scipy", "matplotlib", "numba-cuda", "cupy-cuda13x", "torch", "jax")
_DIFFERENCES = 1e-7  # relative, of a central difference with a step of 1e-5
_PARITY = 1e-12  # relative, between two backends in float64


def facts() -> Iterator[tuple[str, str]]:
    """(name, value) of versions, device, threads, BLAS and cache folder."""
    yield "rnngrad", __version__
    yield "Python", f"{platform.python_version()} on {platform.platform(terse=True)}, {platform.machine()}"
    for name in _PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, "not installed"
    yield "CUDA device", _cuda.missing() or _cuda.device_name()
    yield "backend auto", choice.explained()
    if _cuda.missing() is None:
        from .kernels.cuda import library as large

        yield "large products", large.explained()
    count = _jit.num_threads()
    yield "threads", f"{count} of rnngrad's own pool (no threading layer of Numba is used); RNNGRAD_NUM_THREADS sets it"
    blas = [library for library in threadpool_info() if library["user_api"] == "blas"]
    for library in blas:
        how = f"{library['num_threads']} threads, {library.get('architecture', 'architecture not told')}"
        yield "BLAS", f"{library['internal_api']} {library['version']}, {how}"
    if not blas:
        yield "BLAS", "none found"
    yield "cache folder", _compiled()


def _compiled() -> str:
    folder = _cache.cache_folder()
    files = list(folder.glob("*.nbc")) if folder.is_dir() else []
    size = sum(file.stat().st_size for file in files) / 2**20
    return f"{folder} ({len(files)} kernels, {size:.0f} MB)"


def self_tests() -> Iterator[tuple[str, bool, str]]:
    """(backend, whether it passed, what was found); a backend that cannot run is not a failure."""
    yield "cpu", *_timed(_cpu)
    if _cuda.missing() is None:
        yield "cuda", *_timed(_parity)


def _timed(test: Callable[[], float]) -> tuple[bool, str]:
    start = time.perf_counter()
    try:
        error = test()
    except (ArithmeticError, BackendError, MemoryError, ValueError) as problem:
        return False, f"{type(problem).__name__}: {problem}"
    seconds = time.perf_counter() - start
    limit = _DIFFERENCES if test is _cpu else _PARITY
    return error <= limit, f"largest relative error {error:.1e}, allowed {limit:.0e}; {seconds:.1f} s with compilation"


def _example() -> tuple[Network, np.ndarray, np.ndarray]:
    net = Network.init("lstm", n_inputs=3, n_hidden=6, n_outputs=2, seed=0)
    rng = np.random.default_rng(0)
    return net, rng.standard_normal((12, 4, 3)), rng.standard_normal((12, 4, 2))


def _cpu() -> float:
    """Gradients of an LSTM along a random direction of all its parameters, against a central difference."""
    net, x, target = _example()
    loss, rng = squared_error(target), np.random.default_rng(1)
    grads = dict(bptt(rollout(net, x, backend="cpu"), loss).parameters())
    direction = {name: rng.standard_normal(value.shape) for name, value in grads.items()}

    def at(step: float) -> float:
        moved = net.replace(**{name: net.parameters[name] + step * direction[name] for name in grads})
        return float(bptt(rollout(moved, x, backend="cpu"), loss).loss)

    exact = sum(float(np.sum(grads[name] * direction[name])) for name in grads)
    return abs((at(1e-5) - at(-1e-5)) / 2e-5 - exact) / abs(exact)


def _parity() -> float:
    """The same network on both backends: states, gradients and a product of Jacobians."""
    net, x, target = _example()
    worst = 0.0
    found = []
    for backend in ("cpu", "cuda"):
        traj = rollout(net, x, backend=backend)
        grads = dict(bptt(traj, squared_error(target)).parameters())
        found.append({"states": traj.states, "chain": jacobian_chain(traj).product(12, 4), **grads})
    for name, expected in found[0].items():
        worst = max(worst, float(np.abs(found[1][name] - expected).max() / np.abs(expected).max()))
    return worst


def main(measure: bool = False) -> int:
    """Print everything, and time both backends where that is asked for; 0 if all self-tests passed, else 1."""
    for name, value in facts():
        print(f"{name:14s} {value}")
    status = 0
    for backend, passed, found in self_tests():
        print(f"self-test {backend:4s} {'passed' if passed else 'FAILED'}: {found}")
        status = status if passed else 1
    if measure and status == 0:
        try:
            calibration.measure()
        except BackendError as problem:
            print(f"rnngrad: error: --measure: {problem}", file=sys.stderr)
            return 2
    return status
