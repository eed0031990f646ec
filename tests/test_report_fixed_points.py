"""The report on a network whose input does not change: fixed points, cycles, and where its trajectories end."""

import json

import numpy as np
import pytest
from cases import CELLS
from reports import ROOT, SLOPE, held, network, one_process, sequence, shifted, two_units  # noqa: F401
from test_report import Page, leaves

import rnngrad as rg
from rnngrad.analysis import words
from rnngrad.report import inputs, measure, report


def section(index):
    (part,) = json.loads((index.parent / "report.json").read_text(encoding="utf-8"))["networks"].values()
    return part["fixed_points"]


def text_of(index):
    return Page(index.read_text(encoding="utf-8")).text


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return report(two_units(), held(B=2), tmp_path_factory.mktemp("made") / "out")


def test_the_points_are_those_that_are_known(made):
    said = section(made)
    assert (said["inputs"], said["looked_at"], said["text"]) == (1, 1, "")
    (one,) = said["each"]
    assert (one["count"], one["stable"], one["unstable"], one["slow"]) == (3, 2, 1, 0)
    assert [(p["name"], p["kind"], p["unstable"]) for p in one["points"]] == [
        ("point 1", "stable", 0), ("point 2", "stable", 0), ("point 3", "saddle", 1)
    ]  # fmt: skip
    other = one["points"][0]["moduli"][0]  # of the second unit, h2 = tanh(h2/2 + .3)
    for p, slopes in zip(one["points"], ([SLOPE, other], [SLOPE, other], [2.0, other]), strict=True):
        slopes = np.array(slopes)
        np.testing.assert_allclose(p["moduli"], np.sort(slopes)[::-1], rtol=1e-8)
        np.testing.assert_allclose(p["log_radius"], np.log(slopes.max()), rtol=1e-7, atol=1e-9)
        away = np.abs(1 - slopes)
        np.testing.assert_allclose(p["condition"], away.max() / away.min(), rtol=1e-8)
    text = text_of(made)
    assert "found 3 fixed points: 2 stable, 1 saddle with 1 unstable direction" in text
    assert "Nothing proves that there are no others" in text


def test_the_numbers_are_those_of_the_search(made):
    (one,) = section(made)["each"]
    points = rg.find_fixed_points(two_units(), np.random.default_rng(5).uniform(-1.2, 1.2, (200, 2)), x=[0.3])
    assert one["count"] == len(points)
    assert one["stable"] == np.count_nonzero(points.stable)
    found = sorted(p["moduli"] for p in one["points"])
    np.testing.assert_allclose(found, sorted(np.abs(points.eigenvalues).tolist()), rtol=1e-9)
    with np.load(made.parent / "fixed_points.npz") as file:  # lengths do not depend on the plane's axes
        away = np.linalg.norm(file["points"][:, None] - file["points"][None], axis=-1)
        np.testing.assert_array_equal(file["unstable"], [0, 0, 1])
        assert len(file["modes"]) == 1 and len(file["paths"]) > 10
    np.testing.assert_allclose(np.sort(away[2])[1:], [ROOT, ROOT], atol=1e-8)
    with np.load(made.parent / "fixed_point_spectrum.npz") as file:
        np.testing.assert_allclose(file["stable"], points.eigenvalues[points.stable], atol=1e-8)
        np.testing.assert_allclose(file["unstable"], points.eigenvalues[~points.stable], atol=1e-8)
        assert abs(file["end"] - 2.0) < 1e-9


def test_a_trajectory_that_rests_at_a_saddle(made):
    """The first unit starts in 0 and stays there; its neighbours do not."""
    (one,) = section(made)["each"]
    for b, end in enumerate(one["ends"]):
        assert (end["sample"], end["end"], end["text"]) == (b, "point", "at point 3 (saddle)")
        np.testing.assert_allclose([end["log_rate"], end["exponent"]], np.log(2), rtol=1e-6)
    assert one["points"][2]["attracted"] < one["starts"] == one["outcome"]["point"]
    assert sum(p["attracted"] for p in one["points"]) == one["starts"]
    text = text_of(made)
    assert "gradients grow by this factor per step in the long run, ln ρ = 0.693" in text
    assert "stays only because nothing disturbs it" in text


