"""Curves of fixed points with bifurcations that are known in closed form; the portrait's geometry; figures."""

import numpy as np
import pytest
import scipy.optimize

import rnngrad as rg
from rnngrad.fixedpoint.continuation import Branches

ONE = rg.Network.init("vanilla", 0, 1)
TWO = rg.Network.init("vanilla", 0, 2)
PLANE = np.array([[[0.8, -0.6], [0.6, 0.8]]])  # a rotation


def with_weight(w):
    return ONE.replace(W=np.array([[[w]]]))


def test_folds():
    """h = tanh(2 h + b) turns back where 2 (1 - h^2) = 1: h = +-sqrt(1/2), b = atanh(h) - 2 h."""
    curve = rg.continue_fixed_point(lambda b: with_weight(2.0).replace(b=np.array([[b]])), [1.0], 1.0, -1.0, name="b")
    h = np.sqrt(0.5)
    assert curve.event.tolist() == ["fold", "fold"] and curve.name == "b"
    np.testing.assert_allclose(curve.event_s[:, 0, 0], [h, -h], atol=1e-6)
    np.testing.assert_allclose(curve.event_parameter, [np.arctanh(h) - 2 * h, 2 * h - np.arctanh(h)], atol=1e-10)
    s = curve.s[:, 0, 0]
    np.testing.assert_allclose(np.arctanh(s) - 2 * s, curve.parameter, atol=1e-8)
    np.testing.assert_array_equal(curve.stable, np.abs(s) > h)
    assert curve.parameter[0] == 1.0 and curve.parameter[-1] == -1.0 and len(s) < 200


@pytest.mark.parametrize(
    ("net_of", "start", "stop", "kind", "at"),
    [
        (with_weight, 0.5, 2.0, "branch", 1.0),
        (with_weight, 2.0, 0.5, "branch", 1.0),
        (with_weight, -0.5, -2.0, "flip", -1.0),
        (lambda w: TWO.replace(W=w * PLANE), 0.5, 2.0, "rotation", 1.0),
    ],
)
def test_bifurcations_of_the_origin(net_of, start, stop, kind, at):
    curve = rg.continue_fixed_point(net_of, np.zeros(net_of(1.0).n), start, stop)
    assert curve.event.tolist() == [kind]
    np.testing.assert_allclose(curve.event_parameter, [at], atol=1e-10)
    np.testing.assert_array_equal(curve.stable, np.abs(curve.parameter) < 1)


def test_flip_of_the_logistic_map():
    """The fixed point 1 - 1/r, of slope 2 - r, flips at r = 3."""
    system = rg.System(lambda s, x, p: np.array([p[0] * s[0] * (1 - s[0])]), 1, params=[2.5])
    curve = rg.continue_fixed_point(lambda r: system.replace(params=[r]), [0.6], 2.5, 3.5, step=0.1, name="r")
    assert curve.event.tolist() == ["flip"]
    np.testing.assert_allclose(curve.event_parameter, [3.0], atol=1e-9)
    np.testing.assert_allclose(curve.s[:, 0, 0], 1 - 1 / curve.parameter, atol=1e-9)
    np.testing.assert_allclose(curve.eigenvalues[:, 0], 2 - curve.parameter, atol=1e-7)


THREE = rg.Network.init("vanilla", 0, 3)
FOUR = rg.Network.init("vanilla", 0, 4)
RING = np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]])  # eigenvalues 2, -1, -1
TURNS = np.kron(np.diag([1.0, 1.02]), PLANE[0])


def assert_explained(curve):
    """Where the number of unstable directions changes between neighbouring points, events say by how much."""
    size = {"fold": 1, "branch": 1, "flip": 1, "rotation": 2}
    changes = np.abs(np.diff(curve.unstable)).sum()
    assert changes == sum(size[kind] * m for kind, m in zip(curve.event, curve.event_multiplicity, strict=True))
    for i in np.flatnonzero(np.diff(curve.unstable)):
        ends = np.sort(curve.parameter[i : i + 2])
        assert ((curve.event_parameter >= ends[0]) & (curve.event_parameter <= ends[1])).any()


