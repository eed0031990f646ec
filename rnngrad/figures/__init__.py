"""Figures: ``draw(ax, result)`` puts a result on Matplotlib axes and returns them; nothing is computed here."""

from __future__ import annotations

import importlib
from typing import Any

#: Result class -> module of this package whose ``draw`` shows it.
_DRAWN_BY = {
    "GrowthByLag": "growth",
    "GrowthBounds": "bounds",
    "GradientReach": "reach",
    "LayerReach": "layers",
    "GradientMap": "heat_map",
    "GradientFlow": "heat_map",
    "BridgeFlow": "bridge",
    "MemoryHorizon": "horizon",
    "TimeConstants": "time_constants",
    "LyapunovSpectrum": "lyapunov",
    "CovariantVectors": "covariant",
    "Spectrum": "spectrum",
    "ProductSpectrum": "product_spectrum",
    "CircularLaw": "circular_law",
    "HessianSpectrum": "hessian",
    "SingularValues": "singular_values",
    "Saturation": "saturation",
    "Verdict": "verdict",
    "TruncationBias": "truncation",
    "TruncationComparison": "truncation_comparison",
    "Comparison": "comparison",
    "Forecast": "forecast",
    "TrainingCurves": "training",
    "ExposureGap": "exposure",
    "MeanField": "mean_field",
    "RandomNetworks": "mean_field",
    "LeadingExponents": "spectrum_sweep",
    "SpectrumSweep": "spectrum_sweep",
    "PhaseDiagram": "phase_diagram",
    "GainSweep": "gain_sweep",
    "MatrixPower": "matrix",
    "FixedPointPortrait": "fixed_points",
    "PointSpectrum": "point_spectrum",
    "FixedPoint": "residual_history",
    "AdjointConvergence": "adjoint_convergence",
    "AssociativeMemory": "associative_memory",
    "Branch": "branch",
    "Branches": "branch",
}


def plot(result: Any, ax: Any = None) -> Any:
    """Draw a result on ``ax``, or on a new figure, and return the axes.

    Raises
    ------
    ValueError
        There is no figure for a result of this class.
    """
    name = type(result).__name__
    if name not in _DRAWN_BY:
        raise ValueError(f"there is no figure for {name}; there is one for {', '.join(_DRAWN_BY)}")
    draw = importlib.import_module(f".{_DRAWN_BY[name]}", __name__).draw
    if ax is not None:
        return draw(ax, result)  # the caller's axes keep the caller's look
    from . import style

    with style.look():
        return draw(style.new_axes(), result)
