"""Every analysis of one network along one trajectory, at a cost that is set beforehand."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._blas import one_blas_thread
from .._results import Result
from ..analysis import growth, memory, products, reach, saturation, spectra, step_bounds, time_constants, verdict
from ..analysis.exponents import LyapunovSpectrum
from ..analysis.lyapunov import lyapunov_along
from ..analysis.memory import MemoryHorizon
from ..analysis.settled import Settling
from ..analysis.settling import held_inputs, settling
from ..analysis.time_constants import TimeConstants
from ..analysis.truncation import TruncationBias
from ..dynamics.rollout import Trajectory
from ..errors import PrecisionWarning
from ..losses import Loss
from ..network import Network
from ..stack import Stack

# Multiplications each part may cost: about a second on two cores.
_CHAIN_COST = 6e10
_MAP_COST = 2e10
_SPECTRA_COST = 2e10
_NORMS_COST = 1e10
_EXPONENTS_COST = 2e10
_SEARCH_COST = 4e10
_FOLLOW_COST = 2e10
_SVD = 8
_GRADED = 80  # multiplications of the singular values of a graded product are about this many N^3
_NEWTON = 40  # multiplications of Newton's method from one start are about this many N^3
_EIGEN = 25  # multiplications of a Schur decomposition are about this many N^3, of singular values _SVD N^3

MAX_LAG = 600
REFERENCE_STEPS = 64
CHAIN_MAX_LAG = 300
CHAIN_STEPS = 6
CHAIN_LAGS = (0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300)
MAP_SIZE = 300
JACOBIANS = 4
EXPONENTS = 8
FEWEST_STEPS = 32  # for exponents with intervals, after a transient
HELD_INPUTS = 3  # whose fixed points are sought
FOLLOWED = 8  # trajectories of each of them that are followed on
STARTS = 128  # other states of each
FEWEST_STARTS = 8  # fewer than these say nothing of what else there is
FOLLOW_STEPS = 1000
ITERATIONS = (50, 200)  # of Newton's method from one start: at least and at most, as N allows


@dataclass(frozen=True)
class Settings(Result):
    """What was looked at.

    Attributes
    ----------
    max_lag, wanted : int
        Largest lag; the lag that the verdict is about.
    times, chain_times, jacobian_times : ndarray
        Reference steps of the gradient, of Phi and of the spectra.
    chain_lags : ndarray
        Lags at which Phi was decomposed.
    map_first, map_last : int
        Part of the record in the heat map.
    """

    max_lag: int
    wanted: int
    times: NDArray[np.int64]
    chain_times: NDArray[np.int64]
    chain_lags: NDArray[np.int64]
    jacobian_times: NDArray[np.int64]
    map_first: int
    map_last: int


@dataclass(frozen=True)
class Measured(Result):
    """The analyses of one network.

    ``lyapunov`` is None for a record that is too short, or too long for what it may cost. ``truncation`` is None where
    there is no finite gradient to compare with, ``weights`` or ``jacobians`` where the matrix is too large to
    decompose; a stack or a user's system has neither ``weights`` nor ``saturation``, and only a stack of several layers
    has ``layers``. ``held`` says how many samples hold each input that does not change, () where inputs change, and
    ``settled`` what the network does under the first of these inputs. ``cautions`` say where rounding took something
    from a number.
    """

    settings: Settings
    growth: growth.GrowthByLag
    map: reach.GradientMap
    weights: spectra.Spectrum | None
    jacobians: spectra.Spectrum | None
    singular_values: products.SingularValues
    saturation: saturation.Saturation | None
    layers: reach.LayerReach | None
    memory: MemoryHorizon
    constants: TimeConstants
    lyapunov: LyapunovSpectrum | None
    truncation: TruncationBias | None
    verdict: verdict.Verdict
    held: tuple[int, ...]
    settled: tuple[Settling, ...]
    cautions: tuple[str, ...] = ()


def choose(traj: Trajectory, loss: Loss, *, wanted: int | None = None, max_lag: int | None = None) -> Settings:
    """Reference steps and lags such that the whole takes seconds, whatever the size of the network."""
    net, T, B = traj.net, traj.T, traj.B
    N, multiplications = net.N, _multiplications(net)
    # beyond three quarters of a short record too few reference steps are left to speak of a median
    max_lag = min(MAX_LAG, max(3 * T // 4, 1)) if max_lag is None else min(max_lag, T)
    first = max(1, min(max_lag, T // 2))
    times = reach.steps_with_loss(traj, loss, first, REFERENCE_STEPS)
    limit = int(min(max_lag, times[-1]))
    wanted = min(verdict.WANTED, first, limit) if wanted is None else min(wanted, limit)
    step_cost = B * 2.0 * N * multiplications  # of one more factor of Phi
    chain_lag = int(np.clip(_CHAIN_COST // step_cost, 1, min(limit, CHAIN_MAX_LAG)))
    chain_lags = np.unique([lag for lag in (*CHAIN_LAGS, wanted, chain_lag) if lag <= chain_lag])
    chain_cost = chain_lag * step_cost + len(chain_lags) * B * _GRADED * N**3
    chain_steps = int(np.clip(_CHAIN_COST // chain_cost, 1, CHAIN_STEPS))
    size = int(np.clip(np.sqrt(_MAP_COST / (2.0 * multiplications)), 20, min(MAP_SIZE, T)))
    count = int(np.clip(_SPECTRA_COST // (_EIGEN * N**3), 0, JACOBIANS))
    ends = products.spaced(max(chain_lag, first), T, chain_steps)
    return Settings(
        max_lag=max_lag,
        wanted=wanted,
        times=times,
        chain_times=ends,
        chain_lags=chain_lags,
        jacobian_times=products.spaced(max(T // 4, 1), T, count) if count else np.zeros(0, np.int64),
        map_first=T - size,
        map_last=T,
    )


def measure(
    traj: Trajectory,
    loss: Loss,
    settings: Settings,
    tick: Callable[[float], Any] = lambda share: None,
    *,
    held: bool = False,
) -> Measured:
    """Run the analyses; ``tick`` hears the share that is done. ``held``: the input does not change: fixed points."""
    with one_blas_thread(), warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("always", PrecisionWarning)  # part of the page, where the number is
        measured = _measure(traj, loss, settings, tick, held)
    for other in met:
        if not issubclass(other.category, PrecisionWarning):
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    said = [str(one.message) for one in met if issubclass(one.category, PrecisionWarning)]
    return replace(measured, cautions=tuple(dict.fromkeys(said)))


def _multiplications(net: Any) -> int:
    """Of a vector with the matrices of one step."""
    if isinstance(net, Stack):
        between = sum(one.N * one.m for row in net.layers[1:] for one in row)
        return between + sum(_multiplications(one) for row in net.layers for one in row)
    return net.n**2 * (net.cell.recurrent + len(net.cell.gates2) if isinstance(net, Network) else 1)


def _exponents(traj: Trajectory) -> LyapunovSpectrum | None:
    """The leading exponents along the input, as many as are affordable."""
    each = 2.0 * traj.T * traj.B * (_multiplications(traj.net) + EXPONENTS * traj.net.N)
    k = int(min(EXPONENTS, traj.net.N, _EXPONENTS_COST // each))
    return lyapunov_along(traj, k) if k and traj.T >= FEWEST_STEPS else None


def _settled(traj: Trajectory) -> tuple[tuple[int, ...], tuple[Settling, ...]]:
    """How many samples hold each input, and what becomes of the first inputs; fewer starts for larger states."""
    groups = held_inputs(traj)
    looked_at = groups[:HELD_INPUTS]
    room = _SEARCH_COST / len(looked_at) / traj.net.N**3
    starts = int(min(STARTS, room // _NEWTON))
    starts = starts if starts >= FEWEST_STARTS else 0
    search = starts > 0 or room >= FOLLOWED * (_EIGEN + _SVD)  # the points where the trajectories end, at least
    each = len(looked_at) * (starts + 2 * FOLLOWED) * _multiplications(traj.net)
    steps = int(np.clip(_FOLLOW_COST // each, 10, FOLLOW_STEPS))
    iterations = int(np.clip(room // (2 * starts + FOLLOWED), *ITERATIONS))
    return tuple(map(len, groups)), tuple(
        settling(traj, group[:FOLLOWED], starts=starts, max_steps=steps, search=search, max_iterations=iterations)
        for group in looked_at
    )


def _weights(traj: Any) -> spectra.Spectrum | None:
    small = isinstance(traj.net, Network) and _EIGEN * traj.net.n * _multiplications(traj.net) <= _SPECTRA_COST
    return spectra.weight_spectrum(traj.net) if small else None


def _norms(traj: Any) -> NDArray[np.float64] | None:
    """The largest singular value of every step's Jacobian."""
    small = _SVD * traj.T * traj.B * traj.net.N**3 <= _NORMS_COST
    return step_bounds.step_norms(traj)[0] if small else None


