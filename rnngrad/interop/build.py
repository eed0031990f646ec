"""From arrays in PyTorch's order to a network or a stack: shared by files and modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..network import Network
from ..stack import Stack
from . import layout

SAVED_CONSTANTS = ("mask", "scale", "shift")  # those that one array per unit tells; tau and dt tell alpha

#: [layer][direction][part] -> name in the layout
Layers = list[list[dict[str, str]]]


def network_from_pytorch(
    layers: Layers,
    arrays: Mapping[str, NDArray],
    spelled: Mapping[str, str],
    cell: str | None,
    activation: str | None,
    readout: tuple[str, NDArray, NDArray | None] | None,
) -> Network | Stack:
    """A one-layer network, or a stack where there are more layers or directions.

    Parameters
    ----------
    layers
        Names of the parts, from :func:`layout.pytorch_layers`.
    arrays, spelled : mapping
        By those names: what there is, and what to call each name in an error.
    readout : (name, weight, bias or None)
    """
    rows: list[list[dict[str, NDArray]]] = []
    for row in layers:
        rows.append([])
        for names in row:
            own = {part: arrays[name] for part, name in names.items() if name in arrays}
            called = {part: spelled.get(name, name) for part, name in names.items()}
            cell, parameters = layout.from_pytorch(own, called, cell)
            rows[-1].append(parameters)
    assert cell is not None
    width = sum(parameters["W"].shape[1] for parameters in rows[-1])
    top = {} if readout is None else layout.readout_from_linear(readout[1], readout[2], readout[0], width)
    if len(rows) == 1 and len(rows[0]) == 1:
        return Network.from_parameters(cell, rows[0][0] | top, activation=activation)
    nets = [[Network.from_parameters(cell, parameters, activation=activation) for parameters in row] for row in rows]
    return Stack.from_layers(nets, top.get("V"), top.get("c"))


def own_arrays(net: Network | Stack) -> tuple[dict[str, NDArray], list[list[dict[str, Any]]]]:
    """Arrays by our own names, and what else makes each [layer][direction]: cell, activation, dt."""
    rows = ((net,),) if isinstance(net, Network) else net.layers
    arrays = dict(net.parameters) if isinstance(net, Network) else dict(net.parameters())
    described: list[list[dict[str, Any]]] = []
    for layer, row in enumerate(rows):
        described.append([])
        for part, ending in zip(row, own_endings(layer) if isinstance(net, Stack) else ("",), strict=False):
            described[-1].append({"cell": part.cell.name, "activation": part.activation})
            if part.dt is not None and part.tau is not None:
                arrays["tau" + ending] = part.tau
                described[-1][-1]["dt"] = repr(float(part.dt))
            if np.ndim(part.constants.get("mask", 0)) > 1:
                raise ValueError("net holds the masks of one rollout; save the network that dropout was given to")
            arrays |= {name + ending: part.constants[name] for name in SAVED_CONSTANTS if name in part.constants}
    return arrays, described


def own_endings(layer: int) -> tuple[str, str]:
    """Endings of our names of a stack's layer, for both directions."""
    return f"_l{layer}", f"_l{layer}_reverse"
