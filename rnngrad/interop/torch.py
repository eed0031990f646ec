"""PyTorch modules as networks; torch itself is imported only when it is needed."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ..network import Network
from . import layout
from .containers import to_precision

_MODULES = {"RNN": "vanilla", "LSTM": "lstm", "GRU": "gru"}


def from_torch(module: Any, *, readout: Any = None, dtype: str | None = None) -> Network:
    """Network with the parameters of a PyTorch module, detached and copied.

    The network takes its inputs time-major, (T, B, m), whatever the module's ``batch_first``: transpose them if they
    are (B, T, m). Parameters do not depend on it.

    Parameters
    ----------
    module : torch.nn.Module
        RNN, LSTM or GRU with one layer, one direction and no projection, or RNNCell, LSTMCell, GRUCell.
    readout : torch.nn.Linear, optional
        Its weight (p, n) and bias (p,) become V and c.
    dtype : str, optional
        "float64" or "float32" converts; by default the network has the module's precision.

    Returns
    -------
    Network

    Raises
    ------
    ImportError
        torch is not installed (extra ``rnngrad[torch]``).
    ValueError
        Another module; more than one layer, two directions or a projection; a parameter that is not finite, or is
        half precision without ``dtype``.
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
    ending = "_l0" if isinstance(module, nn.RNNBase) else ""
    if isinstance(module, nn.RNNBase):
        for name, value, wanted in (
            ("num_layers", module.num_layers, 1),
            ("bidirectional", module.bidirectional, False),
            ("proj_size", getattr(module, "proj_size", 0), 0),
        ):
            if value != wanted:
                raise ValueError(f"module has {name}={value}; {layout.SUPPORTED}")
    arrays = {
        part: _numpy(part + ending, getattr(module, part + ending), dtype)
        for part in layout.PARTS
        if module.bias or part.startswith("weight")
    }
    _, parameters = layout.from_pytorch(arrays, {part: part + ending for part in layout.PARTS}, cell)
    if readout is not None:
        if not isinstance(readout, nn.Linear):
            raise ValueError(f"readout is {type(readout).__name__}; it must be a torch.nn.Linear")
        weight = _numpy("readout.weight", readout.weight, dtype)
        bias = None if readout.bias is None else _numpy("readout.bias", readout.bias, dtype)
        parameters |= layout.readout_from_linear(weight, bias, "readout.", parameters["W"].shape[1])
    activation = getattr(module, "nonlinearity", "tanh") if cell == "vanilla" else None
    return Network.from_parameters(cell, parameters, activation=activation)


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