#: What takes time, in the order of a report, with the share of the whole that is done then; none needs another.
_ANALYSES: dict[str, tuple[float, Callable[[Any, Loss, Settings, bool], Any]]] = {
    "limits": (0.1, lambda traj, loss, s, held: step_bounds.step_bounds(traj)),
    "gradient": (0.25, lambda traj, loss, s, held: reach.gradient_reach(traj, loss, times=s.times, max_lag=s.max_lag)),
    "chain": (0.6, lambda traj, loss, s, held: products.singular_values(traj, times=s.chain_times, lags=s.chain_lags)),
    "map": (0.8, lambda traj, loss, s, held: reach.gradient_map(traj, loss, first=s.map_first, last=s.map_last)),
    "weights": (0.8, lambda traj, loss, s, held: _weights(traj)),
    "jacobians": (
        0.9,
        lambda traj, loss, s, held: (
            spectra.jacobian_spectrum(traj, times=s.jacobian_times) if s.jacobian_times.size else None
        ),
    ),
    "saturation": (
        0.9,
        lambda traj, loss, s, held: saturation.saturation(traj) if isinstance(traj.net, Network) else None,
    ),
    "norms": (0.9, lambda traj, loss, s, held: _norms(traj)),
    "layers": (
        0.9,
        lambda traj, loss, s, held: (
            reach.layer_reach(traj, loss, times=s.times, max_lag=s.max_lag)
            if isinstance(traj.net, Stack) and len(traj.net.layers) > 1
            else None
        ),
    ),
    "truncation": (0.95, lambda traj, loss, s, held: verdict.affordable_truncation(traj, loss)),
    "settled": (0.95, lambda traj, loss, s, held: _settled(traj) if held else ((), ())),
    "lyapunov": (1.0, lambda traj, loss, s, held: _exponents(traj)),
}


