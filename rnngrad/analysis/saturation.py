"""How much of the time gates are next to closed or open, and values on the flat ends of the activation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._results import Result
from ..dynamics.rollout import Trajectory
from ..dynamics.unit_means import activation_means
from ..network import Network


@dataclass(frozen=True)
class Saturation(Result):
    """Shares of the steps, per gate or value and per unit. Padded steps do not count.

    Attributes
    ----------
    names : tuple of str (R,)
        Which pre-activation: "f" for a forget gate, "h" for a unit's value, ….
    kinds : tuple of str (R,)
        "gate" for a logistic gate, "value" for what passes the activation.
    low, high : ndarray (R, n)
        Share of steps at the lower end (gate < ``low_level``, tanh < -``value_level``, relu off) and at the upper end.
    mean : ndarray (R, n)
        Mean of the gate or of the activated value over the steps.
    slope : ndarray (R, n)
        Mean of the derivative of the gate or the activation: how much gradient passes on average.
    low_level, high_level, value_level : float
        Where saturation begins.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    mean: NDArray[np.float64]
    slope: NDArray[np.float64]
    low_level: float
    high_level: float
    value_level: float

    @property
    def share(self) -> NDArray[np.float64]:
        """Share of steps at either end, (R, n)."""
        return self.low + self.high

    def of(self, name: str) -> int:
        """Row of a gate or value."""
        return self.names.index(_checks.choice("name", name, self.names))


def saturation(
    traj: Trajectory, *, low_level: float = 0.01, high_level: float = 0.99, value_level: float = 0.99
) -> Saturation:
    """Saturation of units and gates along a trajectory.

    A gate is saturated below ``low_level`` (closed) or above ``high_level`` (open); a tanh beyond +-``value_level``;
    a logistic value like a gate; a relu where it is off; a softplus where its slope is below ``low_level``; the
    identity never. Pre-activations that are only a part of a value (the two halves of a GRU's candidate, the factors of
    a multiplicative network) are left out.

    Parameters
    ----------
    traj : Trajectory or DeviceTrajectory
        Of a :class:`Network`. The result is on the host: four numbers for each unit and gate are all that comes there.
    low_level, high_level, value_level : float
        Levels in (0, 1).

    Returns
    -------
    Saturation

    Raises
    ------
    ValueError
        A level is out of range, or the trajectory belongs to a user's system.
    """
    if not isinstance(traj.net, Network):
        raise ValueError("saturation needs a Network: a user's system declares no gates or activations")
    for name, level in (("low_level", low_level), ("high_level", high_level), ("value_level", value_level)):
        _checks.number(name, level, 0.0, 1.0, open_low=True)
    rows = []
    for name, kind, z, column in pre_activations(traj):
        activation = "logistic" if kind == "gate" else traj.net.activation
        means = activation_means(traj, z, column, activation, (low_level, high_level, value_level))
        rows.append((name, kind, *means))
    names, kinds, *parts = zip(*rows, strict=True) if rows else ((), (), (), (), (), ())
    low, high, mean, slope = (np.array(part).reshape(len(names), traj.net.n) for part in parts)
    return Saturation(names, kinds, low, high, mean, slope, low_level, high_level, value_level)


def pre_activations(traj: Trajectory) -> list[tuple[str, str, NDArray, int]]:
    """(name, kind, z (T, B, C, n), column) of every gate and value: where they lie among pre-activations or states.

    ``phi`` or the logistic function of z is what they are worth.
    """
    cell = traj.net.cell
    if not cell.outputs_state:  # the state itself is the pre-activation: h = phi(s)
        return [("h", "value", traj.states[1:], 0)]
    first = [(cell.gates[i], kind, traj.a, i) for i, kind in enumerate(cell.gate_kinds)]
    second = [(cell.gates2[i], kind, traj.a2, i) for i, kind in enumerate(cell.gate_kinds2)]
    return [row for row in first + second if row[1] != "part"]
