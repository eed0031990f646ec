"""What ``gpu_check.py`` does with products of large matrices: the library's against our own kernels, on time too."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import rnngrad as rg
from rnngrad import _cuda
from rnngrad.dynamics.jacobian import local_jacobians
from rnngrad.kernels.cuda import library, products

NEVER = 1 << 30  # units from which on nothing is the library's
UNITS = (3,) if _cuda.simulated() else (128, 256, 512, 1024)
CHAINED, SUMMED = (5, 6) if _cuda.simulated() else (2048, 512)  # rows of a chain, and of products over all steps


def jobs(compare: Callable[..., Any], measure: Callable[..., Any]) -> Iterator[Any]:
    """A job for each size below and above the one from which the library is used."""
    if library.missing() is not None:
        yield "library", 0, lambda: iter([{"left out": f"products by the library ({library.missing()})"}])
        return
    for n in UNITS:
        for dtype, limit in (("float64", 1e-12), ("float32", 2e-5)):
            what = f"library: gru_reset_before, n = {n}, {dtype}"
            yield what, 40, functools.partial(one, what, n, dtype, limit, compare, measure)


def made(n: int, dtype: str) -> dict[str, Callable[[], dict[str, Any]]]:
    """Jobs whose products are with matrices of n units or more: chains of a whole batch, and those over all steps."""
    T, B = 4, 4
    net = rg.Network.init("gru_reset_before", n, n, scheme="orthogonal", seed=1, dtype=dtype)
    rng = np.random.default_rng(0)
    x = _cuda.upload(rng.standard_normal((T, B, n)).astype(dtype))
    traj = rg.rollout(net, x)
    jacobians = local_jacobians(traj)
    rows = _cuda.upload(rng.standard_normal((CHAINED, net.S, n)).astype(dtype))
    none, sample = _cuda.upload(np.zeros(CHAINED, np.int64)), np.arange(CHAINED) % B
    da = _cuda.upload(rng.standard_normal((SUMMED, 2, n)).astype(dtype))
    xs = _cuda.upload(rng.standard_normal((SUMMED, n)).astype(dtype))

    def hoisted() -> dict[str, Any]:
        out, dx = _cuda.empty((SUMMED, 2, n), dtype), _cuda.empty((SUMMED, n), dtype)
        products.affine(out, xs, net.U[:2], net.b[:2], [(0, 0, 2)])
        products.input_adjoint(dx, da, net.U[:2], [(0, 0, 2)])
        return {"affine": out, "input adjoint": dx, "outer": products.outer(da, 0, 2 * n, xs, n)}

    def chain(walk: Any, at: int) -> dict[str, Any]:
        out, exponents = walk(rows, none, sample, at, T)
        return {"rows": out, "exponents": exponents}

    return {
        "adjoint chain": lambda: chain(jacobians.adjoint, T),
        "tangent chain": lambda: chain(jacobians.tangent, 0),
        "products over all steps": hoisted,
    }


def one(
    what: str, n: int, dtype: str, limit: float, compare: Callable[..., Any], measure: Callable[..., Any]
) -> Iterator[dict[str, Any]]:
    """Every job by our own kernels and by the library, twice: what it gives, and how long both take."""
    before = library.FROM
    try:
        for name, job in made(n, dtype).items():
            library.FROM = NEVER
            truth, own = host(job()), measure(job)[1]
            library.FROM = 1
            found, theirs = host(job()), measure(job)[1]
            same = {"a second run": all(np.array_equal(value, found[key]) for key, value in host(job()).items())}
            worst = compare(found, truth)
            key = max(worst, key=worst.__getitem__)
            passed = worst[key] <= limit and all(same.values())
            row = {"case": f"{what}, {name}", "worst": key, "error": worst[key], "same bits": same, "passed": passed}
            yield row | {"own, ms": own, "library, ms": theirs}
    finally:
        library.FROM = before


def host(found: dict[str, Any]) -> dict[str, np.ndarray]:
    """The numbers of device arrays."""
    return {name: value.copy_to_host() for name, value in found.items()}