def rehearse(traj: Trajectory, loss: Loss, settings: Settings, *, held: bool = False) -> None:
    """Run the analyses from the last to the first, for the kernels that they compile."""
    with one_blas_thread():
        found = {name: analysis(traj, loss, settings, held) for name, (_, analysis) in reversed(_ANALYSES.items())}
        _together(traj, loss, settings, found)


def _measure(traj: Trajectory, loss: Loss, settings: Settings, tick: Callable[[float], Any], held: bool) -> Measured:
    found = {}
    for name, (share, analysis) in _ANALYSES.items():
        found[name] = analysis(traj, loss, settings, held)
        tick(share)
    return _together(traj, loss, settings, found)


def _together(traj: Trajectory, loss: Loss, settings: Settings, found: dict[str, Any]) -> Measured:
    """What follows from the analyses, by name, and they themselves."""
    limits, gradient, chain, norms = (found.pop(name) for name in ("limits", "gradient", "chain", "norms"))
    inputs, settled = found.pop("settled")
    constants = time_constants.time_constants(traj, reach=gradient, chain=chain)
    judged = verdict.verdict(
        traj,
        loss,
        wanted=settings.wanted,
        reach=gradient,
        bounds=limits,
        saturated=found["saturation"],
        truncation=found["truncation"],
    )
    return Measured(
        **found,
        settings=settings,
        growth=growth.growth_by_lag(gradient, chain, limits, constants, verdict.LOST, norms),
        singular_values=chain,
        memory=memory.horizon(gradient, verdict.LOST),
        constants=constants,
        verdict=judged,
        held=inputs,
        settled=settled,
    )
