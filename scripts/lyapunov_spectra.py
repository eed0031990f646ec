"""How many directions of a random network's state expand, and how fast, at each gain?

Random networks h <- tanh(W h), W_ij ~ N(0, g^2/n). Left: the largest Lyapunov exponent over g, with its 95 % interval,
and mean field, 1/2 ln chi. Right: all exponents by rank for some of the gains. Below g = 1 the network comes to rest
and the exponents are ln|eigenvalue| of W, of which a fraction e^{2s}/g^2 is below s (circular law, dashed); above,
those over 0 expand: chaos.

    python scripts/lyapunov_spectra.py --out figures
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import _experiment
import numpy as np

from rnngrad.analysis.spectrum_sweep import spectrum_sweep

GAINS = (0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 2.0, 2.5, 3.0)
DRAWN = (0.5, 0.9, 1.5, 3.0)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _experiment.parser(__doc__)
    parser.add_argument("--gains", nargs="+", type=float, default=GAINS, help="g of the largest exponents")
    parser.add_argument("--drawn", nargs="+", type=float, default=DRAWN, help="g of the spectra, some of --gains")
    parser.add_argument("--units", type=_experiment.count(), default=150, help="n (default: %(default)s)")
    parser.add_argument("--steps", type=_experiment.count(), default=500, help="measured (default: %(default)s)")
    options = parser.parse_args(arguments)
    if not set(options.drawn) <= set(options.gains):
        parser.error(f"--drawn is {options.drawn}; these must be among --gains, {options.gains}")
    leading, spectra = spectrum_sweep(options.gains, n=options.units, steps=options.steps, seed=options.seed)
    keep = np.isin(spectra.g, options.drawn)
    shown = {name: getattr(spectra, name)[keep] for name in ("g", "exponents", "circular", "kaplan_yorke")}
    _experiment.save(options.out, "lyapunov_spectra", [leading, replace(spectra, **shown)], size=(13.0, 4.8))


if __name__ == "__main__":
    main()
