"""What ``gpu_check.py`` does with arrays that lie on the card: every library's in and out, against host arrays."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from _gpu_peers import usable

import rnngrad as rg
from rnngrad import _cuda


class Lent:
    """An array that speaks DLPack and nothing else."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0) if _cuda.simulated() else self._owner.__dlpack_device__()

    def __dlpack__(self, stream: int) -> Any:
        return self._owner.__dlpack__() if _cuda.simulated() else self._owner.__dlpack__(stream=stream)


def libraries() -> dict[str, Callable[[np.ndarray], Any]]:
    """How each library that is here brings a NumPy array to the card."""
    found: dict[str, Callable[[np.ndarray], Any]] = {"numba": lambda array: _cuda.load().to_device(array)}
    if usable("torch"):
        import torch

        found["torch"] = lambda array: torch.from_numpy(array).cuda()
    if not _cuda.simulated() and importlib.util.find_spec("cupy") is not None:
        import cupy

        found["cupy"] = cupy.asarray
    if _cuda.simulated():
        found["dlpack"] = Lent
    elif "torch" in found or "cupy" in found:
        bring = found.get("torch") or found["cupy"]
        found["dlpack"] = lambda array: Lent(bring(array))
    return found


def read(library: str, value: Any) -> np.ndarray:
    """A result as NumPy array, by way of the library that reads it in place."""
    if isinstance(value, np.ndarray):
        return value
    if library == "torch":
        import torch

        return torch.as_tensor(value, device="cuda").cpu().numpy()
    if library == "cupy":
        import cupy

        return cupy.asnumpy(cupy.asarray(value))
    return value.copy_to_host()


def made(traj: Any, loss: Any, u: Any, v: Any) -> dict[str, Any]:
    """What there is of a trajectory on either side, by name."""
    chain, grads = rg.jacobian_chain(traj), rg.bptt(traj, loss)
    found = {"states": traj.states, "y": traj.y, "J": rg.jacobians(traj), "product": chain.product(traj.T, 0)}
    found |= {"to": chain.all_to(traj.T), "from": chain.all_from(0), "vjp": chain.vjp(u, traj.T, 0)}
    found |= {"jvp": chain.jvp(u, traj.T, 0), "loss": np.array(grads.loss), "x": grads.x, "s": grads.s}
    for ord in (2, "fro"):
        found[f"norms {ord}, logarithms"] = chain.log_norms(ord)
        found[f"last norm {ord}, logarithms"] = chain.log_norm(traj.T, 0, ord)
    found["singular values, logarithms"] = chain.log_singular_values(traj.T, 0)
    found |= dict(grads.parameters())
    flow, short = rg.gradient_flow(traj, loss), rg.truncated_bptt(traj, loss, k1=2, k2=3)
    found |= {"flow, logarithms": flow.log_norm, "flow by lag, logarithms": flow.log_norm_by_lag()}
    found |= {f"piece {name}": value for name, value in flow.pieces(traj.T, 1).items()}
    found |= {f"truncated {name}": value for name, value in short.parameters()} | {"truncated s": short.s}
    reach, bias = rg.gradient_reach(traj, loss), rg.truncation_bias(traj, loss)
    found |= {"reach, logarithms": reach.log_norm, "bias": bias.bias, "cosine": bias.cosine}
    curvature = rg.Curvature(traj, loss)
    return found | {"Hessian": curvature.hessian(v), "Gauss-Newton": curvature.gauss_newton(v)}


def followed(net: Any, x: Any, s0: Any) -> dict[str, Any]:
    """What takes sequences of equal length, on either side, by name."""
    traj = rg.rollout(net, x, s0, backend="cuda")
    bounds = rg.growth_bounds(traj, times=[traj.T])
    vectors, exponents = rg.covariant_vectors(traj, 2, settle=2), rg.lyapunov_spectrum(net, x, s0, k=2, backend="cuda")
    return {
        "covariant vectors": vectors.vectors,
        "growth of covariant vectors, logarithms": vectors.log_growth,
        "exponents, logarithms": exponents.exponents,
        "saturation": rg.saturation(traj).mean,
        "blocks of bounds": bounds.steps.blocks,
        "bounds, logarithms": bounds.log_upper,
        "norms of Jacobians, logarithms": bounds.log_product,
        "last norms, logarithms": bounds.log_measured,
        "norms of products, logarithms": rg.product_spectrum(traj).log_norm,
    }


