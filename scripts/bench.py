"""Time rnngrad against PyTorch, JAX and NumPy in one process run and print ratios.

    python scripts/bench.py                    every row
    python scripts/bench.py --only lstm,chain  rows whose name holds one of these words
    python scripts/bench.py --json out.json    the numbers as well

The contenders take turns of a tenth of a second, round after round, so that a drift of the machine's speed meets all
of them alike; the first call of a turn is not timed, and the median of the others is kept. BPTT rows include the
forward pass and give the gradients of all parameters and of x; chain rows give dh_T/dh_k for every k, forward pass
included; flow rows give log||dL_t/ds_k|| for every pair (t, k), beside one backward pass of our own per t; implicit
rows solve a fixed point and give its gradient. Peers that are not installed are left out and named.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable

# BLAS must be free to choose its kernels; a variable that ties it down is removed before anything loads BLAS.
if {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"} & set(os.environ):
    clean = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    os.execve(sys.executable, [sys.executable, *sys.argv], clean)

import numpy as np
from _bench_fixed_point import FINDER_SIZES, IMPLICIT_SIZES, finder_row, implicit_row
from _bench_lyapunov import LYAPUNOV_SIZES, MAP_SIZES, lyapunov_row, map_row

import rnngrad as rg

Contender = Callable[[], object]

TURN = 0.1  # seconds

BPTT_SIZES = [(16, 8, 500, 64), (64, 16, 200, 32), (256, 64, 200, 32)]
STACK_SIZES = [(64, 16, 200, 32, 3)]
FLOW_SIZES = [(16, 200, 8), (64, 200, 8), (128, 200, 4), (256, 100, 4)]
CHAIN_SIZES = [(16, 100, 32), (64, 100, 16), (128, 200, 8), (256, 100, 4)]
TORCH_CLASS = {"vanilla": "RNN", "lstm": "LSTM", "gru": "GRU"}


def bptt_row(cell: str, n: int, m: int, T: int, B: int, dtype: str) -> dict[str, Contender]:
    """Contenders for forward + BPTT with loss 1/2 ||h - z||^2 summed over steps and batch."""
    rng = np.random.default_rng(0)
    net = rg.Network.init(cell, n_inputs=m, n_hidden=n, scheme="uniform", dtype=dtype)
    x = rng.standard_normal((T, B, m)).astype(dtype)
    z = rng.standard_normal((T, B, n)).astype(dtype)

    def ours() -> object:
        return rg.bptt(rg.rollout(net, x), rg.losses.squared_error(z))

    out: dict[str, Contender] = {"rnngrad": ours}
    if torch is not None:
        out["torch"] = torch_bptt(net, x, z)
    if jax is not None:
        out["jax"] = jax_bptt(net, x, z)
    return out


def stack_row(n: int, m: int, T: int, B: int, layers: int, dtype: str) -> dict[str, Contender]:
    """Contenders for forward + BPTT of a bidirectional LSTM of several layers."""
    rng = np.random.default_rng(0)
    options = {"scheme": "uniform", "n_layers": layers, "bidirectional": True, "dtype": dtype}
    stack = rg.Stack.init("lstm", m, n, **options)
    x = rng.standard_normal((T, B, m)).astype(dtype)
    z = rng.standard_normal((T, B, 2 * n)).astype(dtype)
    out: dict[str, Contender] = {"rnngrad": lambda: rg.bptt(rg.rollout(stack, x), rg.losses.squared_error(z))}
    if torch is not None:
        module = torch.nn.LSTM(m, n, num_layers=layers, bidirectional=True, dtype=getattr(torch, dtype))
        with torch.no_grad():
            for name, value in stack.parameters():
                part, ending = name.split("_", 1)
                if part != "b":
                    weight = getattr(module, f"weight_{'hh' if part == 'W' else 'ih'}_{ending}")
                    weight.copy_(torch.tensor(np.array(value)).reshape(weight.shape))
        out["torch"] = torch_training(module, x, z)
    return out


def torch_bptt(net: rg.Network, x: np.ndarray, z: np.ndarray) -> Contender:
    module = getattr(torch.nn, TORCH_CLASS[net.cell.name])(net.m, net.n, dtype=getattr(torch, net.dtype.name))
    with torch.no_grad():
        module.weight_hh_l0.copy_(torch.tensor(np.array(net.W)).reshape(-1, net.n))
        module.weight_ih_l0.copy_(torch.tensor(np.array(net.U)).reshape(-1, net.m))
    return torch_training(module, x, z)


def torch_training(module, x: np.ndarray, z: np.ndarray) -> Contender:
    """Forward, loss 1/2 ||h - z||^2 and backward of a module."""
    xt, zt = torch.tensor(x, requires_grad=True), torch.tensor(z)

    def run() -> object:
        module.zero_grad(set_to_none=True)
        xt.grad = None
        y, _ = module(xt)
        (0.5 * ((y - zt) ** 2).sum()).backward()
        return xt.grad

    return run


def jax_bptt(net: rg.Network, x: np.ndarray, z: np.ndarray) -> Contender:
    step, n = JAX_CELLS[net.cell.name], net.n
    params = (jnp.asarray(net.W.reshape(-1, n)), jnp.asarray(net.U.reshape(-1, net.m)), jnp.asarray(net.b.reshape(-1)))

    def loss(params, x, z):
        W, U, b = params
        s0 = tuple(jnp.zeros((x.shape[1], n), x.dtype) for _ in range(net.S))
        u = x @ U.T  # hoisted out of the scan, as anyone would

        def body(s, u):
            s = step(s, u, W, b)
            return s, s[0]

        _, h = jax.lax.scan(body, s0, u)
        return 0.5 * jnp.sum((h - z) ** 2)

    gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    xj, zj = jnp.asarray(x), jnp.asarray(z)
    return lambda: jax.block_until_ready(gradient(params, xj, zj))


def jax_vanilla(s, u, W, b):
    return (jnp.tanh(s[0] @ W.T + u + b),)


def jax_lstm(s, u, W, b):
    h, c = s
    i, f, v, o = jnp.split(h @ W.T + u + b, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(v)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def jax_gru(s, u, W, b):
    (h,) = s
    n = h.shape[-1]
    a = h @ W.T + b[: 3 * n]
    gates = jax.nn.sigmoid(a[..., : 2 * n] + u[..., : 2 * n])
    r, z = gates[..., :n], gates[..., n:]
    v = jnp.tanh(r * a[..., 2 * n :] + u[..., 2 * n :] + b[3 * n :])
    return (z * h + (1 - z) * v,)


JAX_CELLS = {"vanilla": jax_vanilla, "lstm": jax_lstm, "gru": jax_gru}


def chain_row(n: int, T: int, B: int, dtype: str) -> dict[str, Contender]:
    """Contenders for dh_T/dh_k for all k of a vanilla tanh network."""
    rng = np.random.default_rng(0)
    net = rg.Network.init("vanilla", n_inputs=1, n_hidden=n, dtype=dtype)
    x = rng.standard_normal((T, B, 1)).astype(dtype)
    W, a = np.array(net.W[0]), x @ np.array(net.U[0]).T

    def ours() -> object:
        return rg.jacobian_chain(rg.rollout(net, x)).all_to(T)

    def plain_numpy() -> object:
        h = np.zeros((T + 1, B, n), dtype)
        for t in range(T):
            h[t + 1] = np.tanh(h[t] @ W.T + a[t])
        out = np.empty((T + 1, B, n, n), dtype)
        out[T] = np.eye(n, dtype=dtype)
        for t in range(T, 0, -1):
            np.matmul(out[t] * (1 - h[t] ** 2)[:, None, :], W, out=out[t - 1])
        return out

    out: dict[str, Contender] = {"rnngrad": ours, "numpy": plain_numpy}
    if torch is not None:
        Wt, at = torch.tensor(W), torch.tensor(a)
        eye = torch.eye(n, dtype=Wt.dtype)[:, None, :].expand(n, B, n)

        def torch_chain() -> object:
            h = [torch.zeros(B, n, dtype=Wt.dtype, requires_grad=True)]
            for t in range(T):
                h.append(torch.tanh(h[-1] @ Wt.T + at[t]))
            return torch.autograd.grad(h[-1], h, grad_outputs=eye, is_grads_batched=True)

        out["torch"] = torch_chain
    if jax is not None:
        Wj, aj = jnp.asarray(W), jnp.asarray(a)

        def last(d, a):  # d[k] is a disturbance of h_k
            h, _ = jax.lax.scan(lambda h, ad: (jnp.tanh(h @ Wj.T + ad[0]) + ad[1], None), d[0], (a, d[1:]))
            return h

        chain = jax.jit(jax.vmap(jax.jacrev(last), in_axes=(None, 1)))
        zero = jnp.zeros((T + 1, n), Wj.dtype)
        out["jax"] = lambda: jax.block_until_ready(chain(zero, aj))
    return out


def flow_row(cell: str, n: int, T: int, B: int, dtype: str) -> dict[str, Contender]:
    """log||dL_t/ds_k|| for every pair, against T backward passes without forward: that of L_t from step t back."""
    rng = np.random.default_rng(0)
    net = rg.Network.init(cell, n_inputs=1, n_hidden=n, dtype=dtype)
    traj = rg.rollout(net, rng.standard_normal((T, B, 1)).astype(dtype))
    z = rng.standard_normal((T, B, n)).astype(dtype)
    loss = rg.losses.squared_error(z)
    parts = [rg.rollout(net, traj.x[:t]) for t in range(1, T + 1)]
    last = [rg.losses.squared_error(z[:t], "last") for t in range(1, T + 1)]

    def passes() -> object:
        return [rg.bptt(part, one) for part, one in zip(parts, last)]

    return {"rnngrad": lambda: rg.gradient_flow(traj, loss), "T passes": passes}


def measure(contenders: dict[str, Contender], seconds: float) -> dict[str, float]:
    """Median milliseconds of each, in turns of at least ``TURN`` seconds, for about ``seconds`` seconds in all."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    end = time.perf_counter() + seconds
    rounds = 0
    while time.perf_counter() < end or rounds < 3:
        rounds += 1
        for name, run in contenders.items():
            run()  # untimed: the threads of the contender before may still be spinning, the caches are its own
            turn_ends = time.perf_counter() + TURN
            while True:
                start = time.perf_counter()
                run()
                stop = time.perf_counter()
                times[name].append(1e3 * (stop - start))
                if stop >= turn_ends:
                    break
    return {name: statistics.median(values) for name, values in times.items()}