def test_figures_and_numbers_of_the_page(made):
    numbers = json.loads((made.parent / "report.json").read_text(encoding="utf-8"))
    by_name = {figure["name"]: figure for figure in numbers["figures"]}
    assert by_name["fixed_points"]["titles"] == ["3 fixed points in 2 dimensions: 2 stable, 1 unstable"]
    (title,) = by_name["fixed_point_spectrum"]["titles"]
    assert title == "Where the first trajectory ends, gradients grow: largest |μ| = 2"
    shown = Page(made.read_text(encoding="utf-8"))
    ids = [attributes.get("id") for _, attributes in shown.tags]
    assert ids.index("saturation") < ids.index("fixed-points-1") < ids.index("fixed_points")
    assert ids.count("fixed_points") == ids.count("fixed_point_spectrum") == 1
    values = leaves(numbers)
    known = {str(v) for v in values} | {words.short(v) for v in values} | {words.factor(v) for v in values}
    known |= {words.short(100 * v) for v in values} | {"∞"}
    assert [number for number in shown.numbers if number not in known] == []


@pytest.mark.usefixtures("quick")
def test_a_system_that_oscillates(tmp_path):
    index = report(shifted(-2.0), np.zeros((60, 1, 0)), tmp_path / "out")
    (one,) = section(index)["each"]
    (end,), (point,), (cycle,) = one["ends"], one["points"], one["cycles"]
    assert end["text"] == "on cycle 1, of 2 steps" and end["distance"] < 1e-12
    np.testing.assert_allclose(end["speed"], 2 * ROOT, rtol=1e-8)
    np.testing.assert_allclose([end["log_rate"], end["exponent"], cycle["log_rate"]], np.log(SLOPE), rtol=1e-6)
    assert (cycle["length"], cycle["attracted"]) == (2, one["outcome"]["cycle"])
    np.testing.assert_allclose(cycle["modulus"], SLOPE**2, rtol=1e-7)
    assert point["kind"] == "unstable in all directions"
    np.testing.assert_allclose(point["moduli"], [2.0], rtol=1e-9)
    text = text_of(index)
    assert "settled on a cycle" in text and "There is no portrait: it takes two states or more." in text


@pytest.mark.usefixtures("quick")
def test_a_system_that_comes_to_rest(tmp_path):
    index = report(shifted(2.0), np.zeros((60, 1, 0)), tmp_path / "out")
    (one,) = section(index)["each"]
    (end,) = one["ends"]
    assert end["text"].startswith("at point ") and end["text"].endswith("(stable)")
    np.testing.assert_allclose([end["log_rate"], end["exponent"]], np.log(SLOPE), rtol=1e-6)
    assert (one["stable"], one["unstable"]) == (2, 1)
    text = text_of(index)
    assert f"gradients fade by this factor per step in the long run, ln ρ = {words.short(np.log(SLOPE))}" in text
    assert f"its largest Lyapunov exponent is {words.short(end['exponent'])}" in text


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.usefixtures("quick")
def test_an_lstm(dtype, tmp_path):
    net = network(n=4, dtype=dtype)
    x = np.broadcast_to(sequence(T=1, B=1), (200, 3, 2)).astype(dtype)
    index = report(net, x, tmp_path / "out")
    (one,) = section(index)["each"]
    traj = rg.rollout(net, x)
    points = rg.find_fixed_points(net, traj.states[-1], x=x[0, 0])
    assert one["count"] == len(points) == 1 and one["samples"] == [0, 1, 2]
    np.testing.assert_allclose(one["points"][0]["moduli"], np.abs(points.eigenvalues[0, :3]), rtol=1e-4)
    for end in one["ends"]:  # at rest from about step 60 on: the measured rate is that of the point
        assert end["text"] == "at point 1 (stable)"
        np.testing.assert_allclose(end["log_rate"], np.log(np.abs(points.eigenvalues[0, 0])), rtol=1e-3)
        np.testing.assert_allclose(end["exponent"], end["log_rate"], rtol=0.02)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell(cell, tmp_path):
    """Each has one stable point here, which Newton's method finds from 0 too."""
    net = network(cell, n=3)
    net = net.replace(W=0.8 * net.W)  # an orthogonal matrix of odd size has the eigenvalue 1 or -1
    index = report(net, held(T=40, m=2), tmp_path / "out")
    (one,) = section(index)["each"]
    fp = rg.solve_fixed_point(net, [0.3, 0.3], "newton")
    assert fp.converged.all() and sum(one["outcome"].values()) == one["starts"]
    radii = np.array([p["moduli"][0] for p in one["points"]])
    assert np.abs(radii - fp.spectral_radius).min() < 1e-7


