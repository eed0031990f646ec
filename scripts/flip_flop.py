"""What does a network that remembers three bits look like inside?

A network is trained on the 3-bit flip-flop: three inputs give rare pulses of +1 or -1, three outputs hold the last
pulse of each. Its fixed points without input, found from many states of its trajectories and from between the memories,
are what it computes with: eight stable ones, one for each content, and saddles whose unstable modes lead from one
memory to another (Sussillo & Barak 2013).

    python scripts/flip_flop.py --out figures
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import _experiment
import numpy as np
from numpy.typing import NDArray

import rnngrad as rg
from rnngrad.losses import squared_error
from rnngrad.training.optimizers import Adam, cosine

PULSES = 0.08  # per step and channel
NOISE = 0.3  # standard deviation, per unit, of what is added to a state to start from
PATHS = 10  # trajectories drawn
LENGTH = 80  # steps of a training sequence


def task(bits: int, T: int, B: int, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Pulses x (T, B, bits), and the last pulse of each channel; every channel begins with one."""
    x = rng.choice([-1.0, 1.0], (T, B, bits)) * (rng.random((T, B, bits)) < PULSES)
    x[0] = rng.choice([-1.0, 1.0], (B, bits))
    last = np.maximum.accumulate(np.where(x != 0, np.arange(T)[:, None, None], 0), axis=0)
    return x, np.take_along_axis(x, last, axis=0)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _experiment.parser(__doc__)
    parser.add_argument("--bits", type=_experiment.count(), default=3, help="(default: %(default)s)")
    parser.add_argument("--units", type=_experiment.count(2), default=64, help="n (default: %(default)s)")
    parser.add_argument("--steps", type=_experiment.count(), default=1500, help="of training (default: %(default)s)")
    parser.add_argument("--starts", type=_experiment.count(2), default=1000, help="of Newton (default: %(default)s)")
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(options.seed)
    net = rg.Network.init("vanilla", options.bits, options.units, options.bits, seed=options.seed)
    x, z = task(options.bits, LENGTH, 512, rng)
    made = rg.fit(
        net, x, z, steps=options.steps, batch=32, loss=partial(squared_error, reduction="mean"),
        optimizer=Adam(lr=2e-3), clip=1.0, schedule=cosine, seed=options.seed,
    )  # fmt: skip
    x, z = task(options.bits, 200, 40, rng)
    traj = rg.rollout(made.net, x)
    error = float(np.mean((traj.y - z) ** 2))
    states = traj.states[10:].reshape(-1, 1, options.units)
    starts = states[rng.integers(0, len(states), options.starts)]
    starts = starts + NOISE * rng.standard_normal(starts.shape)
    memories = rg.find_fixed_points(made.net, starts).end[: options.starts]
    pairs = rng.integers(0, options.starts, (2, options.starts))  # and the saddles lie between the memories
    between = memories[pairs[0]] + rng.random((options.starts, 1, 1)) * (memories[pairs[1]] - memories[pairs[0]])
    points = rg.find_fixed_points(made.net, np.concatenate([starts, between]))
    held = made.net.V @ points.h[points.stable].T + made.net.c[:, None]
    contents = {tuple(np.sign(one).astype(int)) for one in held.T}
    print(f"mean squared error on new sequences: {error:.2g}")
    words, counts = np.unique(points.status, return_counts=True)
    print("starts:", ", ".join(f"{count} {word}" for word, count in zip(words, counts, strict=True)))
    print(f"contents held by stable points: {len(contents)} of {2**options.bits}")
    by_kind = np.bincount(points.unstable)
    print("fixed points by unstable directions:", ", ".join(f"{count} with {k}" for k, count in enumerate(by_kind)))
    _experiment.save(options.out, "flip_flop", [rg.fixed_point_portrait(points, traj, paths=PATHS)], size=(7.4, 5.6))


if __name__ == "__main__":
    main()
