"""Gradients of encoder and decoder: through the decoder, across the bridge, through the encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._results import Result
from ..dynamics.encoder_decoder import EncoderDecoderTrajectory, final_state
from ..dynamics.jacobian import local_jacobians
from ..dynamics.scaled import log_norms, scaled
from ..encoder_decoder import PARTS, by_part
from ..losses import Loss
from .assemble import OfParameters, evaluate, state_adjoint
from .bptt import backpropagate, bptt
from .flow import carried, gradient_flow


@dataclass(frozen=True)
class EncoderDecoderGradients(OfParameters):
    """Gradient of a loss on the decoder's outputs.

    Attributes
    ----------
    loss : float
    encoder, decoder : Gradients or StackGradients
        ``decoder.s0`` is dL/ds^dec_0; ``encoder.s`` is dL/ds^enc_t for every t, all of it come across the bridge.
    M, d : ndarray
        Of the bridge; None for the identity.
    """

    loss: float
    encoder: Any
    decoder: Any
    M: Any = None
    d: Any = None

    def parameters(self) -> Iterator[tuple[str, NDArray]]:
        """(name, gradient): those of the parts with "encoder." and "decoder." before them, then M and d."""
        for name in PARTS:
            for own, value in getattr(self, name).parameters():
                yield f"{name}.{own}", value
        if self.M is not None:
            yield "M", self.M
            yield "d", self.d

    def with_parameters(self, changes: Mapping[str, NDArray]) -> EncoderDecoderGradients:
        """A copy in which the gradients of the named parameters are others."""
        own = by_part(changes)
        parts = {name: getattr(self, name).with_parameters(own.pop(name)) for name in PARTS}
        return dataclasses.replace(self, **parts, **own[""])


@bptt.register
def _bptt_across(traj: EncoderDecoderTrajectory, loss: Loss) -> EncoderDecoderGradients:
    net = traj.net
    decoder = bptt(traj.decoder, loss)
    g, state = decoder.s0.reshape(traj.decoder.B, -1), final_state(traj.encoder)
    bridge = {} if net.M is None else {"M": g.T @ state.reshape(len(state), -1), "d": g.sum(axis=0)}
    nothing = np.zeros_like(traj.encoder.h)
    traj.encoder.require_finite()
    encoder = backpropagate(traj.encoder, nothing, net.back_across(g))
    return EncoderDecoderGradients(decoder.loss, encoder, decoder, **bridge)


@dataclass(frozen=True)
class BridgeFlow(Result):
    """||dL_t/ds_k|| of every decoder step t and every state before it, on both sides of the bridge.

    Attributes
    ----------
    encoder : ndarray (B, T_dec+1, T_enc+1)
        Natural logarithm, indexed [b, t, k]: k is an encoder step. Row 0 is NaN: no loss comes before the first step.
    decoder : ndarray (B, T_dec+1, T_dec+1)
        As :class:`rnngrad.GradientFlow`: k is a decoder step, NaN where k > t.
    """

    encoder: NDArray[np.float64]
    decoder: NDArray[np.float64]


@gradient_flow.register
def _flow_across(traj: EncoderDecoderTrajectory, loss: Loss) -> BridgeFlow:
    value = evaluate(traj.decoder, loss)
    decoder, at_start = carried(local_jacobians(traj.decoder), state_adjoint(traj.decoder, value.dy))
    rows, shift = scaled(traj.net.back_across(at_start.rows))
    exponent = at_start.exponent + shift
    T, B = traj.encoder.T, traj.encoder.B
    encoder = np.full((B, traj.decoder.T + 1, T + 1), -np.inf)
    encoder[:, 0] = np.nan
    jacobians = local_jacobians(traj.encoder)
    for k in range(T, -1, -1):
        encoder[:, at_start.steps, k] = log_norms(rows, exponent).reshape(-1, B).T
        if k and len(rows):
            out, exponents = jacobians.adjoint(rows, exponent, at_start.sample, k, 1)
            rows, exponent = out[0], exponents[0]
    return BridgeFlow(encoder, decoder)
