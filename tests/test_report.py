"""The report: a self-contained page, figures with their numbers, one folder that is there whole or not at all."""

import functools
import json
import struct
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from cases import CELLS
from reports import network, one_process, sequence  # noqa: F401

import rnngrad as rg
from rnngrad.analysis import words
from rnngrad.losses import last_step, squared_error
from rnngrad.report import example, inputs, measure, report

DATA = (
    Path(__file__).resolve().parents[2] / "shared" / "data"
)  # inputs too large for the package; tests that need them are skipped without
FIGURES = (
    "gradient_by_lag",
    "verdict",
    "gradient_map",
    "spectrum",
    "singular_values",
    "saturation",
    "truncation",
    "lyapunov",
)


class Page(HTMLParser):
    """Tags with their attributes, text, and the numbers marked as such."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.numbers, self._marked = [], "", [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._marked = dict(attributes).get("class") == "n"

    def handle_endtag(self, tag):
        self._marked = False

    def handle_data(self, data):
        self.text += data
        if self._marked:
            self.numbers.append(data)


def leaves(value):
    """All numbers of plain data."""
    if isinstance(value, dict):
        return [x for item in value.values() for x in leaves(item)]
    if isinstance(value, list):
        return [x for item in value for x in leaves(item)] + [len(value)]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return [value]
    return [float(value)] if value in ("inf", "-inf") else []


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report on a small LSTM."""
    out = tmp_path_factory.mktemp("made") / "lstm"
    index = report(network(), sequence(), out)
    assert index == out / "index.html"
    return out


def test_files(made):
    names = {item.name for item in made.iterdir()}
    for figure in FIGURES:
        assert {f"{figure}.png", f"{figure}.svg", f"{figure}.npz"} <= names
    assert names == set(json.loads((made / "report.json").read_text())["files"])
    assert [item for item in made.parent.iterdir() if item != made] == []  # no temporary folder is left


def test_every_figure_has_an_image_a_drawing_and_its_numbers(made):
    for figure in FIGURES:
        png = (made / f"{figure}.png").read_bytes()
        width, height = struct.unpack(">II", png[16:24])
        assert png.startswith(b"\x89PNG") and width > 600 and height > 200
        assert "</svg>" in (made / f"{figure}.svg").read_text(encoding="utf-8")[-20:]
        with np.load(made / f"{figure}.npz", allow_pickle=False) as file:
            assert len(file.files) > 1 and all(file[name].dtype.kind != "O" for name in file.files)


def test_the_numbers_of_a_figure_are_those_of_the_analysis(made):
    traj = rg.rollout(network(), sequence())
    loss = squared_error(np.zeros_like(traj.y))
    with np.load(made / "gradient_map.npz") as file:
        expected = rg.gradient_flow(traj, loss).log_norm[0]
        np.testing.assert_allclose(file["log_norm"][1:], expected[1:], rtol=1e-9)
    with np.load(made / "singular_values.npz") as file:
        t, lag = int(file["times"][-1]), int(file["lags"][5])
        expected = rg.jacobian_chain(traj).log_norm(t, t - lag)
        np.testing.assert_allclose(file["log_values"][:, -1, 5, 0], expected, rtol=1e-9)


def test_exponents_of_the_page_are_those_along_the_input(made):
    net, x = network(), sequence()
    said = json.loads((made / "report.json").read_text())["networks"].values()
    (said,) = (one["lyapunov"] for one in said)
    again = rg.lyapunov_spectrum(net, x, s0=np.zeros((2, 2, 4)), transient=said["transient"])
    np.testing.assert_allclose(said["exponents"], again.exponents.mean(axis=0)[:8], atol=1e-9)
    assert said["largest_low"] < said["largest"] == said["exponents"][0] < said["largest_high"] < 0
    text = Page((made / "index.html").read_text(encoding="utf-8")).text
    assert "nearby states meet" in text and words.short(said["largest"]) in text


def test_page_needs_nothing_but_itself(made):
    shown = Page((made / "index.html").read_text(encoding="utf-8"))
    assert len([1 for tag, _ in shown.tags if tag == "img"]) == len(FIGURES)
    for tag, attributes in shown.tags:
        assert tag not in ("script", "link", "iframe", "object")
        assert attributes.get("src", "data:").startswith("data:image/png;base64,") or tag != "img"
        if tag == "img":
            assert attributes["alt"]
        if tag == "a":  # the files beside it
            assert (made / attributes["href"]).is_file()
    assert "http" not in shown.text and "url(" not in (made / "index.html").read_text(encoding="utf-8")


