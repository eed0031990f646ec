"""What ``gpu_check.py`` measures the CUDA kernels against: the same jobs by PyTorch and JAX on the same card."""

from __future__ import annotations

import gc
import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from rnngrad import _cuda

SECONDS = 10.0  # for the repeats of one job, if the first call is no slower than the others


def torch_jobs(cell: str, n: int, T: int, B: int, dtype: str) -> dict[str, Callable[[], Any]]:
    """The same by PyTorch on the card."""
    import torch

    kind = getattr(torch, dtype)
    module = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](n, n, dtype=kind, device="cuda")
    x = torch.randn(T, B, n, dtype=kind, device="cuda", requires_grad=True)
    S, G = (2, 4) if cell == "lstm" else (1, 3)
    W = torch.randn(G, n, n, dtype=kind, device="cuda") / n**0.5
    drive = torch.randn(T * B, G, n, dtype=kind, device="cuda")
    N = S * n
    states = torch.randn(T * B, N, dtype=kind, device="cuda")
    J = torch.randn(T, B, N, N, dtype=kind, device="cuda") / N**0.5
    Q = torch.linalg.qr(torch.randn(B, N, min(N, 32), dtype=torch.float64, device="cuda"))[0]
    J64 = J.double()

    def step(s: Any, u: Any) -> Any:
        # plain operations: the fused ones of LSTMCell and GRUCell have no rule for vmap, and go sample by sample
        a, sigmoid, tanh = W @ s[:n], torch.sigmoid, torch.tanh
        if cell == "lstm":
            i, f, v, o = (a[g] + u[g] for g in range(4))
            c = sigmoid(f) * s[n:] + sigmoid(i) * tanh(v)
            return torch.cat([sigmoid(o) * tanh(c), c])
        z = sigmoid(a[1] + u[1])
        return z * s + (1 - z) * tanh(sigmoid(a[0] + u[0]) * a[2] + u[2])

    def gradients() -> None:
        out, _ = module(x)
        out.square().sum().backward()

    def chain() -> Any:
        product = J[-1]
        for t in range(T - 2, -1, -1):
            product = product @ J[t]
        return product

    def lyapunov() -> Any:
        q = Q
        for t in range(T):
            q, _ = torch.linalg.qr(J64[t] @ q)
        return q

    def jacobians() -> Any:
        return torch.vmap(torch.func.jacrev(step))(states, drive)

    def forward() -> Any:
        with torch.no_grad():
            return module(x)

    return {
        "forward": forward,
        "forward and gradients": gradients,
        "dense Jacobians": jacobians,
        "chain of Jacobians": chain,
        "Lyapunov frames (float64)": lyapunov,
    }


def jax_jobs(cell: str, n: int, T: int, B: int, dtype: str) -> dict[str, Callable[[], Any]]:
    """Dense Jacobians of a GRU's or LSTM's steps by JAX, jitted."""
    import jax

    jax.config.update("jax_enable_x64", True)
    G = 4 if cell == "lstm" else 3
    keys = jax.random.split(jax.random.PRNGKey(0), 3)
    W = jax.random.normal(keys[0], (G, n, n), dtype) / n**0.5
    N = (2 if cell == "lstm" else 1) * n
    states, drive = jax.random.normal(keys[1], (T * B, N), dtype), jax.random.normal(keys[2], (T * B, G, n), dtype)

    def step(s: Any, u: Any) -> Any:
        a, sigmoid, tanh = W @ s[:n], jax.nn.sigmoid, jax.numpy.tanh
        if cell == "lstm":
            i, f, v, o = (a[g] + u[g] for g in range(4))
            c = sigmoid(f) * s[n:] + sigmoid(i) * tanh(v)
            return jax.numpy.concatenate([sigmoid(o) * tanh(c), c])
        z = sigmoid(a[1] + u[1])
        return z * s + (1 - z) * tanh(sigmoid(a[0] + u[0]) * a[2] + u[2])

    compiled = jax.jit(jax.vmap(jax.jacrev(step)))
    return {"dense Jacobians": lambda: compiled(states, drive).block_until_ready()}


def usable(name: str) -> bool:
    """Whether a peer is installed and sees the card."""
    if _cuda.simulated() or importlib.util.find_spec(name) is None:
        return False
    try:
        if name == "torch":
            import torch

            return torch.cuda.is_available()
        import jax

        return any(device.platform == "gpu" for device in jax.devices())
    except Exception:  # installed, and broken
        return False


def repeats_after(job: Callable[[], Any], wait: Callable[[], Any]) -> int:
    """How often to repeat a job, one to five times, from how long its first call takes."""
    start = time.perf_counter()
    job()
    wait()
    return min(5, max(1, int(SECONDS / max(time.perf_counter() - start, 1e-9))))


def wall_clock(job: Callable[[], Any], peer: str) -> float:
    """Milliseconds of a peer's job on the card, by CUDA events where it is PyTorch's: the median after a first call."""
    if peer == "torch":
        import torch

        wait = torch.cuda.synchronize
    else:
        wait = bool  # its jobs wait themselves
    walls = []
    for _ in range(repeats_after(job, wait)):
        if peer == "torch":
            start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            job()
            stop.record()
            torch.cuda.synchronize()
            walls.append(start.elapsed_time(stop))
        else:
            begin = time.perf_counter()
            job()
            walls.append(1e3 * (time.perf_counter() - begin))
    return float(np.median(walls))


#: what makes the jobs of a peer, and their names
PEERS = {"torch": torch_jobs, "jax": jax_jobs}
JOBS = ["forward", "forward and gradients", "dense Jacobians", "chain of Jacobians", "Lyapunov frames (float64)"]
NAMES = {"ours": [*JOBS, "fixed points, 30 iterations"], "torch": JOBS, "jax": ["dense Jacobians"]}


def clean() -> None:
    """Give memory that nobody uses back to the card, for the next peer."""
    gc.collect()
    if "torch" in sys.modules and usable("torch"):
        sys.modules["torch"].cuda.empty_cache()
    _cuda.release()
