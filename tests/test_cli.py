"""The command line: exit statuses, one-line errors, no traceback, nothing half-written."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import rnngrad as rg
from rnngrad.cli import main

COMMAND = [sys.executable, "-m", "rnngrad"]
ROOT = str(Path(rg.__file__).parents[1])  # the package may not be installed
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")])}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A network and an input in files, and the folder of the test as the current one."""
    monkeypatch.chdir(tmp_path)
    net = rg.Network.init("gru", 3, 4, 2, seed=0)
    np.savez("net.npz", **net.parameters, cell="gru")
    np.save("x.npy", np.random.default_rng(0).standard_normal((12, 2, 3)))
    return tmp_path


@pytest.fixture
def quick(monkeypatch):
    """No figures, where they are not the point."""
    from rnngrad.report import drawing

    monkeypatch.setattr(drawing, "pictures", lambda *arguments: [])


def failed(capsys, *arguments):
    """Run and expect exit status 2, one line on standard error, nothing on standard output; the line."""
    try:
        status = main(arguments)
    except SystemExit as stop:  # argparse
        status = stop.code
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("rnngrad: ") or "error" in line]
    assert status == 2 and out == "" and len(lines) == 1 and "Traceback" not in err
    assert "rnngrad" in lines[0] and "error: " in lines[0]
    return lines[0]


def test_report(files, capsys):
    assert main(["report", "net.npz", "--input", "x.npy", "--out", "out"]) == 0
    out, err = capsys.readouterr()
    assert out.strip() == os.path.join("out", "index.html") and (files / "out" / "index.html").is_file()
    assert "rnngrad: drawing" in err.splitlines()


@pytest.mark.usefixtures("quick")
def test_existing_report_needs_force(files, capsys):
    arguments = ["report", "net.npz", "--input", "x.npy"]
    assert main(arguments) == 0
    assert (files / "report" / "index.html").is_file()  # the default folder
    capsys.readouterr()
    assert "--force" in failed(capsys, *arguments)
    assert main([*arguments, "--force"]) == 0


def test_version_and_help(capsys):
    for arguments, expected in (
        (["--version"], f"rnngrad {rg.__version__}"),
        (["report", "--help"], "--input"),
        (["--help"], "report"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0 and expected in capsys.readouterr().out
    assert main([]) == 0 and "usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "nonsense"),
        (["report", "--nonsense"], "--nonsense"),
        (["report", "--backend", "abacus"], "abacus"),
        (["report", "net.npz"], "--input"),
        (["report", "--input", "x.npy"], "MODEL"),
        (["report", "--cell", "lstm"], "MODEL"),
        (["report", "none.npz", "--input", "x.npy"], "none.npz"),
        (["report", "x.npy", "--input", "x.npy"], ".safetensors"),
        (["report", "text.safetensors", "--input", "x.npy"], "text.safetensors"),
        (["report", "text.npz", "--input", "x.npy"], "text.npz"),
        (["report", "pickle.pt", "--input", "x.npy"], "pickle.pt"),
        (["report", "net.npz", "--input", "none.npy"], "none.npy"),
        (["report", "net.npz", "--input", "text.npy"], "text.npy"),
        (["report", "net.npz", "--input", "empty.npy"], "empty.npy"),
        (["report", "net.npz", "--input", "cut.npy"], "cut.npy"),
        (["report", "net.npz", "--input", "objects.npy"], "objects.npy"),
        (["report", "net.npz", "--input", "wide.npy"], "(12, 7)"),
        (["report", "net.npz", "--input", "nan.npy"], "nan"),
        (["report", "net.npz", "--input", "words.npy"], "real numbers"),
        (["report", "net.npz", "--input", "."], ": "),
        (["report", "net.npz", "--input", "x.npy", "--cell", "lstm"], "lstm"),
        (["report", "net.npz", "--input", "x.npy", "--prefix", "rnn."], "rnn."),
        (["report", "net.npz", "--input", "x.npy", "--out", "/proc/none/report"], "/proc/none"),
        (["report", "net.npz", "--input", "x.npy", "--out", "x.npy/report"], "x.npy"),
        (["report", "net.npz", "--input", "x.npy", "--out", "x.npy"], "x.npy"),
        (["report", "net.npz", "--input", "x.npy", "--out", ".", "--force"], "no report"),
    ],
)
def test_errors_are_one_line(arguments, message, files, capsys):
    for name in ("text.safetensors", "text.npz", "text.npy"):
        (files / name).write_text("this is not such a file\n")
    (files / "pickle.pt").write_bytes(b"\x80\x04.")
    (files / "empty.npy").write_bytes(b"")
    (files / "cut.npy").write_bytes((files / "x.npy").read_bytes()[:200])
    np.save("objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    np.save("wide.npy", np.zeros((12, 7)))
    np.save("nan.npy", np.full((12, 3), np.nan))
    np.save("words.npy", np.array([["a", "b", "c"]]))
    before = sorted(os.listdir(files))
    assert message in failed(capsys, *arguments)
    assert sorted(os.listdir(files)) == before


def test_a_diverging_network_is_one_line(files, capsys):
    np.savez("grows.npz", W=1e90 * np.eye(3)[None], U=np.eye(3)[None], b=np.zeros((1, 3)), cell="linear")
    assert "not finite from step" in failed(capsys, "report", "grows.npz", "--input", "x.npy")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_line(files, capsys):
    (files / "locked").mkdir(mode=0o500)
    assert "ermission" in failed(capsys, "report", "net.npz", "--input", "x.npy", "--out", "locked/report")


def test_a_folder_that_cannot_be_written_is_one_line(files, capsys, monkeypatch):
    """As above, for root."""
    import tempfile

    def refuse(**options):
        raise PermissionError(13, "Permission denied", str(options["dir"]))

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    assert "Permission denied" in failed(capsys, "report", "net.npz", "--input", "x.npy", "--out", "locked/report")


@pytest.mark.usefixtures("quick")
def test_a_full_disk_is_one_line_and_leaves_nothing(files, capsys, monkeypatch):
    from rnngrad.report import page

    def refuse(*arguments):
        raise OSError(28, "No space left on device", "index.html")

    monkeypatch.setattr(page, "write", refuse)
    before = sorted(os.listdir(files))
    assert "No space left" in failed(capsys, "report", "net.npz", "--input", "x.npy")
    assert sorted(os.listdir(files)) == before


@pytest.mark.usefixtures("quick")
def test_interruption_is_no_traceback(files, capsys, monkeypatch):
    from rnngrad.report import page

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(page, "write", interrupt)
    before = sorted(os.listdir(files))
    assert main(["report", "net.npz", "--input", "x.npy"]) == 130
    assert "Traceback" not in capsys.readouterr().err and sorted(os.listdir(files)) == before


def run(*arguments, **options):
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=600, env=ENVIRONMENT, **options
    )


