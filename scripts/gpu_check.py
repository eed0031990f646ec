"""Check the CUDA kernels on a real card and measure them: one command, under eight minutes, no network.

    pip install -e '.[cuda]' && python scripts/gpu_check.py [--out scripts/results/gpu_check] [--minutes 8]

Parity of every kernel with the CPU in float64, for every cell and dtype, with operands in shared and in global memory,
and whole or in pieces; a second run must give the same bits. The same with arrays that lie on the card, given by
Numba, PyTorch, CuPy and DLPack alone where they are installed. Then ``compute-sanitizer``, where it is on the PATH or
with the toolkit, on a small job. Then timings by CUDA events, of kernels alone and of whole calls with NumPy arrays,
against PyTorch (cuDNN, ``vmap(jacrev)``, chains of batched products, ``torch.linalg.qr``) and JAX where they are
installed, and the card's own copy bandwidth and product rate. What did not fit into the time is listed as left out.

Every section runs in a process of its own. A job that raises is a failed row, with the end of its traceback; one that
hangs, or takes the CUDA context with it, ends its process, and a new one goes on with the next job. OUT.md and OUT.json
are written after every row; the exit status is 1 if anything failed, or nothing was checked where it should have been.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import _gpu_batchnorm
import _gpu_device
import _gpu_library
import _gpu_systems
import numpy as np
from _gpu_peers import NAMES, PEERS, clean, repeats_after, usable, wall_clock

import rnngrad as rg
from rnngrad import _cuda, doctor
from rnngrad.dynamics.frames import Carried, carry, orthonormalize, random_frames
from rnngrad.dynamics.graded import Graded
from rnngrad.dynamics.jacobian import local_jacobians
from rnngrad.dynamics.rollout import tile_rows
from rnngrad.fixedpoint.solve import history_arrays

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX leaves the others' memory to them
TOLERANCE = {"float64": 1e-12, "float32": 2e-5}
#: (cell, n, m, T, B): weights in shared memory, then too large for it, then uneven sizes
SHAPES = [("lstm", 16, 5, 40, 33), ("lstm", 130, 7, 12, 9), ("gru", 300, 3, 6, 5), ("gru_delayed", 61, 64, 20, 20)]
SMALL = [("lstm", 3, 2, 4, 3), ("gru_delayed", 2, 1, 3, 2)]
HANGS = 150.0  # seconds without a word from a section before it is ended
SANITIZER = 100.0  # seconds for one tool of compute-sanitizer; less than HANGS
RESTARTS = 3  # processes lost by a section before what is left of it is left out
LOST = 3  # exit status of a process that lost its CUDA context

Row = dict[str, Any]
#: (what, seconds that must be left, what makes its rows)
Job = tuple[str, float, Callable[[], Iterator[Row]]]


class Clock:
    """Time that is left."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    def left(self) -> float:
        return self._end - time.monotonic()


def draw(cell: str, n: int, m: int, T: int, B: int, dtype: str, uneven: bool = True) -> tuple[Any, ...]:
    """(network, x, s0, lengths) with a spectrum near one, so that chains neither vanish nor explode."""
    rng = np.random.default_rng(0)
    net = rg.Network.init(cell, n_inputs=m, n_hidden=n, n_outputs=3, scheme="orthogonal", seed=1, dtype=dtype)
    lengths = rng.integers(1, T + 1, B) if uneven else None
    return net, rng.standard_normal((T, B, m)).astype(dtype), rng.standard_normal((B, net.S, n)).astype(dtype), lengths


