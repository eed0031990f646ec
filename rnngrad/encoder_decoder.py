"""Encoder and decoder: the encoder's last state starts the decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _checks
from .network import Network
from .stack import Stack

PARTS = ("encoder", "decoder")


def by_part(named: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Values named "encoder.W", … by part and own name; those of the bridge, M and d, under ""."""
    out: dict[str, dict[str, Any]] = {"encoder": {}, "decoder": {}, "": {}}
    for name, value in named.items():
        part, dot, own = name.partition(".")
        if dot and part in PARTS:
            out[part][own] = value
        else:
            out[""][name] = value
    return out


@dataclass(frozen=True)
class EncoderDecoder:
    """Two networks (or stacks) and the bridge between them: s^dec_0 = M s^enc_T + d, on the states as vectors.

    Build one with :meth:`join`. The encoder has no readout (nothing would read it); a bidirectional encoder hands over
    the last state of each direction, side by side. A decoder with ``feedback`` runs free, on its own outputs.

    Attributes
    ----------
    encoder, decoder : Network or Stack
    M, d : ndarray (N_dec, N_enc), (N_dec,)
        None for the identity.
    """

    encoder: Network | Stack
    decoder: Network | Stack
    M: Any = None
    d: Any = None

    @classmethod
    def join(cls, encoder: Network | Stack, decoder: Network | Stack, M: Any = None, d: Any = None) -> EncoderDecoder:
        """Check that the parts fit, and join them.

        Raises
        ------
        ValueError
            Sizes or dtypes differ, the encoder has a readout or feedback, or the decoder runs backward.
        """
        for name, part in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(part, (Network, Stack)):
                raise ValueError(f"{name} is {type(part).__name__}; it must be a Network or a Stack")
        if encoder.V is not None:
            raise ValueError("encoder has a readout V, which nothing would read; only the decoder has one")
        if getattr(encoder, "feedback", False):
            raise ValueError("encoder has feedback; it is given all its inputs")
        if getattr(decoder, "bidirectional", False):
            raise ValueError("decoder runs in both directions; it must run forward from the state it is given")
        if decoder.dtype != encoder.dtype:
            raise ValueError(f"decoder is {decoder.dtype.name}; it must be {encoder.dtype.name} like the encoder")
        if M is None:
            if d is not None:
                raise ValueError("d is given without M; a bridge has both, or neither (the identity)")
            if encoder.N != decoder.N:
                raise ValueError(
                    f"the encoder's state has {encoder.N} numbers and the decoder's {decoder.N}; give a bridge M "
                    f"({decoder.N}, {encoder.N}), or states of one size"
                )
            return cls(encoder, decoder)
        M = _checks.array("M", M, (decoder.N, encoder.N), decoder.dtype).copy()
        d = (
            np.zeros(decoder.N, decoder.dtype)
            if d is None
            else _checks.array("d", d, (decoder.N,), decoder.dtype).copy()
        )
        M.flags.writeable = d.flags.writeable = False
        return cls(encoder, decoder, M, d)

    def replace(self, **changes: Any) -> EncoderDecoder:
        """A copy with some parameters replaced, by the names that the gradients have: {"encoder.W": …, "M": …}."""
        own = by_part(changes)
        unknown = sorted(set(own[""]) - ({"M", "d"} if self.M is not None else set()))
        if unknown:
            raise ValueError(f"replace got {unknown}; it takes encoder.NAME, decoder.NAME, and M and d of a bridge")
        encoder, decoder = (getattr(self, part).replace(**own[part]) for part in PARTS)
        return EncoderDecoder.join(encoder, decoder, own[""].get("M", self.M), own[""].get("d", self.d))

    def __getattr__(self, name: str) -> Any:
        part, dot, own = name.partition(".")
        if dot and part in PARTS:
            return getattr(getattr(self, part), own)
        raise AttributeError(name)

    def across(self, state: NDArray) -> NDArray:
        """s^dec_0 (B, S, n) from the encoder's last state, any shape (B, …)."""
        flat = state.reshape(len(state), -1)
        if self.M is not None:
            flat = flat @ self.M.T + self.d
        return flat.reshape(len(state), *self.decoder.state_shape)

    def back_across(self, rows: NDArray) -> NDArray:
        """Rows (R, …) at the decoder's first state carried to the encoder's last, (R, S, n)."""
        flat = rows.reshape(len(rows), -1)
        return (flat if self.M is None else flat @ self.M).reshape(len(rows), *self.encoder.state_shape)