@pytest.mark.parametrize(
    ("net_of", "start", "stop", "events"),
    [
        (lambda g: THREE.replace(W=-g * RING[None]), 0.6, 1.5, [("branch", 1.0, 2)]),
        (lambda g: THREE.replace(W=-g * RING[None]), 0.3, 1.2, [("flip", 0.5, 1), ("branch", 1.0, 2)]),
        (lambda g: THREE.replace(W=g * RING[None]), 0.3, 1.2, [("branch", 0.5, 1), ("flip", 1.0, 2)]),
        (lambda w: TWO.replace(W=w * np.eye(2)[None]), 0.5, 2.0, [("branch", 1.0, 2)]),
        (lambda w: TWO.replace(W=w * np.diag([1, 1.02])[None]), 0.5, 2.0, [("branch", 1 / 1.02, 1), ("branch", 1, 1)]),
        (lambda w: TWO.replace(W=-w * np.diag([1, 1.02])[None]), 0.5, 2.0, [("flip", 1 / 1.02, 1), ("flip", 1, 1)]),
        (lambda w: TWO.replace(W=w * np.diag([1.0, -1.0])[None]), 0.5, 2.0, [("branch", 1.0, 1), ("flip", 1.0, 1)]),
        (lambda w: FOUR.replace(W=w * TURNS[None]), 0.5, 2.0, [("rotation", 1 / 1.02, 1), ("rotation", 1, 1)]),
        (lambda w: FOUR.replace(W=w * np.kron(np.eye(2), PLANE)), 0.5, 2.0, [("rotation", 1, 2)]),
    ],
)
def test_crossings_together(net_of, start, stop, events):
    """Of the origin: eigenvalues that cross at one place, and two in one step of the curve."""
    curve = rg.continue_fixed_point(net_of, np.zeros(net_of(1.0).n), start, stop)
    assert list(zip(curve.event, curve.event_multiplicity, strict=True)) == [(kind, m) for kind, _, m in events]
    np.testing.assert_allclose(curve.event_parameter, [at for _, at, _ in events], atol=1e-9)
    assert_explained(curve)


def bump(base, height, centre):
    """Linear networks with the eigenvalue -(base + height / (1 + ((p - centre) / 0.05)^2)) at the origin."""

    def net_of(p):
        value = base + height / (1 + ((p - centre) / 0.05) ** 2)
        W = np.array([[-value, 0.2, 0.0], [0.0, 0.3, -0.7], [0.0, 0.7, 0.3]])
        return rg.Network.init("linear", 0, 3).replace(W=W[None], b=np.zeros((1, 3)))

    return net_of


@pytest.mark.parametrize(("base", "height"), [(0.5, 0.6), (1.2, -0.24)], ids=["outside", "inside"])
@pytest.mark.parametrize("centre", [0.33, 0.35, 0.367])
def test_an_eigenvalue_that_comes_back_within_a_step(base, height, centre):
    """It crosses -1 and returns between two points, where nothing is seen of it."""
    curve = rg.continue_fixed_point(bump(base, height, centre), np.zeros(3), 0.0, 1.0, step=0.1)
    away = 0.05 * np.sqrt(height / (1 - base) - 1)
    assert (np.abs(curve.parameter - centre) > away).all() and len(set(curve.unstable)) == 1
    assert curve.event.tolist() == ["flip", "flip"] and (curve.event_multiplicity == 1).all()
    np.testing.assert_allclose(curve.event_parameter, [centre - away, centre + away], atol=1e-9)