def test_as_a_program(files):
    done = run("report", "none.npz", "--input", "x.npy")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 2 and "Traceback" not in done.stderr  # "reading", then the error
    assert run("--version").stdout.strip() == f"rnngrad {rg.__version__}"


def test_help_and_version_load_no_numba():
    code = "import sys, rnngrad.cli as c; c.parser(); sys.exit(any(m in sys.modules for m in ('numba', 'matplotlib')))"
    assert subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT).returncode == 0


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)], ids=["term", "int"]
)
def test_a_signal_that_is_swallowed_is_raised_again(number, error):
    """The compiler's callbacks print an exception and go on."""
    from rnngrad.cli import Stop

    before = signal.getsignal(number)
    stop = Stop()
    with stop:
        stop.check()
        if signal.getsignal(number) is signal.SIG_IGN:
            pytest.skip("this process ignores the signal")
        with pytest.raises(error):
            os.kill(os.getpid(), number)
            time.sleep(5)
        with pytest.raises(error):
            stop.check()
    assert signal.getsignal(number) is before


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
def test_a_signal_in_a_finalizer_is_quiet_and_comes_again(capsys):
    """As in the compiler's callbacks: swallowed without a traceback, raised a moment later."""
    from rnngrad.cli import Stop

    class Dying:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    hook = sys.unraisablehook
    with Stop(), pytest.raises(SystemExit) as raised:
        dying = Dying()
        del dying
        time.sleep(5)
    assert raised.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().err == ""
    assert sys.unraisablehook is hook


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_killed_job_leaves_nothing(number, files):
    before = sorted(os.listdir(files))
    job = subprocess.Popen(
        [*COMMAND, "report"], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a test run in the background may ignore it
    )  # fmt: skip
    assert "training" in job.stderr.readline()
    time.sleep(0.2)
    job.send_signal(number)
    _, err = job.communicate(timeout=120)
    assert job.returncode not in (0, -number) and "Traceback" not in err
    assert sorted(os.listdir(files)) == before


# ---------------------------------------------------------------- doctor


def test_doctor_says_what_there_is_and_that_it_works(capsys):
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    for word in ("rnngrad", "numba", "CUDA device", "threads", "BLAS", "cache folder", "self-test cpu  passed"):
        assert word in out
    assert rg.__version__ in out and np.__version__ in out and err == ""


def test_doctor_fails_where_a_gradient_is_wrong(capsys, monkeypatch):
    from rnngrad import doctor

    right = doctor.bptt
    monkeypatch.setattr(
        doctor, "bptt", lambda *args: (g := right(*args)).with_parameters({"W": g.W * (1 + 1e-4)}), raising=True
    )
    assert main(["doctor"]) == 1
    assert "self-test cpu  FAILED" in capsys.readouterr().out
