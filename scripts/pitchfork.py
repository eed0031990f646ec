"""Fixed points of h <- tanh(w h) over the weight w: the pitchfork at w = 1, and the flip at w = -1.

The origin is stable for |w| < 1. At w = 1 it hands its stability to two points +-h*, w = atanh(h*)/h*; at w = -1 to a
cycle of two steps.

    python scripts/pitchfork.py --out figures
"""

from __future__ import annotations

from collections.abc import Sequence

import _experiment
import numpy as np

import rnngrad as rg
from rnngrad.fixedpoint.continuation import Branches

NEAR = 1e-3  # of the bifurcation: how near the outer curves are followed to it


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _experiment.parser(__doc__)
    parser.add_argument("--largest", type=float, default=2.5, help="of |w|, over 1 (default: %(default)s)")
    options = parser.parse_args(arguments)
    if not options.largest > 1:
        parser.error(f"--largest is {options.largest}; it must be over 1")
    one = rg.Network.init("vanilla", 0, 1)

    def net_of(w: float) -> rg.Network:
        return one.replace(W=np.array([[[w]]]))

    middle = rg.continue_fixed_point(net_of, [0.0], -options.largest, options.largest, name="w")
    outer = [rg.continue_fixed_point(net_of, [h], options.largest, 1 + NEAR, step=0.02, name="w") for h in (0.9, -0.9)]
    _experiment.save(options.out, "pitchfork", [Branches((middle, *outer))])


if __name__ == "__main__":
    main()
