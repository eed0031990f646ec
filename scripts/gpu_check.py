"""Check the CUDA kernels on a real card and measure them: one command, under eight minutes, no network.

    pip install -e '.[cuda]' && python scripts/gpu_check.py [--out scripts/results/gpu_check] [--minutes 8]

Parity of every kernel with the CPU in float64, for every cell and dtype, with operands in shared and in global memory,
and whole or in pieces; a second run must give the same bits. Then ``compute-sanitizer``, where it is on the PATH, on a
small job. Then timings by CUDA events, of kernels alone and of whole calls with NumPy arrays, against PyTorch (cuDNN,
``vmap(jacrev)``, chains of batched products, ``torch.linalg.qr``) and JAX where they are installed, and the card's own
copy bandwidth and product rate. Writes OUT.md and OUT.json; the exit status is 1 if a check failed. What did not fit
into the time is listed as left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _gpu_peers import PEERS, usable, wall_clock

import rnngrad as rg
from rnngrad import _cuda, doctor
from rnngrad.dynamics.frames import Carried, carry, random_frames
from rnngrad.dynamics.jacobian import local_jacobians

TOLERANCE = {"float64": 1e-12, "float32": 2e-5}
#: (cell, n, m, T, B): weights in shared memory, then too large for it, then many rows and uneven sizes
SHAPES = [("lstm", 16, 5, 40, 33), ("lstm", 130, 7, 12, 9), ("gru", 300, 3, 6, 5), ("gru_delayed", 61, 64, 20, 70)]
SMALL = [("lstm", 3, 2, 4, 3), ("gru_delayed", 2, 1, 3, 2)]


class Clock:
    """Time that is left, and what was left out for want of it."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes
        self.left_out: list[str] = []

    def left(self) -> float:
        return self._end - time.monotonic()

    def allows(self, what: str, seconds: float) -> bool:
        if self.left() < seconds:
            self.left_out.append(what)
            return False
        return True


def draw(cell: str, n: int, m: int, T: int, B: int, dtype: str, uneven: bool = True) -> tuple[Any, ...]:
    """(network, x, s0, lengths) with a spectrum near one, so that chains neither vanish nor explode."""
    rng = np.random.default_rng(0)
    net = rg.Network.init(cell, n_inputs=m, n_hidden=n, n_outputs=3, scheme="orthogonal", seed=1, dtype=dtype)
    lengths = rng.integers(1, T + 1, B) if uneven else None
    return net, rng.standard_normal((T, B, m)).astype(dtype), rng.standard_normal((B, net.S, n)).astype(dtype), lengths


def results(net: Any, x: Any, s0: Any, lengths: Any, backend: str) -> dict[str, np.ndarray]:
    """What every kernel makes of one network, by name."""
    traj = rg.rollout(net, x, s0, lengths, backend=backend)
    rng, dtype = np.random.default_rng(2), net.dtype
    grads = rg.bptt(traj, rg.losses.squared_error(rng.standard_normal(traj.y.shape).astype(dtype)))
    jacobians = local_jacobians(traj)
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
    logs = carry(jacobians.in_float64(), carried, 0, 1, traj.T)
    found["frames, logarithms"] = np.where(np.isfinite(logs), logs, 0)
    norms = rg.jacobian_chain(traj).log_norms()
    found["norms of products, logarithms"] = np.where(np.isfinite(norms), norms, 0)
    return found


