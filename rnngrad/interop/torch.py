"""PyTorch modules as networks; torch itself is imported only when it is needed."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ..network import Network
from ..stack import Stack
from . import layout
from .build import network_from_pytorch
from .containers import to_precision

_MODULES = {"RNN": "vanilla", "LSTM": "lstm", "GRU": "gru"}


def from_torch(module: Any, *, readout: Any = None, dtype: str | None = None) -> Network | Stack:
    """Network with the parameters of a PyTorch module, detached and copied.

    Several layers, or two directions, make a :class:`Stack`. Parameters do not depend on the module's ``batch_first``:
    give inputs (B, T, m) to ``rollout`` with ``batch_first=True``; all results are time-major.

    Parameters
    ----------
    module : torch.nn.Module
        RNN, LSTM or GRU of any number of layers and directions, without projection; or RNNCell, LSTMCell, GRUCell.
    readout : torch.nn.Linear, optional
        Its weight (p, n) and bias (p,) become V and c (n counts both directions).
    dtype : str, optional
        "float64" or "float32" converts; by default the network has the module's precision.

    Returns
    -------
    Network, or Stack

    Raises
    ------
    ImportError
        torch is not installed (extra ``rnngrad[torch]``).
    ValueError
        Another module; a projection; a parameter that is not finite, or is half precision without ``dtype``.
    """
    try:
        from torch import nn
    except ImportError as error:
        raise ImportError("from_torch needs PyTorch; install the extra: pip install 'rnngrad[torch]'") from error
    supported = {name + end: (getattr(nn, name + end), cell) for name, cell in _MODULES.items() for end in ("", "Cell")}
    cell = next((cell for kind, cell in supported.values() if isinstance(module, kind)), None)
    if cell is None:
        raise ValueError(
            f"module is {type(module).__name__}; it must be one of {', '.join(supported)}" + _inside(module, nn)
        )
    if getattr(module, "proj_size", 0):
        raise ValueError(f"module has proj_size={module.proj_size}; projections are not supported")
    names = {name: name for name, _ in module.named_parameters(recurse=False)}
    layers = layout.pytorch_layers(names)
    assert layers is not None
    arrays = {name: _numpy(name, getattr(module, name), dtype) for name in names}
    top = None
    if readout is not None:
        if not isinstance(readout, nn.Linear):
            raise ValueError(f"readout is {type(readout).__name__}; it must be a torch.nn.Linear")
        weight = _numpy("readout.weight", readout.weight, dtype)
        top = "readout.", weight, None if readout.bias is None else _numpy("readout.bias", readout.bias, dtype)
    activation = getattr(module, "nonlinearity", "tanh") if cell == "vanilla" else None
    return network_from_pytorch(layers, arrays, names, cell, activation, top)


def _numpy(name: str, parameter: Any, dtype: str | None) -> NDArray:
    value, stored = parameter.detach().cpu(), str(parameter.dtype).removeprefix("torch.")
    if stored == "bfloat16":
        value = value.float()  # NumPy has no bfloat16; float32 holds every one of them
    return to_precision(name, value.numpy(), stored, dtype)


def _inside(module: Any, nn: Any) -> str:
    """Where in a larger model the recurrent modules are."""
    if not isinstance(module, nn.Module):
        return ""
    kinds = (nn.RNNBase, nn.RNNCellBase)
    parts = [(name, part) for name, part in module.named_modules() if isinstance(part, kinds)]
    names = [f"module.{name} ({type(part).__name__})" for name, part in parts]
    return f"; it contains {', '.join(names)}" if names else ""