def contracting(net: rg.Network) -> rg.Network:
    """The network with recurrent weights so small that iterations to its fixed points converge."""
    return net.replace(**{name: 0.3 * value for name, value in net.parameters.items() if name in ("W", "W2")})


def at_rest(net: Any, x: Any, z: Any) -> dict[str, Any]:
    """Fixed points for inputs held, and the gradients there, on either side, by name."""
    fp = rg.solve_fixed_point(net, x, tol=1e-5 if net.dtype == np.float32 else 1e-11, backend="cuda")
    grads = rg.implicit_gradient(fp, rg.losses.squared_error(z))
    return {"s": fp.s, "J": fp.jacobian, "adjoint": grads.z, "x": grads.x, **dict(grads.parameters())}


def losses(net: Any, T: int, B: int, dtype: str) -> dict[str, tuple[Callable[..., Any], np.ndarray]]:
    """(what makes it, target) of every loss."""
    rng = np.random.default_rng(4)
    return {
        "squared_error": (rg.losses.squared_error, rng.standard_normal((T, B, net.p)).astype(dtype)),
        "cross_entropy": (rg.losses.cross_entropy, rng.integers(0, net.p, (T, B))),
        "binary_cross_entropy": (rg.losses.binary_cross_entropy, rng.random((T, B, net.p)).astype(dtype)),
    }


def jobs(sizes: list[tuple[Any, ...]], draw: Callable[..., Any], compare: Callable[..., Any]) -> Iterator[Any]:
    """A job for each library, size and loss."""
    for library, bring in libraries().items():
        for size in sizes:
            what = f"{library}: {size[0]}, n = {size[1]}, {size[-1]}"
            yield what, 30, functools.partial(one, what, library, bring, size, draw, compare)


def one(
    what: str,
    library: str,
    bring: Callable[[np.ndarray], Any],
    size: tuple[Any, ...],
    draw: Callable[..., Any],
    compare: Callable[..., Any],
) -> Iterator[dict[str, Any]]:
    """Everything with arrays of one library, which must be what arrays of the host give."""
    net, x, s0, lengths = draw(*size)
    host, there = rg.rollout(net, x, s0, lengths, backend="cuda"), rg.rollout(net, bring(x), bring(s0), lengths)
    rng = np.random.default_rng(5)
    u = rng.standard_normal(s0.shape).astype(size[-1])
    v = rng.standard_normal((2, sum(value.size for value in net.parameters.values()))).astype(size[-1])
    limit = 1e-13 if size[-1] == "float64" else 1e-5  # host norms of one product are found by another way

    def row(name: str, found: dict[str, Any], truth: dict[str, Any], limit: float = limit) -> dict[str, Any]:
        worst = compare({key: read(library, value) for key, value in found.items()}, truth)
        key = max(worst, key=worst.__getitem__)
        passed = worst[key] <= limit
        return {"case": f"{what}, {name}", "worst": key, "error": worst[key], "same bits": {}, "passed": passed}

    weak, z = contracting(net), rng.standard_normal((host.B, net.p)).astype(size[-1])
    points, truth = at_rest(weak, bring(x[0]), bring(z)), at_rest(weak, x[0], z)
    yield row("fixed points", points, truth, limit=max(limit, 1e-8))  # adjoints end within their tolerance
    long = np.concatenate([x] * -(-20 // len(x)))
    yield row("dynamics", followed(net, bring(long), bring(s0)), followed(net, long, s0))
    for name, (make, target) in losses(net, host.T, host.B, size[-1]).items():
        yield row(name, made(there, make(bring(target)), bring(u), bring(v)), made(host, make(target), u, v))
