"""How curved is the loss where training ends, in how many directions, and is there a way further down?

Networks trained on the monthly sunspot numbers: the eigenvalues of the Hessian of the training loss and of its
Gauss-Newton matrix, which leaves out the curvature of the network itself. Where the two differ, and where the Hessian
has negative eigenvalues, that curvature counts: the end of training is not a minimum.

    python scripts/hessian_spectrum.py --out figures
"""

from __future__ import annotations

from collections.abc import Sequence

import _experiment
import numpy as np

import rnngrad as rg
from rnngrad.training.sunspots import HORIZON, LENGTH, TRAINING_SHARE, WARM_UP, series, train


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _experiment.parser(__doc__)
    parser.add_argument("--cells", nargs="+", default=["vanilla", "lstm"], help="networks (default: vanilla lstm)")
    parser.add_argument("--units", type=_experiment.count(), default=8, help="hidden units (default: %(default)s)")
    parser.add_argument(
        "--training", type=_experiment.count(), default=300, help="minibatches of training (default: %(default)s)"
    )
    parser.add_argument("--leading", type=_experiment.count(), help="eigenvalues found one by one (default: all)")
    parser.add_argument(
        "--probes", type=_experiment.count(), default=8, help="random starts of the density (default: %(default)s)"
    )
    parser.add_argument(
        "--steps", type=_experiment.count(), default=64, help="Lanczos steps from each (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    parts = []
    for cell in options.cells:
        trained = train(cell, n_hidden=options.units, steps=options.training, seed=options.seed)
        x, target = training_windows(trained.scale)
        traj = rg.rollout(trained.net, x)
        loss = rg.losses.squared_error(target, rg.losses.from_step(WARM_UP + 1, LENGTH), reduction="mean")
        size = sum(a.size for a in trained.net.parameters.values())
        for matrix in ("hessian", "gauss_newton"):
            spectrum = rg.hessian_spectrum(
                traj, loss, matrix=matrix, leading=options.leading or size, probes=options.probes, steps=options.steps,
                seed=options.seed,
            )  # fmt: skip
            parts.append(spectrum)
            print(
                f"{cell}, {matrix}: trace {spectrum.trace:.3g} ± {spectrum.trace_error:.1g}, loss {spectrum.loss:.4g}"
            )
    _experiment.save(options.out, "hessian_spectrum", parts, size=(13.0, 5.0 * len(options.cells)), columns=2)


def training_windows(scale):
    """Inputs (LENGTH, B, 1) and targets (LENGTH, B, HORIZON) of consecutive windows of the training months."""
    _, value = series()
    z = scale.forward(value[: int(TRAINING_SHARE * len(value))])
    ahead = np.lib.stride_tricks.sliding_window_view(z[1:], HORIZON)
    count = len(ahead) // LENGTH
    window = np.arange(count) * LENGTH + np.arange(LENGTH)[:, None]
    return z[window][..., None], ahead[window]


if __name__ == "__main__":
    main()