@pytest.mark.parametrize("at", [0.315, 0.36, 0.39])
def test_an_eigenvalue_that_comes_back_beside_one_that_stays(at):
    """The other one crosses 1 in the same step: before it, between its crossings, after it."""

    def net_of(p):
        net = bump(0.5, 0.6, 0.36)(p)
        W = net.W.copy()
        W[0, 1:, 1:] = np.diag([1 + p - at, 0.5])
        return net.replace(W=W)

    curve = rg.continue_fixed_point(net_of, np.zeros(3), 0.0, 1.0, step=0.1)
    away = 0.05 * np.sqrt(0.2)
    expected = sorted([(0.36 - away, "flip"), (0.36 + away, "flip"), (at, "branch")])
    assert curve.event.tolist() == [kind for _, kind in expected]
    np.testing.assert_allclose(curve.event_parameter, [p for p, _ in expected], atol=1e-9)


def test_an_eigenvalue_that_nearly_touches_is_no_event():
    curve = rg.continue_fixed_point(bump(0.5, 0.5 - 1e-7, 0.35), np.zeros(3), 0.0, 1.0, step=0.1)
    assert curve.event.tolist() == []


def test_real_eigenvalues_that_meet_outside_are_no_event():
    """[[2, -1], [p, 2]] has the eigenvalues 2 +- sqrt(-p)."""

    def net_of(p):
        return rg.Network.init("linear", 0, 2).replace(W=np.array([[[2.0, -1.0], [p, 2.0]]]))

    curve = rg.continue_fixed_point(net_of, np.zeros(2), -0.53, 0.5)
    assert curve.event.size == 0 and (curve.unstable == 2).all()


@pytest.mark.parametrize("beyond", [2e-3, 5e-4, 1e-5])
def test_the_interval_ends_just_before_a_fold(beyond):
    """A step goes around the fold and is back in the interval at its end."""
    h = np.sqrt(0.5)
    stop = np.arctanh(h) - 2 * h + beyond
    curve = rg.continue_fixed_point(lambda b: with_weight(2.0).replace(b=np.array([[b]])), [1.0], 1.0, stop)
    end = scipy.optimize.brentq(lambda s: np.tanh(2 * s + stop) - s, h, 1.0, xtol=1e-15)
    np.testing.assert_allclose(curve.s[-1, 0, 0], end, atol=1e-10 / (1 - 2 * (1 - end * end)))
    assert curve.parameter[-1] == stop and curve.event.size == 0 and (curve.s > h).all()


def test_bad_arguments():
    for arguments, options, error, message in (
        ((with_weight, [0.0], 1.0, 1.0), {}, ValueError, r"stop is 1.0, as start is"),
        ((ONE, [0.0], 0.5, 2.0), {}, ValueError, r"net_of is Network; it must be a function p -> Network or System"),
        ((with_weight, [0.0], 0.5, 2.0), {"step": 0.0}, ValueError, r"step is 0.0"),
        ((with_weight, [0.0, 0.0], 0.5, 2.0), {}, ValueError, r"s has shape \(2,\); it must have shape \(1,\)"),
        ((with_weight, [np.nan], 0.5, 2.0), {}, rg.ConvergenceError, r"no fixed point near s at p = 0.5"),
        (
            (lambda p: with_weight(p).astype("float32"), np.float32([0]), 0.5, 2.0),
            {},
            ValueError,
            r"must be in float64",
        ),
    ):
        with pytest.raises(error, match=message):
            rg.continue_fixed_point(*arguments, **options)


def pitchforks():
    net = rg.Network.init("vanilla", 0, 3).replace(W=np.diag([2.0, 3.0, 0.5])[None])
    starts = np.random.default_rng(0).uniform(-1.2, 1.2, (300, 3))
    return net, rg.find_fixed_points(net, starts)


