"""Recall of fixed points: closed forms, exhaustive enumeration by intervals, and scans of scalar equations."""

import functools
import itertools

import numpy as np
import oracles
import pytest
import scipy.optimize
from cases import make_case

import rnngrad as rg
from rnngrad.fixedpoint import distinct

torch = oracles.torch


def tanh_network(W, b=None):
    n = len(W)
    return rg.Network.init("vanilla", 0, n).replace(W=np.array(W)[None], b=np.zeros((1, n)) if b is None else b[None])


def box_of_starts(rng, count, n, size=1.2):
    return rng.uniform(-size, size, (count, n))


def enumerate_tanh(W, b):
    """All solutions of h = tanh(W h + b): boxes of [-1, 1]^n that an interval image cannot exclude, then polished."""
    n = len(W)
    low, high = -np.ones((1, n)), np.ones((1, n))
    small = []
    while len(low):
        assert len(low) < 3000, "too close to a bifurcation to be enumerated"
        for _ in range(3):  # a box shrinks to where its own image lies
            middle, radius = 0.5 * (low + high), 0.5 * (high - low)
            a, spread = middle @ W.T + b, radius @ np.abs(W).T
            low, high = np.maximum(low, np.tanh(a - spread)), np.minimum(high, np.tanh(a + spread))
            kept = (low <= high).all(axis=1)
            low, high = low[kept], high[kept]
        # mean value form: 0 must be in F(c) + F'(box) (box - c)
        middle, radius = 0.5 * (low + high), 0.5 * (high - low)
        a, spread = middle @ W.T + b, radius @ np.abs(W).T
        ends = np.tanh(a - spread), np.tanh(a + spread)
        largest = 1 - np.where(ends[0] * ends[1] < 0, 0, np.minimum(*np.square(ends)))
        least = 1 - np.maximum(*np.square(ends))
        slope, off = 0.5 * (largest + least), 0.5 * (largest - least)
        A = np.eye(n) - slope[:, :, None] * W
        reach = (np.abs(A) + off[:, :, None] * np.abs(W)) @ radius[:, :, None]
        kept = (np.abs(middle - np.tanh(a)) <= reach[..., 0] + 1e-12).all(axis=1)
        low, high = low[kept], high[kept]
        narrow = (high - low).max(axis=1) < 2e-3
        small.append(0.5 * (low + high)[narrow])
        low, high = low[~narrow], high[~narrow]
        widest = np.argmax(high - low, axis=1)
        cut = np.take_along_axis(0.5 * (low + high), widest[:, None], axis=1)
        other_low, other_high = low.copy(), high.copy()
        np.put_along_axis(high, widest[:, None], cut, axis=1)
        np.put_along_axis(other_low, widest[:, None], cut, axis=1)
        low, high = np.concatenate([low, other_low]), np.concatenate([high, other_high])
    roots: list[np.ndarray] = []
    for start in np.unique(np.round(np.concatenate(small), 3), axis=0):
        found = scipy.optimize.root(
            lambda h: h - np.tanh(W @ h + b),
            start,
            jac=lambda h: np.eye(n) - (1 - np.tanh(W @ h + b) ** 2)[:, None] * W,
        )
        near = found.success and np.abs(found.x - start).max() < 0.02
        if near and not any(np.abs(found.x - root).max() < 1e-7 for root in roots):
            roots.append(found.x)
    return np.array(roots)


def assert_all_found(points, truth, atol=1e-8):
    assert len(points) == len(truth), (len(points), len(truth))
    for root in truth:
        assert np.abs(points.h - root).max(axis=1).min() <= atol, root


ENUMERATED = [(n, seed) for n, count in ((2, 8), (3, 7), (4, 5)) for seed in range(count)]