def scaled(rows: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    return np.ldexp(rows, exponents.astype(np.int32)[..., None, None])


def distances(found: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> dict[str, float]:
    """Largest error of each result relative to its largest entry."""
    out = {}
    for name, expected in truth.items():
        if expected.size:
            error, scale = np.abs(found[name].astype(float) - expected).max(), np.abs(expected).max()
            out[name] = float(error / scale) if scale else float(error)
    return out


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


def parity(clock: Clock) -> list[dict[str, Any]]:
    """Every cell and dtype at a small size, then larger ones, shared memory or none, whole or in pieces, and twice."""
    rows = []
    small = SMALL[0][1:] if _cuda.simulated() else (16, 5, 20, 21)
    cells = ["lstm", "gru_delayed"] if _cuda.simulated() else list(rg.CELLS)
    shapes = SMALL if _cuda.simulated() else SHAPES
    jobs = [(cell, *small, dtype) for cell in cells for dtype in TOLERANCE]
    jobs += [(*shape, dtype) for shape in shapes for dtype in TOLERANCE]
    for job in jobs:
        what = f"{job[0]}, n = {job[1]}, m = {job[2]}, T = {job[3]}, B = {job[4]}, {job[5]}"
        if not clock.allows(f"parity of {what}", 60):
            continue
        args = draw(*job)
        truth, found = results(*widened(*args), "cpu"), results(*args, "cuda")
        worst = distances(found, truth)
        variants = {"a second run": {}, "no shared memory": {"shared_limit": 0}}
        same = {}
        for name, limits in variants.items() if job[:5] in shapes else [("a second run", {})]:
            with held(**limits):
                same[name] = all(np.array_equal(v, found[k]) for k, v in results(*args, "cuda").items())
        name = max(worst, key=worst.__getitem__)
        passed = worst[name] <= TOLERANCE[job[5]] * (1 + job[3] / 10) and all(same.values())
        rows.append({"case": what, "worst": name, "error": worst[name], "same bits": same, "passed": passed})
        print(f"{'ok  ' if passed else 'FAIL'} {what}: {name} {worst[name]:.1e}; {same}", flush=True)
    return rows


def in_pieces(clock: Clock) -> list[dict[str, Any]]:
    """A job that is told of little memory gives the same bits."""
    if not clock.allows("a job in pieces", 30):
        return []
    args = draw(*SHAPES[0] if not _cuda.simulated() else SMALL[0], "float64")
    whole = results(*args, "cuda")
    with held(free_bytes=24_000.0 if _cuda.simulated() else 6e6):
        found = results(*args, "cuda")
    passed = all(np.array_equal(v, whole[k]) for k, v in found.items())
    print(f"{'ok  ' if passed else 'FAIL'} in pieces", flush=True)
    return [{"case": "in pieces that fit 6 MB", "worst": "", "error": 0.0, "same bits": {}, "passed": passed}]


def sanitize(clock: Clock) -> list[dict[str, Any]]:
    """``compute-sanitizer`` on a small job in a process of its own."""
    rows = []
    if shutil.which("compute-sanitizer") is None:
        clock.left_out.append("compute-sanitizer (not on the PATH)")
        return rows
    for tool in ("memcheck", "racecheck", "synccheck"):
        if not clock.allows(f"compute-sanitizer, {tool}", 120):
            continue
        command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", sys.executable, __file__, "--small"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        except subprocess.TimeoutExpired:
            clock.left_out.append(f"compute-sanitizer, {tool} (100 s were not enough)")
            continue
        rows.append({"case": tool, "passed": done.returncode == 0, "said": done.stdout[-2000:]})
        print(f"{'ok  ' if done.returncode == 0 else 'FAIL'} {tool}", flush=True)
    return rows


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


def measure(job: Callable[[], Any], repeats: int = 5) -> tuple[float, float]:
    """(milliseconds in kernels, milliseconds of the whole call): medians after one call that compiles."""
    cuda = _cuda.load()
    job()
    kernels, walls = [], []
    for _ in range(repeats):
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
        "Lyapunov frames (float64)": lambda: carry(jacobians.in_float64(), Carried.start(frames.copy()), 0, 1, T),
    }


def timings(clock: Clock) -> list[dict[str, Any]]:
    """Ours and the peers', by size."""
    found: list[dict[str, Any]] = []
    sizes = [("lstm", 64, 200, 32), ("lstm", 256, 20, 16), ("gru", 64, 200, 32)]
    sizes = [("lstm", 2, 3, 2)] if _cuda.simulated() else sizes
    peers = {name: jobs for name, jobs in PEERS.items() if usable(name)}
    for size in sizes:
        for dtype in ("float32", "float64"):
            rows: dict[str, dict[str, Any]] = defaultdict(dict)
            what = f"{size[0]}, n = {size[1]}, T = {size[2]}, B = {size[3]}, {dtype}"
            for peer, jobs in {"ours": ours, **peers}.items():
                if not clock.allows(f"timings of {peer}: {what}", 30):
                    continue
                try:
                    for name, job in jobs(*size, dtype).items():
                        kernels, wall = measure(job) if peer == "ours" else (None, wall_clock(job, peer))
                        rows[name] |= {"kernels": kernels, "call": wall} if peer == "ours" else {peer: wall}
                except (RuntimeError, MemoryError, ValueError) as error:  # one peer's trouble is not the others'
                    clock.left_out.append(f"{peer}: {what}: {type(error).__name__}: {str(error)[:200]}")
            for name, row in rows.items():
                found.append({"case": what, "job": name, **row})
                print(f"     {what}, {name}: {row}", flush=True)
    return found


def roofline(clock: Clock) -> dict[str, float]:
    """Copy bandwidth (GB/s, read and written) and product rates (GFLOP/s): ours, and PyTorch's where it is."""
    if not clock.allows("roofline", 20):
        return {}
    from rnngrad.kernels.cuda import products

    cuda, size = _cuda.load(), 8 if _cuda.simulated() else 4096
    found = {}
    a, b = (cuda.device_array(1 << (6 if _cuda.simulated() else 28), np.float32) for _ in range(2))
    milliseconds = _events(lambda: b.copy_to_device(a))
    found["copy, GB/s"] = 2 * a.nbytes / milliseconds / 1e6
    for dtype in TOLERANCE:
        x, y, z = (_cuda.upload(np.ones(size * size, dtype)) for _ in range(3))
        place = (0, size, 1), (0, size, 1), (0, size, 0)
        milliseconds = _events(lambda: products._product(z, x, y, None, size, size, size, *place))  # noqa: B023
        found[f"our product, {dtype}, GFLOP/s"] = 2 * size**3 / milliseconds / 1e6
        if usable("torch"):
            import torch

            torch.backends.cuda.matmul.allow_tf32 = False
            u, v = (torch.randn(size, size, dtype=getattr(torch, dtype), device="cuda") for _ in range(2))
            found[f"cuBLAS product, {dtype}, GFLOP/s"] = 2 * size**3 / wall_clock(lambda: u @ v, "torch") / 1e6  # noqa: B023
    print(f"     {found}", flush=True)
    return found


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


# ---------------------------------------------------------------- report


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    lines = ["# CUDA kernels on a card", "", f"{report['verdict']}, {report['seconds']:.0f} s.", ""]
    lines += [f"- {name}: {value}" for name, value in report["facts"]]
    lines += ["", "## Parity with the CPU in float64", "", "| case | worst | error | same bits | passed |"]
    lines += ["|---|---|---|---|---|"]
    for row in report["parity"]:
        same = ", ".join(f"{name}: {'yes' if value else 'NO'}" for name, value in row["same bits"].items())
        lines.append(
            f"| {row['case']} | {row['worst']} | {row['error']:.1e} | {same} | {'yes' if row['passed'] else 'NO'} |"
        )
    lines += ["", "## compute-sanitizer", ""]
    lines += [f"- {row['case']}: {'passed' if row['passed'] else 'FAILED'}" for row in report["sanitizer"]]
    lines += ["", "## Timings, milliseconds", "", "| case | job | our kernels | our call | torch | jax |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in report["timings"]:
        cells = [
            f"{row[name]:.3f}" if row.get(name) is not None else "" for name in ("kernels", "call", "torch", "jax")
        ]
        lines.append(f"| {row['case']} | {row['job']} | {' | '.join(cells)} |")
    lines += ["", "Our call takes NumPy arrays and gives NumPy arrays: copies over the bus are in it.", ""]
    lines += ["## Roofline", "", *(f"- {name}: {value:.0f}" for name, value in report["roofline"].items())]
    lines += ["", "## Left out", "", *(f"- {what}" for what in report["left out"]), ""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parent / "results" / "gpu_check"
    parser.add_argument("--out", type=Path, default=default, help="report, without .md and .json")
    parser.add_argument("--minutes", type=float, default=8.0, help="time for everything (default 8)")
    parser.add_argument("--small", action="store_true", help="a small job of every kernel and nothing else")
    options = parser.parse_args()
    if _cuda.missing():
        print(f"no check: {_cuda.missing()}", file=sys.stderr)
        return 2
    if options.small:
        for shape in SMALL:
            results(*draw(*shape, "float64"), "cuda")
        return 0
    start, clock = time.monotonic(), Clock(options.minutes - 0.3)
    report: dict[str, Any] = {"facts": list(doctor.facts()), "parity": parity(clock) + in_pieces(clock)}
    report["timings"], report["roofline"] = timings(clock), roofline(clock)
    report["sanitizer"] = sanitize(clock)
    failed = [row for row in report["parity"] + report["sanitizer"] if not row["passed"]]
    report["verdict"] = f"{len(failed)} checks failed" if failed else "All checks passed"
    report |= {"left out": clock.left_out, "seconds": time.monotonic() - start}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(report, indent=1, default=float) + "\n")
    options.out.with_suffix(".md").write_text(markdown(report))
    print(f"{report['verdict']}; {options.out}.md")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
