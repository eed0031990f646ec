"""What does the gradient at a fixed point cost as the spectral radius nears one, and who still answers beyond?

One random tanh network with a fixed point put where J has each spectral radius in turn. Products with J until the
adjoint is accurate to a relative 1e-10, by fixed-point iteration (Almeida-Pineda) and by three Krylov methods. The
iteration takes ln tol / ln rho and raises an error from rho = 1 on; the others need only a regular I - J.

    python scripts/adjoint_convergence.py --out figures
"""

from __future__ import annotations

from collections.abc import Sequence

import _experiment

from rnngrad.analysis.adjoint_convergence import adjoint_convergence

RADII = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 1.005, 1.05, 1.1, 1.2, 1.35, 1.5)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _experiment.parser(__doc__)
    parser.add_argument("--radii", nargs="+", type=float, default=RADII, help="rho(J)")
    parser.add_argument("--units", type=_experiment.count(), default=64, help="n (default: %(default)s)")
    options = parser.parse_args(arguments)
    if min(options.radii) <= 0:
        parser.error(f"--radii is {options.radii}; all must be positive")
    result = adjoint_convergence(options.radii, n=options.units, seed=options.seed)
    _experiment.save(options.out, "adjoint_convergence", [result])


if __name__ == "__main__":
    main()