@pytest.mark.parametrize(("n", "seed"), ENUMERATED)
def test_recall_of_random_networks(n, seed):
    rng = np.random.default_rng([n, seed])
    W, b = rng.standard_normal((n, n)) * 3 / np.sqrt(n), 0.2 * rng.standard_normal(n)
    W += np.eye(n)
    truth = enumerate_tanh(W, b)
    points = rg.find_fixed_points(tanh_network(W, b), box_of_starts(rng, 400, n))
    assert_all_found(points, truth)
    for k in range(len(points)):
        J = (1 - points.h[k] ** 2)[:, None] * W
        np.testing.assert_allclose(points.jacobian[k], J, atol=1e-9)
        values = np.linalg.eigvals(J)
        np.testing.assert_allclose(np.abs(points.eigenvalues[k]), np.sort(np.abs(values))[::-1], atol=1e-7)
        assert points.stable[k] == (np.abs(values).max() < 1)
        assert points.unstable[k] == np.count_nonzero(np.abs(values) >= 1)
    assert (np.diff(points.unstable) >= 0).all() and (points.residual <= 1e-10).all()
    assert points.found.sum() == np.count_nonzero(points.point >= 0)
    for k in range(len(points)):
        assert np.abs(points.end[points.point == k][:, 0] - points.h[k]).max() < 1e-6


@pytest.mark.parametrize("weights", [(2.0,), (2.0, 3.0), (2.0, 3.0, 1.5), (4.0, 0.5, 2.0)])
def test_products_of_pitchforks(weights):
    """Uncoupled units: every combination of 0 and +-h*; 3^k points, and j directions up where j of them are 0."""
    roots = [
        [0.0]
        + ([] if w <= 1 else [s * scipy.optimize.brentq(lambda h, w=w: h - np.tanh(w * h), 0.1, 1) for s in (1, -1)])
        for w in weights
    ]
    truth = np.array(list(itertools.product(*roots)))
    starts = box_of_starts(np.random.default_rng(0), 600, len(weights))
    points = rg.find_fixed_points(tanh_network(np.diag(weights)), starts)
    assert_all_found(points, truth)
    grows = np.array(weights) > 1
    np.testing.assert_array_equal(points.unstable, ((np.abs(points.h) < 0.1) & grows).sum(axis=1))
    assert points.status.tolist() == ["converged"] * 600


@pytest.mark.parametrize("cell", ["vanilla", "vanilla_s", "continuous", "gru", "gru_reset_before", "mgu", "lstm"])
@pytest.mark.parametrize("seed", [1, 2])
def test_recall_of_scalar_cells(cell, seed):
    """Roots of one equation in one unknown, by a scan; c = i v + f c of an LSTM is solved for c."""
    drawn = make_case(cell, n=1, m=0, p=0, T=1, B=1, scale=4.0, seed=seed)
    P = {name: oracles.tensor(a) for name, a in drawn.params.items()}
    alpha = None if drawn.alpha is None else oracles.tensor(drawn.alpha)

    def step(s):
        s = oracles.tensor(s)
        return oracles.step(
            cell, P, s, torch.zeros(len(s), 0, dtype=torch.float64), drawn.net.activation, alpha
        ).numpy()

    def complete(h):
        if cell != "lstm":
            return h[:, None, None]
        zero, one = (step(np.stack([h, np.full_like(h, c)], axis=1)[..., None])[:, 1, 0] for c in (0.0, 1.0))
        return np.stack([h, zero / (1 - (one - zero))], axis=1)[..., None]

    def gap(h):
        return step(complete(h))[:, 0, 0] - h

    size = 30.0 if cell in ("vanilla_s", "continuous") else 1.0  # |h| < 1, or a sum of a few weights
    grid = np.linspace(-size, size, 200_001)
    values = gap(grid)
    crossing = np.flatnonzero(np.sign(values[1:]) != np.sign(values[:-1]))
    truth = np.array([scipy.optimize.brentq(lambda h: gap(np.array([h]))[0], grid[i], grid[i + 1]) for i in crossing])
    rng = np.random.default_rng(seed)
    starts = rng.uniform(-size, size, (300, drawn.net.S, 1))
    starts[:, 1:] *= 5
    points = rg.find_fixed_points(drawn.net, starts)
    found = points.s[:, 0, 0]
    found = found[np.abs(found) <= size]  # far outside the range of h a gate can be closed so far that nothing moves
    np.testing.assert_allclose(np.sort(found), np.sort(truth), atol=1e-8)


