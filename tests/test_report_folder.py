"""The folder of a report: whole or not at all, whatever is asked of it; and what is heard on the way."""

import threading
from pathlib import Path

import numpy as np
import pytest
from reports import network, one_process, sequence  # noqa: F401

import rnngrad as rg
from rnngrad.report import folder, page, report
from rnngrad.report.progress import Bar, Plan

# ---------------------------------------------------------------- whole or not at all


def siblings(path):
    return sorted(item.name for item in path.iterdir())


def broken(monkeypatch, error=None):
    def fail(*args):
        raise error or RuntimeError("on purpose")

    monkeypatch.setattr(page, "write", fail)


@pytest.mark.parametrize("error", [RuntimeError("on purpose"), KeyboardInterrupt()])
@pytest.mark.usefixtures("quick")
def test_a_job_that_fails_leaves_nothing(error, tmp_path, monkeypatch):
    broken(monkeypatch, error)
    with pytest.raises(type(error)):
        report(network("vanilla"), sequence(T=5), tmp_path / "out")
    assert siblings(tmp_path) == []


@pytest.mark.usefixtures("quick")
def test_an_existing_report_is_replaced_only_by_force_and_survives_a_failure(tmp_path, monkeypatch):
    out = tmp_path / "out"
    report(network("vanilla"), sequence(T=5), out)
    before = (out / "report.json").read_text()
    with pytest.raises(FileExistsError, match="force"):
        report(network("vanilla"), sequence(T=6), out)
    with monkeypatch.context() as patch:
        broken(patch)
        with pytest.raises(RuntimeError):
            report(network("vanilla"), sequence(T=6), out, force=True)
    assert (out / "report.json").read_text() == before and siblings(tmp_path) == ["out"]
    report(network("vanilla"), sequence(T=6), out, force=True)
    assert (out / "report.json").read_text() != before and siblings(tmp_path) == ["out"]


@pytest.mark.usefixtures("quick")
def test_a_folder_with_anything_else_in_it_is_never_replaced(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="holds no report"):
        report(network("vanilla"), sequence(T=5), tmp_path / "home", force=True)
    out = tmp_path / "out"
    report(network("vanilla"), sequence(T=5), out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="'notes.txt'"):
        report(network("vanilla"), sequence(T=5), out, force=True)
    assert (out / "notes.txt").read_text() == "mine"
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="not a folder"):
        report(network("vanilla"), sequence(T=5), tmp_path / "file", force=True)


@pytest.mark.usefixtures("quick")
def test_an_empty_folder_may_be_filled_and_parents_are_made(tmp_path):
    (tmp_path / "empty").mkdir()
    report(network("vanilla"), sequence(T=3), tmp_path / "empty")
    report(network("vanilla"), sequence(T=3), tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c" / "index.html").is_file()


@pytest.mark.usefixtures("quick")
def test_the_old_report_comes_back_if_the_new_one_cannot_be_put(tmp_path, monkeypatch):
    out = tmp_path / "out"
    report(network("vanilla"), sequence(T=3), out)
    before = (out / "report.json").read_text()
    rename = Path.rename

    def refuse(self, target):
        if ".partial-" in self.name:
            raise OSError("disk full")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="disk full"), folder.new_folder(out, True):
        pass
    assert (out / "report.json").read_text() == before and siblings(tmp_path) == ["out"]


@pytest.mark.usefixtures("quick")
def test_the_folder_is_as_readable_as_any_other(tmp_path):
    report(network("vanilla"), sequence(T=3), tmp_path / "out")
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


# ---------------------------------------------------------------- bad arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, np.zeros((3, 2))), "the model is missing"),
        ((network(), None), "the input x is missing"),
        ((3.5, np.zeros((3, 2))), "must be a Network"),
        ((network(), np.zeros((3, 5))), r"shape \(3, 5\)"),
        ((network(), np.zeros(3)), r"shape \(3,\)"),
        ((network(), np.zeros((0, 2))), r"shape \(0, 2\)"),
        ((network(), np.array([["a", "b"]])), "real numbers"),
        ((network(), np.full((4, 2), np.nan)), "nan"),
    ],
)
def test_bad_arguments_are_refused_and_leave_nothing(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        report(*arguments, tmp_path / "out")
    assert siblings(tmp_path) == []


@pytest.mark.filterwarnings("ignore::rnngrad.DivergenceWarning")
def test_a_diverging_network_is_refused(tmp_path):
    net = network("linear")
    with pytest.raises(ValueError, match="not finite from step"):
        report(net.replace(W=1e100 * net.W), sequence(T=20), tmp_path / "out")


def test_cuda_is_never_replaced_in_silence(tmp_path):
    try:
        report(network("vanilla"), sequence(T=5), tmp_path / "out", backend="cuda")
    except rg.BackendError:
        assert siblings(tmp_path) == []


# ---------------------------------------------------------------- progress


@pytest.mark.usefixtures("quick")
def test_progress_grows_from_0_to_1(tmp_path):
    heard = []
    report(network("vanilla"), sequence(T=20), tmp_path / "out", progress=lambda *said: heard.append(said))
    shares = [share for _, share in heard]
    assert shares == sorted(shares) and shares[0] == 0 and heard[-1] == ("done", 1.0)
    assert [stage for stage, _ in heard][0] == "reading"


class Stream:
    def __init__(self, terminal):
        self.terminal, self.text = terminal, ""

    def isatty(self):
        return self.terminal

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_plain_lines_off_a_terminal_and_a_bar_on_one():
    lines, bar = Stream(False), Stream(True)
    for stream in (lines, bar):
        shown = Bar(stream)
        plan = Plan({"one": 1, "two": 3}, shown)
        plan("one")
        plan("one", 0.5)
        plan("two", 0.5)
        plan.done()
        shown.close()
    assert lines.text == "rnngrad: one\nrnngrad: two\n"
    assert "\r" in bar.text and "two" in bar.text


def test_two_reports_at_once(tmp_path):
    failures = []

    def run(name):
        try:
            report(network("vanilla"), sequence(T=10), tmp_path / name)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(f"out{i}",)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and siblings(tmp_path) == ["out0", "out1"]
    first, second = ((tmp_path / name / "gradient_map.npz").read_bytes() for name in ("out0", "out1"))
    assert len(first) == len(second)
