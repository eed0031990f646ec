"""Numbers as they stand in a sentence."""

from __future__ import annotations

import numpy as np


def short(value: float) -> str:
    """Three significant digits; near 1, where a number is a factor per step, the difference from 1 has two."""
    if 0.9 < value < 1.1 and value != 1:
        return f"{1 + float(f'{value - 1:.2g}'):.6g}"
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.2g}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def factor(log_value: float) -> str:
    """e^log_value as a factor, also where it is beyond a float."""
    if np.isnan(log_value):
        return "unknown"
    if np.isinf(log_value):
        return "exactly 0" if log_value < 0 else "infinite"
    if -4 < log_value < 9:
        return f"×{short(float(np.exp(log_value)))}"
    mantissa, exponent = decimal(log_value)
    return f"×{mantissa:.1f}e{exponent:+d}"


def decimal(log_value: float) -> tuple[float, int]:
    """e^log_value as mantissa 10^exponent, the mantissa in [1, 10) also after rounding to one digit."""
    exponent = int(np.floor(log_value / np.log(10)))
    mantissa = round(float(np.exp(log_value - exponent * np.log(10))), 1)
    return (mantissa, exponent) if mantissa < 10 else (1.0, exponent + 1)
