"""``rnngrad report``: measure, draw, write, and only then put the folder in its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .. import losses
from ..dynamics.rollout import rollout
from ..dynamics.stack import StackTrajectory
from ..kernels import backend as find_backend
from ..losses import Loss
from . import drawing, folder, inputs, page, rehearsal, summary
from .measure import Measured, choose, measure
from .measure import rehearse as rehearse_analyses
from .painter import Painter
from .progress import Plan, Progress

PROBE = (
    "No loss was given, so the probe L_t = ½‖y_t‖² of each step is used: it asks how far back the output of a step can "
    "be traced. The chain Φ does not depend on it."
)
PROBE_AT_REST = (
    "No loss was given, and an output is 0 at every step, where the usual probe ½‖y_t‖² has no gradient; the probe "
    "L_t = ½‖y_t − 1‖² is used for it: it asks how far back the output of a step can be traced. The chain Φ does not "
    "depend on it."
)
DIRECTIONS = (
    "The layers run in both directions, so no state of one step determines the next. Each direction of each layer is "
    "looked at by itself, in its own order of time: how far its own output can be traced back within the layer."
)


def report(
    net_or_path: Any = None,
    x: Any = None,
    out: Any = "report/",
    *,
    cell: str | None = None,
    prefix: str = "",
    loss: Loss | None = None,
    wanted: int | None = None,
    force: bool = False,
    backend: str = "auto",
    progress: Progress | None = None,
) -> Path:
    """Write a folder that answers how far gradients travel in a network, and why: what ``rnngrad report`` runs.

    The folder holds index.html (self-contained), every figure as PNG and SVG with its numbers as .npz, and report.json
    with every number of the text. It appears whole or not at all. Where the input of a Network or System never changes,
    a section on fixed points says which there are, where the trajectories end, and what that means for gradients.

    Parameters
    ----------
    net_or_path : Network, Stack, System or path
        A network, or a .safetensors or .npz file of one (PyTorch's order or our own). Without it two networks are
        trained on monthly sunspot numbers and compared.
    x : array or path
        Input (T, m) or (T, B, m), time first, or a .npy file of it; converted to the network's precision.
    out : path
        The folder.
    cell, prefix : str
        As for :func:`rnngrad.load`.
    loss : Loss
        Made for the whole of x. By default the probe L_t = 1/2 ||y_t||^2 of every step; then at most 8 samples are
        looked at, and of a very long record only the beginning.
    wanted : int
        Lag the verdict is about; by default 100 steps, or half of a shorter record.
    force : bool
        Replace an earlier report. A folder that holds anything else is never touched.
    backend : str
        "auto", "cpu" or "cuda".
    progress : callable
        Called as ``progress(stage, share)`` with the share of the whole that is done.

    Returns
    -------
    Path
        The page, index.html.

    Raises
    ------
    ValueError
        Model and input do not fit, are not finite, or the trajectory diverges.
    FileExistsError
        ``out`` exists and may not be replaced.
    OSError
        A file cannot be read, or the folder not be written.
    BackendError
        The backend cannot run here.

    Notes
    -----
    A second process draws figures while the analysis goes on, and before that compiles kernels that are not in the
    cache, unless kernels are held to one thread (``RNNGRAD_NUM_THREADS=1``).
    """
    if (net_or_path is None) != (x is None):
        raise ValueError(
            f"{'the model' if x is not None else 'the input x'} is missing: give both, or neither for the example"
        )
    find_backend(backend)  # before anything takes time
    target = Path(out)
    with folder.new_folder(target, force) as work:
        if net_or_path is None:
            from . import example

            example.write(work, backend, progress)
        else:
            _write(work, net_or_path, x, cell, prefix, loss, wanted, backend, progress)
    return target / folder.INDEX


def _write(
    work: Path,
    source: Any,
    x: Any,
    cell: str | None,
    prefix: str,
    loss: Loss | None,
    wanted: int | None,
    backend: str,
    progress: Progress | None,
) -> None:
    plan = Plan({"reading": 1, "forward pass": 2, "analysing": 10, "drawing": 8, "writing": 1}, progress)
    plan("reading")
    net, from_model = inputs.read_network(source, cell, prefix)
    x, from_input = inputs.read_input(x, net)
    record, held = x.shape[:2], inputs.held(net, x)
    if loss is None:
        x = inputs.affordable(net, x)
    plan("forward pass")
    measured: dict[str, Measured] = {}
    groups: list[str] = []
    with Painter(work) as painter:
        traj = rollout(net, x, backend=backend)
        traj.require_finite()
        parts = sections(traj, loss)
        small = rehearsal.in_small(net)
        if small is not None and rehearsal.pays(backend):
            painter.rehearse(rehearse, small, x.shape[:2], held)
        for i, (name, (part, part_loss)) in enumerate(parts.items()):
            tick = _share(plan, "analysing", i, len(parts))
            measured[name] = measure(part, part_loss, choose(part, part_loss, wanted=wanted), tick, held=held)
            own = drawing.pictures(measured[name], name, f"_{i}" if len(parts) > 1 else "")
            groups += [name] * painter.add(own)
        plan("drawing")
        figures = painter.finish(lambda share: plan("drawing", share))
    numbers = {name: summary.measured(measured[name], part, record) for name, (part, _) in parts.items()}
    last = list(measured.values())[-1]
    plan("writing")
    page.write(
        work,
        {
            "made_by": "rnngrad",
            "versions": summary.versions(),
            "title": f"How far do gradients travel in this {summary.describe(net)}?",
            "lead": last.verdict.summary,
            "findings": [DIRECTIONS] if len(parts) > 1 else [],
            "networks": numbers,
            "wanted": last.settings.wanted,
            "thresholds": last.verdict.thresholds,
            "loss": _loss_text(parts, loss),
            "source": from_model | from_input,
            "source_text": _source_text(from_model | from_input, net.dtype.name),
        },
        [{**figure, "group": group} for figure, group in zip(figures, groups, strict=True)],
    )
    plan.done()


def rehearse(small: tuple[Any, ...], record: tuple[int, int], held: bool) -> None:
    """What takes kernels to do with a small network (see ``rehearsal.in_small``): what comes last in the job, first."""
    net = rehearsal.build(*small)
    T, B = min(record[0], rehearsal.STEPS), min(record[1], rehearsal.SAMPLES)
    x = np.random.default_rng(0).standard_normal((1 if held else T, B, net.m))
    traj = rollout(net, np.broadcast_to(x, (T, B, net.m)).astype(net.dtype), backend="cpu")
    for part, loss in reversed(sections(traj, None).values()):
        rehearse_analyses(part, loss, choose(part, loss), held=held)


def _share(plan: Plan, stage: str, i: int, count: int) -> Callable[[float], None]:
    """Progress of part i of ``count`` equal parts of a stage."""
    return lambda share: plan(stage, (i + share) / count)


def sections(traj: Any, loss: Loss | None) -> dict[str, tuple[Any, Loss]]:
    """What the page looks at, by name: the whole, or every direction of a stack that runs in both.

    Raises
    ------
    ValueError
        A loss was given for a stack that runs in both directions.
    """
    if isinstance(traj, StackTrajectory) and traj.net.bidirectional:
        if loss is not None:
            raise ValueError(
                "loss was given, but the stack runs in both directions: each is looked at by itself, with the probe "
                "of its own output; leave the loss out"
            )
        ways = ("forward", "backward")
        every = {
            f"layer {layer}, {way}": one
            for layer, row in enumerate(traj.layers)
            for way, one in zip(ways, row, strict=False)
        }
        return {name: (one, _probe(one)) for name, one in every.items()}
    return {summary.describe(traj.net): (traj, _probe(traj) if loss is None else loss)}


def _probe(traj: Any) -> Loss:
    """A loss that asks for the output itself: its distance from 0, or from 1 where it never leaves 0."""
    return losses.squared_error(np.zeros_like(traj.y) if traj.y.any() else np.ones_like(traj.y))


def _loss_text(parts: dict[str, tuple[Any, Loss]], loss: Loss | None) -> str:
    if loss is not None:
        return f"The loss is the one that was given ({loss.kind})."
    return PROBE if all(part.y.any() for part, _ in parts.values()) else PROBE_AT_REST


def _source_text(said: dict[str, Any], dtype: str) -> list[str]:
    lines = []
    if said["model"]:
        lines.append(f"Model: {said['model']}, prefix {said['prefix']!r}, SHA-256 {said['model_sha256']}.")
    if said["input"]:
        lines.append(f"Input: {said['input']}, SHA-256 {said['input_sha256']}.")
    if said["converted_from"]:
        lines.append(f"The input was converted from {said['converted_from']} to {dtype}, the network's precision.")
    return lines