@pytest.mark.usefixtures("quick")
def test_no_section_where_the_input_changes(tmp_path):
    index = report(two_units(), sequence(T=40, m=1), tmp_path / "out")
    assert section(index) is None and "fixed point" not in text_of(index).lower()


def test_which_inputs_are_held():
    net, x = two_units(), held(B=3)
    late, early = x.copy(), x.copy()
    late[-1, 2], early[0, 1] = 0.4, 0.4
    assert inputs.held(net, x) and inputs.held(net, 0 * x)
    assert not inputs.held(net, late) and not inputs.held(net, early)
    assert not inputs.held(net, x[:1])  # one step of an input does not tell
    assert inputs.held(rg.Network.init("vanilla", 0, 2), np.zeros((1, 1, 0)))
    assert not inputs.held(rg.Stack.init("vanilla", 1, 2, n_layers=2), x)
    lstm = network(m=1)
    masked = rg.rollout(lstm, x, dropout=rg.Dropout(0.5, seed=0)).net
    assert inputs.held(lstm, x) and not inputs.held(masked, x)


@pytest.mark.usefixtures("quick")
def test_a_record_that_is_cut_is_judged_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "NUMBERS", 100)
    x = held(T=300)
    x[-1] = 0.0
    assert section(report(two_units(), x, tmp_path / "changed")) is None
    assert section(report(two_units(), x[:-1], tmp_path / "held")) is not None


@pytest.mark.usefixtures("quick")
def test_samples_that_hold_different_inputs(tmp_path):
    x = np.tile([0.3, -0.2, 0.3, 0.5, 0.1, -0.2], (40, 1))[..., None]
    index = report(two_units(), x, tmp_path / "out")
    said = section(index)
    assert (said["inputs"], said["looked_at"]) == (4, 3)
    assert "hold 4 different inputs; the first 3 of these are looked at" in text_of(index)
    assert [(one["name"], one["input"], one["samples"]) for one in said["each"]] == [
        ("input 1", [0.3], [0, 2]), ("input 2", [-0.2], [1, 5]), ("input 3", [0.5], [3])
    ]  # fmt: skip
    for one in said["each"]:  # each by itself: the slope of the second unit depends on the input
        h = rg.solve_fixed_point(two_units(), one["input"]).h[0, 1]
        assert any(abs(value - 0.5 * (1 - h**2)) < 1e-8 for value in one["points"][-1]["moduli"])
    assert "of all samples" in text_of(index)


@pytest.mark.usefixtures("quick")
def test_each_sample_has_its_own_rate(tmp_path):
    """rho(J) = (1 - h^2)/2 of the second unit depends on the input."""
    net = two_units().replace(W=np.diag([0.05, 0.5])[None])
    index = report(net, np.tile([0.3, 1.0], (100, 1))[..., None], tmp_path / "out")
    ends = [end for one in section(index)["each"] for end in one["ends"]]
    h = rg.solve_fixed_point(net, [[0.3], [1.0]]).h[:, 1]
    np.testing.assert_allclose([end["log_rate"] for end in ends], np.log((1 - h**2) / 2), rtol=1e-8)
    np.testing.assert_allclose([end["exponent"] for end in ends], np.log((1 - h**2) / 2), rtol=1e-6)
    for end in ends:
        assert f"its largest Lyapunov exponent is {words.short(end['exponent'])}" in text_of(index)


def test_figures_of_different_inputs(tmp_path):
    x = np.tile([0.3, -0.2], (40, 1))[..., None]
    names = {item.name for item in report(two_units(), x, tmp_path / "out").parent.iterdir()}
    assert {f"{name}_{i}.svg" for name in ("fixed_points", "fixed_point_spectrum") for i in (1, 2)} <= names


