"""The built-in example: do a vanilla network and an LSTM reach back one sunspot cycle?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import losses
from ..analysis.comparison import Comparison
from ..analysis.words import factor, short
from ..dynamics.rollout import Trajectory, rollout
from ..losses import Loss
from ..network import Network
from ..training.sunspots import CYCLE, HORIZON, LENGTH, TrainedSunspots, train
from . import drawing, measure, page, rehearsal, summary
from .measure import Measured, Settings, choose
from .painter import Painter
from .progress import Plan, Progress
from .results import Forecast, TrainingCurves, running_mean

NETWORKS = {"vanilla tanh network": "vanilla", "LSTM": "lstm"}
_SMOOTH = 20  # minibatches
_LOSS = (
    "The loss is that of the training, L_t = ½‖y_t − z_t‖² with z_t the next 12 values of the scaled series, on "
    "windows of the test months, which training never saw."
)
_DATA = (
    "Data: monthly mean relative sunspot numbers 1749–1983 (Swiss Federal Observatory, Zurich; from 1960 Tokyo "
    "Astronomical Observatory), as printed by Andrews & Herzberg (1985). One input, the present month (square root, "
    "standardised); twelve outputs, the months that follow. One training run each: another seed gives other errors."
)
_MARGIN = 0.02  # errors closer than this share are called equal


def write(work: Path, backend: str, progress: Progress | None) -> None:
    """Train, measure, compare, and write the page into ``work``."""
    stages: dict[str, float] = {}
    for name, weight in zip(NETWORKS, (4.0, 6.0), strict=True):
        stages |= {f"training the {name}": weight, f"analysing the {name}": 2.0}
    plan = Plan({**stages, "drawing": 3.0, "writing": 0.5}, progress)
    trained: dict[str, TrainedSunspots] = {}
    results: dict[str, tuple[Measured, Trajectory, Loss]] = {}
    groups: list[str] = []
    with Painter(work) as painter:
        if rehearsal.pays(backend):
            painter.rehearse(rehearse)
        for name, cell in NETWORKS.items():
            stage = f"training the {name}"
            plan(stage)
            trained[name] = one = train(cell, progress=_training(plan, stage))
            stage = f"analysing the {name}"
            plan(stage)
            traj, loss, settings = _to_analyse(one.net, one.x, one.target, backend)
            results[name] = measure.measure(traj, loss, settings, partial(plan, stage)), traj, loss
            groups += [name] * painter.add(drawing.pictures(results[name][0], name, f"_{cell}"))
        comparison = _comparison({name: result[0] for name, result in results.items()})
        forecast = _forecast(trained)
        groups += ["all"] * painter.add(_pictures(comparison, forecast, _curves(trained)))
        plan("drawing")
        figures = painter.finish(lambda share: plan("drawing", share))
    listed = [{**figure, "group": group} for figure, group in zip(figures, groups, strict=True)]
    listed.sort(key=lambda figure: figure["group"] != "all")  # what is about all of them comes first
    plan("writing")
    numbers = {name: summary.measured(m, traj, (traj.T, traj.B)) for name, (m, traj, _) in results.items()}
    page.write(
        work,
        {
            "made_by": "rnngrad",
            "versions": summary.versions(),
            "title": "How far do gradients travel? Two networks and the sunspot cycle",
            "lead": comparison.title + ".",
            "findings": _findings(results, forecast),
            "networks": numbers,
            "wanted": CYCLE,
            "cycle": CYCLE,
            "thresholds": next(iter(results.values()))[0].verdict.thresholds,
            "forecast": forecast.to_dict(),
            "loss": _LOSS,
            "source": {"data": "monthly mean sunspot numbers, 1749–1983"},
            "source_text": [_DATA],
        },
        listed,
    )
    plan.done()


def rehearse() -> None:
    """What takes kernels to do, with few units and one minibatch: what comes late in the job, first.

    The job begins with a training at the same time, and the two should not compile the same kernels.
    """
    rng = np.random.default_rng(0)
    x, target = (rng.standard_normal((LENGTH, 2, size)) for size in (1, HORIZON))
    for cell in reversed(NETWORKS.values()):
        net = Network.init(cell, 1, rehearsal.UNITS, HORIZON, seed=0)
        measure.rehearse(*_to_analyse(net, x, target, "cpu"))
        train(cell, n_hidden=rehearsal.UNITS, steps=1)


def _to_analyse(net: Network, x: NDArray, target: NDArray, backend: str) -> tuple[Trajectory, Loss, Settings]:
    traj, loss = rollout(net, x, backend=backend), losses.squared_error(target)
    return traj, loss, choose(traj, loss, wanted=CYCLE)


def _training(plan: Plan, stage: str) -> Callable[[int, int, float], None]:
    """What training calls after every minibatch."""

    def after(step: int, steps: int, loss: float) -> None:
        plan(stage, step / steps)

    return after


def _comparison(measured: dict[str, Measured]) -> Comparison:
    growths = {name: m.growth for name, m in measured.items()}
    kept = {name: float(growth.at(CYCLE)["gradient_median"]) for name, growth in growths.items()}
    parts = [f"{factor(value)} in the {name}" for name, value in kept.items()]
    return Comparison(
        growths=growths,
        lag=CYCLE,
        lag_name=f"sunspot cycle, {CYCLE} months",
        unit="months",
        title=f"After one cycle of {CYCLE} months the median gradient is " + " and ".join(parts),
    )


def _forecast(trained: dict[str, TrainedSunspots]) -> Forecast:
    one = next(iter(trained.values()))
    errors = {name: example.test_error for name, example in trained.items()}
    baselines = {"the present value": one.persistence_error, f"the value {CYCLE} months earlier": one.cycle_error}
    last = {name: float(error[-1]) for name, error in errors.items()}
    best = min(last, key=lambda name: last[name])
    baseline = min(baselines, key=lambda name: baselines[name][-1])
    return Forecast(
        horizon=np.arange(1, len(one.test_error) + 1),
        errors=errors,
        baselines=baselines,
        unit="sunspot number",
        horizon_unit="months",
        title=f"{len(one.test_error)} months ahead the {best} errs by {short(last[best])}, '{baseline}' by "
        f"{short(float(baselines[baseline][-1]))}",
    )


def _curves(trained: dict[str, TrainedSunspots]) -> TrainingCurves:
    smooth = {name: running_mean(example.loss_history, _SMOOTH) for name, example in trained.items()}
    last = [f"{short(float(values[-1]))} ({name})" for name, values in smooth.items()]
    return TrainingCurves(
        {name: example.loss_history for name, example in trained.items()},
        smooth,
        "Training loss at the end: " + ", ".join(last),
    )


def _findings(results: dict[str, Any], forecast: Forecast) -> list[str]:
    """What the comparison says, in sentences that the numbers decide."""
    lines = []
    for name, (m, _, _) in results.items():
        memory, share = m.memory, f"half of the reference steps keep less than {m.memory.eps:g} of their gradient"
        if np.isfinite(memory.median):
            side = "short of the cycle" if memory.median <= CYCLE else "beyond one cycle"
            lines.append(f"In the {name} {share} from lag {memory.median:.0f} on, {side}.")
        else:
            lines.append(f"In the {name} not even {share} within the {memory.longest} months looked at.")
    names = list(forecast.errors)
    for ahead in (1, len(forecast.horizon)):
        values = [float(forecast.errors[name][ahead - 1]) for name in names]
        first, second = values
        if abs(first - second) <= _MARGIN * max(values):
            text = "the two networks err alike"
        else:
            better = int(second < first)
            text = f"the {names[better]} errs less"
        baselines = ", ".join(
            f"{short(float(error[ahead - 1]))} for {name!r}" for name, error in forecast.baselines.items()
        )
        listed = " and ".join(f"{short(value)} ({name})" for name, value in zip(names, values, strict=True))
        lines.append(f"{ahead} month{'s' if ahead > 1 else ''} ahead {text}: {listed}, against {baselines}.")
    return lines


def _pictures(comparison: Comparison, forecast: Forecast, curves: TrainingCurves) -> list[drawing.Picture]:
    return [
        drawing.Picture(
            "reach_compared",
            (comparison,),
            "How far back each network's gradient reaches",
            "Median gradient and the middle 80 % of the reference steps. A dependency at the dashed line can be learnt "
            "only as far as the gradient still arrives there.",
        ),
        drawing.Picture(
            "forecast",
            (forecast,),
            "Forecast errors",
            "Over the test months (the last fifth of the series), beside two forecasts that need no network.",
        ),
        drawing.Picture("training", (curves,), "Training", f"Thin: every minibatch; thick: running mean of {_SMOOTH}."),
    ]
