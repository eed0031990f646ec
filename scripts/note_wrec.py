"""What does the four-unit network of lecture note 001 do to a gradient?

W_rec = [[1, 0, 0, .4], [.9, 0, .6, .5], [0, 0, 0, .3], [0, .8, 0, .7]]: the matrix, its eigenvalues, the exact power
W_rec^lag (rational arithmetic), and the chain of its linear network, whose norm is that of the power at every lag,
with the bound sigma_max^lag above it and the rate rho^lag beside it.

    python scripts/note_wrec.py --out figures
"""

from __future__ import annotations

from collections.abc import Sequence

import _experiment
import numpy as np

import rnngrad as rg
from rnngrad.analysis.linear import matrix_power

W_REC = np.array([[1, 0, 0, 0.4], [0.9, 0, 0.6, 0.5], [0, 0, 0, 0.3], [0, 0.8, 0, 0.7]])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _experiment.parser(__doc__)
    parser.add_argument("--steps", type=_experiment.count(), default=40, help="T (default: %(default)s)")
    parser.add_argument(
        "--lag", type=_experiment.count(), default=20, help="of the power that is drawn (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.lag > options.steps:
        parser.error(f"--lag is {options.lag}; it must be at most --steps, {options.steps}")
    net = rg.Network.from_parameters("linear", {"W": W_REC[None], "b": np.zeros((1, 4))})
    traj = rg.rollout(net, steps=options.steps)
    exact = matrix_power(W_REC, options.lag, name="W_rec")
    error = np.abs(rg.jacobian_chain(traj).product(options.lag, 0)[0] - exact.values).max() / np.abs(exact.values).max()
    parts = [
        matrix_power(W_REC, 1, name="W_rec"),
        rg.weight_spectrum(net),
        exact,
        rg.growth_bounds(traj, times=[options.steps], name="W_rec"),
    ]
    _experiment.save(options.out, "note_wrec", parts, size=(10.0, 9.0), columns=2)
    print(f"the chain over {options.lag} steps differs from the exact power by {error:.2g} of its largest entry")


if __name__ == "__main__":
    main()