def test_every_number_of_the_page_is_in_report_json(made):
    numbers = json.loads((made / "report.json").read_text(encoding="utf-8"))
    values = leaves(numbers)
    known = {str(v) for v in values} | {words.short(v) for v in values} | {words.factor(v) for v in values}
    known |= {words.short(100 * v) for v in values} | {"∞"}
    shown = Page((made / "index.html").read_text(encoding="utf-8"))
    assert len(shown.numbers) > 100
    assert [number for number in shown.numbers if number not in known] == []
    for sentence in (numbers["lead"], *next(iter(numbers["networks"].values()))["verdict"]["reasons"]):
        assert sentence in shown.text


def test_page_states_what_was_measured(made):
    text = Page((made / "index.html").read_text(encoding="utf-8")).text
    settings = next(iter(json.loads((made / "report.json").read_text())["networks"].values()))["settings"]
    assert "½‖y_t‖²" in text
    assert f"go back at most {settings['max_lag']} steps" in text
    for t in settings["chain_times"]:
        assert str(t) in text


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_gets_a_page(cell, tmp_path):
    dtype = "float32" if cell == "gru" else "float64"
    index = report(network(cell, n=3, dtype=dtype), sequence(T=12), tmp_path / "out")
    assert "verdict" in index.read_text(encoding="utf-8")


@pytest.mark.parametrize("T", [1, 2, 5])
def test_short_sequences(T, tmp_path):
    assert report(network("vanilla"), sequence(T=T)[:, 0], tmp_path / "out").is_file()


def test_a_users_system(tmp_path):
    system = rg.System(lambda s, x, p: (1 - p[0] * s[0] * s[0] + s[1], p[1] * s[0]), n_state=2, params=[1.4, 0.3])
    report(system, np.zeros((50, 1, 0)), tmp_path / "out")
    names = {item.name for item in (tmp_path / "out").iterdir()}
    assert "spectrum.png" in names and "saturation.png" not in names


@pytest.mark.usefixtures("quick")
def test_the_package_can_be_called_like_the_function(tmp_path):
    import rnngrad.report

    assert rnngrad.report(network("vanilla"), sequence(T=5), out=tmp_path / "out").is_file()


@pytest.mark.usefixtures("quick")
def test_own_loss_and_wanted_lag(tmp_path):
    net, x = network("vanilla", n=5), sequence(T=30)
    loss = squared_error(np.ones((30, 2, 1)), weights=last_step)
    index = report(net, x, tmp_path / "out", loss=loss, wanted=9)
    numbers = json.loads((index.parent / "report.json").read_text())
    assert numbers["wanted"] == 9 and "squared_error" in numbers["loss"]
    settings = next(iter(numbers["networks"].values()))["settings"]
    assert settings["first_reference"] == settings["last_reference"] == 30


def test_an_output_that_never_leaves_zero(tmp_path):
    """At rest at 0 J = W, an orthogonal matrix: the gradient of a probe that has one keeps its length."""
    net = rg.Network.init("vanilla", 2, 5, seed=0)
    report(net, np.zeros((40, 2, 2)), tmp_path / "out")
    numbers = json.loads((tmp_path / "out" / "report.json").read_text())
    assert "½‖y_t − 1‖²" in numbers["loss"]
    growth = np.load(tmp_path / "out" / "gradient_by_lag.npz")
    np.testing.assert_allclose(growth["gradient"], 0, atol=1e-12)


@pytest.mark.usefixtures("quick")
def test_large_batches_and_long_records_are_cut_and_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "NUMBERS", 20_000)
    index = report(network("vanilla"), sequence(T=2000, B=20), tmp_path / "out")
    text = Page(index.read_text(encoding="utf-8")).text
    assert "of 2000 steps, 8 of 20 samples" in text


