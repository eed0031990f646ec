"""The scripts: each runs at a tiny size, and the numbers beside its picture are those it claims."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

import rnngrad as rg
from rnngrad.analysis import words
from rnngrad.analysis.comparison import Comparison, reach_by_lag
from rnngrad.analysis.truncation import TruncationComparison

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


@pytest.fixture
def run(monkeypatch, tmp_path):
    """``run(name, *arguments)``: the arrays that scripts/name.py writes; the picture must be there too."""
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def runner(name, *arguments):
        importlib.import_module(name).main([*map(str, arguments), "--out", str(tmp_path)])
        assert {file.suffix for file in tmp_path.glob(f"{name}.*")} == {".png", ".svg", ".npz"}
        with np.load(tmp_path / f"{name}.npz", allow_pickle=False) as file:
            return dict(file)

    yield runner
    for name in {path.stem for path in SCRIPTS.glob("*.py")}:
        sys.modules.pop(name, None)


def test_bound_against_truth(run, capsys):
    arrays = run("bound_against_truth", "--cells", "lstm", "mgu", "--units", 4, "--steps", 12)
    measured, best = arrays["1.log_measured"][0, 12], arrays["1.log_block"][0, 12]
    assert (measured <= best + 1e-12).all()
    W = np.array([[0.9, 10.0], [0.0, 0.9]])
    truth = [np.log(np.linalg.norm(np.linalg.matrix_power(W, 12 - k), 2)) for k in range(13)]
    np.testing.assert_allclose(arrays["3.log_measured"][0, 12], truth, atol=1e-12)
    np.testing.assert_allclose(arrays["3.steps.log_eigen_rate"], np.log(0.9))
    excess = np.max((np.array(truth) - np.log(0.9) * np.arange(12, -1, -1)) / np.log(10))
    assert f"exceeded by up to {excess:.3g} decades" in capsys.readouterr().out


def test_note_wrec(run, capsys):
    """The eigenvalues solve the characteristic polynomial (x - 1)(x^3 - .7 x^2 - .4 x - .144) - .288 x, by hand."""
    arrays = run("note_wrec", "--steps", 8, "--lag", 5)
    eigenvalues = arrays["2.eigenvalues"][0]
    residual = (eigenvalues - 1) * (
        eigenvalues**3 - 0.7 * eigenvalues**2 - 0.4 * eigenvalues - 0.144
    ) - 0.288 * eigenvalues
    np.testing.assert_allclose(residual, 0, atol=1e-12)
    tenths = np.array([[10, 0, 0, 4], [9, 0, 6, 5], [0, 0, 0, 3], [0, 8, 0, 7]])
    np.testing.assert_allclose(arrays["3.values"], np.linalg.matrix_power(tenths, 5) / 1e5, rtol=1e-14)
    for lag in range(9):
        expected = np.log(np.linalg.norm(np.linalg.matrix_power(tenths, lag), 2)) - lag * np.log(10)
        np.testing.assert_allclose(arrays["4.log_measured"][0, 8, 8 - lag], expected, atol=1e-12)
    assert "of its largest entry" in capsys.readouterr().out


def test_vanishing_exploding(run):
    arrays = run("vanishing_exploding", "--gains", 0.5, 3, "--units", 100, "--lag", 20)
    np.testing.assert_allclose(arrays["prediction.lambda1"], [np.log(0.5), 0.310249], atol=1e-6)
    low, median, high = arrays["log_ratio"][:, :, -1].T / 20
    assert (low <= median).all() and (median <= high).all()
    np.testing.assert_allclose(median, arrays["prediction.lambda1"], atol=0.08)  # 1/sqrt(n) of 1


def test_hessian_spectrum(run, capsys):
    arrays = run("hessian_spectrum", "--cells", "vanilla", "--units", 2, "--training", 3, "--probes", 3, "--steps", 6)
    size = 2 * 2 + 2 + 2 + 12 * 2 + 12
    for part, matrix in enumerate(("hessian", "gauss_newton"), start=1):
        assert arrays[f"{part}.matrix"] == matrix and arrays[f"{part}.size"] == size
        assert arrays[f"{part}.eigenvalues"].shape == (size,)
        # all eigenvalues, found one by one, add up to the trace that the probes estimate
        off = arrays[f"{part}.eigenvalues"].sum() - arrays[f"{part}.trace"]
        assert abs(off) <= 6 * arrays[f"{part}.trace_error"]
    largest = arrays["2.eigenvalues"][0]
    assert arrays["2.eigenvalues"].min() >= -1e-12 * largest
    assert "Gauss-Newton matrix, largest eigenvalue" in capsys.readouterr().out


def test_compare_cells(run, capsys):
    """The numbers are quantiles of the gradient flow of the same networks; the title names those at the delay."""
    arrays = run("compare_cells", "--units", 4, "--delay", 3, "--lag", 6, "--steps", 2, "--cells", "vanilla", "lstm")
    task = importlib.import_module("_delayed_echo")
    traj, loss, error = task.examined(task.fresh("lstm", 4, 0), 3, 69, 8, 0)
    name = next(key for key in arrays if key.startswith("1.growths.LSTM") and key.endswith(".gradient"))
    assert f"error {words.short(100 * error)} %" in name
    flow = rg.gradient_flow(traj, loss).log_norm_by_lag()[:, 9:, :7]
    ratios = (flow - flow[..., :1]).reshape(-1, 7)
    expected = np.quantile(ratios, (0.1, 0.5, 0.9), axis=0, method="inverted_cdf")
    np.testing.assert_allclose(arrays[name], expected, rtol=1e-9, atol=1e-12)
    said = capsys.readouterr().out
    assert f"{words.factor(expected[1, 3])} (LSTM)" in said and "Trained: at lag 3" in said
    trained = next(value for key, value in arrays.items() if key.startswith("2.growths.LSTM") and "gradient" in key)
    assert np.abs(trained - expected).max() > 1e-6


def test_truncation_bias(run, capsys):
    arrays = run("truncation_bias", "--units", 4, "--delay", 3, "--length", 30, "--steps", 2, "--wanted", 0.3)
    task = importlib.import_module("_delayed_echo")
    net = task.trained(task.fresh("lstm", 4, 0), 3, 2, 0)
    traj, loss, _ = task.examined(net, 3, 30, 8, 0)
    full = rg.bptt(traj, loss)
    norm = np.sqrt(sum(np.sum(getattr(full, name) ** 2) for name in "WUb"))
    for window in (1, 5, 30):
        cut = rg.truncated_bptt(traj, loss, window=window)
        gap = np.sqrt(sum(np.sum((getattr(cut, name) - getattr(full, name)) ** 2) for name in "WUb"))
        np.testing.assert_allclose(arrays["parts.LSTM.bias"][window - 1], gap / norm, rtol=0, atol=1e-12)
    smallest = 1 + np.flatnonzero(np.append(True, arrays["parts.LSTM.bias"] > 0.3))[-1]
    assert arrays["parts.LSTM.smallest"] == smallest
    assert f"{smallest} steps (LSTM)" in capsys.readouterr().out


def test_edge_of_chaos(run):
    arrays = run(
        "edge_of_chaos", "--gains", 0.5, 2, "--units", 60, "--networks", 2, "--steps", 60, "--resolution", 5,
        "--largest-bias", 1,
    )  # fmt: skip
    np.testing.assert_allclose(arrays["1.prediction.lambda1"], [np.log(0.5), 0.154724], atol=1e-6)
    np.testing.assert_allclose(arrays["1.lambda1"].mean(axis=1), arrays["1.prediction.lambda1"], atol=0.15)
    assert arrays["1.lambda1"].shape == arrays["1.q"].shape == (2, 2)
    assert arrays["2.lambda1"].shape == (5, 5) and arrays["2.critical"][0] == 1
    assert (np.diff(arrays["2.critical"]) > 0).all()


def test_lyapunov_spectra(run, capsys):
    """At rest the exponents are the logarithms of W's eigenvalues; their sum is that of |det|."""
    arrays = run("lyapunov_spectra", "--gains", 0.5, 3, "--drawn", 0.5, 3, "--units", 40, "--steps", 400)
    np.testing.assert_allclose(arrays["1.prediction.lambda1"], [np.log(0.5), 0.310249], atol=1e-6)
    W = rg.Network.init("vanilla", 0, 40, scheme="gaussian", gain=0.5, seed=0).W[0]
    np.testing.assert_allclose(arrays["2.exponents"][0].sum(), np.linalg.slogdet(W)[1], atol=1e-9)
    logs = np.sort(np.log(np.abs(np.linalg.eigvals(W))))[::-1]
    np.testing.assert_allclose(arrays["2.exponents"][0], logs, atol=0.05)
    fraction = np.exp(2 * arrays["2.circular"][0]) / 0.5**2  # of exponents below
    np.testing.assert_allclose(fraction, 1 - (np.arange(40) + 0.5) / 40, rtol=1e-12)
    assert np.isnan(arrays["2.circular"][1]).all()
    low, high = arrays["1.interval"][1]
    assert low < arrays["1.lambda1"][1] < high and abs(arrays["1.lambda1"][1] - 0.310249) < 1 / np.sqrt(40)
    share = 100 * np.mean(arrays["2.exponents"][1] > 0)
    assert f"At g = 3, {share:.3g} % of directions expand" in capsys.readouterr().out


