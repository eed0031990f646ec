"""Figures drawn by a second process are those drawn by one, and what it cannot draw is drawn all the same."""

import functools
import os
import signal

import matplotlib as mpl
import numpy as np
import pytest
from reports import network, sequence

import rnngrad as rg
from rnngrad.report import drawing, report
from rnngrad.report.measure import choose, measure
from rnngrad.report.painter import Painter


@pytest.fixture(scope="module")
def listed():
    traj = rg.rollout(network(), sequence())
    loss = rg.losses.squared_error(np.zeros_like(traj.y))
    return drawing.pictures(measure(traj, loss, choose(traj, loss)), "LSTM")[:4]


@pytest.fixture
def two(monkeypatch):
    monkeypatch.setattr("rnngrad.report.painter.num_threads", lambda: 2)


def drawn(listed, folder, by_other=None):
    """What the painter says of the pictures; first it draws ``by_other`` of them in the other process."""
    folder.mkdir()
    shares = []
    with Painter(folder) as painter:
        assert painter.add(listed) == len(listed)
        if by_other is not None:
            with painter._news:
                assert painter._news.wait_for(lambda: len(painter._drawn) >= by_other, timeout=120)
        done = painter.finish(shares.append)
    assert shares[-1] == 1.0 and shares == sorted(shares)
    return done


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_both_processes_draw_the_same(listed, tmp_path, two, monkeypatch):
    there = drawn(listed, tmp_path / "there", by_other=len(listed))
    monkeypatch.setattr("rnngrad.report.painter.num_threads", lambda: 1)
    here = drawn(listed, tmp_path / "here")
    assert there == here and [one["name"] for one in here] == [picture.name for picture in listed]
    assert files(tmp_path / "there") == files(tmp_path / "here")


def test_settings_of_matplotlib_go_along(listed, tmp_path, two):
    plain = drawn(listed[:1], tmp_path / "plain", by_other=1)
    with mpl.rc_context({"text.color": "#123456", "lines.linewidth": 4.0}):
        changed = drawn(listed[:1], tmp_path / "changed", by_other=1)
        monochrome = (tmp_path / "changed" / f"{listed[0].name}.svg").read_text()
    assert "#123456" in monochrome and plain[0]["image"] != changed[0]["image"]


def test_what_cannot_be_sent_is_drawn_here(listed, tmp_path, two):
    kept = {**listed[0].parts[0].__dict__, "own": lambda: 0}
    unsendable = type(listed[0].parts[0]).__new__(type(listed[0].parts[0]))
    unsendable.__dict__.update(kept)
    odd = drawing.Picture("odd", (unsendable,), "odd", "odd")
    done = drawn([odd, *listed[:1]], tmp_path / "out", by_other=1)
    assert [one["name"] for one in done] == ["odd", listed[0].name] and (tmp_path / "out" / "odd.svg").exists()


@pytest.mark.parametrize("after", [0, 1])
def test_a_process_that_ends_is_no_loss(listed, tmp_path, two, after):
    folder = tmp_path / "out"
    folder.mkdir()
    with Painter(folder) as painter:
        painter.add(listed[:after])
        with painter._news:
            assert painter._news.wait_for(lambda: len(painter._drawn) == after, timeout=120)
        painter._second.kill()
        painter._second.process.wait()
        painter.add(listed[after:])
        done = painter.finish(lambda share: None)
    assert [one["name"] for one in done] == [picture.name for picture in listed]


def test_errors_are_raised_here(listed, tmp_path, two):
    with pytest.raises(ValueError, match="no figure for str"):
        drawn(
            [drawing.Picture("broken", ("no result",), "broken", "broken"), *listed[:1]], tmp_path / "out", by_other=1
        )


def test_no_process_is_left_behind(listed, tmp_path, two):
    with pytest.raises(KeyboardInterrupt), Painter(tmp_path) as painter:
        painter.add(listed)
        raise KeyboardInterrupt
    assert painter._second.process.poll() is not None and not painter._feeder.is_alive()


def test_a_report_is_the_same_by_two_processes(tmp_path, monkeypatch):
    made = {}
    for processes in (1, 2):
        monkeypatch.setattr("rnngrad.report.painter.num_threads", functools.partial(int, processes))
        made[processes] = files(report(network(), sequence(), tmp_path / str(processes)).parent)
    assert made[1].keys() == made[2].keys()
    assert all(made[1][name] == made[2][name] for name in made[1] if not name.endswith((".html", ".json")))
    assert {name: len(text) for name, text in made[1].items()} == {name: len(text) for name, text in made[2].items()}


class Noisy(drawing.Picture):
    """A picture that says something while it is drawn."""

    def write(self, folder):
        print("drawing", self.name, flush=True)
        return super().write(folder)


def test_the_console_is_left_alone(listed, tmp_path, two, capfd):
    """Nothing is written to it but what the pictures themselves print, and that not between the answers."""
    drawn(listed[:2], tmp_path / "quiet", by_other=2)
    assert capfd.readouterr() == ("", "")
    noisy = Noisy(**vars(listed[0]))
    (done,) = drawn([noisy], tmp_path / "noisy", by_other=1)
    assert done["name"] == noisy.name and capfd.readouterr() == ("", f"drawing {noisy.name}\n")


@pytest.mark.skipif(os.name != "posix", reason="signals to another process")
def test_an_interrupt_is_the_callers_matter(listed, tmp_path, two, capfd):
    """A terminal sends it to both processes; the other one goes on until it is stopped, without a word."""
    with Painter(tmp_path) as painter:
        for count in (1, 2):
            painter.add(listed[count - 1 : count])
            with painter._news:
                assert painter._news.wait_for(lambda: len(painter._drawn) == len(painter._names), timeout=30)
            painter._second.process.send_signal(signal.SIGINT)
    assert capfd.readouterr() == ("", "")