def logistic(r):
    return rg.System(lambda s, x, p: np.array([p[0] * s[0] * (1 - s[0])]), 1, params=[r])


def test_cycles_of_the_logistic_map():
    """Period 2 at r = 3.2 by its formula; at r = 3.84 the stable and the unstable 3-cycle, and both fixed points."""
    starts = np.random.default_rng(0).uniform(0, 1, (60, 1))
    two = rg.find_fixed_points(logistic(3.2), starts, period=2)
    pair = (4.2 + np.array([-1, 1]) * np.sqrt(0.2 * 4.2)) / 6.4
    np.testing.assert_allclose(np.sort(two.h[two.cycle_length == 2, 0]), pair, atol=1e-9)
    np.testing.assert_allclose(np.sort(two.h[two.cycle_length == 1, 0]), [0, 1 - 1 / 3.2], atol=1e-9)
    multiplier = 3.2**2 * np.prod(1 - 2 * pair)
    np.testing.assert_allclose(two.eigenvalues[two.cycle_length == 2, 0], multiplier, rtol=1e-7)
    assert len(set(two.cycle[two.cycle_length == 2])) == 1 and two.stable[two.cycle_length == 2].all()
    three = rg.find_fixed_points(logistic(3.84), starts, period=3)
    f = np.polynomial.Polynomial([0, 3.84, -3.84])
    truth = (f(f(f)) - np.polynomial.Polynomial([0, 1])).roots()
    np.testing.assert_allclose(np.sort(three.h[:, 0]), np.sort(truth[np.abs(truth.imag) < 1e-9].real), atol=1e-8)
    lengths = sorted(
        (int(length), int(stable)) for length, stable in zip(three.cycle_length, three.stable, strict=True)
    )
    assert lengths == [(1, 0), (1, 0), (3, 0), (3, 0), (3, 0), (3, 1), (3, 1), (3, 1)]
    for number in set(three.cycle[three.cycle_length == 3]):
        own = three.h[three.cycle == number, 0]
        np.testing.assert_allclose(np.sort(3.84 * own * (1 - own)), np.sort(own), atol=1e-8)


@pytest.mark.parametrize(("period", "cycles"), [(5, {1: 2, 5: 6}), (7, {1: 1, 7: 18}), (6, {1: 2, 2: 1, 3: 2, 6: 9})])
def test_every_cycle_has_all_of_its_points(period, cycles):
    """r = 4: x = sin^2(pi k / (2^p -+ 1)): all of them, 5e-6 apart near 1; 0 repels by 4^7 and no start meets it."""
    points = rg.find_fixed_points(logistic(4.0), np.random.default_rng(0).uniform(0, 1, (1500, 1)), period=period)
    angles = np.concatenate(
        [np.arange(2 ** (period - 1)) / (2**period - 1), np.arange(1, 2 ** (period - 1) + 1) / (2**period + 1)]
    )
    truth = np.sin(np.pi * angles) ** 2
    truth = np.sort(truth[truth > 0] if period == 7 else truth)
    np.testing.assert_allclose(np.sort(points.h[:, 0]), truth, atol=1e-9)
    found: dict[int, int] = {}
    for number in set(points.cycle):
        own = points.cycle == number
        length = int(own.sum())
        assert (points.cycle_length[own] == length).all()
        h = points.h[own, 0]
        np.testing.assert_allclose(np.sort(4 * h * (1 - h)), np.sort(h), atol=1e-8)
        found[length] = found.get(length, 0) + 1
    assert found == cycles
    at = points.point >= 0
    np.testing.assert_allclose(points.end[at, 0, 0], points.h[points.point[at], 0], atol=1e-9)
    assert points.found.sum() == at.sum()


