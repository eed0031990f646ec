"""Order and chaos in the plane of weights and biases."""

from __future__ import annotations

from typing import Any

import numpy as np

from .style import BLACK, title


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.phase_diagram.PhaseDiagram`."""
    finite = result.lambda1[np.isfinite(result.lambda1)]
    top = float(np.quantile(np.abs(finite), 0.9)) if finite.size else 1.0
    mesh = ax.pcolormesh(
        result.g, result.sigma_b, np.maximum(result.lambda1, -top), cmap="PuOr_r", vmin=-top, vmax=top,
        shading="gouraud",
    )  # fmt: skip
    bar = ax.figure.colorbar(mesh, ax=ax, extend="both")
    bar.set_label(r"$\lambda_1=\frac{1}{2}\ln\chi$ (1/step)")
    ax.plot(result.critical, result.sigma_b, color=BLACK, lw=2, label=r"edge of chaos, $\chi=1$")
    ax.set_xlim(result.g[0], result.g[-1])
    ax.set_ylim(result.sigma_b[0], result.sigma_b[-1])
    ax.set_xlabel(r"weights, $g=\sigma_w\sqrt{n}$")
    ax.set_ylabel(r"biases, $\sigma_b$")
    first, last = result.critical[0], result.critical[-1]
    spread = f"from g = {first:.3g} at σ_b = {result.sigma_b[0]:.3g} to {last:.3g} at {result.sigma_b[-1]:.3g}"
    if last > first:
        title(ax, f"Biases delay chaos: the edge moves {spread}")
    elif last == first:
        title(ax, f"χ = 1 at g = {first:.3g}, whatever the biases")
    else:
        title(ax, f"The edge of chaos goes {spread}")
    ax.legend(loc="lower right")
    return ax
