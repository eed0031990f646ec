"""Encoder and decoder along their inputs, and the chain from a decoder step back to an encoder step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _checks
from ..encoder_decoder import EncoderDecoder
from .chain import JacobianChain, jacobian_chain
from .rollout import rollout
from .scaled import Norm, ScaledMatrices, scaled
from .stack import StackTrajectory


@dataclass(frozen=True)
class EncoderDecoderTrajectory:
    """Both parts along their inputs.

    Attributes
    ----------
    net : EncoderDecoder
    encoder, decoder : Trajectory or StackTrajectory
        Ordinary trajectories; everything that takes one takes these.
    """

    net: EncoderDecoder
    encoder: Any
    decoder: Any

    @property
    def y(self) -> NDArray:
        """Outputs of the decoder (T_dec, B, p)."""
        return self.decoder.y

    def _one_part(self) -> Any:
        raise ValueError(
            "traj is of an encoder and a decoder, and this takes the trajectory of one network: traj.encoder or "
            "traj.decoder (bptt, jacobian_chain and gradient_flow take both)"
        )

    T = B = x = states = h = lengths = property(_one_part)

    def require_finite(self) -> None:
        """Raise: this function wants the trajectory of one network."""
        self._one_part()


def encode_decode(
    net: EncoderDecoder,
    x: Any,
    x_decoder: Any = None,
    s0: Any = None,
    lengths: Any = None,
    lengths_decoder: Any = None,
    *,
    steps: int | None = None,
    backend: str = "auto",
) -> EncoderDecoderTrajectory:
    """Run the encoder over x, and the decoder from the encoder's last state.

    Parameters
    ----------
    net : EncoderDecoder
    x : array (T_enc, B, m_enc)
        Sequences of different ``lengths`` (B,) hand over their own last state.
    x_decoder : array (T_dec, B, m_dec)
        Inputs of the decoder; under teacher forcing they hold the targets of the step before. None runs ``steps``
        steps with zero input, or with its own outputs alone where the decoder has feedback.
    s0 : array
        Initial state of the encoder, as for :func:`rnngrad.rollout`.

    Returns
    -------
    EncoderDecoderTrajectory

    Raises
    ------
    ValueError
        As :func:`rnngrad.rollout`; or batches of different size, or ``steps`` beside ``x_decoder``.
    """
    if not isinstance(net, EncoderDecoder):
        raise ValueError(f"net is {type(net).__name__}; it must be an EncoderDecoder")
    encoder = rollout(net.encoder, x, s0, lengths, backend=backend)
    start = net.across(final_state(encoder))
    if x_decoder is not None and np.ndim(x_decoder) == 2 and encoder.B != 1:
        raise ValueError(f"x_decoder is one sequence (T, m); it must be (T, {encoder.B}, m) like the batch of x")
    if x_decoder is not None and _checks.numbers("x_decoder", x_decoder).ndim == 3:
        B = np.shape(x_decoder)[1]
        if encoder.B != B:
            raise ValueError(f"x_decoder has a batch of {B}; it must be {encoder.B} like that of x")
    if x_decoder is not None and steps is not None:
        raise ValueError(
            f"steps is {steps} beside x_decoder of {len(x_decoder)} steps; the decoder runs as long as its inputs (one "
            "with feedback and no other inputs takes steps alone)"
        )
    decoder = rollout(net.decoder, x_decoder, start, lengths_decoder, steps=steps, backend=backend)
    return EncoderDecoderTrajectory(net, encoder, decoder)


def final_state(traj: Any) -> NDArray:
    """s_T (B, S, n); of a stack (B, 1, N): the last state of every layer and direction, each at its own end."""
    if not isinstance(traj, StackTrajectory):
        return traj.states[-1]
    ends = [one.states[-1].reshape(traj.B, -1) for row in traj.layers for one in row]
    return np.concatenate(ends, axis=-1)[:, None]


class EncoderDecoderChain:
    """Phi(t, k) = ds^dec_t/ds^enc_k = Phi_dec(t, 0) M Phi_enc(T_enc, k), for 0 <= t <= T_dec and 0 <= k <= T_enc.

    ``encoder`` and ``decoder`` are the chains of the parts. Rows carry a power of two each, across the bridge too.
    """

    def __init__(self, traj: EncoderDecoderTrajectory) -> None:
        self.trajectory = traj
        self.encoder: JacobianChain = jacobian_chain(traj.encoder)
        self.decoder: JacobianChain = jacobian_chain(traj.decoder)

    def product(self, t: int, k: int) -> NDArray:
        """Phi(t, k) as (B, N_dec, N_enc).

        Raises
        ------
        ValueError
            Not 0 <= t <= T_dec and 0 <= k <= T_enc.
        OverflowError
            An entry is beyond the dtype.
        """
        return self._last(t, k).dense()

    def log_norm(self, t: int, k: int, ord: Norm = 2) -> NDArray[np.float64]:
        """Natural logarithm of ||Phi(t, k)|| per sample, (B,)."""
        _checks.choice("ord", ord, (2, "fro"))
        return self._last(t, k).log_norm(ord)

    def log_norms_to(self, t: int, ord: Norm = 2) -> NDArray[np.float64]:
        """log||Phi(t, k)|| for k = 0 … T_enc, as (B, T_enc + 1)."""
        _checks.choice("ord", ord, (2, "fro"))
        rows, exponent, sample = self._at_the_bridge(t)
        enc, T = self.encoder, self.encoder.T
        every = [(rows[None], exponent[None])]
        if T:
            every.insert(0, enc.jacobians.adjoint(rows, exponent, sample, T, T))
        matrices = [self._matrices(y, e) for y, e in every]
        return np.concatenate([part.log_norm(ord) for part in matrices]).T

    def _at_the_bridge(self, t: int) -> tuple[NDArray, NDArray[np.int64], NDArray[np.int64]]:
        t = _checks.integer("t", t, 0, self.decoder.T)
        dec = self.decoder._last(t, 0)
        rows = self.trajectory.net.back_across(dec.mantissa.reshape(-1, self.decoder.N))
        rows, shift = scaled(rows)
        return rows, dec.exponent.reshape(-1) + shift, np.repeat(np.arange(self.encoder.B), self.decoder.N)

    def _last(self, t: int, k: int) -> ScaledMatrices:
        rows, exponent, _ = self._at_the_bridge(t)
        T = self.encoder.T
        k = _checks.integer("k", k, 0, T)
        y, e = self.encoder._walk(self.encoder.jacobians.adjoint, rows, exponent, T, T - k, -1)
        found = self._matrices(y[None], e[None])
        return ScaledMatrices(found.mantissa[0], found.exponent[0], -2)

    def _matrices(self, y: NDArray, e: NDArray) -> ScaledMatrices:
        B, N = self.encoder.B, self.decoder.N
        return ScaledMatrices(y.reshape(len(y), B, N, self.encoder.N), e.reshape(len(e), B, N), -2)


@jacobian_chain.register
def _encoder_decoder_chain(traj: EncoderDecoderTrajectory) -> EncoderDecoderChain:
    return EncoderDecoderChain(traj)
