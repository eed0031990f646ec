"""How far above the truth do bounds of the gradient's growth lie?

One panel per cell: the measured norm of Phi(t, k) = ds_t/ds_k against the lag t - k, with every bound over it:
(gamma lambda)^(t-k) with the activation's and with the measured gamma, the bounds from the pointwise partials step by
step and by blocks of states, the product of the norms of J_j, and the product of their smallest singular values from
below. The last panel is the linear network W = [[.9, 10], [0, .9]]: its eigenvalues are .9, and for dozens of steps
its powers grow all the same, because W is not normal: an eigenvalue is a rate, not a bound.

    python scripts/bound_against_truth.py --out figures
"""

from __future__ import annotations

from collections.abc import Sequence

import _experiment
import numpy as np

import rnngrad as rg
from rnngrad.analysis.bounds import GrowthBounds

COUNTEREXAMPLE = np.array([[0.9, 10.0], [0.0, 0.9]])


def random_cell(cell: str, n: int, steps: int, seed: int) -> GrowthBounds:
    """Bounds of a random network along standard normal inputs, from the last step."""
    net = rg.Network.init(cell, 4, n, scheme="xavier", seed=seed)
    x = np.random.default_rng(seed).standard_normal((steps, 1, 4))
    return rg.growth_bounds(rg.rollout(net, x), times=[steps], name=cell)


def counterexample(steps: int) -> GrowthBounds:
    """Bounds of the non-normal linear network."""
    parameters = {"W": COUNTEREXAMPLE[None], "b": np.zeros((1, 2))}
    traj = rg.rollout(rg.Network.from_parameters("linear", parameters), steps=steps)
    return rg.growth_bounds(traj, times=[steps], name="W = [[.9, 10], [0, .9]]")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _experiment.parser(__doc__)
    parser.add_argument("--cells", nargs="+", default=["vanilla", "lstm", "gru"], help="default: vanilla lstm gru")
    parser.add_argument("--units", type=_experiment.count(), default=32, help="n (default: %(default)s)")
    parser.add_argument("--steps", type=_experiment.count(), default=60, help="T (default: %(default)s)")
    options = parser.parse_args(arguments)
    parts = [random_cell(cell, options.units, options.steps, options.seed) for cell in options.cells]
    parts.append(counterexample(options.steps))
    size = (10.0, 4.6 * ((len(parts) + 1) // 2))
    _experiment.save(options.out, "bound_against_truth", parts, size, columns=2)


if __name__ == "__main__":
    main()
