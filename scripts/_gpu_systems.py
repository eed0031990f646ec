"""What ``gpu_check.py`` asks of a user's systems, and of chains of their dense Jacobians."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from ptx_check import EXAMPLES, HENON_JACOBIAN

import rnngrad as rg
from rnngrad import _cuda
from rnngrad.dynamics.frames import Carried, carry, random_frames
from rnngrad.dynamics.jacobian import local_jacobians
from rnngrad.dynamics.rollout import tile_rows
from rnngrad.dynamics.system import DenseJacobians
from rnngrad.fixedpoint.solve import history_arrays

_PARAMS: dict[str, npt.ArrayLike] = {"henon": [1.4, 0.3], "lorenz": [10.0, 28.0, 8 / 3]}
SYSTEMS = [*EXAMPLES, "henon, its Jacobian", "dense float64", "dense float32"]


def system(name: str) -> rg.System:
    """A system by the name of its function."""
    user = EXAMPLES[name.split(",")[0]]
    n, jacobian = user.shape[0], HENON_JACOBIAN.function if "," in name else None
    weights = np.random.default_rng(0).standard_normal(n * n) / np.sqrt(n)
    return rg.System(user.function, n, _PARAMS.get(name.split(",")[0], weights), jacobian)


def rollout(name: str, T: int, B: int, backend: str) -> Any:
    """A trajectory of every sample."""
    net = system(name)
    s0 = 0.1 + 0.1 * np.random.default_rng(1).random((B, 1, net.n))
    lengths = np.random.default_rng(2).integers(1, T + 1, B)
    return rg.rollout(net, np.zeros((T, B, 0)), s0, lengths, backend=backend)


def results(name: str, T: int, B: int, backend: str) -> dict[str, np.ndarray]:
    """What the kernels make of one system, by name."""
    if name.startswith("dense"):
        n = 3 if _cuda.simulated() else 37
        J = np.random.default_rng(3).standard_normal((T, B, n, n)) / np.sqrt(n)
        dtype = np.dtype(name.split()[1] if backend == "cuda" else "float64")
        return of_chain(DenseJacobians(None, J.astype(np.float32 if "32" in name else dtype).astype(dtype), backend))
    traj = rollout(name, T, B, backend)
    found = {"states": traj.states, "J": rg.jacobians(traj), "ds/dparams": traj.net.parameter_jacobians(traj)}
    few = {"tol": 1e-30, "max_iterations": 3, "backend": backend}
    for method, window in (("picard", {}), ("anderson", {"window": 1})):
        fp = rg.solve_fixed_point(traj.net, None, method, s0=traj.states[0], **few, **window)
        found[f"states, {method}"] = fp.s
    return found | of_chain(local_jacobians(traj))


def of_chain(local: DenseJacobians) -> dict[str, np.ndarray]:
    """What the kernels of dense Jacobians make of them."""
    T, B, n, _ = local.J.shape
    rng, dtype, sample = np.random.default_rng(4), local.J.dtype, np.arange(2 * B + 1) % B
    y, none = rng.standard_normal((2 * B + 1, 1, n)).astype(dtype), np.zeros(2 * B + 1, np.int64)
    found = {}
    for name, walk, at in (("adjoint", local.adjoint, T), ("tangent", local.tangent, 0)):
        rows, exponents = walk(y, none, sample, at, min(T, 6))
        found[f"{name} chain"] = np.ldexp(rows, exponents.astype(np.int32)[..., None, None])
    norms = np.empty((1, B, T + 1))
    local.norms(norms, np.array([T]), np.eye(n, dtype=dtype).reshape(n, 1, n), (0, n), True)
    carried = Carried.start(random_frames(B, min(n, 3), (1, n), np.float64, rng))
    found |= {"norms, logarithms": norms, "frames, logarithms": carry(local.in_float64(), carried, 0, 1, T)}
    one = DenseJacobians(None, local.J[:1] * dtype.type(0.3), local.backend)
    found["Newton directions"] = one.newton(y[:B])[0]
    for forward, name in ((False, "adjoint"), (True, "tangent")):
        z, history = y.copy(), history_arrays(6, len(y))
        one.linear_fixed_point(z, history, (-1.0, 6, 0, 1.0, tile_rows(n)), y, sample, forward)
        found[f"{name} iterated"] = z
    return found


def one(what: str, name: str, compare: Callable[..., Any], limit: float) -> Iterator[Any]:
    """One system on both, and again."""
    size = (3, 3) if _cuda.simulated() else (20, 70)
    truth, found, again = (results(name, *size, backend) for backend in ("cpu", "cuda", "cuda"))
    worst = compare(found, truth)
    which = max(worst, key=worst.__getitem__)
    same = all(np.array_equal(value, found[key], equal_nan=True) for key, value in again.items())
    passed = worst[which] <= limit and same
    yield {"case": what, "worst": which, "error": worst[which], "same bits": {"a second run": same}, "passed": passed}


def timings(measure: Callable[[Callable[[], Any]], tuple[float, float]]) -> Iterator[Any]:
    """Jobs that time the kernels of every example."""
    T, B = (3, 2) if _cuda.simulated() else (1000, 4096)
    for name in EXAMPLES:
        yield f"{name}: timings", 20, functools.partial(_timed, name, T, B, measure)


def _timed(name: str, T: int, B: int, measure: Callable[[Callable[[], Any]], tuple[float, float]]) -> Iterator[Any]:
    traj = rollout(name, T, B, "cuda")
    local, n = local_jacobians(traj), traj.net.n
    rows, sample = np.tile(np.eye(n), (B, 1))[:, None], np.repeat(np.arange(B), n)
    none = np.zeros(len(rows), np.int64)
    jobs: dict[str, Callable[[], Any]] = {
        "forward": lambda: rollout(name, T, B, "cuda"),
        "dense Jacobians": lambda: traj.net._derivative(traj, 0),
        "chain of Jacobians": lambda: local.adjoint(rows, none, sample, min(T, 20), min(T, 20)),
    }
    for job, run in jobs.items():
        kernels, wall = measure(run)
        yield {"case": f"{name}, T = {T}, B = {B}, float64", "job": job, "kernels": kernels, "call": wall}
