"""Rows of the benchmark: Lyapunov spectra, and log-norms of all pairs of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import rnngrad as rg

Contender = Callable[[], object]

LYAPUNOV_SIZES = [(16, 500, 16), (64, 500, 8), (128, 500, 4), (256, 200, 2)]
MAP_SIZES = [(64, 200, 8)]
GAIN = 1.5  # W_ij ~ N(0, GAIN^2/n): a chaotic network


def network(n: int, T: int, B: int, dtype: str) -> tuple[rg.Network, np.ndarray, np.ndarray]:
    """(network, inputs that are zero, initial states)."""
    rng = np.random.default_rng(0)
    W = (GAIN / np.sqrt(n) * rng.standard_normal((1, n, n))).astype(dtype)
    net = rg.Network.init("vanilla", n_inputs=1, n_hidden=n, dtype=dtype).replace(W=W)
    return net, np.zeros((T, B, 1), dtype), rng.standard_normal((B, 1, n)).astype(dtype)


def lyapunov_row(n: int, T: int, B: int, dtype: str, torch: Any, jax: Any) -> dict[str, Contender]:
    """Contenders for all Lyapunov exponents of a tanh network, forward pass included; peers do a QR at every step."""
    net, x, s0 = network(n, T, B, dtype)
    W, h0 = np.array(net.W[0]), np.array(s0[:, 0])
    q0 = np.linalg.qr(np.random.default_rng(1).standard_normal((B, n, n)))[0].astype(dtype)

    def plain_numpy() -> object:
        h, q, total = h0, q0, np.zeros((B, n), dtype)
        for _ in range(T):
            h = np.tanh(h @ W.T)
            q, r = np.linalg.qr((1 - h * h)[:, :, None] * (W @ q))
            total += np.log(np.abs(np.diagonal(r, axis1=1, axis2=2)))
        return total / T

    out: dict[str, Contender] = {
        "rnngrad": lambda: rg.lyapunov_spectrum(net, x, s0=s0, transient=0).exponents,
        "numpy": plain_numpy,
    }
    if torch is not None:
        Wt, ht, qt = torch.tensor(W), torch.tensor(h0), torch.tensor(q0)

        def torch_spectrum() -> object:
            h, q, total = ht, qt, torch.zeros(B, n, dtype=Wt.dtype)
            for _ in range(T):
                h = torch.tanh(h @ Wt.T)
                q, r = torch.linalg.qr((1 - h * h)[:, :, None] * (Wt @ q))
                total += torch.log(torch.abs(torch.diagonal(r, dim1=1, dim2=2)))
            return total / T

        out["torch"] = torch_spectrum
    if jax is not None:
        jnp = jax.numpy
        Wj, hj, qj = jnp.asarray(W), jnp.asarray(h0), jnp.asarray(q0)

        @jax.jit
        def spectrum(h, q):
            def body(carry, _):
                h, q, total = carry
                h = jnp.tanh(h @ Wj.T)
                q, r = jnp.linalg.qr((1 - h * h)[:, :, None] * (Wj @ q))
                return (h, q, total + jnp.log(jnp.abs(jnp.diagonal(r, axis1=1, axis2=2)))), None

            return jax.lax.scan(body, (h, q, jnp.zeros((B, n), Wj.dtype)), None, length=T)[0][2] / T

        out["jax"] = lambda: jax.block_until_ready(spectrum(hj, qj))
    return out


def map_row(n: int, T: int, B: int, dtype: str, ord: int | str, jax: Any) -> dict[str, Contender]:
    """Contenders for log||Phi(t, k)|| of all pairs of steps; JAX takes the Jacobians of all later states at once."""
    net, x, s0 = network(n, T, B, dtype)
    W, h0 = np.array(net.W[0]), np.array(s0[:, 0])
    out: dict[str, Contender] = {
        "rnngrad": lambda: rg.jacobian_chain(rg.rollout(net, x, s0=s0)).log_norms(ord),
    }
    if jax is not None:
        jnp = jax.numpy
        Wj = jnp.asarray(W)

        def states(h, d):  # d[k] is a disturbance of h_k; row t of the result is h_t
            def body(h, d):
                h = jnp.tanh(h @ Wj.T) + d
                return h, h

            start = h + d[0]
            return jnp.concatenate([start[None], jax.lax.scan(body, start, d[1:])[1]])

        def row(h, t):  # (T+1, n, n): dh_t/dh_k for every k
            return jax.jacrev(lambda d: states(h, d)[t])(jnp.zeros((T + 1, n), Wj.dtype)).swapaxes(0, 1)

        norms = jax.jit(
            jax.vmap(lambda h, t: jnp.log(jnp.linalg.norm(row(h, t), ord=ord, axis=(1, 2))), in_axes=(0, None))
        )

        def heat_map() -> object:  # row by row: all of them at once would take B T^2 n^2 numbers
            return [jax.block_until_ready(norms(jnp.asarray(h0), t)) for t in range(T + 1)]

        out["jax"] = heat_map
    return out
