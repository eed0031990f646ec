"""The command line. Errors are one line on standard error and exit status 2."""

from __future__ import annotations

import argparse
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from . import __version__

_ABOUT = """\
Write a folder that answers how far gradients travel in a recurrent network, and why:
index.html (readable without a server), every figure as PNG and SVG with its numbers
(.npz), and report.json with every number of the text.

Without MODEL, a vanilla tanh network and an LSTM are trained to predict monthly sunspot
numbers and compared: does the gradient reach back one cycle of 132 months?

With MODEL and --input, that network is analysed along that input. As loss serves the
probe 1/2 |y_t|^2 of every step.
"""
_EXAMPLES = """\
examples:
  rnngrad report
  rnngrad report model.safetensors --input features.npy --prefix lstm_cell. --out lstm/
  rnngrad report weights.npz --input x.npy --cell gru --out gru/ --force
"""


class _Parser(argparse.ArgumentParser):
    """Errors on one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """The parser of ``rnngrad``."""
    top = _Parser(prog="rnngrad", description="How far do gradients travel in my recurrent network, and why?")
    top.add_argument("--version", action="version", version=f"rnngrad {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    job = commands.add_parser(
        "report",
        help="measure a network's gradients and write a page with figures and numbers",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    job.add_argument(
        "model", metavar="MODEL", nargs="?", help="network in PyTorch's order or our own: .safetensors or .npz"
    )
    job.add_argument("--input", metavar="X.npy", help="input, time first: (T, m) or (T, B, m)")
    job.add_argument("--cell", help="kind of cell, where the file does not tell (vanilla, lstm, gru, …)")
    job.add_argument("--prefix", default="", help="what the tensors' names begin with, such as 'lstm_cell.'")
    job.add_argument("--out", metavar="DIR", default="report", help="folder to write (default: report)")
    job.add_argument("--force", action="store_true", help="replace an earlier report in DIR")
    job.add_argument(
        "--backend", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute (default: auto)"
    )
    doctor = commands.add_parser(
        "doctor",
        help="print versions, device, threads, BLAS and cache folder, and test every backend",
        description="Print versions, device, threads, BLAS and cache folder, and test every backend. "
        "The exit status is 1 if a test failed.",
    )
    doctor.add_argument(
        "--measure", action="store_true", help="time both backends too, for backend 'auto' to go by (needs a GPU)"
    )
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    top = parser()
    args = top.parse_args(argv)
    if args.command is None:
        top.print_help()
        return 0
    if args.command == "doctor":
        from .doctor import main as doctor

        return doctor(args.measure)
    return _report(args)


def _report(args: argparse.Namespace) -> int:
    if args.model is None and args.input is not None:
        return _fail("--input needs a MODEL")
    if args.model is not None and args.input is None:
        return _fail("MODEL needs --input X.npy, an input (T, m) or (T, B, m)")
    if args.model is None and (args.cell or args.prefix):
        return _fail("--cell and --prefix need a MODEL")
    from .errors import BackendError, DivergenceWarning
    from .report.job import report
    from .report.progress import Bar

    bar, stop = Bar(), Stop()

    def progress(stage: str, share: float) -> None:
        stop.check()
        bar(stage, share)

    try:
        with stop, warnings.catch_warnings():
            warnings.simplefilter("ignore", DivergenceWarning)  # the error that follows says it better
            page = report(
                args.model,
                args.input,
                args.out,
                cell=args.cell,
                prefix=args.prefix,
                force=args.force,
                backend=args.backend,
                progress=progress,
            )
    except (ValueError, ArithmeticError, OSError, ImportError, MemoryError, BackendError) as error:
        bar.close()
        return _fail(_one_line(error))
    except KeyboardInterrupt:
        bar.close()
        print("rnngrad: interrupted; nothing was written", file=sys.stderr)
        return 130
    finally:
        bar.close()
    print(page)
    return 0


def _fail(message: str) -> int:
    print(f"rnngrad: error: {message}", file=sys.stderr)
    return 2


def _one_line(error: BaseException) -> str:
    """What went wrong, without the number and quotes that the system puts around it."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"out of memory ({error})" if str(error) else "out of memory"
    return " ".join(str(error).split()) or type(error).__name__


def _in_main_thread() -> bool:
    import threading

    return threading.current_thread() is threading.main_thread()


class Stop:
    """While active, a signal to end raises where it arrives, so that the clean-up runs and nothing is half-written.

    What arrives in a callback or finalizer of the compiler is swallowed there, with a traceback on stderr; here it is
    kept quiet, raised again a moment later (where the system has timers), or at the next ``check``.
    """

    def __init__(self) -> None:
        self._caught: int | None = None
        self._previous: dict[int, Any] = {}
        self._timed = False

    def __enter__(self) -> Stop:
        if _in_main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) is not signal.SIG_IGN:  # ignored by who started us: so it stays
                    self._previous[number] = signal.signal(number, self._handle)
            if hasattr(signal, "setitimer"):
                self._timed = True
                self._previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, lambda number, frame: self.check())
        self._hook, sys.unraisablehook = sys.unraisablehook, self._swallowed
        return self

    def __exit__(self, *exception: object) -> None:
        if self._timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = self._hook
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _swallowed(self, unraisable: Any) -> None:
        if self._caught is None or not isinstance(unraisable.exc_value, (SystemExit, KeyboardInterrupt)):
            self._hook(unraisable)
        elif self._timed:
            signal.setitimer(signal.ITIMER_REAL, 0.05)

    def _handle(self, number: int, frame: Any) -> None:
        self._caught = number
        self.check()

    def check(self) -> None:
        """Raise if a signal has come."""
        if self._caught == signal.SIGINT:
            raise KeyboardInterrupt
        if self._caught is not None:
            raise SystemExit(128 + self._caught)


if __name__ == "__main__":
    sys.exit(main())
