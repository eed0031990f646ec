"""Recurrent backpropagation against backpropagation through time, on an associative memory.

A network relaxes to a fixed point with a corrupted pattern as its held input and is trained to show the pattern itself:
by the implicit gradient at the fixed point (Almeida 1987, Pineda 1987), by backpropagation through the steps that led
there, and by two terms of the Neumann series. The picture shows how far from the implicit gradient the others are,
after training, over the steps they go back; the training curves are among the numbers.

    python scripts/recurrent_backpropagation.py --out figures
"""

from __future__ import annotations

from collections.abc import Sequence

import _experiment

from rnngrad.training.associative_memory import associative_memory


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _experiment.parser(__doc__)
    parser.add_argument("--units", type=_experiment.count(2), default=40, help="n (default: %(default)s)")
    parser.add_argument("--patterns", type=_experiment.count(), default=6, help="(default: %(default)s)")
    parser.add_argument("--steps", type=_experiment.count(), default=200, help="of training (default: %(default)s)")
    parser.add_argument("--depth", type=_experiment.count(2), default=60, help="of BPTT (default: %(default)s)")
    options = parser.parse_args(arguments)
    result = associative_memory(
        units=options.units, patterns=options.patterns, steps=options.steps, depth=options.depth, seed=options.seed
    )
    print(f"bits that are right: {result.corrupted:.0%} in the input, {result.recalled:.0%} at the fixed point")
    for name, curve in result.losses.items():
        print(f"mean squared error trained by {name}: {curve[0]:.3g} at first, {curve[-10:].mean():.3g} in the end")
    _experiment.save(options.out, "recurrent_backpropagation", [result])


if __name__ == "__main__":
    main()