@pytest.mark.usefixtures("quick")
def test_more_samples_than_are_followed(tmp_path):
    loss = rg.losses.squared_error(np.ones((40, 12, 2)))
    index = report(two_units(), held(T=40, B=12), tmp_path / "out", loss=loss)
    (one,) = section(index)["each"]
    assert one["holding"] == 12 and one["samples"] == list(range(8)) and len(one["ends"]) == 8
    assert "8 of the 12 samples that hold this input were followed" in text_of(index)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("cost", "searched"), [(2 * 8 * 33 * 8, True), (100, False)])
def test_a_state_that_is_too_large_to_search(cost, searched, tmp_path, monkeypatch):
    """N = 2: from 40 N^3 per start on there are starts, from 8 (25 + 8) N^3 on the ends at least."""
    monkeypatch.setattr(measure, "_SEARCH_COST", cost)
    monkeypatch.setattr(measure, "_NEWTON", 1000)
    index = report(two_units(), held(B=2), tmp_path / "out")
    (one,), text = section(index)["each"], text_of(index)
    assert one["starts"] == 2 and one["outcome"] == {"point" if searched else "rest": 2}
    if searched:
        assert "started from the trajectories' ends alone; it found 1 fixed point" in text
        assert [(p["kind"], p["attracted"]) for p in one["points"]] == [("saddle", 2)]
    else:
        assert "too large to search" in text and one["points"] == [] and one["searched"] == 0
        assert one["ends"][0]["text"] == "coming to rest; which point it is, was not searched"
        assert one["ends"][0]["log_rate"] is None and one["ends"][0]["distance"] < 1e-9


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("f", "params", "says"),
    [
        (lambda s, x, p: (p[0] * (s[0] + 0.1) * (0.9 - s[0]) - 0.1,), [3.99], "still moving after 1000 more steps"),
        (lambda s, x, p: (p[0] * s[0] + 0.1,), [1.5], "leaving the finite numbers when followed on"),
    ],
)
def test_what_does_not_settle_is_said(f, params, says, tmp_path):
    """The logistic map of s + .1, from 0.1; an unstable line."""
    index = report(rg.System(f, n_state=1, params=params), np.zeros((50, 1, 0)), tmp_path / "out")
    (one,), text = section(index)["each"], text_of(index)
    assert f"Sample 0 is {says}, so no ρ(J) says at what rate" in text
    assert one["ends"][0]["log_rate"] is None and one["ends"][0]["distance"] is None
    assert one["unstable"] >= 1 and one["stable"] == 0


@pytest.mark.usefixtures("quick")
def test_no_fixed_point_is_said(tmp_path):
    """f(s) - s is smallest in 0, and .2 there."""
    far = rg.System(lambda s, x, p: (s[0] + 0.2 + s[0] * s[0] / (1 + s[0] * s[0]),), n_state=1)
    index = report(far, np.zeros((40, 1, 0)), tmp_path / "none")
    (one,), text = section(index)["each"], text_of(index)
    assert (one["count"], one["slow"]) == (0, 1) and one["points"][0]["name"] == "slow point 1"
    np.testing.assert_allclose(one["points"][0]["residual"], 0.2, rtol=1e-6)
    assert "found no fixed point; and 1 slow point, where the state nearly rests" in text


@pytest.mark.usefixtures("quick")
def test_a_line_of_fixed_points_is_said(tmp_path):
    system = rg.System(lambda s, x, p: (s[0] + 0 * s[1], 0.5 * s[1] + 0.3), n_state=2)
    index = report(system, np.zeros((60, 1, 0)), tmp_path / "out")
    (one,), text = section(index)["each"], text_of(index)
    assert one["count"] > 20 and one["left_out"] == one["count"] - 12 == one["count"] - len(one["points"])
    assert f"At {one['count']} of these I − J is singular to rounding" in text
    assert f"{one['left_out']} more points are not in the table" in text
    assert f"{one['count']} saddles with 1 unstable direction" in text and "gradients keep their size in the" in text
    assert {p["condition"] for p in one["points"]} == {"inf"}