def test_what_follows_is_a_point_only_if_newton_says_so(monkeypatch):
    solve = distinct.newton.solve

    def lost(here, s, tol, limit, **options):
        done = solve(here, s, tol, limit, **options)
        if limit == distinct._POLISH:
            done.status[:] = "stuck"
        return done

    monkeypatch.setattr(distinct.newton, "solve", lost)
    points = rg.find_fixed_points(tanh_network([[-3.0]]), np.linspace(0.8, 1.1, 5)[:, None], period=2)
    assert len(points) == 1 and points.h[0, 0] > 0.9 and points.cycle_length.tolist() == [0]


def test_jacobian_of_a_cycle():
    """The Hénon map's 2-cycle: x solves a^2 x^2 - a (1 - b) x + (1 - b)^2 - a = 0, and J = J(second) J(first)."""
    a, b = 1.4, 0.3
    henon = rg.System(lambda s, x, p: np.array([1 - p[0] * s[0] * s[0] + s[1], p[1] * s[0]]), 2, params=[a, b])
    points = rg.find_fixed_points(henon, box_of_starts(np.random.default_rng(0), 60, 2), period=2)
    pair = np.roots([a * a, -a * (1 - b), (1 - b) ** 2 - a])
    own = points.h[points.cycle_length == 2]
    np.testing.assert_allclose(np.sort(own[:, 0]), np.sort(pair), atol=1e-9)
    local = {k: np.array([[-2 * a * x, 1], [b, 0]]) for k, x in enumerate(own[:, 0])}
    for k in (0, 1):
        found = points.jacobian[points.cycle_length == 2][k]
        np.testing.assert_allclose(found, local[1 - k] @ local[k], atol=1e-7)
    assert len(points) == 4  # and the two fixed points


def test_a_cycle_met_at_one_point_is_completed():
    """h <- tanh(-3 h) has the 2-cycle +-h*, h* = tanh(3 h*); only starts above 0 are given."""
    h = scipy.optimize.brentq(lambda h: h - np.tanh(3 * h), 0.5, 1)
    points = rg.find_fixed_points(tanh_network([[-3.0]]), np.linspace(0.8, 1.1, 5)[:, None], period=2)
    np.testing.assert_allclose(np.sort(points.h[:, 0]), [-h, h], atol=1e-9)
    np.testing.assert_array_equal(points.cycle_length, 2)
    assert points.found.sum() == 5 and sorted(points.found) == [0, 5]


def test_slow_points():
    """s + eps + s^2 misses its fixed point by eps: the ghost at 0 is a slow point, with the residual eps."""
    near = rg.System(lambda s, x, p: np.array([s[0] + p[0] + s[0] * s[0], 0.5 * s[1]]), 2, params=[1e-3])
    points = rg.find_fixed_points(near, box_of_starts(np.random.default_rng(0), 50, 2, 0.5))
    assert len(points) == 0 and len(points.slow) == 1
    np.testing.assert_allclose(points.slow.h, 0, atol=1e-5)
    np.testing.assert_allclose(points.slow.residual, 1e-3, rtol=1e-6)
    assert set(points.status) == {"slow"} and (points.slow_point == 0).all() and (points.point == -1).all()
    left = rg.find_fixed_points(near, box_of_starts(np.random.default_rng(0), 50, 2, 0.5), slow=False)
    assert set(left.status) <= {"stuck", "limit", "singular"} and len(left.slow) == 0


def test_double_root_is_one_point():
    """s + s^2: I - J is singular at 0, where Newton halves the distance only; the ends are 1e-5 apart."""
    system = rg.System(lambda s, x, p: np.array([s[0] + s[0] * s[0]]), 1)
    points = rg.find_fixed_points(system, np.linspace(-0.4, 0.5, 20)[:, None])
    assert len(points) == 1 and points.found[0] == 20
    np.testing.assert_allclose(points.h, 0, atol=2e-5)
    np.testing.assert_allclose(points.eigenvalues, 1, atol=1e-4)