def results(
    net: Any, x: Any, s0: Any, lengths: Any, backend: str, dropout: rg.Dropout | None = None
) -> dict[str, np.ndarray]:
    """What every kernel makes of one network, by name."""
    traj = rg.rollout(net, x, s0, lengths, dropout=dropout, backend=backend)
    rng, dtype = np.random.default_rng(2), net.dtype
    loss = rg.losses.squared_error(rng.standard_normal(traj.y.shape).astype(dtype))
    grads, jacobians = rg.bptt(traj, loss), local_jacobians(traj)
    found = {"states": traj.states, "y": traj.y, "h": traj.h, "J": jacobians.dense(), "s": grads.s, "x": grads.x}
    found |= dict(grads.parameters())
    R, D = min(2 * traj.B, 70), min(traj.T, 8)
    rows, sample = rng.standard_normal((R, net.S, net.n)).astype(dtype), np.arange(R) % traj.B
    none = np.zeros(R, np.int64)
    for name, at, walk in (("adjoint", traj.T, jacobians.adjoint), ("tangent", 0, jacobians.tangent)):
        found[f"{name} chain"] = scaled(*walk(rows, none, sample, at, D))
        out = rng.standard_normal((D, R, net.S, net.n)).astype(dtype), np.zeros((D, R), np.int64)
        dz, dz2 = (rng.standard_normal((D, R, a.shape[2], net.n)).astype(dtype) for a in (traj.a, traj.a2))
        walk(rows, none, sample, at, D, out=out, dz=dz, dz2=dz2)
        found |= {f"driven {name}": out[0], f"driven {name}, dz": dz, f"driven {name}, dz2": dz2}
    k = min(net.N, 20)
    carried = Carried.start(random_frames(traj.B, k, net.state_shape, np.float64, np.random.default_rng(3)))
    found["frames, logarithms"] = carry(jacobians.in_float64(), carried, 0, 1, traj.T)
    found["norms of products, logarithms"] = rg.jacobian_chain(traj).log_norms()
    curvature = rg.Curvature(traj, loss)
    v = rng.standard_normal((2, curvature.size)).astype(dtype)
    found |= {"Hessian": curvature.hessian(v), "Gauss-Newton": curvature.gauss_newton(v)}
    values = rg.jacobian_chain(traj).log_singular_values(min(traj.T, 6), 0)
    found["large singular values, logarithms"] = values[:, : max(1, net.N // 4)]  # float32 says little of the others
    X, far = rng.standard_normal((5, 21, 21)), rng.integers(-2000, 2000, (5, 21))
    found["singular values of rows, logarithms"] = Graded(X, far).log_singular_values(backend)
    found |= fixed_points(net, x, backend)
    # half as many vectors as numbers: far from dependent, so that R has digits in float32 too
    Y = rng.standard_normal((traj.B, max(1, min(net.N // 2, 40)), net.N)).astype(dtype)
    found["QR, vectors"], found["QR, R"], *_ = orthonormalize(Y, np.zeros(Y.shape[:2], np.int64), backend)
    return found


def fixed_points(net: Any, x: Any, backend: str) -> dict[str, np.ndarray]:
    """States after a few iterations with the first input held, and the iterations and directions that solve with I - J.

    A third of the recurrent weights, so that they contract; few, so that they are compared number by number.
    """
    net = net.replace(W=net.W / net.dtype.type(3))
    few = {"tol": 1e-30, "max_iterations": 4, "window": 1, "backend": backend}  # a wider one is ill-conditioned
    found = {f"states, {method}": rg.solve_fixed_point(net, x[0], method, **few).s for method in ("picard", "anderson")}
    start = np.random.default_rng(4).standard_normal((x.shape[1], net.S, net.n)).astype(net.dtype)
    local, sample = local_jacobians(rg.rollout(net, x[:1], start, backend=backend)), np.arange(len(start))[::-1].copy()
    found["Newton directions"] = local.newton(start)[0]
    for forward, name in ((False, "adjoint"), (True, "tangent")):
        y, history = start.copy(), history_arrays(6, len(start))
        local.linear_fixed_point(y, history, (-1.0, 6, 0, 1.0, tile_rows(net.n)), start, sample, forward)
        found |= {f"{name} iterated": y, f"{name} iterated, residuals": history[0]}
    return found


def scaled(rows: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    return np.ldexp(rows, exponents.astype(np.int32)[..., None, None])


def distances(found: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> dict[str, float]:
    """Largest error of each result relative to its largest entry; infinite where a number is none and should be one.

    Logarithms of numbers near one are near zero with an error of their own: of those below one it is absolute. They
    may be no numbers (of products that are zero, or that there are not), where the expected ones are the same.
    """
    out = {}
    for name, expected in truth.items():
        if not expected.size:
            continue
        of, logarithms = found[name].astype(float), "logarithms" in name
        finite = np.isfinite(expected)
        same = np.array_equal(of[~finite], expected[~finite], equal_nan=True)
        if not same or not np.isfinite(of[finite]).all() or not (finite.all() or logarithms):
            out[name] = np.inf
        elif finite.any():
            scale = np.abs(expected[finite]).max()
            scale = max(1.0, scale) if logarithms else scale or 1.0
            out[name] = float(np.abs(of[finite] - expected[finite]).max() / scale)
    return out


def same_bits(found: dict[str, np.ndarray], whole: dict[str, np.ndarray]) -> bool:
    """Whether all numbers of all results are the same."""
    return all(np.array_equal(value, whole[name], equal_nan=True) for name, value in found.items())


def widened(net: Any, x: Any, s0: Any, lengths: Any) -> tuple[Any, ...]:
    """The same numbers in float64."""
    return net.astype("float64"), x.astype(np.float64), s0.astype(np.float64), lengths


@contextlib.contextmanager
def held(**limits: float) -> Iterator[None]:
    """With other limits of the chip: shared_limit, free_bytes."""
    before = {name: getattr(_cuda, name) for name in limits}
    for name, value in limits.items():
        setattr(_cuda, name, lambda value=value: value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(_cuda, name, value)


def parity() -> Iterator[Job]:
    """Every cell and dtype at a small size, then larger ones, shared memory or none, whole or in pieces, and twice."""
    small = SMALL[0][1:] if _cuda.simulated() else (16, 5, 20, 21)
    cells = ["lstm", "gru_delayed"] if _cuda.simulated() else list(rg.CELLS)
    shapes = SMALL if _cuda.simulated() else SHAPES
    jobs = [(cell, *small, dtype) for cell in cells for dtype in TOLERANCE]
    jobs += [(*shape, dtype) for shape in shapes for dtype in TOLERANCE]
    for job in jobs:
        what = f"{job[0]}, n = {job[1]}, m = {job[2]}, T = {job[3]}, B = {job[4]}, {job[5]}"
        yield what, 60, functools.partial(one_parity, what, job, job[:5] in shapes)
    for cell, policy in (("lstm", "step"), ("gru", "sequence")):
        job, masks = (cell, *small, "float64"), {"dropout": rg.Dropout(0.4, policy=policy, seed=1)}
        what = f"{cell} with dropout by {policy}"
        yield what, 60, functools.partial(one_parity, what, job, False, **masks)

    sizes = [(2, 1, 4, 6)] if _cuda.simulated() else [(16, 5, 20, 21), (130, 7, 8, 70)]
    for size in sizes:
        for training in (True, False):
            for dtype, limit in TOLERANCE.items():
                mode = "training" if training else "inference"
                what = f"batch-normalised, {mode}, n = {size[0]}, T = {size[2]}, B = {size[3]}, {dtype}"
                # statistics amplify rounding: by the ratio of a term to its spread over the batch, at every step
                limit = 50 * limit
                yield what, 60, functools.partial(_gpu_batchnorm.one, what, size, training, dtype, distances, limit)
    for name in _gpu_systems.SYSTEMS:
        what, limit = f"system, {name}", 10 * TOLERANCE["float32" if "float32" in name else "float64"]
        yield what, 60, functools.partial(_gpu_systems.one, what, name, distances, limit)


def one_parity(what: str, job: tuple[Any, ...], everywhere: bool, **options: Any) -> Iterator[Row]:
    """One network on both, and again; with operands in global memory too."""
    args = draw(*job)
    truth, found = results(*widened(*args), "cpu", **options), results(*args, "cuda", **options)
    worst = distances(found, truth)
    variants: dict[str, dict[str, float]] = {"a second run": {}}
    if everywhere:
        variants["no shared memory"] = {"shared_limit": 0}
    same = {}
    for name, limits in variants.items():
        with held(**limits):
            same[name] = same_bits(results(*args, "cuda", **options), found)
    name = max(worst, key=worst.__getitem__)
    passed = worst[name] <= TOLERANCE[job[5]] * (1 + job[3] / 10) and all(same.values())
    yield {"case": what, "worst": name, "error": worst[name], "same bits": same, "passed": passed}


def on_device() -> Iterator[Job]:
    """Arrays that lie on the card, by every library that is here."""
    sizes = SMALL[:1] if _cuda.simulated() else [("lstm", 16, 5, 20, 21), ("mrnn", 24, 3, 12, 6)]
    yield from _gpu_device.jobs([(*size, dtype) for size in sizes for dtype in TOLERANCE], draw, distances)


def in_pieces() -> Iterator[Job]:
    """Jobs that are cut by samples, rows or steps, or halved in time, give the same bits."""
    shape = SMALL[0] if _cuda.simulated() else SHAPES[0]
    for what, of, halved in (("in pieces", shape, False), ("one sample, halved in time", (*shape[:4], 1), True)):
        yield what, 30, functools.partial(one_in_pieces, what, of, halved)


def one_in_pieces(what: str, shape: tuple[Any, ...], halved: bool) -> Iterator[Row]:
    """One network whole and in pieces."""
    args = draw(*shape, "float64", uneven=not halved)
    whole = results(*args, "cuda")
    with cut(halved) as (cuts, whole_still):
        found = results(*args, "cuda")
    same = {"whole": same_bits(found, whole)}
    passed = all(same.values()) and bool(cuts) and not whole_still
    row = {"case": what, "worst": "", "error": 0.0, "same bits": same, "passed": passed}
    yield {**row, "cuts": cuts, "not cut": sorted(whole_still)}


@contextlib.contextmanager
def cut(halved: bool) -> Iterator[tuple[dict[str, int], set[str]]]:
    """Cut every job in three or more, or all in time down to single steps, whatever the memory of the card.

    Yields how many pieces each job was made of at most, and the jobs that could have been cut and were not.
    """
    from rnngrad.kernels.cuda import pieces

    run, fitting = pieces.run, pieces.fitting
    cuts: dict[str, int] = {}
    whole: set[str] = set()
    least: list[int] = []  # places of the smallest piece, within a run

    def narrow(count: int, *args: Any) -> int:
        if not least:  # asked before a run: whether anything fits at all
            if halved:
                cuts["halves in time"] = cuts.get("halves in time", 0) + 1
            return 0 if halved else fitting(count, *args)
        return min(fitting(count, *args), max(least[0], count // 3))

    def noted(launch: Any, count: int, operands: Any, what: str, scratch: Any = (0, 0), multiple: int = 1) -> None:
        made = []

        def one(*args: Any) -> None:
            made.append(1)
            launch(*args)

        least[:] = [multiple]
        try:
            run(one, count, operands, what, scratch, multiple)
        finally:
            least.clear()
        if len(made) > 1:
            cuts[what] = max(cuts.get(what, 0), len(made))
        elif count >= 2 * multiple:
            whole.add(what)

    pieces.run, pieces.fitting = noted, narrow  # type: ignore[assignment]
    try:
        yield cuts, whole
    finally:
        pieces.run, pieces.fitting = run, fitting


def by_library() -> Iterator[Job]:
    """Products of large matrices by cuBLAS and by our own kernels: the size from which on cuBLAS is taken."""
    yield from _gpu_library.jobs(distances, measure)


def sanitize() -> Iterator[Job]:
    """``compute-sanitizer`` on a small job in a process of its own."""
    program = sanitizer()
    if program is None:
        yield "compute-sanitizer", 0, lambda: leave_out("it is not on the PATH, nor with the toolkit")
        return
    for tool in ("racecheck", "memcheck"):
        yield f"compute-sanitizer, {tool}", 60, functools.partial(one_sanitizer, program, tool)


def sanitizer() -> str | None:
    """Where compute-sanitizer is: on the PATH, or in the toolkit."""
    homes = [os.environ[name] for name in ("CUDA_HOME",) if os.environ.get(name)]
    places = [None, *(str(Path(home) / "bin") for home in (*homes, "/usr/local/cuda"))]
    return next((found for place in places if (found := shutil.which("compute-sanitizer", path=place))), None)


def leave_out(why: str) -> Iterator[Row]:
    """The row of what cannot be run."""
    yield {"left out": why}


def one_sanitizer(program: str, tool: str) -> Iterator[Row]:
    """A small job of every kernel under one tool."""
    command = [program, "--tool", tool, "--error-exitcode", "9", sys.executable, __file__, "--small"]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = process.wait(SANITIZER)
        except subprocess.TimeoutExpired:
            yield {"left out": f"{SANITIZER:.0f} s were not enough"}
            return
        finally:
            end(process)  # with the job that it started
        said.seek(0)
        yield {"case": tool, "passed": status == 0, "said": said.read()[-2000:]}


# ---------------------------------------------------------------- timings


@contextlib.contextmanager
def kernel_times() -> Iterator[list[tuple[Any, Any]]]:
    """CUDA events around every launch."""
    cuda, plain = _cuda.load(), _cuda.Kernel.__call__
    events: list[tuple[Any, Any]] = []

    def timed(self: Any, *args: Any) -> None:
        start, stop = cuda.event(), cuda.event()
        start.record()
        plain(self, *args)
        stop.record()
        events.append((start, stop))

    _cuda.Kernel.__call__ = timed  # type: ignore[method-assign]
    try:
        yield events
    finally:
        _cuda.Kernel.__call__ = plain  # type: ignore[method-assign]


def measure(job: Callable[[], Any]) -> tuple[float, float]:
    """(milliseconds in kernels, milliseconds of the whole call): medians after one call that compiles."""
    cuda = _cuda.load()
    kernels, walls = [], []
    for _ in range(repeats_after(job, cuda.synchronize)):
        cuda.synchronize()
        with kernel_times() as events:
            start = time.perf_counter()
            job()
            cuda.synchronize()
            walls.append(1e3 * (time.perf_counter() - start))
        kernels.append(sum(between(*pair) for pair in events))
    return float(np.median(kernels)), float(np.median(walls))


def between(start: Any, stop: Any) -> float:
    """Milliseconds between two events; the simulator has no time."""
    return 1.0 if _cuda.simulated() else start.elapsed_time(stop)


def ours(cell: str, n: int, T: int, B: int, dtype: str) -> dict[str, Callable[[], Any]]:
    """Jobs of the package, by name."""
    net, x, s0, _ = draw(cell, n, n, T, B, dtype, uneven=False)
    traj = rg.rollout(net, x, s0, backend="cuda")
    loss = rg.losses.squared_error(np.zeros_like(traj.y))
    jacobians = local_jacobians(traj)
    k = min(net.N, 32)
    frames = random_frames(B, k, net.state_shape, np.float64, np.random.default_rng(0))
    eye = np.ascontiguousarray(np.broadcast_to(np.eye(net.N, dtype=dtype), (B, net.N, net.N)))
    rows, sample = eye.reshape(-1, *net.state_shape), np.repeat(np.arange(B), net.N)
    none = np.zeros(len(rows), np.int64)
    return {
        "forward": lambda: rg.rollout(net, x, s0, backend="cuda"),
        "forward and gradients": lambda: rg.bptt(rg.rollout(net, x, s0, backend="cuda"), loss),
        "dense Jacobians": lambda: rg.jacobians(traj),
        "chain of Jacobians": lambda: jacobians.adjoint(rows, none, sample, T, T),
        "fixed points, 30 iterations": lambda: rg.solve_fixed_point(
            net, x[0], tol=1e-30, max_iterations=30, backend="cuda"
        ),
        "singular values, 20 steps (float64)": lambda: rg.jacobian_chain(traj).log_singular_values(min(T, 20), 0),
        "Lyapunov frames (float64)": lambda: carry(jacobians.in_float64(), Carried.start(frames.copy()), 0, 1, T),
    }


def timings() -> Iterator[Job]:
    """Ours and the peers', by size."""
    sizes = [("lstm", 64, 200, 32), ("lstm", 256, 20, 16), ("gru", 64, 200, 32)]
    sizes = [("lstm", 2, 3, 2)] if _cuda.simulated() else sizes
    for size in sizes:
        for dtype in TOLERANCE:
            what = f"{size[0]}, n = {size[1]}, T = {size[2]}, B = {size[3]}, {dtype}"
            for peer in ["ours", *PEERS]:
                if peer == "ours" or usable(peer):
                    jobs_of.cache_clear()
                    clean()
                    for name in NAMES[peer]:
                        job = functools.partial(one_timing, peer, what, name, (*size, dtype))
                        yield f"{peer}: {what}: {name}", 20, job
    yield from _gpu_systems.timings(measure)


@functools.lru_cache(maxsize=1)
def jobs_of(peer: str, size: tuple[Any, ...]) -> dict[str, Callable[[], Any]]:
    """The jobs of a peer at one size, kept until those of the next are asked for."""
    return (ours if peer == "ours" else PEERS[peer])(*size)


def one_timing(peer: str, what: str, name: str, size: tuple[Any, ...]) -> Iterator[Row]:
    """One job of one peer at one size; what keeps a peer from it is not our failure."""
    if peer == "ours":
        kernels, wall = measure(jobs_of(peer, size)[name])
        yield {"case": what, "job": name, "kernels": kernels, "call": wall}
        return
    try:
        yield {"case": what, "job": name, peer: wall_clock(jobs_of(peer, size)[name], peer)}
    except Exception as error:
        if context_lost():
            raise
        yield {"left out": f"{type(error).__name__}: {str(error)[:200]}"}


def roofline() -> Iterator[Job]:
    """Copy bandwidth (GB/s, read and written) and product rates (GFLOP/s): ours, and PyTorch's where it is."""
    yield "roofline", 20, rates


def rates() -> Iterator[Row]:
    """The numbers of the roofline."""
    from rnngrad.kernels.cuda import products

    cuda, size = _cuda.load(), 8 if _cuda.simulated() else 4096
    a, b = (cuda.device_array(1 << (6 if _cuda.simulated() else 28), np.float32) for _ in range(2))
    milliseconds = _events(lambda: b.copy_to_device(a))
    yield {"case": "copy, GB/s", "value": 2 * a.nbytes / milliseconds / 1e6}
    for dtype in TOLERANCE:
        x, y, z = (_cuda.upload(np.ones(size * size, dtype)) for _ in range(3))
        place = (0, size, 1), (0, size, 1), (0, size, 0)
        milliseconds = _events(lambda: products._product(z, x, y, None, size, size, size, *place))  # noqa: B023
        yield {"case": f"our product, {dtype}, GFLOP/s", "value": 2 * size**3 / milliseconds / 1e6}
        if usable("torch"):
            import torch

            torch.backends.cuda.matmul.allow_tf32 = False
            u, v = (torch.randn(size, size, dtype=getattr(torch, dtype), device="cuda") for _ in range(2))
            rate = 2 * size**3 / wall_clock(lambda: u @ v, "torch") / 1e6  # noqa: B023
            yield {"case": f"cuBLAS product, {dtype}, GFLOP/s", "value": rate}


def _events(job: Callable[[], Any]) -> float:
    """Milliseconds between two events around a job, the best of five after one."""
    cuda, best = _cuda.load(), np.inf
    for _ in range(6):
        start, stop = cuda.event(), cuda.event()
        start.record()
        job()
        stop.record()
        stop.synchronize()
        best = min(best, between(start, stop))
    return float(best)


# ---------------------------------------------------------------- sections, and processes that run them


def facts() -> Iterator[Job]:
    """What the machine is."""
    yield "facts", 0, lambda: ({"case": name, "value": value} for name, value in doctor.facts())


SECTIONS: dict[str, Callable[[], Iterator[Job]]] = {
    "facts": facts,
    "parity": parity,
    "device": on_device,
    "pieces": in_pieces,
    "library": by_library,
    "sanitize": sanitize,
    "timings": timings,
    "roofline": roofline,
}


def run_section(section: str, first: int, clock: Clock, tell: Callable[[Row], None]) -> bool:
    """Run the jobs of a section from the ``first`` on, telling what happens; False if the CUDA context was lost."""
    for at, (what, seconds, job) in enumerate(SECTIONS[section]()):
        if at < first:
            continue
        if clock.left() < seconds:
            tell({"left out": f"{section}: {what} (no time)"})
            continue
        tell({"begin": what, "at": at})
        try:
            for row in job():
                tell({"left out": f"{section}: {what}: {row['left out']}"} if "left out" in row else {"row": row})
        except Exception:
            tell({"row": failure(what, "".join(traceback.format_exc().splitlines(True)[-6:]))})
            if context_lost():
                tell({"row": failure(what, "the CUDA context was lost with it: nothing more was run in that process")})
                return False
        tell({"end": at})
    return True


def failure(what: str, said: str) -> Row:
    """The row of what failed by itself."""
    return {"case": what, "passed": False, "said": said}


def context_lost() -> bool:
    """Whether the device answers no more in this process: after some errors every later call fails too."""
    try:
        probe = np.arange(3.0)
        found = np.zeros(3)
        _cuda.synchronize()
        _cuda.download(_cuda.upload(probe), found)
        return not np.array_equal(found, probe)
    except Exception:
        return True


def command(section: str, first: int, events: Path, clock: Clock) -> list[str]:
    """How a process of its own is given the jobs of a section from the ``first`` on."""
    options = ["--section", section, "--first", str(first), "--events", str(events)]
    return [sys.executable, __file__, *options, "--minutes", f"{clock.left() / 60:.4f}"]


def in_processes(section: str, clock: Clock, tell: Callable[[Row], None]) -> None:
    """Run a section in a process of its own; in a new one from the next job on where that hangs or is lost."""
    first = 0
    for _ in range(RESTARTS):
        with tempfile.TemporaryDirectory() as folder:
            events = Path(folder) / "events"
            events.touch()
            process = subprocess.Popen(command(section, first, events, clock), start_new_session=True)
            try:
                what, at, why = follow(process, events, first, clock, tell)
            finally:
                end(process)
        if why is None:
            return
        if why:
            tell({"row": failure(what, why)})
        first = at + 1
    tell({"left out": f"{section}: all after {what} ({RESTARTS} processes were lost)"})


def follow(
    process: subprocess.Popen[Any], events: Path, first: int, clock: Clock, tell: Callable[[Row], None]
) -> tuple[str, int, str | None]:
    """Pass on what a process tells until it ends: (its last job, that job's place, what was wrong).

    None for what was wrong if it ended well, and nothing to add if it told itself that the context was lost.
    """
    what, at, text = "the start of the process", first - 1, ""
    since, patience = time.monotonic(), min(HANGS, max(clock.left(), 5.0))
    with events.open() as stream:
        while True:
            ended = process.poll() is not None  # asked first: what was told before the end is read below
            text += stream.read()
            *lines, text = text.split("\n")
            for event in map(json.loads, lines):
                what, at = event.get("begin", what), event.get("at", at)
                since, patience = time.monotonic(), min(HANGS, max(clock.left(), 5.0))
                tell(event)
            if ended:
                status = process.returncode
                known = {0: None, LOST: ""}
                return what, at, known.get(status, f"the process ended with exit status {status}")
            if time.monotonic() - since > patience:
                return what, at, f"no answer for {time.monotonic() - since:.0f} s: the process was ended"
            time.sleep(0.05)


def end(process: subprocess.Popen[Any]) -> None:
    """End a process and those that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # one that waits for the driver may never end
        process.wait(10)


# ---------------------------------------------------------------- report


class Report:
    """What was found, written to files whenever something is added."""

    def __init__(self, out: Path) -> None:
        self._out, self._start = out, time.monotonic()
        self.rows: dict[str, list[Row]] = {name: [] for name in SECTIONS}
        self.left_out: list[str] = []
        self.complete = False
        out.parent.mkdir(parents=True, exist_ok=True)

    def take(self, section: str, event: Row) -> None:
        """Add a row, or what was left out."""
        if "row" in event:
            row = event["row"]
            self.rows[section].append(row)
            mark = {True: "ok  ", False: "FAIL"}.get(row.get("passed"), "    ")
            print(mark, section, {name: value for name, value in row.items() if name != "passed"}, flush=True)
        elif "left out" in event:
            self.left_out.append(event["left out"])
        else:
            return
        self.write()

    @property
    def failed(self) -> list[Row]:
        return [row for rows in self.rows.values() for row in rows if row.get("passed") is False]

    @property
    def checked(self) -> int:
        """How many checks were made."""
        return sum("passed" in row for rows in self.rows.values() for row in rows)

    @property
    def verdict(self) -> str:
        found = f"All {self.checked} checks passed" if self.checked else "Nothing was checked"
        found = f"{len(self.failed)} checks failed" if self.failed else found
        return found if self.complete else f"{found} so far; not finished"

    def write(self) -> None:
        """Write both files."""
        seconds = time.monotonic() - self._start
        data = {"verdict": self.verdict, "seconds": seconds, **self.rows, "left out": self.left_out}
        for suffix, text in ((".json", json.dumps(data, indent=1, default=float) + "\n"), (".md", markdown(data))):
            new = self._out.with_suffix(suffix + ".new")
            new.write_text(text)
            new.replace(self._out.with_suffix(suffix))


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    lines = ["# CUDA kernels on a card", "", f"{report['verdict']}, {report['seconds']:.0f} s.", ""]
    lines += [f"- {row['case']}: {row['value']}" for row in report["facts"] if "value" in row]
    failed = [(section, row) for section in SECTIONS for row in report[section] if row.get("passed") is False]
    lines += ["", "## Failed", ""] if failed else []
    for section, row in failed:
        lines += [f"- {section}: {row['case']}", *(f"      {line}" for line in row.get("said", "").splitlines())]
    lines += ["", "## Parity with the CPU in float64", "", "| case | worst | error | same bits | passed |"]
    lines += ["|---|---|---|---|---|"]
    for row in report["parity"] + report["device"] + report["pieces"] + report["library"]:
        if "error" in row:
            same = ", ".join(f"{name}: {'yes' if value else 'NO'}" for name, value in row["same bits"].items())
            passed = "yes" if row["passed"] else "NO"
            lines.append(f"| {row['case']} | {row['worst']} | {row['error']:.1e} | {same} | {passed} |")
    for row in report["pieces"]:
        made = ", ".join(f"{what} ({count})" for what, count in row.get("cuts", {}).items())
        lines += ["", f"Cut for {row['case']}, in at most so many: {made or 'nothing'}."]
        lines += [f"Not cut: {', '.join(row['not cut'])}."] if row.get("not cut") else []
    lines += [
        "",
        "## Products of large matrices, milliseconds of the call",
        "",
        "| case | own | cuBLAS |",
        "|---|---|---|",
    ]
    for row in report["library"]:
        if "own, ms" in row:
            lines.append(f"| {row['case']} | {row['own, ms']:.3f} | {row['library, ms']:.3f} |")
    lines += ["", "## compute-sanitizer", ""]
    lines += [f"- {row['case']}: {'passed' if row['passed'] else 'FAILED'}" for row in report["sanitize"]]
    lines += ["", "## Timings, milliseconds", "", "| case | job | our kernels | our call | torch | jax |"]
    lines += ["|---|---|---|---|---|---|"]
    merged: dict[tuple[str, str], Row] = defaultdict(dict)
    for row in report["timings"]:
        if "job" in row:
            merged[row["case"], row["job"]] |= row
    for (case, job), row in merged.items():
        cells = [
            f"{row[name]:.3f}" if row.get(name) is not None else "" for name in ("kernels", "call", "torch", "jax")
        ]
        lines.append(f"| {case} | {job} | {' | '.join(cells)} |")
    lines += ["", "Our call takes NumPy arrays and gives NumPy arrays: copies over the bus are in it.", ""]
    lines += ["## Roofline", ""]
    lines += [f"- {row['case']}: {row['value']:.0f}" for row in report["roofline"] if "value" in row]
    lines += ["", "## Left out", "", *(f"- {what}" for what in report["left out"]), ""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parent / "results" / "gpu_check"
    parser.add_argument("--out", type=Path, default=default, help="report, without .md and .json")
    parser.add_argument("--minutes", type=float, default=8.0, help="time for everything (default 8)")
    only = ("parity", "device", "pieces", "library", "sanitize", "timings")
    parser.add_argument("--only", choices=only, help="this section and what the machine is, and nothing else")
    parser.add_argument("--inline", action="store_true", help="all in one process: what hangs is not ended")
    parser.add_argument("--small", action="store_true", help="a small job of every kernel and nothing else")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--events", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if _cuda.missing():
        print(f"no check: {_cuda.missing()}", file=sys.stderr)
        return 2
    if options.small:
        for shape in SMALL:
            results(*draw(*shape, "float64"), "cuda")
        for _, _, job in _gpu_device.jobs([(*SMALL[0], "float64")], draw, distances):
            list(job())
        return 0
    if options.section:
        return as_told(options.section, options.first, options.events, Clock(options.minutes))
    clock, report = Clock(options.minutes - 0.3), Report(options.out)
    for section in SECTIONS:
        if options.only not in (None, section) and section != "facts":
            continue
        tell = functools.partial(report.take, section)
        try:
            if options.inline:
                if not run_section(section, 0, clock, tell):
                    break
            else:
                in_processes(section, clock, tell)
        except Exception:  # of the list of jobs, or of what starts processes
            tell({"row": failure(section, "".join(traceback.format_exc().splitlines(True)[-6:]))})
    report.complete = True
    report.write()
    print(f"{report.verdict}; {options.out}.md")
    unchecked = not report.checked and options.only != "timings"
    return 1 if report.failed or unchecked else 0


def as_told(section: str, first: int, events: Path, clock: Clock) -> int:
    """One section in this process; each event is a line of the file ``events``."""
    with events.open("a") as stream:

        def tell(event: Row) -> None:
            stream.write(json.dumps(event, default=float) + "\n")
            stream.flush()

        return 0 if run_section(section, first, clock, tell) else LOST


if __name__ == "__main__":
    sys.exit(main())
