"""Stacks: networks on top of one another, each layer forward or in both directions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _checks, initialization
from .network import Network

DIRECTIONS = ("", "_reverse")  # endings of names, as in PyTorch


def kind(net: Any) -> str:
    """Name of a layer's cell, "system" for a user's."""
    return net.cell.name if isinstance(net, Network) else "system"


class ByName:
    """Parameters, or their gradients, of layers and directions: listed and read by the names of :class:`Stack`."""

    V: Any
    c: Any

    def _rows(self) -> Iterator[tuple[str, Iterable[tuple[str, NDArray]]]]:
        """(ending of the names, parameters) of each layer and direction."""
        raise NotImplementedError

    def parameters(self) -> Iterator[tuple[str, NDArray]]:
        """(name, array) of each parameter."""
        for ending, own in self._rows():
            for name, value in own:
                yield name + ending, value
        if self.V is not None:
            yield "V", self.V
            yield "c", self.c

    def __getattr__(self, name: str) -> NDArray:
        if not name.startswith("_"):
            for known, value in self.parameters():
                if known == name:
                    return value
        raise AttributeError(name)


@dataclass(frozen=True)
class Stack(ByName):
    """Layers of one-layer networks: layer l reads h of layer l - 1 at the same step, layer 0 reads x.

    A layer of two networks runs one of them forward and one backward in time over the same input; the layer above
    (or the readout) sees both outputs side by side, [forward; backward]. Build one with :meth:`init` or
    :meth:`from_layers`.

    Parameters have endings as in PyTorch: ``W_l0``, ``U_l0``, ``b_l0`` of layer 0, ``W_l0_reverse`` of its backward
    network, and so on, with the shapes of :class:`Network`; ``V``, ``c`` are the readout.

    Attributes
    ----------
    layers : tuple of tuples of Network or System
        ``layers[l]`` is (forward,) or (forward, backward); these have no readout.
    V, c : ndarray (p, n), (p,)
        Readout of the top layer's output (n units, both directions counted); None without one (then y = h).
    feedback : bool
        The last p inputs of layer 0 are the output of the step before: the stack runs on [x_t; y_{t-1}] and is given
        x_t alone. Teacher forcing is the same stack with ``feedback=False``, given [x_t; z_{t-1}].
    """

    layers: tuple[tuple[Network, ...], ...]
    V: Any = None
    c: Any = None
    feedback: bool = False

    # -- making ------------------------------------------------------------------------------------------------

    @classmethod
    def init(
        cls,
        cell: str | Sequence[str],
        n_inputs: int,
        n_hidden: int | Sequence[int],
        n_outputs: int = 0,
        *,
        n_layers: int | None = None,
        bidirectional: bool = False,
        feedback: bool = False,
        seed: int | np.random.Generator = 0,
        dtype: str = "float64",
        **options: Any,
    ) -> Stack:
        """Random stack.

        Parameters
        ----------
        cell, n_hidden : one for all layers, or a sequence with one for each
        n_inputs, n_outputs : int
            m of the lowest layer, p of the readout; ``n_outputs=0`` makes none.
        n_layers : int
            Needed where neither ``cell`` nor ``n_hidden`` is a sequence.
        bidirectional : bool
            Every layer in both directions.
        feedback : bool
            Layer 0 takes the output of the step before beside its n_inputs.
        options
            As for :meth:`Network.init`: scheme, gain, activation, forget_bias, dt, tau.
        """
        cells, sizes, count = _per_layer(cell, n_hidden, n_layers)
        rng = np.random.default_rng(seed)
        m, layers = _checks.integer("n_inputs", n_inputs, 0), []
        p = _checks.integer("n_outputs", n_outputs, 0)
        m += (p or sizes[-1] * (2 if bidirectional else 1)) if feedback else 0
        for kind, n in zip(cells, sizes, strict=True):
            directions = range(2 if bidirectional else 1)
            layers.append(tuple(Network.init(kind, m, n, seed=rng, dtype=dtype, **options) for _ in directions))
            m = sum(net.n for net in layers[-1])
        assert len(layers) == count
        V = initialization.feedforward(p, m, rng).astype(dtype) if p else None
        return cls.from_layers(layers, V, np.zeros(p, dtype) if p else None, feedback=feedback)

    @classmethod
    def from_layers(
        cls, layers: Sequence[Network | Sequence[Network]], V: Any = None, c: Any = None, *, feedback: bool = False
    ) -> Stack:
        """Stack of given networks, bottom first; a pair is (forward, backward). V, c are copied.

        Raises
        ------
        ValueError
            Sizes do not chain, dtypes differ, a layer has a readout, V and c do not fit, or outputs cannot be fed back.
        """
        if not isinstance(layers, (list, tuple)):
            raise ValueError(f"layers is {layers!r}; it must be a list of networks or of pairs of them")
        if len(layers) == 0:
            raise ValueError("layers is empty; a stack has at least one layer")
        rows = tuple(tuple(layer) if isinstance(layer, (list, tuple)) else (layer,) for layer in layers)
        below, dtype = None, None
        for i, row in enumerate(rows):
            if len(row) not in (1, 2) or not all(map(_is_layer, row)):
                raise ValueError(f"layers[{i}] must be a Network, a System, or a pair (forward, backward) of them")
            for net in row:
                dtype = dtype or net.dtype
                if net.dtype != dtype:
                    raise ValueError(f"layers[{i}] is {net.dtype.name}; it must be {dtype.name} like layers[0]")
                if net.V is not None:
                    raise ValueError(f"layers[{i}] has a readout V; only the stack has one, on top")
                wanted = row[0].m if below is None else below
                if net.m != wanted:
                    source = "the layer's forward network" if below is None else f"layers[{i - 1}]"
                    gives = "takes" if below is None else "gives"
                    raise ValueError(f"layers[{i}] takes {net.m} inputs; it must take {wanted}, which {source} {gives}")
            below = sum(net.n for net in row)
        if (V is None) != (c is None):
            raise ValueError(f"{'V' if V is None else 'c'} is missing; a readout has both V and c")
        if V is not None:
            V = _checks.array("V", V, ("p", below), dtype)
            c = _checks.array("c", c, (len(V),), dtype)
            V, c = V.copy(), c.copy()
            V.flags.writeable = c.flags.writeable = False
        stack = cls(rows, V, c, bool(feedback))
        if feedback and (stack.bidirectional or stack.m < 0):
            why = "a layer runs backward" if stack.bidirectional else f"layer 0 takes {rows[0][0].m} inputs"
            raise ValueError(f"feedback is True, but {why}; it must take the p = {stack.p} outputs, going forward")
        return stack

    def replace(self, **changes: Any) -> Stack:
        """A copy with some parameters replaced, by name: ``stack.replace(W_l1=...)``; arrays are checked."""
        known = {**{name: None for name, _ in self.parameters()}, "V": None, "c": None}
        unknown = sorted(set(changes) - set(known))
        if unknown:
            raise ValueError(f"replace got {unknown}; this stack has {list(known)}")
        rows = []
        for layer, row in enumerate(self.layers):
            ends = [f"_l{layer}{direction}" for direction in DIRECTIONS]
            mine = [
                {name: changes[name + end] for name in net.parameters if name + end in changes}
                for net, end in zip(row, ends, strict=False)
            ]
            rows.append([net.replace(**new) if new else net for net, new in zip(row, mine, strict=True)])
        return Stack.from_layers(rows, changes.get("V", self.V), changes.get("c", self.c), feedback=self.feedback)

    def astype(self, dtype: str) -> Stack:
        """The same stack in float64 or float32."""
        to = _checks.float_dtype(dtype)
        if any(kind(net) == "system" for row in self.layers for net in row):
            raise ValueError("a layer is a System, which computes in float64; the stack cannot be converted")
        rows = [[net.astype(dtype) for net in row] for row in self.layers]
        V, c = (None if a is None else a.astype(to) for a in (self.V, self.c))
        return Stack.from_layers(rows, V, c, feedback=self.feedback)

    def teacher_forced(self) -> Stack:
        """The same layers without feedback: they are given the outputs to feed back, beside x."""
        return replace(self, feedback=False)

    # -- reading -----------------------------------------------------------------------------------------------

    def _rows(self) -> Iterator[tuple[str, Iterable[tuple[str, NDArray]]]]:
        for layer, row in enumerate(self.layers):
            for net, direction in zip(row, DIRECTIONS, strict=False):
                yield f"_l{layer}{direction}", net.parameters.items()

    def __repr__(self) -> str:
        shown = ", ".join(f"{kind(row[0])} {' + '.join(str(net.n) for net in row)}" for row in self.layers)
        back = ", feedback" if self.feedback else ""
        return f"Stack({self.m} -> {shown} -> {self.p}{back}, dtype={self.dtype.name!r})"

    @property
    def m(self) -> int:
        """Inputs; without those that are fed back."""
        return self.layers[0][0].m - (self.p if self.feedback else 0)

    @property
    def n(self) -> int:
        """Width of the top layer's output h."""
        return sum(net.n for net in self.layers[-1])

    @property
    def p(self) -> int:
        """Outputs; n without a readout."""
        return self.n if self.V is None else len(self.V)

    @property
    def N(self) -> int:
        """Size of the joint state: all layers, all state vectors."""
        return sum(net.N for row in self.layers for net in row)

    @property
    def state_shape(self) -> tuple[int, int]:
        """(1, N): layers differ in size, so their states lie end to end."""
        return 1, self.N

    @property
    def blocks(self) -> dict[str, slice]:
        """Where each state vector ("h_l0") and each layer ("l0") lies in the joint state."""
        out, start = {}, 0
        for layer, row in enumerate(self.layers):
            first = start
            for net, direction in zip(row, DIRECTIONS, strict=False):
                for name, part in net.blocks.items():
                    out[f"{name}_l{layer}{direction}"] = slice(start + part.start, start + part.stop)
                start += net.N
            out[f"l{layer}"] = slice(first, start)
        return out

    @property
    def bidirectional(self) -> bool:
        """Whether any layer runs in both directions."""
        return any(len(row) == 2 for row in self.layers)

    @property
    def dtype(self) -> np.dtype:
        return self.layers[0][0].dtype


def _is_layer(net: Any) -> bool:
    """A network, or a user's system (which stands on a higher floor and is known by what it has)."""
    return isinstance(net, Network) or hasattr(net, "input_jacobians")


def _per_layer(cell: Any, n_hidden: Any, n_layers: int | None) -> tuple[list[str], list[int], int]:
    """Cells and sizes, one for each layer."""
    given = {name: len(value) for name, value in (("cell", cell), ("n_hidden", n_hidden)) if np.ndim(value) > 0}
    if n_layers is not None:
        given["n_layers"] = _checks.integer("n_layers", n_layers, 1)
    if not given:
        raise ValueError("n_layers is None; give it, or a sequence of cells or of sizes")
    if len(set(given.values())) > 1:
        raise ValueError(f"the number of layers is told twice: {', '.join(f'{k} {v}' for k, v in given.items())}")
    count = next(iter(given.values()))
    cells = [cell] * count if isinstance(cell, str) else list(cell)
    sizes = list(n_hidden) if "n_hidden" in given else [n_hidden] * count
    return cells, sizes, count
