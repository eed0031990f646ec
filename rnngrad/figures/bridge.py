"""Heat map of ||dL_t/ds_k|| across the bridge from decoder to encoder."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..analysis.words import factor
from .heat_map import paint
from .style import title


def draw(ax: Any, result: Any, sample: int = 0) -> Any:
    """Draw one sample of a :class:`rnngrad.gradients.encoder_decoder.BridgeFlow`."""
    encoder, decoder = result.encoder[sample, 1:], result.decoder[sample, 1:]
    T_enc, T_dec = encoder.shape[1] - 1, len(decoder)
    # encoder steps 0 … T_enc, then the decoder's 0 … T_dec, one column each
    paint(ax, np.concatenate([encoder, decoder], axis=1), (-0.5, T_enc + T_dec + 1.5, 0.5, T_dec + 0.5))
    ax.axvline(T_enc + 0.5, color="white", lw=1.5)
    ticks = np.unique(np.linspace(0, T_enc, 4).round().astype(int))
    after = np.unique(np.linspace(T_dec / 3, T_dec, 3).round().astype(int))  # the first would touch the last of before
    ax.set_xticks([*ticks, *(T_enc + 1 + after)], [*(f"{t}" for t in ticks), *(f"{t}'" for t in after)])
    ax.set_xlabel("state at step $k$ of the encoder | $k'$ of the decoder")
    ax.set_ylabel("loss at decoder step $t$")
    last = np.flatnonzero(np.isfinite(decoder[:, 0]))
    if last.size:
        lost = factor(float(encoder[last[-1], 0] - encoder[last[-1], -1]))
        title(ax, f"From the encoder's last state to its first the gradient of the last loss changes by {lost}")
    return ax
