"""Networks in files: ``load`` reads PyTorch's order and our own from .safetensors and .npz, ``save`` writes our own."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from .. import _checks
from ..network import Network
from ..stack import Stack
from . import layout
from .build import SAVED_CONSTANTS, network_from_pytorch, own_arrays, own_endings
from .containers import Container, open_container, to_precision, write_container

_log = logging.getLogger(__name__)


def load(
    path: str | os.PathLike[str],
    cell: str | None = None,
    prefix: str = "",
    *,
    readout: str | None = None,
    activation: str | None = None,
    dtype: str | None = None,
) -> Network | Stack:
    """Network from a .safetensors or .npz file. No pickle is ever loaded, and nothing in the file is executed.

    Two layouts are understood under ``prefix``: PyTorch's (weight_ih, weight_hh, bias_ih, bias_hh of a cell, or
    weight_ih_l0, …, weight_ih_l1_reverse, … of a module; no biases means zeros), and our own (W, U, b, W2, U2, b2, V,
    c, with endings _l0, … for a stack) as written by :func:`save`. A PyTorch LSTM's gates i, f, g, o become i, f, v, o;
    a GRU's r, z, n become r, u, candidate.

    Parameters
    ----------
    path : path
        A .safetensors or .npz file.
    cell : str, optional
        In PyTorch's order "lstm", "gru" or "vanilla", else any of ``rnngrad.CELLS``. By default what the file says or,
        in PyTorch's order, what weight_hh (G n, n) tells: 4 gates lstm, 3 gru, 1 vanilla. ``net.cell.name`` states it.
    prefix : str
        Only tensors whose names begin with it are read, such as "lstm_cell."; tensors elsewhere are ignored.
    readout : str, optional
        Prefix of a linear layer, such as "fc.": its weight (p, n) and bias (p,) become V and c.
    activation : str, optional
        A file in PyTorch's order does not hold an RNN's nonlinearity: give "relu" if it is not tanh.
    dtype : str, optional
        "float64" or "float32" converts; by default the network has the file's precision. float16 and bfloat16
        must be converted.

    Returns
    -------
    Network, or Stack where there are several layers or two directions
        It takes its inputs time-major, (T, B, m).

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        Not such a file; tensors are missing, left over, of the wrong shape or dtype or not finite; ``cell`` does not
        fit the shapes; a layer or a direction is left out; a projection; or a pickle (.pt, .pth).
    ImportError
        A .safetensors file without the package safetensors (extra ``rnngrad[safetensors]``).
    """
    file = open_container(path)
    head: set[str] = set() if readout is None else {f"{readout}weight", f"{readout}bias"}
    inside = {key.removeprefix(prefix): key for key in file.keys if key.startswith(prefix) and key not in head}
    layers = layout.pytorch_layers(inside)
    if layers is None and not {"W", "W_l0"} & set(inside):
        raise ValueError(f"{path} has no network under prefix {prefix!r}" + _advice(file, prefix))
    if layers is None:
        if readout is not None:
            raise ValueError(f"readout is {readout!r}, but {path} is in our own layout, where the readout is V and c")
        return _from_own(file, _read(file, inside, dtype), cell, activation)

    names = [name for row in layers for parts in row for name in parts.values()]
    extra = sorted(key for name, key in inside.items() if name not in names)
    if extra:
        raise ValueError(
            f"{path} has tensors under prefix {prefix!r} that are not part of one PyTorch module: "
            f"{', '.join(map(repr, extra))}" + _advice(file, prefix)
        )
    wanted = {name: inside[name] for name in names if name in inside}
    if readout is not None:
        if f"{readout}weight" not in file.keys:
            missing = f"{readout}weight"
            raise ValueError(f"readout is {readout!r}, but {path} has no {missing!r}; it has {_listed(file.keys)}")
        wanted |= {f"readout {key}": key for key in head if key in file.keys}
    arrays = _read(file, wanted, dtype)
    top = None
    if readout is not None:
        weight, bias = (arrays.get(f"readout {readout}{part}") for part in ("weight", "bias"))
        assert weight is not None
        top = readout, weight, bias
    net = network_from_pytorch(layers, arrays, {name: prefix + name for name in names}, cell, activation, top)
    if cell is None:
        first = layers[0][0]["weight_hh"]
        found = (net if isinstance(net, Network) else net.layers[0][0]).cell.name
        _log.info("%s: cell %r inferred from %s %s", path, found, inside[first], arrays[first].shape)
    return net


def save(net: Network | Stack, path: str | os.PathLike[str]) -> None:
    """Write a network to a .safetensors or .npz file; :func:`load` gives it back bit for bit.

    Parameters
    ----------
    net : Network or Stack
        Parameters go by our own names, W, U, b, …; cell, activation, dt and tau lie beside them.
    path : path
        Ends in .safetensors or .npz; an existing file is replaced.

    Raises
    ------
    ValueError
        Neither of these, or another suffix.
    """
    if not isinstance(net, (Network, Stack)):
        raise ValueError(f"net is {type(net).__name__}; only a Network or a Stack can be saved")
    if isinstance(net, Stack) and any(not isinstance(one, Network) for row in net.layers for one in row):
        raise ValueError("net has a System among its layers; a user's function cannot be saved")
    arrays, described = own_arrays(net)
    if isinstance(net, Network):
        write_container(path, arrays, described[0][0])
    else:
        write_container(path, arrays, {"stack": json.dumps({"layers": described, "feedback": net.feedback})})


def _read(file: Container, wanted: Mapping[str, str], dtype: Any) -> dict[str, NDArray]:
    """The arrays, checked one by one and to be of one precision; tau is float64 whatever the rest is."""
    arrays = {}
    for name, key in wanted.items():
        arrays[name] = to_precision(repr(key), *file.array(key), "float64" if name.startswith("tau") else dtype)
    by_dtype = {array.dtype: wanted[name] for name, array in arrays.items() if not name.startswith("tau")}
    if len(by_dtype) > 1:
        listed = ", ".join(f"{key!r} is {found.name}" for found, key in by_dtype.items())
        raise ValueError(f"the file mixes precisions: {listed}; give dtype='float64' or dtype='float32' to convert all")
    return arrays


def _from_own(file: Container, arrays: dict[str, NDArray], cell: str | None, activation: str | None) -> Network | Stack:
    said = file.metadata
    if "W" in arrays:
        for argument, given in (("cell", cell), ("activation", activation)):
            if given is not None and said.get(argument, given) != given:
                raise ValueError(f"{argument} is {given!r}, but the file says {said[argument]!r}")
        return _one_layer(arrays, {"cell": cell, "activation": activation} | dict(said))
    if "stack" not in said:
        raise ValueError("the file has layers W_l0, … but does not say their cells; save writes both")
    if cell is not None or activation is not None:
        raise ValueError("the file says the cell and the activation of every layer; leave out cell= and activation=")
    rows: list[list[Network]] = []
    top = {name: arrays.pop(name) for name in ("V", "c") if name in arrays}
    described = json.loads(said["stack"])
    for layer, row in enumerate(described["layers"]):
        rows.append([])
        for part, ending in zip(row, own_endings(layer), strict=False):
            own = {name: key for key in arrays if (name := key.removesuffix(ending)) != key and "_" not in name}
            rows[-1].append(_one_layer({name: arrays.pop(key) for name, key in own.items()}, part))
    if arrays:
        raise ValueError(f"tensors that belong to no layer: {', '.join(map(repr, sorted(arrays)))}")
    return Stack.from_layers(rows, top.get("V"), top.get("c"), feedback=described["feedback"])


def _one_layer(arrays: dict[str, NDArray], said: Mapping[str, Any]) -> Network:
    """A network from arrays by our own names and what is said of it."""
    tau = arrays.pop("tau", None)
    constants = {name: arrays.pop(name) for name in SAVED_CONSTANTS if name in arrays}
    cell = said.get("cell") or layout.infer_own(arrays)
    if cell == "continuous" and (tau is None or "dt" not in said):
        raise ValueError("a continuous-time network's file must hold dt and tau; save writes both")
    dt = _checks.number("dt", said["dt"]) if "dt" in said else None
    net = Network.from_parameters(cell, arrays, activation=said.get("activation"), dt=dt, tau=tau)
    if set(constants) != set(net.constants) - {"alpha"}:
        raise ValueError(f"the file holds the constants {sorted(constants)}; {cell!r} has {sorted(net.constants)}")
    checked = {name: _checks.array(name, value, (net.n,), net.dtype) for name, value in constants.items()}
    return dataclasses.replace(net, constants={**net.constants, **checked}) if checked else net


def _advice(file: Container, prefix: str) -> str:
    """What would work instead."""
    others = [other for other in layout.prefixes(file.keys) if other != prefix]
    if others:
        return f"; prefixes that hold one: {', '.join(map(repr, others))}"
    linear = [key.removesuffix("weight") for key in file.keys if key.endswith(".weight")]
    if linear and layout.prefixes(file.keys):
        return f"; a linear layer on top is named by readout=, such as readout={linear[0]!r}"
    return f"; the file has {_listed(file.keys)}"


def _listed(keys: tuple[str, ...]) -> str:
    shown = ", ".join(map(repr, keys[:8]))
    return shown + (f" and {len(keys) - 8} more" if len(keys) > 8 else "") if keys else "no tensors"
