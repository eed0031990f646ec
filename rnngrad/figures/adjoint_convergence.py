"""Cost of the adjoint of a fixed point against the spectral radius, by method."""

from __future__ import annotations

from typing import Any

import numpy as np

from .style import BLACK, BLUE, GREEN, ORANGE, RED, legend_below, title

_STYLES = {"iteration": (BLUE, "o"), "cg": (GREEN, "^"), "gmres": (RED, "s"), "bicgstab": (ORANGE, "D")}
_NAMES = {
    "iteration": "fixed-point iteration",
    "cg": "CG on the normal equations",
    "gmres": "GMRES",
    "bicgstab": "BiCGSTAB",
}


def draw(ax: Any, result: Any) -> Any:
    """Draw a :class:`rnngrad.analysis.adjoint_convergence.AdjointConvergence`: products with J over rho(J)."""
    for name, (color, marker) in _STYLES.items():
        count = result.products[name]
        ok = np.isfinite(count)
        ax.semilogy(result.radius[ok], count[ok], marker + "-", ms=4, lw=1.2, color=color, label=_NAMES[name])
    below = np.linspace(result.radius[0], 1, 400)[:-1]
    ax.semilogy(below, np.log(result.tol) / np.log(below), "--", color=BLACK, lw=0.9, label=r"$\ln$ tol $/\ln\rho$")
    ax.axvline(1, color="#888888", lw=0.8)
    ax.set_ylim(1, 3 * np.nanmax([np.nanmax(result.products[name]) for name in _STYLES]))
    ax.set_xlabel(r"spectral radius $\rho(J)$ at the fixed point")
    ax.set_ylabel(f"products with $J$ for an accuracy of {result.tol:g}")
    refused = result.radius[np.isnan(result.products["iteration"])]
    says = (
        f"refused from ρ = {refused.min():.4g} on, where Krylov methods and LU still answer"
        if refused.size
        else "never refused"
    )
    title(ax, f"Adjoint of a fixed point, {result.units} units: the iteration slows down as ρ nears 1 and is {says}")
    legend_below(ax, 2)
    return ax