def test_lags_of_a_large_network_are_fewer(monkeypatch):
    traj = rg.rollout(network("vanilla", n=16), sequence(T=400))
    loss = squared_error(np.zeros_like(traj.y))
    full = measure.choose(traj, loss)
    monkeypatch.setattr(measure, "_CHAIN_COST", 1e6)
    monkeypatch.setattr(measure, "_MAP_COST", 1e6)
    monkeypatch.setattr(measure, "_SPECTRA_COST", 0)
    small = measure.choose(traj, loss)
    assert small.chain_lags[-1] < full.chain_lags[-1] and len(small.chain_times) == 1
    assert small.jacobian_times.size == 0 and small.map_last - small.map_first < full.map_last - full.map_first
    result = measure.measure(traj, loss, small)
    assert result.weights is None and result.jacobians is None


@pytest.mark.usefixtures("quick")
def test_what_rounding_took_is_said_on_the_page(tmp_path):
    net = network("vanilla")
    faint = np.where(np.arange(net.n) == 0, 1e-30, 1.0)  # no QR of unit vectors sees what W does to unit 0
    index = report(net.replace(W=net.W * faint), sequence(T=20), tmp_path / "out")
    (part,) = json.loads((index.parent / "report.json").read_text(encoding="utf-8"))["networks"].values()
    assert part["cautions"] and all("reads -inf, but is only very small" in text for text in part["cautions"])
    assert "Limits of precision. At step" in Page(index.read_text(encoding="utf-8")).text


@pytest.mark.usefixtures("quick")
def test_input_is_converted_and_said_to_be(tmp_path):
    net = network("vanilla", dtype="float32")
    np.save(tmp_path / "x.npy", sequence(T=10))
    index = report(net, tmp_path / "x.npy", tmp_path / "out")
    text = Page(index.read_text(encoding="utf-8")).text
    assert "converted from float64 to float32" in text and str(tmp_path / "x.npy") in text


# ---------------------------------------------------------------- the two main jobs


def test_the_example_in_small(tmp_path, monkeypatch):
    monkeypatch.setattr(example, "train", functools.partial(example.train, n_hidden=4, steps=3))
    index = report(out=tmp_path / "out")
    numbers = json.loads((index.parent / "report.json").read_text(encoding="utf-8"))
    text = Page(index.read_text(encoding="utf-8")).text
    assert set(numbers["networks"]) == set(example.NETWORKS)
    assert numbers["cycle"] == 132 and len(numbers["forecast"]["errors"]["LSTM"]) == 12
    names = {item.name for item in index.parent.iterdir()}
    for figure in (
        "reach_compared",
        "forecast",
        "training",
        *(f"{f}_{c}" for f in FIGURES for c in ("vanilla", "lstm")),
    ):
        assert {f"{figure}.png", f"{figure}.svg", f"{figure}.npz"} <= names
    for line in numbers["findings"]:
        assert line in text
    with np.load(index.parent / "reach_compared.npz") as file:
        assert file["lag"] == 132
        at = int(np.flatnonzero(file["growths.LSTM.lags"] == 132)[0])
        kept = words.factor(file["growths.LSTM.gradient"][1, at])
    assert kept in numbers["lead"]


@pytest.mark.parametrize(
    ("errors", "text"), [((10.0, 8.0), "the LSTM errs less"), ((8.0, 10.0), "the vanilla tanh network errs less"),
                         ((10.0, 9.9), "err alike")]
)  # fmt: skip
def test_the_findings_say_what_the_numbers_say(errors, text):
    forecast = example.Forecast(
        np.arange(1, 3),
        {name: np.full(2, e) for name, e in zip(example.NETWORKS, errors)},
        {"flat": np.ones(2)},
        "",
        "",
        "",
    )
    assert all(text in line for line in example._findings({}, forecast))


@pytest.mark.slow
def test_the_example_in_full(tmp_path):
    index = report(out=tmp_path / "out")
    numbers = json.loads((index.parent / "report.json").read_text(encoding="utf-8"))
    vanilla, lstm = (numbers["networks"][name]["verdict"] for name in example.NETWORKS)
    assert vanilla["label"] == "vanishing"
    assert lstm["numbers"]["median_log_ratio"] > vanilla["numbers"]["median_log_ratio"] + np.log(1e3)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the speech model is not here")
def test_a_published_speech_model(tmp_path):
    index = report(
        DATA / "speech_vad_lstm.safetensors", DATA / "speech_features.npy", tmp_path / "out", prefix="lstm_cell."
    )
    numbers = json.loads((index.parent / "report.json").read_text(encoding="utf-8"))
    assert numbers["networks"]["LSTM"]["verdict"]["label"] == "healthy"
    assert numbers["networks"]["LSTM"]["network"]["units"] == 128
