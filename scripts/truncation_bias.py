"""Which window does truncated backpropagation through time need, in a vanilla network and in an LSTM?

Both are trained to answer with the input of ``--delay`` steps ago. On new input the gradient g_w truncated at w steps
is compared with the full gradient g of all recurrent parameters: full lines show the bias ||g_w - g||/||g||, dashed
lines 1 - cosine. The dotted lines mark the smallest window from which on the bias stays below ``--wanted``.

    python scripts/truncation_bias.py --out figures
"""

from __future__ import annotations

from collections.abc import Sequence

import _delayed_echo
import _experiment

import rnngrad as rg
from rnngrad.analysis.truncation import TruncationComparison
from rnngrad.analysis.words import short


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _experiment.parser(__doc__)
    parser.add_argument("--cells", nargs="+", choices=list(rg.CELLS), default=["vanilla", "lstm"], help="cells")
    parser.add_argument("--units", type=_experiment.count(), default=32, help="n (default: %(default)s)")
    parser.add_argument(
        "--delay", type=_experiment.count(), default=8, help="of the task, steps (default: %(default)s)"
    )
    parser.add_argument(
        "--length", type=_experiment.count(), default=150, help="T of the new input (default: %(default)s)"
    )
    parser.add_argument(
        "--steps", type=_experiment.count(), default=1000, help="minibatches of training (default: %(default)s)"
    )
    parser.add_argument("--wanted", type=float, default=0.1, help="relative bias (default: %(default)s)")
    options = parser.parse_args(arguments)
    parts = {}
    for cell in options.cells:
        net = _delayed_echo.fresh(cell, options.units, options.seed)
        net = _delayed_echo.trained(net, options.delay, options.steps, options.seed)
        traj, loss, _ = _delayed_echo.examined(net, options.delay, options.length, 8, options.seed)
        parts[_delayed_echo.NAMES.get(cell, cell)] = rg.truncation_bias(
            traj, loss, range(1, traj.T + 1), wanted=options.wanted, parameters=list(net.cell.shapes(1, 1))
        )
    needed = ", ".join(f"{part.smallest:.0f} steps ({name})" for name, part in parts.items())
    title = f"A bias of at most {short(options.wanted)} takes a window of {needed}"
    result = TruncationComparison(parts, options.delay, f"delay of the task, {options.delay} steps", title)
    _experiment.save(options.out, "truncation_bias", [result])


if __name__ == "__main__":
    main()