def machine() -> dict[str, object]:
    """What the numbers were measured on."""
    import scipy.linalg.cython_blas  # noqa: F401  (the BLAS of our kernels must be loaded to be listed)
    from threadpoolctl import threadpool_info

    from rnngrad._jit import num_threads

    return {
        "processor": platform.processor() or platform.machine(),
        "processors": os.cpu_count(),
        "rnngrad threads": f"{num_threads()} (own pool, BLAS at 1 inside kernels)",
        "blas": sorted({f"{i['internal_api']} {i.get('version')} {i.get('architecture')} x{i['num_threads']}"
                        for i in threadpool_info() if i["user_api"] == "blas"}),
        "torch": None if torch is None else f"{torch.__version__} x{torch.get_num_threads()}",
        "jax": None if jax is None else jax.__version__,
        "numpy": np.__version__,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="comma-separated words; rows whose name holds one of them")
    parser.add_argument("--seconds", type=float, default=3.0, help="time given to each row")
    parser.add_argument("--json", help="write the numbers here as well")
    arguments = parser.parse_args()
    rows: list[tuple[str, Callable[[], dict[str, Contender]]]] = []
    for cell in TORCH_CLASS:
        for n, m, T, B in BPTT_SIZES:
            for dtype in ("float64", "float32"):
                name = f"bptt {cell} {dtype} n={n} m={m} T={T} B={B}"
                rows.append((name, lambda c=cell, s=(n, m, T, B), d=dtype: bptt_row(c, *s, d)))
    for n, m, T, B, layers in STACK_SIZES:
        for dtype in ("float64", "float32"):
            name = f"bptt {layers}-layer bidirectional lstm {dtype} n={n} m={m} T={T} B={B}"
            rows.append((name, lambda s=(n, m, T, B, layers), d=dtype: stack_row(*s, d)))
    for n, T, B in CHAIN_SIZES:
        for dtype in ("float64", "float32"):
            rows.append((f"chain vanilla {dtype} n={n} T={T} B={B}", lambda s=(n, T, B), d=dtype: chain_row(*s, d)))
    for cell in TORCH_CLASS:
        for n, T, B in FLOW_SIZES:
            rows.append(
                (f"flow {cell} float64 n={n} T={T} B={B}", lambda c=cell, s=(n, T, B): flow_row(c, *s, "float64"))
            )
    for n, T, B in LYAPUNOV_SIZES:
        for dtype in ("float64", "float32"):
            name = f"lyapunov vanilla {dtype} n={n} T={T} B={B}"
            rows.append((name, lambda s=(n, T, B), d=dtype: lyapunov_row(*s, d, torch, jax)))
    for n, T, B in MAP_SIZES:
        for ord in (2, "fro"):
            name = f"heat map of log-norms ({ord}) vanilla float64 n={n} T={T} B={B}"
            rows.append((name, lambda s=(n, T, B), o=ord: map_row(*s, "float64", o, jax)))
    for n, B in IMPLICIT_SIZES:
        for dtype in ("float64", "float32"):
            name = f"implicit gradient vanilla {dtype} n={n} B={B}"
            rows.append((name, lambda s=(n, B), d=dtype: implicit_row(*s, d, jax)))
    for n, starts in FINDER_SIZES:
        rows.append(
            (f"fixed points vanilla float64 n={n} starts={starts}", lambda s=(n, starts): finder_row(*s, "float64"))
        )
    words = [word for word in arguments.only.split(",") if word]
    info = machine()
    for key, value in info.items():
        print(f"{key}: {value}")
    results = []
    print(f"\n{'row':62s} {'rnngrad':>9s}  {'peers (ms)':42s} best peer / rnngrad", flush=True)
    for name, make in rows:
        if words and not any(word in name for word in words):
            continue
        ms = measure(make(), arguments.seconds)
        peers = {k: v for k, v in ms.items() if k not in ("rnngrad",)}
        others = {k: v for k, v in peers.items() if not k.startswith("rnngrad")}
        judged = {k: v for k, v in others.items() if k != "numpy" or name.startswith("lyapunov")} or others or peers
        ratio = min(judged.values()) / ms["rnngrad"]
        listed = "  ".join(f"{k} {v:.1f}" for k, v in peers.items())
        print(f"{name:62s} {ms['rnngrad']:9.2f}  {listed:42s} {ratio:.2f}", flush=True)
        results.append({"row": name, "ms": ms, "ratio": ratio})
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"machine": info, "rows": results}, file, indent=1)


def optional(name: str):
    """The module, or None where it is not installed."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"{name} is not installed; its column is left out")
        return None


torch, jax = optional("torch"), optional("jax")
if jax is not None:
    jax.config.update("jax_enable_x64", True)
    jnp = jax.numpy

if __name__ == "__main__":
    main()