def test_portrait():
    """The third unit is at rest in 0: the plane is that of the first two, and distances in it are kept."""
    net, points = pitchforks()
    traj = rg.rollout(net, steps=30, s0=np.random.default_rng(1).uniform(-1, 1, (40, 1, 3)) * [1, 1, 0])
    portrait = rg.fixed_point_portrait(points, traj, paths=25)
    assert portrait.paths.shape == (25, 31, 2) and len(portrait.points) == 9
    for chosen in (portrait.points, points.h[:, :2]):
        away = np.linalg.norm(chosen[:, None] - chosen[None], axis=-1)
        expected = np.linalg.norm(points.h[:, None] - points.h[None], axis=-1)
        np.testing.assert_allclose(away, expected, atol=1e-9)
    np.testing.assert_allclose(portrait.variance.sum(), 1.0, rtol=1e-12)
    assert len(portrait.modes) == points.unstable.sum() == 4 + 2
    saddle = int(np.flatnonzero(points.unstable == 1)[0])
    middle = portrait.modes.mean(axis=1)
    own = portrait.modes[np.linalg.norm(middle - portrait.points[saddle], axis=1) < 1e-9][0]
    way = (own[1] - own[0]) / np.linalg.norm(own[1] - own[0])
    axis = int(np.argmin(np.abs(points.h[saddle, :2])))  # the unit that is at 0 grows
    along = portrait.points[points.h[:, axis] > 0.1].mean(axis=0) - portrait.points[points.h[:, axis] < -0.1].mean(
        axis=0
    )
    np.testing.assert_allclose(abs(way @ along), np.linalg.norm(along), rtol=1e-6)
    title = portrait.plot().get_title(loc="left")
    assert "9 fixed points in 3 dimensions: 4 stable, 5 unstable" in title.replace("\n", " ")
    alone = rg.fixed_point_portrait(points)
    np.testing.assert_allclose(
        np.linalg.norm(alone.points[0] - alone.points[-1]), np.linalg.norm(points.h[0]), rtol=1e-9
    )
    with pytest.raises(ValueError, match=r"traj has states of 1 numbers; the points have 3"):
        rg.fixed_point_portrait(points, rg.rollout(ONE, steps=3))


def test_a_pitchfork_along_the_curve_that_turns_back():
    """h = tanh(w h) from above down to w = 1, where its three solutions meet, and up again below."""
    curve = rg.continue_fixed_point(with_weight, [0.9], 2.0, 0.5)
    assert curve.event.tolist() == ["fold"] and curve.parameter[-1] == 2.0
    np.testing.assert_allclose(curve.event_parameter, [1.0], atol=1e-5)
    assert curve.stable.all() and curve.s[-1, 0, 0] < -0.9


def test_figures_of_curves(tmp_path):
    middle = rg.continue_fixed_point(with_weight, [0.0], 0.5, 2.0, name="w")
    upper = rg.continue_fixed_point(with_weight, [0.9], 2.0, 1.01, name="w")
    ax = Branches((middle, upper)).plot()
    assert ax.get_title(loc="left").replace("\n", " ") == "2 curves of fixed points: branch at w = 1"
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"stable", "unstable", "branch"}
    assert "A curve of fixed points: no bifurcation" in upper.plot().get_title(loc="left")
    file = Branches((middle, upper)).save(tmp_path / "b.npz")
    with np.load(file) as arrays:
        np.testing.assert_array_equal(arrays["1.parameter"], upper.parameter)


def test_figure_and_numbers_of_a_solution(tmp_path):
    net = rg.Network.init("vanilla", 1, 1).replace(W=np.array([[[-3.0]]]), U=np.ones((1, 1, 1)))
    fp = rg.solve_fixed_point(net, np.array([[0.0], [6.0]]), "picard", s0=[0.2], max_iterations=40)
    assert fp.status.tolist() == ["oscillating", "converged"]
    ax = fp.plot()
    assert ax.get_title(loc="left") == "1 of 2 samples at a fixed point, within 40 iterations"
    assert [len(lines.get_segments()) for lines in ax.collections] == [1, 1]
    with np.load(fp.save(tmp_path / "fp.npz")) as arrays:
        np.testing.assert_array_equal(arrays["h"], fp.h)
        assert arrays["status"].tolist() == fp.status.tolist() and arrays["converged"].tolist() == [False, True]
    _, points = pitchforks()
    with np.load(points.save(tmp_path / "points.npz")) as arrays:
        np.testing.assert_array_equal(arrays["unstable"], points.unstable)
        assert arrays["slow.h"].shape == (0, 3)
