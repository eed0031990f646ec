"""What ``gpu_check.py`` measures the CUDA kernels against: the same jobs by PyTorch and JAX on the same card."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from rnngrad import _cuda


def torch_jobs(cell: str, n: int, T: int, B: int, dtype: str) -> dict[str, Callable[[], Any]]:
    """The same by PyTorch on the card."""
    import torch

    kind = getattr(torch, dtype)
    module = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](n, n, dtype=kind, device="cuda")
    x = torch.randn(T, B, n, dtype=kind, device="cuda", requires_grad=True)
    single = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}[cell](n, n, dtype=kind, device="cuda")
    S = 2 if cell == "lstm" else 1
    N = S * n
    states = torch.randn(T * B, N, dtype=kind, device="cuda")
    J = torch.randn(T, B, N, N, dtype=kind, device="cuda") / N**0.5
    Q = torch.linalg.qr(torch.randn(B, N, min(N, 32), dtype=torch.float64, device="cuda"))[0]
    J64 = J.double()

    def step(s: Any, u: Any) -> Any:
        return torch.cat(single(u, (s[:n], s[n:]))) if cell == "lstm" else single(u, s)

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
        return torch.vmap(torch.func.jacrev(step))(states, x.detach().reshape(T * B, n))

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
    if name == "torch":
        import torch

        return torch.cuda.is_available()
    import jax

    return any(device.platform == "gpu" for device in jax.devices())


def wall_clock(job: Callable[[], Any], peer: str, repeats: int = 5) -> float:
    """Milliseconds of a peer's job on the card, by CUDA events where it is PyTorch's."""
    job()
    walls = []
    for _ in range(repeats):
        if peer == "torch":
            import torch

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


PEERS = {"torch": torch_jobs, "jax": jax_jobs}
