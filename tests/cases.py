"""Random networks as the package sees them and, beside them, as the oracles see them; and how numbers are compared."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import reference

import rnngrad as rg

#: every cell of the package; one that is added later is tested without a word here
CELLS = tuple(rg.CELLS)

#: (cell, activation) for every activation a cell accepts
PAIRS = tuple((cell, activation) for cell, spec in rg.CELLS.items() for activation in spec.activations)

#: sequence lengths of a batch of three with T >= 5: full, shorter, one step only
UNEVEN = (5, 3, 1)

#: shapes with every degenerate axis
SHAPES = (
    {"n": 1, "m": 1, "p": 1, "T": 1, "B": 1},
    {"n": 1, "m": 2, "p": 0, "T": 4, "B": 2},
    {"n": 3, "m": 0, "p": 2, "T": 4, "B": 2},
    {"n": 2, "m": 1, "p": 3, "T": 1, "B": 3},
    {"n": 5, "m": 4, "p": 0, "T": 7, "B": 1},
    {"n": 3, "m": 2, "p": 2, "T": 3, "B": 9},  # more samples than one tile of the kernels holds
)


@dataclass(frozen=True)
class Case:
    """A network with a batch of inputs. ``args``, ``kwargs`` are what the functions of both oracles take."""

    net: rg.Network
    params: dict[str, np.ndarray]  # float64 values of the network's own parameters
    x: np.ndarray  # (T, B, m), the network's dtype
    s0: np.ndarray  # (B, S, n)
    lengths: np.ndarray | None
    alpha: np.ndarray | None
    rng: np.random.Generator = field(repr=False)

    @property
    def cell(self) -> str:
        return self.net.cell.name

    @property
    def args(self) -> tuple[Any, ...]:
        return self.cell, self.params, self.x.astype(np.float64), self.s0.astype(np.float64)

    @property
    def kwargs(self) -> dict[str, Any]:
        return {"lengths": self.lengths, "activation": self.net.activation, "alpha": self.alpha}

    @cached_property
    def traj(self) -> rg.Trajectory:
        return rg.rollout(self.net, self.x, self.s0, self.lengths)

    @property
    def ends(self) -> np.ndarray:
        """Steps of each sequence, (B,)."""
        return np.full(self.x.shape[1], len(self.x)) if self.lengths is None else self.lengths


def make_case(
    cell: str,
    activation: str | None = None,
    *,
    n: int = 4,
    m: int = 3,
    p: int = 2,
    T: int = 5,
    B: int = 3,
    lengths: Any = None,
    dtype: str = "float64",
    scale: float = 1.0,
    seed: int = 0,
) -> Case:
    """A random network, inputs and initial states; the same ones for the same arguments."""
    activation = activation or reference.CELLS[cell]["default_activation"]
    rng = np.random.default_rng(zlib.crc32(f"{cell} {activation} {n} {m} {p} {T} {B} {seed}".encode()))
    params = {name: a.astype(dtype) for name, a in reference.random_params(cell, n, m, p, rng, scale).items()}
    time, alpha = {}, None
    if reference.CELLS[cell]["needs_alpha"]:
        time = {"dt": 0.25, "tau": rng.uniform(0.3, 2.0, n)}
        alpha = (time["dt"] / time["tau"]).astype(dtype).astype(np.float64)
    net = rg.Network.from_parameters(cell, params, activation=activation, **time)
    x = rng.standard_normal((T, B, m)).astype(dtype)
    s0 = rng.standard_normal((B, reference.CELLS[cell]["S"], n)).astype(dtype)
    if lengths is not None:
        lengths = np.asarray(lengths)
        x[np.arange(T)[:, None] >= lengths] = 7.0  # padding that would be seen in any result
    exact = {name: a.astype(np.float64) for name, a in params.items()}
    return Case(net, exact, x, s0, lengths, alpha, rng)


def make_losses(case: Case, oracles: Any, kind: str = "squared_error", weights: Any = None, reduction: str = "sum"):
    """(the package's loss, the oracle's loss function) with one random target that is garbage where it does not count.

    ``weights``: None, "last", "steps" for (T,) numbers, or "mask" for (T, B) numbers with zeros among them.
    """
    T, B, _ = case.x.shape
    rng = case.rng
    step = np.arange(1, T + 1)[:, None]
    plain = {
        "steps": np.abs(rng.standard_normal(T)),
        "mask": np.abs(rng.standard_normal((T, B))) * (rng.random((T, B)) < 0.7),
    }
    given = plain.get(weights, weights)
    if weights == "mask":
        given[0, 0] = 0.5  # a mask of nothing but zeros would have no mean
    for_oracle = (step == case.ends).astype(float) if weights == "last" else given
    target, name = random_target(rng, kind, (T, B, case.net.p))
    counts = np.broadcast_to(step <= case.ends, (T, B))
    if for_oracle is not None:
        counts = counts & (np.broadcast_to(for_oracle if for_oracle.ndim == 2 else for_oracle[:, None], (T, B)) != 0)
    target[~counts] = -100 if target.dtype.kind == "i" else np.nan
    return (
        getattr(rg.losses, name)(target, given, reduction=reduction),
        getattr(oracles, name)(target, for_oracle, reduction),
    )


#: losses by the names of the tests; cross-entropy takes labels or probabilities
LOSSES = ("squared_error", "sum_of_squares", "cross_entropy labels", "cross_entropy", "binary_cross_entropy")


def random_target(rng: np.random.Generator, kind: str, shape: tuple[int, int, int]) -> tuple[np.ndarray, str]:
    """A target for that loss at outputs of that shape, and the loss's function name."""
    T, B, p = shape
    name = kind.split()[0]
    if kind == "cross_entropy labels":
        return rng.integers(0, p, (T, B)), name
    if kind == "cross_entropy":
        z = rng.random(shape)
        return z / z.sum(axis=-1, keepdims=True), name
    if kind == "binary_cross_entropy":
        return rng.random(shape), name
    return rng.standard_normal(shape), name


def assert_close(actual: Any, expected: Any, rtol: float, what: str = "") -> None:
    """Same shape, and |actual - expected| <= rtol max|expected|; an expected array of zeros must be met exactly.

    The scale is the array's own largest entry: entries that come out small by cancellation have no digits of their own.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    if expected.size == 0:
        return
    error, scale = np.abs(actual - expected).max(), np.abs(expected).max()
    assert error <= rtol * scale, (
        f"{what}: error {error:.3g} at scale {scale:.3g}, {error / max(scale, 1e-300):.3g} > {rtol:g}"
    )


def assert_gradients(actual: Any, expected: Any, rtol: float, names: Any = None) -> None:
    """Every gradient of ``expected`` (a mapping, or another :class:`rg.Gradients`), the loss included."""
    if not isinstance(expected, dict):
        expected = {name: value for name, value in vars(expected).items() if value is not None}
    names = set(expected) if names is None else names
    for name in sorted(names):
        assert_close(getattr(actual, name), expected[name], rtol, name)
