"""The numbers of a page: what report.json holds and the text is filled from."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from .. import __version__
from .._results import plain
from ..analysis.exponents import LyapunovSpectrum
from ..analysis.saturation import Saturation
from ..analysis.spectra import Spectrum
from ..analysis.truncation import TruncationBias
from ..analysis.words import factor
from ..dynamics.rollout import Trajectory
from ..network import Network
from ..stack import Stack, kind
from . import fixed_points
from .measure import Measured

#: How the page calls a cell.
NAMES = {
    "vanilla": "vanilla RNN",
    "linear": "linear RNN",
    "vanilla_s": "vanilla RNN in s-form",
    "continuous": "continuous-time RNN",
    "lstm": "LSTM",
    "gru": "GRU",
    "gru_reset_before": "GRU with the reset before the product",
    "gru_delayed": "GRU with delayed gates",
    "gated_unit": "simplified gated unit",
    "mgu": "minimal gated unit",
    "mrnn": "multiplicative RNN",
    "system": "dynamical system",
}
_COLUMNS = (
    *("gradient_median", "gradient_low", "gradient_high", "chain_median"),
    *("a_priori", "factored", "product", "tightness", "eigen_rate", "leak"),
)
_TABLE_LAGS = (1, 2, 5, 10, 20, 50, 100, 200, 300, 600)


def describe(net: Any) -> str:
    """What the page calls a network."""
    if isinstance(net, Stack):
        kinds = [NAMES.get(kind(row[0]), kind(row[0])) for row in net.layers]
        both = "bidirectional " if net.bidirectional else ""
        if len(set(kinds)) > 1:
            return f"{both}stack of {len(kinds)} layers ({', '.join(kinds)})"
        return f"{both}{len(kinds)}-layer {kinds[0]}" if len(kinds) > 1 else both + kinds[0]
    return NAMES.get(kind(net), kind(net))


def network(net: Any) -> dict[str, Any]:
    """What a network is."""
    if isinstance(net, Stack):
        return {
            "cell": describe(net),
            "activation": None,
            "units": net.N,
            "inputs": net.m,
            "outputs": net.p,
            "readout": net.V is not None,
            "state": net.N,
            "parameters": sum(int(value.size) for _, value in net.parameters()),
            "dtype": net.dtype.name,
        }
    if not isinstance(net, Network):
        return {
            "cell": "system",
            "activation": None,
            "units": net.n,
            "inputs": net.m,
            "outputs": net.p,
            "readout": False,
            "state": net.N,
            "parameters": int(net.params.size),
            "dtype": net.dtype.name,
        }
    return {
        "cell": net.cell.name,
        "activation": net.activation,
        "units": net.n,
        "inputs": net.m,
        "outputs": net.p,
        "readout": net.V is not None,
        "state": net.N,
        "parameters": sum(int(value.size) for value in net.parameters.values()),
        "dtype": net.dtype.name,
    }


def measured(m: Measured, traj: Trajectory, record: tuple[int, int]) -> dict[str, Any]:
    """Every number of one network's part of the page. ``record`` is the (T, B) that was given."""
    s = m.settings
    lags = sorted({lag for lag in (*_TABLE_LAGS, s.wanted) if lag <= s.max_lag and m.growth.count[lag] > 0})
    table = [m.growth.at(lag) for lag in lags]
    columns = [name for name in _COLUMNS if not all(np.isnan(row[name]) for row in table)]
    values = {
        "network": network(traj.net),
        "steps": traj.T,
        "samples": traj.B,
        "steps_given": record[0],
        "samples_given": record[1],
        "settings": {
            "wanted": s.wanted,
            "max_lag": s.max_lag,
            "reference_steps": len(s.times),
            "first_reference": s.times[0],
            "last_reference": s.times[-1],
            "chain_max_lag": s.chain_lags[-1],
            "chain_lags": s.chain_lags,
            "chain_times": s.chain_times,
            "jacobian_times": s.jacobian_times,
            "map_first": s.map_first,
            "map_last": s.map_last,
        },
        "verdict": {k: v for k, v in m.verdict.to_dict().items() if k not in ("lags", "median", "rare")},
        "truncation": _truncation(m.truncation),
        "horizon": {
            "eps": m.memory.eps,
            "median": m.memory.median,
            "quartiles": m.memory.quartiles,
            "longest": m.memory.longest,
            "censored_share": float(np.mean(m.memory.censored)),
        },
        "time_constants": _constants(m),
        "lyapunov": _lyapunov(m.lyapunov),
        "fixed_points": fixed_points.section(m),
        "table": table,
        "columns": columns,
        "chain_against_loss": chain_against_loss(m),
        "cautions": m.cautions,
        "saturation": _saturation(m.saturation),
        "spectra": [*_spectrum(m.weights), *_spectrum(m.jacobians)],
    }
    return plain(values)