def test_every_mutant_still_changes_code(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    mutants = importlib.import_module("mutants")
    for mutant in mutants.MUTANTS:
        mutants.planted(mutant, (Path(rg.__file__).parent / mutant[1]).read_text(encoding="utf-8"))
    assert len({mutant[0] for mutant in mutants.MUTANTS}) == len(mutants.MUTANTS) >= 220


def test_no_cell_is_left_out_of_a_picture(monkeypatch):
    """Eight cells, where the palette has six colours."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    task = importlib.import_module("_delayed_echo")
    growths, parts = {}, {}
    for cell in list(rg.CELLS)[:8]:
        traj, loss, _ = task.examined(task.fresh(cell, 2, 0), 2, 12, 2, 0)
        growths[cell] = reach_by_lag(rg.gradient_reach(traj, loss, max_lag=5))
        parts[cell] = rg.truncation_bias(traj, loss, [1, 4])
    ax = Comparison(growths, 2, "delay", "steps", "Eight").plot()
    assert len(ax.get_legend().get_texts()) == 8
    assert len({tuple(np.ravel(line.get_color())) for line in ax.get_lines()}) >= 8
    ax = TruncationComparison(parts, 2, "delay", "Eight").plot()
    assert len(ax.get_legend().get_texts()) == 16


@pytest.mark.filterwarnings("error")
def test_spectra_at_gain_zero(run, capsys):
    """Without weights every exponent is -inf, in theory too, and no picture fails over it."""
    arrays = run("lyapunov_spectra", "--gains", 0, 0.5, "--drawn", 0, 0.5, "--units", 10, "--steps", 50)
    assert (arrays["2.exponents"][0] == -np.inf).all() and (arrays["2.circular"][0] == -np.inf).all()
    assert "λ₁ is within" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("truncation_bias", ("--delay", 0), "--delay: 0; it must be at least 1"),
        ("lyapunov_spectra", ("--seed", -1), "--seed: -1; it must be at least 0"),
        ("edge_of_chaos", ("--units", "many"), "--units: invalid"),
        ("note_wrec", ("--lag", 50, "--steps", 40), "--lag is 50; it must be at most --steps, 40"),
    ],
)
def test_bad_arguments_are_named(run, capsys, name, arguments, message):
    with pytest.raises(SystemExit):
        run(name, *arguments)
    assert message in capsys.readouterr().err


def test_pitchfork(run, capsys):
    """The outer curves are w = atanh(h)/h; h = 0 is stable for |w| < 1."""
    arrays = run("pitchfork", "--largest", 2)
    assert "flip at w = -1, branch at w = 1" in capsys.readouterr().out
    w, stable = arrays["0.parameter"], arrays["0.stable"]
    np.testing.assert_array_equal(stable, np.abs(w) < 1)
    for curve, sign in (("1", 1), ("2", -1)):
        h = arrays[f"{curve}.s"][:, 0, 0]
        np.testing.assert_allclose(np.arctanh(h) / h, arrays[f"{curve}.parameter"], rtol=1e-7)
        assert (sign * h > 0).all() and arrays[f"{curve}.stable"].all()


def test_flip_flop(run, capsys):
    """One bit: two memories and the saddle between them."""
    arrays = run("flip_flop", "--bits", 1, "--units", 8, "--steps", 150, "--starts", 60)
    printed = capsys.readouterr().out
    assert "contents held by stable points: 2 of 2" in printed and "2 with 0, 1 with 1" in printed
    assert arrays["unstable"].tolist() == [0, 0, 1] and arrays["modes"].shape == (1, 2, 2)
    low, middle, high = sorted(arrays["points"], key=lambda point: point[0])
    assert low[0] < middle[0] < high[0] and arrays["paths"].shape[0] == 10


def test_adjoint_convergence(run, capsys):
    """The series against rho^K of a scalar network, exactly; the iteration refuses rho >= 1, the others answer."""
    arrays = run("adjoint_convergence", "--radii", 0.5, 0.9, 1.2, "--units", 1)
    np.testing.assert_allclose(arrays["radius"], [0.5, 0.9, 1.2], rtol=1e-9)
    K = arrays["terms"][:30]
    for rho, series in zip(np.abs(arrays["radius"]), arrays["series"], strict=True):
        np.testing.assert_allclose(series[:30], rho**K, rtol=1e-4)
    count = arrays["products.iteration"]
    assert np.isnan(count[2]) and (np.abs(count[:2] - np.log(1e-10) / np.log([0.5, 0.9])) < [8, 40]).all()
    assert all(np.isfinite(arrays[f"products.{name}"]).all() for name in ("cg", "gmres", "bicgstab", "lu"))
    assert "is refused from ρ = 1.2 on" in capsys.readouterr().out


def test_recurrent_backpropagation(run, capsys):
    """All gradients begin at one network; unrolled far enough, BPTT is the implicit gradient, and so is the series."""
    sizes = ("--units", 8, "--patterns", 2, "--steps", 6, "--depth", 60)
    arrays = run("recurrent_backpropagation", *sizes)
    curves = [arrays[f"losses.{name}"] for name in ("implicit", "bptt", "two terms")]
    assert len({curve[0] for curve in curves}) == 1 and curves[2][-1] != curves[0][-1]
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-6)
    assert arrays["bptt"][0] > 0.01 > 1e-9 > arrays["bptt"][-1] and arrays["neumann"][-1] < 1e-9
    assert (arrays["radius"] < 0.6).all() and "bits that are right" in capsys.readouterr().out
