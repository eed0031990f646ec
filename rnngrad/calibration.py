"""Times of both backends at a few sizes, and the rule that ``backend="auto"`` makes of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize

from . import _cuda
from .dynamics.chain import jacobian_chain
from .dynamics.rollout import rollout
from .dynamics.work import chain_work, gradient_work
from .gradients.bptt import bptt
from .kernels import choice
from .losses import squared_error
from .network import Network

#: (n, T, B) of gradients: short and long, narrow and wide, up to what fills a card
GRADIENTS = ((16, 50, 8), (16, 400, 8), (16, 100, 256), (64, 100, 64), (128, 50, 128), (256, 30, 128), (512, 20, 64))
CHAINS = ((16, 50, 4), (32, 50, 16), (64, 30, 16), (128, 10, 8))
_BEST_OF = 3
_CELL, _INPUTS = "lstm", 16

Row = dict[str, Any]
Sizes = Sequence[tuple[int, int, int]]


def jobs(dtype: str, gradients: Sizes, chains: Sizes) -> Iterator[tuple[str, Any, Callable[[str], Any]]]:
    """(what it is, its work, the job of a backend)."""
    for n, T, B in gradients:
        net, x = _drawn(n, T, B, dtype)
        loss = squared_error(np.zeros((T, B, n), dtype))
        yield f"gradient, n = {n}, T = {T}, B = {B}", gradient_work(net, T, B), partial(_gradient, net, x, loss)
    for n, T, B in chains:
        net, x = _drawn(n, T, B, dtype)
        trajectories = {of: rollout(net, x, backend=of) for of in choice.BACKENDS}
        yield f"chain, n = {n}, T = {T}, B = {B}", chain_work(net, T, B), partial(_chain, trajectories)


def _gradient(net: Network, x: np.ndarray, loss: Any, backend: str) -> Any:
    return bptt(rollout(net, x, backend=backend), loss)


def _chain(trajectories: dict[str, Any], backend: str) -> Any:
    return jacobian_chain(trajectories[backend]).product(trajectories[backend].T, 0)


def _drawn(n: int, T: int, B: int, dtype: str) -> tuple[Network, np.ndarray]:
    net = Network.init(_CELL, n_inputs=_INPUTS, n_hidden=n, scheme="orthogonal", seed=0, dtype=dtype)
    return net, np.random.default_rng(0).standard_normal((T, B, _INPUTS)).astype(dtype)


def fit(terms: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Coefficients c >= 0 of terms (R, 4) c = seconds (R,), each equation weighted to relative errors."""
    relative = terms / seconds[:, None]
    size = np.linalg.norm(relative, axis=0)
    return scipy.optimize.nnls(relative / size, np.ones(len(seconds)))[0] / size


def measure(say: Callable[[str], Any] = print, gradients: Sizes = GRADIENTS, chains: Sizes = CHAINS) -> Path:
    """Time both backends, fit the rule and keep it; the file.

    Raises
    ------
    BackendError
        CUDA cannot run here.
    """
    _cuda.require()
    rows: list[Row] = []
    coefficients: dict[str, dict[str, list[float]]] = {}
    for dtype in choice.DTYPES:
        found = []
        for what, work, job in jobs(dtype, gradients, chains):
            times = {of: _best(partial(job, of)) for of in choice.BACKENDS}
            found.append((work.terms, times))
            rows.append({"job": f"{what}, {dtype}", **times})
            say(f"{rows[-1]['job']:42s} " + ", ".join(f"{of} {1e3 * times[of]:9.3f} ms" for of in choice.BACKENDS))
        terms = np.array([of for of, _ in found])
        coefficients[dtype] = {}
        for of in choice.BACKENDS:
            seconds = np.array([times[of] for _, times in found])
            c = fit(terms, seconds)
            coefficients[dtype][of] = c.tolist()
            off = np.exp(np.abs(np.log(terms @ c / seconds)).max())
            say(f"{of}, {dtype}: {_said(c)}; off by a factor of {off:.2f} at most")
    path = choice.keep(coefficients, rows)
    say(f"kept in {path}")
    return path


def _said(c: np.ndarray) -> str:
    """A fit in words."""
    rates = [f"{1e-9 / rate:.3g} {unit}" if rate else f"any {unit}" for rate, unit in zip(c[2:], ("G/s", "GB/s"))]
    return f"{1e6 * c[0]:.0f} us a job, {1e6 * c[1]:.2f} us a step, {' multiply-adds, '.join(rates)}"


def _best(job: Callable[[], Any]) -> float:
    """Seconds of a job, the best of a few after one that compiles."""
    job()
    best = np.inf
    for _ in range(_BEST_OF):
        start = time.perf_counter()
        job()
        best = min(best, time.perf_counter() - start)
    return best
