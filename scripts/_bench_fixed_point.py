"""Rows of the benchmark: forward and implicit gradient of a fixed-point network, and the search for fixed points."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import rnngrad as rg

Contender = Callable[[], object]

IMPLICIT_SIZES = [(64, 256), (256, 64)]
FINDER_SIZES = [(64, 512)]
GAIN = 0.5  # W_ij ~ N(0, GAIN^2/n): contractive
TOL = 1e-10


def problem(n: int, B: int, dtype: str) -> tuple[rg.Network, np.ndarray, np.ndarray]:
    """(network h = tanh(W h + U x + b), inputs (B, n), targets (B, n))."""
    rng = np.random.default_rng(0)
    W = (GAIN / np.sqrt(n) * rng.standard_normal((1, n, n))).astype(dtype)
    net = rg.Network.init("vanilla", n, n, dtype=dtype).replace(W=W)
    return net, rng.standard_normal((B, n)).astype(dtype), rng.standard_normal((B, n)).astype(dtype)


def implicit_row(n: int, B: int, dtype: str, jax: Any) -> dict[str, Contender]:
    """Contenders for h* and the gradient of 1/2 ||h* - z||^2 with respect to W, U, b and x."""
    net, x, z = problem(n, B, dtype)
    tol = TOL if dtype == "float64" else 1e-5
    loss = rg.losses.squared_error(z)

    def ours(method: str) -> Contender:
        return lambda: rg.implicit_gradient(rg.solve_fixed_point(net, x, method=method, tol=tol), loss, tol=tol)

    out = {"rnngrad": ours("picard"), "rnngrad anderson": ours("anderson")}
    if jax is None:
        return out
    jnp = jax.numpy
    params = tuple(jnp.asarray(np.array(a)) for a in (net.W[0], net.U[0], net.b[0]))
    xj, zj = jnp.asarray(x), jnp.asarray(z)

    def f(h, params, x):
        W, U, b = params
        return jnp.tanh(h @ W.T + x @ U.T + b)

    def gradient(solve: Callable[[Any, Any], Any]) -> Contender:
        def value(params, x):
            return 0.5 * jnp.sum((solve(params, x) - zj) ** 2)

        run = jax.jit(jax.value_and_grad(value, argnums=(0, 1)))
        return lambda: jax.block_until_ready(run(params, xj))

    for name, make in (("jaxopt", _jaxopt), ("optimistix", _optimistix)):
        if name == "optimistix" and dtype == "float32":  # its loop carries a float64 where JAX has 64-bit types on
            print("optimistix does not run in float32 beside float64: left out")
            continue
        try:
            out[name] = gradient(make(jax, f, tol, n, B))
        except ImportError:
            print(f"{name} is not installed: left out")
    return out


def _jaxopt(jax: Any, f: Any, tol: float, n: int, B: int) -> Callable[[Any, Any], Any]:
    import jaxopt

    def solve(params, x):
        # the whole batch is one state, whose norm is that of all samples together
        adjoint = functools.partial(jaxopt.linear_solve.solve_normal_cg, tol=tol, maxiter=1000)
        solver = jaxopt.FixedPointIteration(
            f, maxiter=1000, tol=tol * B**0.5, implicit_diff=True, implicit_diff_solve=adjoint
        )
        return solver.run(jax.numpy.zeros((B, n), x.dtype), params, x).params

    return solve


def _optimistix(jax: Any, f: Any, tol: float, n: int, B: int) -> Callable[[Any, Any], Any]:
    import lineax
    import optimistix

    def solve(params, x):
        solver = optimistix.FixedPointIteration(rtol=0.0, atol=tol)
        adjoint = optimistix.ImplicitAdjoint(linear_solver=lineax.GMRES(rtol=tol, atol=tol))
        start = jax.numpy.zeros((B, n), x.dtype)
        return optimistix.fixed_point(
            lambda h, args: f(h, *args), solver, start, (params, x), max_steps=1000, adjoint=adjoint
        ).value

    return solve


def finder_row(n: int, starts: int, dtype: str) -> dict[str, Contender]:
    """All fixed points of a random network from many starts; with and without its slow points."""
    rng = np.random.default_rng(0)
    W = (0.9 / np.sqrt(n) * rng.standard_normal((1, n, n))).astype(dtype)
    net = rg.Network.init("vanilla", 1, n, dtype=dtype).replace(W=W)
    given = rng.standard_normal((starts, n)).astype(dtype)
    eye, Wn = np.eye(n, dtype=dtype), np.array(W[0])

    def plain_numpy() -> object:
        h = given
        for _ in range(30):
            image = np.tanh(h @ Wn.T)
            r = image - h
            if np.linalg.norm(r, axis=1).max() <= TOL:
                break
            h = h + np.linalg.solve(eye - (1 - image**2)[:, :, None] * Wn, r[..., None])[..., 0]
        return h

    return {"rnngrad": lambda: rg.find_fixed_points(net, given, tol=TOL), "numpy": plain_numpy}
