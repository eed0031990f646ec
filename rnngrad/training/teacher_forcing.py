"""Teacher forcing: the target of the step before in place of the network's own output, and what it hides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from .._results import Result
from ..dynamics.rollout import rollout
from ..dynamics.stack import StackTrajectory
from ..network import Network
from ..stack import Stack


@dataclass(frozen=True)
class ExposureGap(Result):
    """Error of a network that is given the truth at every step, and of the same one on its own outputs.

    Attributes
    ----------
    forced, free : ndarray (T,)
        Root mean square of y_t - z_t over samples and outputs, in the target's units.
    """

    forced: NDArray[np.float64]
    free: NDArray[np.float64]


def teacher_forcing(net: Stack, x: Any, target: Any, s0: Any = None, lengths: Any = None) -> StackTrajectory:
    """Trajectory of a stack with feedback that is fed the targets: inputs [x_t; z_{t-1}], z_0 = 0.

    Parameters
    ----------
    net : Stack
        With ``feedback``.
    x : array (T, B, m)
    target : array (T, B, p)
        z_1 … z_T; the last one is not fed.

    Returns
    -------
    StackTrajectory
        Of ``net.teacher_forced()``: what is fed is an input, so no gradient runs through it.

    Raises
    ------
    ValueError
        The stack has no feedback, or the target does not fit.
    """
    x, z = _arguments(net, x, target)
    before = np.concatenate([np.zeros_like(z[:1]), z[:-1]])
    return rollout(net.teacher_forced(), np.concatenate([x, before], axis=-1), s0, lengths)


def triplets(net: Stack, x: Any, target: Any) -> tuple[StackTrajectory, NDArray]:
    """Teacher forcing without recursion: the triplets (x_t, z_{t-1}, z_t) as one step of T B samples.

    Where the output is the only thing that recurs (y_t = f(x_t, y_{t-1}), note 000), the truth cuts every tie between
    the steps: they run in parallel, and the gradient is the sum of the triplets' own.

    Parameters
    ----------
    net : Stack
        With ``feedback``, and no other recurrence: W = 0 in every layer, no state kept by a unit itself.
    x, target
        As for :func:`teacher_forcing`.

    Returns
    -------
    (StackTrajectory, ndarray)
        One step of T B samples, sample t B + b being step t + 1 of sequence b, and its targets (1, T B, p).

    Raises
    ------
    ValueError
        A layer carries a state from step to step; or as :func:`teacher_forcing`.
    """
    x, z = _arguments(net, x, target)
    for layer, (part,) in enumerate(net.layers):
        network = isinstance(part, Network)
        own = not network or np.any(np.array(part.cell.update_by_state)) or part.cell.two_stage
        if own or np.any(part.W):
            raise ValueError(
                f"layer {layer} carries a state from step to step, so its steps are not independent; triplets need "
                "W = 0 and a cell without memory of its own (use teacher_forcing)"
            )
    before = np.concatenate([np.zeros_like(z[:1]), z[:-1]])
    inputs = np.concatenate([x, before], axis=-1)
    count = z.shape[0] * z.shape[1]
    traj = rollout(net.teacher_forced(), inputs.reshape(1, count, -1))
    return traj, z.reshape(1, count, -1)


def exposure_gap(net: Stack, x: Any, target: Any, s0: Any = None) -> ExposureGap:
    """Error step by step under teacher forcing, and running free from the same start.

    Trained on the truth alone, a network never meets its own errors; running free they feed on themselves (the
    exposure bias of Bengio et al. 2015).

    Returns
    -------
    ExposureGap
    """
    x, z = _arguments(net, x, target)
    errors = [np.asarray(traj.y - z, float) for traj in (teacher_forcing(net, x, z, s0), rollout(net, x, s0))]
    return ExposureGap(*(np.sqrt(np.mean(np.square(error), axis=(1, 2))) for error in errors))


def _arguments(net: Any, x: Any, target: Any) -> tuple[NDArray, NDArray]:
    if not isinstance(net, Stack) or not net.feedback:
        raise ValueError(f"net is {net!r}; it must be a Stack with feedback=True")
    z = _checks.sequence("target", target, net.p, net.dtype)
    x = np.zeros((*z.shape[:2], 0), net.dtype) if x is None and net.m == 0 else x
    x = _checks.sequence("x", x, net.m, net.dtype)
    if x.shape[:2] != z.shape[:2]:
        raise ValueError(f"target has shape {z.shape} beside x {x.shape}; both must have the same T and B")
    return x, z
