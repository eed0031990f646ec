"""When do gradients vanish, and when do they explode?

Random networks h <- tanh(W h), W_ij ~ N(0, g^2/n), for a range of gains g: the norm of the gradient of a loss at step t
with respect to the state at step t - lag, relative to its start, against the lag (median and middle 80 % over reference
steps and samples). The dashed lines are mean field: chi^(lag/2), which vanishes below g = 1 and explodes above.

    python scripts/vanishing_exploding.py --out figures
"""

from __future__ import annotations

from collections.abc import Sequence

import _experiment

from rnngrad.analysis.gain_sweep import gain_sweep


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _experiment.parser(__doc__)
    parser.add_argument("--gains", nargs="+", type=float, default=[0.5, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0], help="g")
    parser.add_argument("--units", type=_experiment.count(), default=300, help="n (default: %(default)s)")
    parser.add_argument(
        "--lag", type=_experiment.count(), default=100, help="largest lag, steps (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    result = gain_sweep(options.gains, n=options.units, lag=options.lag, seed=options.seed)
    _experiment.save(options.out, "vanishing_exploding", [result])


if __name__ == "__main__":
    main()
