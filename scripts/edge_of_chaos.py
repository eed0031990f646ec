"""At which gain does a random network turn chaotic, and does theory say so?

Left: the largest Lyapunov exponent of networks h <- phi(W h + b), W_ij ~ N(0, g^2/n), over g, as measured on single
networks and as mean field predicts, 1/2 ln chi. Right: the prediction over the spread of weights and of biases, with
the edge of chaos, where chi = 1: below it a change of the state is forgotten and gradients vanish, above it both
explode.

    python scripts/edge_of_chaos.py --out figures
"""

from __future__ import annotations

from collections.abc import Sequence

import _experiment
import numpy as np

import rnngrad as rg
from rnngrad.analysis.random_networks import random_networks

GAINS = (0.5, 0.7, 0.9, 1.0, 1.1, 1.3, 1.5, 2.0, 2.5, 3.0, 4.0)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _experiment.parser(__doc__)
    parser.add_argument("--gains", nargs="+", type=float, default=GAINS, help="g of the networks that are measured")
    parser.add_argument("--units", type=_experiment.count(), default=300, help="n (default: %(default)s)")
    parser.add_argument("--networks", type=_experiment.count(), default=3, help="per gain (default: %(default)s)")
    parser.add_argument(
        "--steps", type=_experiment.count(), default=500, help="measured on each network (default: %(default)s)"
    )
    parser.add_argument("--activation", default="tanh", help="phi (default: %(default)s)")
    parser.add_argument("--largest-bias", type=float, default=2.0, help="largest sigma_b (default: %(default)s)")
    parser.add_argument(
        "--resolution", type=_experiment.count(), default=41, help="points of each axis (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    measured = random_networks(
        options.gains,
        n=options.units,
        seeds=range(options.seed, options.seed + options.networks),
        steps=options.steps,
        activation=options.activation,
    )
    gains = np.linspace(min(options.gains), max(options.gains), options.resolution)
    spreads = np.linspace(0, options.largest_bias, options.resolution)
    phases = rg.phase_diagram(gains, spreads, activation=options.activation)
    _experiment.save(options.out, "edge_of_chaos", [measured, phases], size=(13.0, 4.8))


if __name__ == "__main__":
    main()
