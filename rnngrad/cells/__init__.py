"""The cells: one module each, plain scalar mathematics in the form emit -> product -> inner -> product -> update.

For every unit i of a network with state s_i (a tuple), constants k_i and pre-activations a_i (a tuple):

    e_i  = emit(s_i)                     what the unit sends into the recurrent product
    a    = W e + U x + b
    q_i  = inner(s_i, a_i)               two-stage cells only
    a2   = W2 q + U2 x + b2              two-stage cells only
    s'_i = update(s_i, a_i, a2_i)
    h_i  = output(s'_i)                  what the readout sees

Each unit ``f`` has a companion ``f_vjp`` that returns g . df/d(argument) for a cotangent g; from these two come
rollout, Jacobians, chains and all gradients. The first argument ``phi`` is the number of the candidate's activation.
A module declares what differs from the defaults in :class:`Cell`; to add a cell, write its module and list it here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._math import ACTIVATIONS
from . import (
    continuous,
    gated_unit,
    gru,
    gru_delayed,
    gru_dropout,
    gru_reset_before,
    gru_reset_before_dropout,
    lstm,
    lstm_dropout,
    lstm_scaled,
    mgu,
    mrnn,
    vanilla,
    vanilla_s,
)


@dataclass(frozen=True)
class Cell:
    """A cell's module with its declarations, defaults filled in.

    ``gates`` are the first-stage pre-activations, those with a recurrent part first (``recurrent`` of them);
    ``inputs`` and ``biases`` say which of them have rows in U and b. ``*_by_*`` are the structural non-zeros of the
    partial derivatives. ``gate_kinds`` tells the saturation analysis what a pre-activation is: a logistic "gate",
    a "value" through phi, or a "part" of one. ``built_in`` kernels are kept on disk; those of a registered cell are
    compiled anew by each process, since its source is not ours to watch.
    """

    name: str
    module: Any
    states: tuple[str, ...]
    gates: tuple[str, ...]
    recurrent: int
    inputs: tuple[int, ...]
    biases: tuple[int, ...]
    gates2: tuple[str, ...]
    constants: tuple[str, ...]
    activation: str
    activations: tuple[str, ...]
    emits_state: bool
    outputs_state: bool
    gate_kinds: tuple[str, ...]
    gate_kinds2: tuple[str, ...]
    update_by_state: tuple[tuple[int, ...], ...]
    update_by_gate: tuple[tuple[int, ...], ...]
    update_by_gate2: tuple[tuple[int, ...], ...]
    inner_by_state: tuple[int, ...]
    inner_by_gate: tuple[int, ...]
    built_in: bool = True

    def __hash__(self) -> int:  # asked at every launch of a kernel
        return hash(self.name)

    @classmethod
    def from_module(
        cls, name: str, module: Any, activations: tuple[str, ...] | None = None, *, built_in: bool = True
    ) -> Cell:
        def declared(constant, default):
            return getattr(module, constant, default)

        gates, gates2 = module.GATES, declared("GATES2", ())
        S, P, P2 = len(module.STATES), len(gates), len(gates2)
        return cls(
            name=name,
            module=module,
            states=module.STATES,
            gates=gates,
            recurrent=declared("RECURRENT", P),
            inputs=declared("INPUT", tuple(range(P))),
            biases=declared("BIAS", tuple(range(P))),
            gates2=gates2,
            constants=declared("CONSTANTS", ()),
            activation=declared("ACTIVATION", activations[0] if activations else "tanh"),
            activations=activations or tuple(ACTIVATIONS),
            emits_state=declared("EMITS_STATE", True),
            outputs_state=declared("OUTPUTS_STATE", True),
            gate_kinds=declared("GATE_KINDS", ("value",) * P),
            gate_kinds2=declared("GATE_KINDS2", ("value",) * P2),
            update_by_state=declared("UPDATE_BY_STATE", ((1,) * S,) * S),
            update_by_gate=declared("UPDATE_BY_GATE", ((1,) * P,) * S),
            update_by_gate2=declared("UPDATE_BY_GATE2", ((1,) * P2,) * S),
            inner_by_state=declared("INNER_BY_STATE", (1,) * S),
            inner_by_gate=declared("INNER_BY_GATE", (1,) * P),
            built_in=built_in,
        )

    @property
    def n_states(self) -> int:
        return len(self.states)

    @property
    def two_stage(self) -> bool:
        return bool(self.gates2)

    @property
    def unit_wise(self) -> bool:
        """Whether a unit is one state of one gate without constants: those of several samples make one longer row."""
        return self.n_states == len(self.gates) == 1 and not self.two_stage and not self.constants

    def shapes(self, n: int, m: int) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter for n units and m inputs, gate axis first."""
        shapes: dict[str, tuple[int, ...]] = {
            "W": (self.recurrent, n, n),
            "U": (len(self.inputs), n, m),
            "b": (len(self.biases), n),
        }
        if self.two_stage:
            G2 = len(self.gates2)
            shapes |= {"W2": (G2, n, n), "U2": (G2, n, m), "b2": (G2, n)}
        return shapes


#: Every built-in cell by name.
CELLS: dict[str, Cell] = {
    cell.name: cell
    for cell in (
        Cell.from_module("vanilla", vanilla),
        Cell.from_module("linear", vanilla, activations=("identity",)),
        Cell.from_module("vanilla_s", vanilla_s),
        Cell.from_module("continuous", continuous),
        Cell.from_module("lstm", lstm),
        Cell.from_module("gru", gru),
        Cell.from_module("gru_reset_before", gru_reset_before),
        Cell.from_module("gru_delayed", gru_delayed),
        Cell.from_module("gated_unit", gated_unit),
        Cell.from_module("mgu", mgu),
        Cell.from_module("mrnn", mrnn),
    )
}

#: Built-in cells with a mask on the value, for recurrent dropout; by the name of the cell without.
MASKED: dict[str, Cell] = {
    name: Cell.from_module(f"{name}_dropout", module)
    for name, module in (("lstm", lstm_dropout), ("gru", gru_dropout), ("gru_reset_before", gru_reset_before_dropout))
}

#: The LSTM that a batch-normalised one is with fixed statistics.
LSTM_SCALED = Cell.from_module("lstm_scaled", lstm_scaled)

#: Cells that others turn into; known by name, but not offered as cells of their own.
VARIANTS: dict[str, Cell] = {cell.name: cell for cell in (*MASKED.values(), LSTM_SCALED)}
