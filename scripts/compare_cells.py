"""How far back does the gradient of a vanilla network, a GRU and an LSTM reach, before and after training?

All cells have the same number of units, the same task (answer with the input of ``--delay`` steps ago) and the same
input. Each line is the median over reference steps and samples of the gradient of one step's loss with respect to the
state some lags earlier, relative to its start; the band holds the middle 80 %. Left: freshly initialised; right:
trained by Adam on the same minibatches. A dependency at the dashed line can be learnt only as far as the gradient
arrives there. "error" is the squared error's share of the target's variance: 100 % is what answering 0 gets.

    python scripts/compare_cells.py --out figures
"""

from __future__ import annotations

from collections.abc import Sequence

import _delayed_echo
import _experiment

import rnngrad as rg
from rnngrad.analysis.comparison import Comparison, ReachByLag, reach_by_lag
from rnngrad.analysis.words import factor, short


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _experiment.parser(__doc__)
    names = _delayed_echo.NAMES
    parser.add_argument("--cells", nargs="+", choices=list(rg.CELLS), default=list(names), help="default: %(default)s")
    parser.add_argument("--units", type=_experiment.count(), default=32, help="n (default: %(default)s)")
    parser.add_argument(
        "--delay", type=_experiment.count(), default=8, help="of the task, steps (default: %(default)s)"
    )
    parser.add_argument("--lag", type=_experiment.count(), default=60, help="largest lag, steps (default: %(default)s)")
    parser.add_argument(
        "--steps", type=_experiment.count(), default=1000, help="minibatches of training (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    parts = []
    nets = {names.get(cell, cell): _delayed_echo.fresh(cell, options.units, options.seed) for cell in options.cells}
    for when in ("Fresh", "Trained"):
        if when == "Trained":
            nets = {
                name: _delayed_echo.trained(net, options.delay, options.steps, options.seed)
                for name, net in nets.items()
            }
        parts.append(compared(when, nets, options.delay, options.lag, options.seed))
    _experiment.save(options.out, "compare_cells", parts, (12.4, 5.2))


def compared(when: str, nets: dict[str, rg.Network], delay: int, lag: int, seed: int) -> Comparison:
    """One panel: every network on the same new input."""
    growths: dict[str, ReachByLag] = {}
    kept = []
    for name, net in nets.items():
        traj, loss, error = _delayed_echo.examined(net, delay, delay + lag + 60, 8, seed)
        reach = rg.gradient_reach(traj, loss, times=range(delay + lag + 1, traj.T + 1), max_lag=lag)
        label = f"{name} (error {short(100 * error)} %)"
        growths[label] = reach_by_lag(reach)
        kept.append(f"{factor(float(growths[label].gradient[1, delay]))} ({name})")
    return Comparison(
        growths=growths,
        lag=delay,
        lag_name=f"delay of the task, {delay} steps",
        unit="steps",
        title=f"{when}: at lag {delay} the median gradient is {', '.join(kept)}",
    )


if __name__ == "__main__":
    main()
