"""What a report is about: a network and its input, from files or from Python, cut to what can be afforded."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dynamics.system import System
from ..interop.files import load
from ..network import Network
from ..stack import Stack

SAMPLES = 8  # of a batch that are looked at
NUMBERS = 5e7  # partial derivatives that are held at once


def read_network(source: Any, cell: str | None, prefix: str) -> tuple[Network | Stack | System, dict[str, Any]]:
    """The network, and where it comes from."""
    if isinstance(source, (Network, Stack, System)):
        return source, {"model": None, "model_sha256": None}
    if not isinstance(source, (str, Path)):
        raise ValueError(
            f"net is {type(source).__name__}; it must be a Network, a Stack or the path of a .safetensors or .npz file"
        )
    net = load(source, cell=cell, prefix=prefix)
    return net, {"model": str(source), "model_sha256": _sha256(source), "prefix": prefix}


def read_input(source: Any, net: Any) -> tuple[NDArray, dict[str, Any]]:
    """Input (T, B, m) in the network's precision, and where it comes from.

    Raises
    ------
    ValueError
        Not an array of real numbers of shape (T, m) or (T, B, m).
    """
    said: dict[str, Any] = {"input": None, "input_sha256": None, "converted_from": None}
    x = source
    if isinstance(source, (str, Path)):
        said |= {"input": str(source), "input_sha256": _sha256(source)}
        x = _read_npy(Path(source))
    x = np.asarray(x)
    if x.dtype.kind not in "fiub":
        raise ValueError(f"the input has dtype {x.dtype}; it must be real numbers")
    if x.ndim not in (2, 3) or x.shape[-1] != net.m or 0 in x.shape[:-1]:
        raise ValueError(
            f"the input has shape {x.shape}; it must be (T, {net.m}) or (T, B, {net.m}), time first, for a network of "
            f"{net.m} inputs"
        )
    if x.dtype.newbyteorder("=") != net.dtype:
        said["converted_from"] = x.dtype.name
    x = np.ascontiguousarray(x, dtype=net.dtype)
    return (x[:, None] if x.ndim == 2 else x), said


def affordable(net: Any, x: NDArray) -> NDArray:
    """The first samples and the first steps of x, as many as a report can afford."""
    x = x[:, :SAMPLES]
    each = x.shape[1] * _partials(net)
    return np.ascontiguousarray(x[: max(int(NUMBERS // each), 1)])


def held(net: Any, x: NDArray) -> bool:
    """Whether the network is one map at every step of x (T, B, m): one layer, and an input that does not change.

    A single step of an input does not tell.
    """
    if isinstance(net, Network):
        one_map = all(value.ndim < 3 for value in net.constants.values())  # masks of dropout are drawn for steps
    else:
        one_map = isinstance(net, System)
    return one_map and (net.m == 0 or (len(x) > 1 and bool((x == x[:1]).all())))


def _partials(net: Any) -> int:
    """Partial derivatives of one step of one sample."""
    if isinstance(net, Stack):
        return sum(_partials(one) for row in net.layers for one in row)
    return net.N * (net.S + len(net.cell.gates) + len(net.cell.gates2) if isinstance(net, Network) else net.n)


def _read_npy(path: Path) -> NDArray:
    try:
        with path.open("rb") as file:
            if file.read(6) != b"\x93NUMPY":
                raise ValueError(f"{path} is not a .npy file (made by numpy.save)")
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, SyntaxError) as error:
        text = str(error)
        raise ValueError(text if str(path) in text else f"{path} cannot be read as a .npy file: {text}") from error


def _sha256(path: Any) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