def test_starts_that_lead_nowhere_are_accounted_for():
    """f = 2 sqrt(s), whose fixed points are 0 and 4."""
    system = rg.System(lambda s, x, p: np.array([2 * np.sqrt(s[0])]), 1)
    starts = np.array([[3.0], [np.nan], [-1.0], [5.0], [np.inf]])
    points = rg.find_fixed_points(system, starts)
    assert points.status[[0, 1, 2, 3, 4]].tolist() == ["converged", "invalid", "outside", "converged", "invalid"]
    np.testing.assert_allclose(points.h, [[4.0]], atol=1e-9)
    assert points.point.tolist() == [0, -1, -1, 0, -1] and points.found.tolist() == [2]
    nothing = rg.find_fixed_points(system, np.zeros((0, 1)))
    assert (
        len(nothing) == len(nothing.slow) == 0 and nothing.status.shape == (0,) and nothing.jacobian.shape == (0, 1, 1)
    )


def test_tolerance_below_rounding():
    rng = np.random.default_rng(0)
    W = rng.standard_normal((6, 6))
    points = rg.find_fixed_points(tanh_network(W), box_of_starts(rng, 50, 6), tol=1e-40)
    usual = rg.find_fixed_points(tanh_network(W), box_of_starts(np.random.default_rng(0), 50, 6))
    assert set(points.status) <= {"rounding", "converged", "slow"}
    assert len(points) == len(usual) and points.residual.max() < 1e-14


def test_float32():
    W = np.diag([2.0, 3.0])
    net = tanh_network(W).astype("float32")
    starts = box_of_starts(np.random.default_rng(0), 200, 2).astype(np.float32)
    points = rg.find_fixed_points(net, starts, tol=1e-6, merge=1e-4)
    assert len(points) == 9 and points.s.dtype == np.float32


@pytest.mark.parametrize("gap", [5e-4, 1e-4, 1e-5])
def test_slow_points_in_float32(gap):
    """tanh(2 h + b) just past the fold misses the diagonal by gap/2: a slow point, and no stable fixed point."""
    meeting = np.sqrt(0.5)
    b = np.arctanh(meeting) - 2 * meeting - gap
    net = tanh_network([[2.0]], np.array([b])).astype("float32")
    starts = np.linspace(-1.2, 1.2, 40).astype(np.float32)[:, None]
    points = rg.find_fixed_points(net, starts, tol=1e-6)
    assert len(points) == 1 and points.h[0, 0] < -0.9 and points.residual[0] <= 1e-6
    assert set(points.status) == {"converged", "slow"}
    np.testing.assert_allclose(points.slow.h, meeting, atol=2e-2)
    np.testing.assert_allclose(points.slow.residual, gap / 2, rtol=0.1)


def test_held_input():
    """With an input the map is another one: h = tanh(2 h + 1) has one solution."""
    net = rg.Network.init("vanilla", 1, 1).replace(W=np.array([[[2.0]]]), U=np.ones((1, 1, 1)))
    starts = np.linspace(-1, 1, 9)[:, None]
    assert len(rg.find_fixed_points(net, starts)) == 3
    points = rg.find_fixed_points(net, starts, x=[1.0])
    np.testing.assert_allclose(points.h, [[scipy.optimize.brentq(lambda h: h - np.tanh(2 * h + 1), 0.5, 1)]], atol=1e-9)


def test_bad_arguments():
    net = rg.Network.init("lstm", 2, 3)
    starts = np.zeros((4, 2, 3))
    find = functools.partial(rg.find_fixed_points, net)
    for arguments, options, message in (
        ((np.zeros((4, 3)),), {}, r"starts has shape \(4, 3\); it must have shape \(R, 2, 3\)"),
        ((starts, np.zeros((2, 2))), {}, r"x has 2 rows; it must be the one input"),
        ((starts, np.zeros(3)), {}, r"x has shape \(3,\); it must have shape \(2,\)"),
        ((starts,), {"tol": -1.0}, r"tol is -1.0"),
        ((starts,), {"period": 0}, r"period is 0; it must be at least 1"),
        ((starts,), {"merge": 1.0}, r"merge is 1.0; it must be in \[0.0, 0.1\]"),
        ((starts,), {"max_iterations": 0}, r"max_iterations is 0"),
        ((starts.astype(np.float32),), {}, r"starts has dtype float32"),
    ):
        with pytest.raises(ValueError, match=message):
            find(*arguments, **options)