def versions() -> dict[str, str]:
    """What computed the numbers."""
    import matplotlib
    import numba
    import scipy

    return {
        "rnngrad": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "numba": numba.__version__,
        "matplotlib": matplotlib.__version__,
    }


def chain_against_loss(m: Measured) -> dict[str, Any]:
    """Whether ||Phi|| and the gradient of the loss tell the same story, at the longest lag they share."""
    at = int(m.growth.chain_lags[m.growth.chain_lags <= m.settings.max_lag][-1])
    gradient, chain = m.growth.gradient[1, at], m.growth.chain[1, -1]
    gap = float(chain - gradient)
    text = f"At lag {at} the median norm of the chain Φ is {factor(chain)}, the median gradient of the loss "
    text += factor(gradient)
    if gap > np.log(10):
        text += (
            f", smaller by {factor(gap)}: some direction of the state carries further than this loss can see. A loss "
            "that looked along it would reach further back."
        )
    elif gap < -np.log(10):
        text += ": the reference steps of the two differ, and with them the medians."
    else:
        text += ": they tell the same story; the loss sees the directions that last."
    return {"lag": at, "log_chain": float(chain), "log_gradient": float(gradient), "log_gap": gap, "text": text}


def _constants(m: Measured) -> dict[str, Any]:
    tau, gradient = m.constants.leak_tau, m.constants.gradient
    return {
        "chain_rate": m.constants.chain.rate,
        "chain_tau": m.constants.chain.tau,
        "gradient_rate": None if gradient is None else gradient.rate,
        "gradient_tau": None if gradient is None else gradient.tau,
        "state": m.constants.state,
        "leak_tau_median": np.median(tau) if tau.size else None,
        "leak_tau_longest": tau.max() if tau.size else None,
    }


def _lyapunov(spectrum: LyapunovSpectrum | None) -> dict[str, Any] | None:
    """The leading exponents, mean over the samples, with intervals from the fluctuation in time of each."""
    if spectrum is None:
        return None
    exponents = spectrum.exponents.mean(axis=0)
    half = np.sqrt(np.sum((spectrum.interval[..., 1] - spectrum.exponents) ** 2, axis=0)) / len(spectrum.exponents)
    interval = np.stack([exponents - half, exponents + half], axis=-1)
    low, high = interval[0]
    says = "parting" if low > 0 else "meeting" if high < 0 else "open"  # NaN is open
    return {
        "exponents": exponents,
        "interval": interval,
        "largest": exponents[0],
        "largest_low": low,
        "largest_high": high,
        "nearby_states": says,
        "steps": spectrum.steps,
        "transient": spectrum.transient,
        "samples": len(spectrum.exponents),
    }


def _truncation(cut: TruncationBias | None) -> dict[str, float] | None:
    """The smallest window, and what it costs in bias and direction."""
    if cut is None:
        return None
    out = {"wanted": cut.wanted, "smallest": cut.smallest, "longest": int(cut.windows[-1])}
    return out | (cut.at(int(cut.smallest)) if np.isfinite(cut.smallest) else {})


def _saturation(flat: Saturation | None) -> list[dict[str, Any]]:
    """Means over the units."""
    if flat is None:
        return []
    keys = ("low", "high", "mean", "slope")
    return [
        {"name": name, "kind": kind, **{key: getattr(flat, key)[i].mean() for key in keys}}
        for i, (name, kind) in enumerate(zip(flat.names, flat.kinds, strict=True))
    ]


def _spectrum(spectrum: Spectrum | None) -> list[dict[str, Any]]:
    if spectrum is None:
        return []
    keys = ("radius", "sigma_max", "henrici", "abscissa", "circular_radius")
    labels = enumerate(spectrum.labels)
    return [{"label": label, **{key: getattr(spectrum, key)[i] for key in keys}} for i, label in labels]
