"""PyTorch's names and orders of recurrent parameters, and ours.

PyTorch stacks the gates along the rows of (G n, n) and (G n, m); ours have a gate axis first. The gates come in the
same order: LSTM i, f, g, o is our i, f, v, o; GRU r, z, n is our r, u, candidate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from ..cells import CELLS

PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
GATES = {"lstm": 4, "gru": 3, "vanilla": 1}
MARKS = ("weight_hh", "weight_hh_l0", "W", "W_l0")  # a group of tensors with one of these is a network

_NAME = re.compile(r"(weight|bias)_(ih|hh|hr)(?:_l(\d+)(_reverse)?)?")


def pytorch_layers(names: Mapping[str, str]) -> list[list[dict[str, str]]] | None:
    """Names of the parts, as [layer][direction][part]; None where there is nothing of PyTorch's.

    A cell's spelling (weight_hh) is one layer in one direction, like a module's with nothing beyond weight_hh_l0.

    Parameters
    ----------
    names : mapping
        Name in the layout -> name in the file, for errors.

    Raises
    ------
    ValueError
        A projection, a layer left out, or a backward half in some layers only.
    """
    known = {name: match.groups() for name in names if (match := _NAME.fullmatch(name))}
    for name, (_, side, _, _) in sorted(known.items()):
        if side == "hr":
            raise ValueError(f"{names[name]!r} is the projection of an LSTM (proj_size), which is not supported")
    if {"weight_ih", "weight_hh"} & set(known):
        return [[{part: part for part in PARTS}]]
    found = {(int(layer), reverse or "") for _, _, layer, reverse in known.values() if layer is not None}
    if not found:
        return None
    endings = sorted({reverse for _, reverse in found})
    count = max(layer for layer, _ in found) + 1
    for layer in range(count):
        for reverse in endings:
            if (layer, reverse) not in found:
                what = "its backward half" if reverse else "its forward half"
                lacks = f"lacks {what}" if {r for at, r in found if at == layer} else "is missing"
                raise ValueError(f"layer {layer} {lacks}: there is no 'weight_hh_l{layer}{reverse}'")
    return [[{part: f"{part}_l{layer}{reverse}" for part in PARTS} for reverse in endings] for layer in range(count)]


def prefixes(keys: Iterable[str]) -> list[str]:
    """Prefixes under which a network's tensors lie."""
    found = set()
    for key in keys:
        for mark in MARKS:
            head = key.removesuffix(mark)
            if head != key and (head == "" or head.endswith((".", "/", "_"))):
                found.add(head)
    return sorted(found)


def from_pytorch(
    arrays: Mapping[str, NDArray], names: Mapping[str, str], cell: str | None
) -> tuple[str, dict[str, NDArray]]:
    """(cell, parameters W, U, b) from PyTorch's arrays.

    Parameters
    ----------
    arrays : mapping
        weight_ih (G n, m), weight_hh (G n, n) and, both or neither, bias_ih (G n,), bias_hh (G n,).
    names : mapping
        What to call each of them in an error.
    cell : str or None
        "lstm", "gru" or "vanilla"; None infers it from the shape of weight_hh.
    """
    missing = [names[part] for part in PARTS[:2] if part not in arrays]
    biases = [part for part in PARTS[2:] if part in arrays]
    if len(biases) == 1:
        missing += [names[part] for part in PARTS[2:] if part not in arrays]
    if missing:
        raise ValueError(
            f"missing tensors: {', '.join(map(repr, missing))}"
            + ("; a network without bias lacks both biases" if len(biases) == 1 else "")
        )
    ih, hh = arrays["weight_ih"], arrays["weight_hh"]
    for part, weight in (("weight_ih", ih), ("weight_hh", hh)):
        if weight.ndim != 2:
            raise ValueError(f"{names[part]!r} has shape {weight.shape}; it must be a matrix with G n rows")
    cell = _cell(names["weight_hh"], hh.shape, cell)
    G, n, m = GATES[cell], hh.shape[1], ih.shape[1]
    if ih.shape[0] != G * n:
        raise ValueError(
            f"{names['weight_ih']!r} has shape {ih.shape}; it must have shape ({G * n}, m) for {cell!r} with n = {n}"
        )
    bias = {part: arrays.get(part, np.zeros(G * n, hh.dtype)) for part in PARTS[2:]}
    for part, value in bias.items():
        if value.shape != (G * n,):
            raise ValueError(f"{names[part]!r} has shape {value.shape}; it must have shape ({G * n},)")
    b_ih, b_hh = (bias[part].reshape(G, n) for part in PARTS[2:])
    b = b_ih + b_hh
    if cell == "gru":  # the candidate's recurrent bias stands inside the reset, its input bias outside
        b = np.concatenate([b[:2], b_hh[2:], b_ih[2:]])
    return cell, {"W": hh.reshape(G, n, n), "U": ih.reshape(G, n, m), "b": b}


def readout_from_linear(weight: NDArray, bias: NDArray | None, name: str, n: int) -> dict[str, NDArray]:
    """V, c from the weight (p, n) and bias (p,) of a linear layer; no bias means zeros."""
    if weight.ndim != 2 or weight.shape[1] != n or weight.shape[0] < 1:
        raise ValueError(f"{name + 'weight'!r} has shape {weight.shape}; a readout must have shape (p, {n})")
    if bias is None:
        bias = np.zeros(len(weight), weight.dtype)
    if bias.shape != weight.shape[:1]:
        raise ValueError(f"{name + 'bias'!r} has shape {bias.shape}; it must have shape ({len(weight)},)")
    return {"V": weight, "c": bias}


def infer_own(arrays: Mapping[str, NDArray]) -> str:
    """Cell of parameters in our own names, where the number of gates tells it."""
    W = arrays["W"]
    gates = {CELLS[name].recurrent: name for name in GATES}
    if W.ndim != 3 or "W2" in arrays or len(W) not in gates:
        raise ValueError(
            f"the file does not say its cell, and W {W.shape} does not tell it; give cell=, one of {', '.join(CELLS)}"
        )
    return gates[len(W)]


def _cell(name: str, shape: tuple[int, ...], cell: str | None) -> str:
    if cell is not None and cell not in GATES:
        raise ValueError(f"cell is {cell!r}; tensors in PyTorch order make one of {', '.join(GATES)}")
    rows, n = shape
    found = next((known for known, G in GATES.items() if n > 0 and rows == G * n), None)
    if cell is not None and found != cell:
        looks = f", the shape of {found!r}" if found else ""
        wanted = f"({GATES[cell]}n, n)"
        raise ValueError(f"cell is {cell!r}, which needs {name!r} of shape {wanted}; it has shape {shape}{looks}")
    if found is None:
        shapes = ", ".join(f"({G}n, n) for {known}" for known, G in GATES.items())
        raise ValueError(f"{name!r} has shape {shape}; it must be {shapes}")
    return found
