"""Gradients at fixed points against torch's of the unrolled network, dense solves and closed forms; and no lies."""

import mpmath
import numpy as np
import oracles
import pytest
import scipy.sparse.linalg
from cases import CELLS, assert_close, make_case

import rnngrad as rg
from rnngrad.dynamics.placed import lengths
from rnngrad.fixedpoint.linear import SOLVERS

torch = oracles.torch
METHODS = tuple(SOLVERS)
SEEDS = 20


def unrolled(drawn, x, z, steps=1500):
    """dL/d(parameters and x), L = 1/2 ||y - z||^2 after so many steps from zero, by torch."""
    P = {name: oracles.tensor(a).requires_grad_() for name, a in drawn.params.items()}
    xt = oracles.tensor(x).requires_grad_()
    alpha = None if drawn.alpha is None else oracles.tensor(drawn.alpha)
    s = torch.zeros(len(x), drawn.net.S, drawn.net.n, dtype=torch.float64)
    for _ in range(steps):
        s = oracles.step(drawn.cell, P, s, xt, drawn.net.activation, alpha)
    y = oracles.readout(drawn.cell, P, s, drawn.net.activation)
    loss = 0.5 * ((y - oracles.tensor(z)) ** 2).sum()
    loss.backward()
    return {name: p.grad.numpy() for name, p in P.items() if p.numel()} | {"x": xt.grad.numpy(), "loss": loss.item()}


def at_rest(cell="vanilla", dtype="float64", scale=0.5, tol=1e-13, **sizes):
    drawn = make_case(cell, scale=scale, dtype=dtype, T=1, **sizes)
    x = drawn.x[0]
    fp = rg.solve_fixed_point(drawn.net, x, tol=tol, method="newton")
    target = np.random.default_rng(1).standard_normal(fp.y.shape)
    return drawn, x, fp, target, rg.losses.squared_error(target.astype(dtype))


def assert_same(grads, truth, rtol):
    """Relative to the largest gradient of all: at a fixed point a gate that only mixes has none."""
    scale = max(np.abs(value).max() for value in truth.values())
    for name, value in truth.items():
        np.testing.assert_allclose(getattr(grads, name), value, rtol=0, atol=rtol * scale, err_msg=name)


@pytest.mark.parametrize("cell", CELLS)
def test_gradient_of_the_unrolled_network(cell):
    drawn, x, fp, target, loss = at_rest(cell)
    assert fp.spectral_radius.max() < 0.97  # 0.97^1500 is 1e-20
    grads = rg.implicit_gradient(fp, loss)
    assert_same(grads, unrolled(drawn, x, target), 1e-9)
    assert (grads.residual < 1e-10).all() and (grads.error < 1e-10).all() and (grads.iterations > 3).all()
    assert {name for name, _ in grads.parameters()} == set(drawn.net.parameters)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cell", ["lstm", "gru_reset_before"])
def test_methods(cell, method):
    _, _, fp, _, loss = at_rest(cell)
    grads = rg.implicit_gradient(fp, loss, method=method)
    J = fp.jacobian
    g = rg.implicit_gradient(fp, loss, method="neumann", terms=1).z.reshape(3, -1)  # one term is dL/ds* itself
    z = np.stack([np.linalg.solve(np.eye(len(j)) - j.T, own) for j, own in zip(J, g, strict=True)])
    assert_close(grads.z.reshape(3, -1), z, 1e-9)
    miss = np.linalg.norm(z @ np.eye(z.shape[1]) - np.einsum("bi,bij->bj", z, J) - g, axis=1)
    assert (miss < 1e-12).all() and (grads.residual < 1e-10).all()
    np.testing.assert_array_equal(grads.spectral_radius, fp.spectral_radius)
    np.testing.assert_array_equal(grads.condition, fp.condition)


@pytest.mark.parametrize("terms", [1, 2, 7, 20])
@pytest.mark.parametrize("cell", ["vanilla", "lstm", "mgu", "vanilla_s"])
def test_neumann_series_is_truncated_backpropagation(cell, terms):
    """A rollout that stays at the fixed point, the loss at its end, back over K steps."""
    drawn, x, fp, target, loss = at_rest(cell, tol=1e-15 * 4)
    grads = rg.implicit_gradient(fp, loss, method="neumann", terms=terms)
    traj = rg.rollout(drawn.net, np.repeat(x[None], 25, axis=0), s0=fp.s)
    last = rg.losses.squared_error(np.repeat(target[None], 25, axis=0), weights="last")
    truth = rg.truncated_bptt(traj, last, window=terms)
    for name, value in truth.parameters():
        assert_close(getattr(grads, name), value, 1e-12, name)
    assert_close(grads.x, truth.x.sum(axis=0), 1e-12, "x")
    exact = rg.implicit_gradient(fp, loss, method="lu").z
    error = np.linalg.norm((grads.z - exact).reshape(3, -1), axis=1) / np.linalg.norm(exact.reshape(3, -1), axis=1)
    np.testing.assert_allclose(grads.error, error, rtol=1e-6, atol=1e-13)


def test_neumann_error_of_a_normal_jacobian():
    """At most rho^K."""
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 5)))[0]
    net = rg.Network.init("linear", 2, 5).replace(W=(Q * [0.8, -0.7, 0.3, 0.1, 0.5]) @ Q.T[None])
    fp = rg.solve_fixed_point(net, np.ones(2))
    for terms in (1, 5, 20):
        grads = rg.implicit_gradient(fp, rg.losses.squared_error(np.ones((1, 5))), method="neumann", terms=terms)
        assert 0.01 * 0.8**terms < grads.error[0] <= 0.8**terms * (1 + 1e-9)


@pytest.mark.parametrize("b", [0.0, 0.3])
def test_scalar_network(b):
    """h = tanh(w h + b): dh/db = s/(1 - w s), dh/dw = h dh/db, s = 1 - h^2."""

    def f(s, x, p):
        return np.array([np.tanh(p[0] * s[0] + p[1] + x[0])])

    system = rg.System(f, 1, params=[2.0, b], n_inputs=1)
    fp = rg.solve_fixed_point(system, np.zeros((1, 1)), s0=[1.0], tol=1e-14)
    h = fp.h[0, 0]
    slope = (1 - h * h) / (1 - 2 * (1 - h * h))
    grads = rg.implicit_gradient(fp, rg.losses.squared_error(np.zeros((1, 1))))  # dL/dh = h
    np.testing.assert_allclose(grads.params, [h * h * slope, h * slope], rtol=1e-9)
    np.testing.assert_allclose(grads.x, [[h * slope]], rtol=1e-9)
    if b == 0:
        assert abs(h - 0.957504) < 1e-6
        middle = rg.solve_fixed_point(system, np.zeros((1, 1)), method="newton")  # 0, of slope 2
        message = r"rho\(J\) = 2 >= 1, so it cannot converge; I - J is regular .*use method='lu' or 'gmres'"
        with pytest.raises(rg.ConvergenceError, match=message):
            rg.implicit_gradient(middle, rg.losses.squared_error(np.ones((1, 1))))
        grads = rg.implicit_gradient(middle, rg.losses.squared_error(np.ones((1, 1))), method="lu")  # dL/dh = -1
        np.testing.assert_allclose(grads.params, [0, -1 / (1 - 2)], atol=1e-12)


def placed(rng, n, radius, kind="random"):
    """A tanh network with a fixed point put where J has the given spectral radius; and that J."""
    h = rng.uniform(-0.9, 0.9, n)
    W = rng.standard_normal((n, n))
    if kind == "symmetric":
        W = W + W.T
    if kind == "triangular":  # far from normal
        W = np.triu(W, 1) + np.diag(rng.uniform(-1, 1, n))
    if kind == "rotation":
        W = np.kron(np.eye((n + 1) // 2), [[0.0, -1.0], [1.0, 0.0]])[:n, :n] + 1e-3 * W
    J = (1 - h * h)[:, None] * W
    W = W * radius / np.abs(np.linalg.eigvals(J)).max()
    net = rg.Network.init("vanilla", 0, n).replace(W=W[None], b=(np.arctanh(h) - W @ h)[None])
    fp = rg.solve_fixed_point(net, method="newton", s0=h, tol=1e-13)
    assert fp.converged[0] and np.abs(fp.h[0] - h).max() < 1e-6
    return fp, (1 - fp.h[0] ** 2)[:, None] * W


def judge(count, seed):
    """Answers and refusals over random systems; every answer is checked against a dense solve."""
    rng = np.random.default_rng(seed)
    answers = dict.fromkeys(METHODS, 0)
    kinds = ("random", "symmetric", "triangular", "rotation")
    for i in range(count):
        radius, n = rng.uniform(0.1, 1.5), int(rng.integers(1, 9))
        fp, J = placed(rng, n, radius, kinds[i % 4] if n > 1 else "random")
        target = rng.standard_normal((1, n))
        loss, A = rg.losses.squared_error(target), np.eye(n) - J.T
        truth = np.linalg.solve(A, fp.h[0] - target[0])
        condition, radius = np.linalg.cond(A), np.abs(np.linalg.eigvals(J)).max()
        for method in METHODS:
            try:
                grads = rg.implicit_gradient(fp, loss, method=method)
            except (rg.ConvergenceError, rg.SingularError) as error:
                assert "rho(J)" in str(error) and "use method=" in str(error)
                assert method not in ("lu", "gmres") or condition > 1e5, (method, condition)
                assert method != "iteration" or radius > 0.99, radius
                continue
            assert method != "iteration" or radius < 1
            answers[method] += 1
            error = np.linalg.norm(grads.z[0, 0] - truth) / np.linalg.norm(truth)
            assert error <= 1e-9, (method, i, radius, condition, error)
            assert_close(grads.b[0], (1 - fp.h[0] ** 2) * truth, 1e-9)
    return answers


def test_no_lies():
    answers = judge(40, 0)
    assert answers["lu"] == answers["gmres"] == 40 and 15 < answers["iteration"] < 36


@pytest.mark.slow
def test_no_lies_in_a_thousand():
    """Spectral radius from 0.1 to 1.5, normal and far from it: what does not converge says so, the rest is right."""
    answers = judge(1000, 1)
    assert answers["lu"] == 1000 and answers["gmres"] >= 999 and 550 < answers["iteration"] < 750


@pytest.mark.parametrize("method", METHODS)
def test_singular(method):
    """I - J is singular in a direction that the loss does not see: the series converges, and there is no gradient."""
    net = rg.Network.init("linear", 0, 2).replace(W=np.diag([1.0, 0.5])[None], b=np.array([[0.0, 1.0]]))
    fp = rg.solve_fixed_point(net, s0=[0.0, 2.0])
    loss = rg.losses.squared_error(np.array([[0.0, 1.0]]))
    with pytest.raises(rg.SingularError, match=r"singular at the fixed point of sample 0 .*rho\(J\) = 1\)"):
        rg.implicit_gradient(fp, loss, method=method, max_iterations=500)
    if method != "lu":
        return
    with pytest.raises(rg.ConvergenceError, match=r"rho\(J\) = 1 >= 1"):  # a series of any length is no answer
        bent = net.replace(W=np.array([[[0.0, -1.0], [1.0, 0.0]]]))
        rg.implicit_gradient(rg.solve_fixed_point(bent, method="newton"), loss, max_iterations=500)


@pytest.mark.parametrize("method", ["lu", "gmres", "cg", "bicgstab"])
def test_singular_at_the_root_that_the_solver_only_came_near(method):
    """h = tanh h: I - J = h^2 where the solver stops, and 0 at the root."""
    net = rg.Network.init("vanilla", 0, 1).replace(W=np.ones((1, 1, 1)), b=np.zeros((1, 1)))
    for solver in ("anderson", "newton"):
        fp = rg.solve_fixed_point(net, s0=[0.5], method=solver)
        assert fp.converged[0] and fp.h[0, 0] > 1e-4
        with pytest.raises(rg.SingularError, match=r"h\* is not isolated .*not known well enough"):
            rg.implicit_gradient(fp, rg.losses.squared_error(np.ones((1, 1))), method=method)


def test_fixed_points_that_are_hardly_solved():
    """Whatever the residual, z is that of the root, to within its error."""
    fp, J = placed(np.random.default_rng(5), 5, 0.9)
    target = np.ones((1, 5))
    exact = np.linalg.solve(np.eye(5) - J.T, fp.h[0] - target[0])
    for tol in (1e-3, 1e-5, 1e-8):
        poor = rg.solve_fixed_point(fp.map.net, s0=fp.s[0] + 0.1 * tol, tol=tol)
        assert tol == 1e-8 or poor.residual[0] > 1e-9
        same = rg.losses.squared_error(target + poor.h - fp.h)  # dL/dh is that of the h it is given
        for method in METHODS:
            grads = rg.implicit_gradient(poor, same, method=method)
            away = np.linalg.norm(grads.z[0, 0] - exact) / np.linalg.norm(exact)
            assert away <= 10 * grads.error[0] + 1e-10 and away < 1e-8, (tol, method)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_next_to_a_fold(dtype):
    """h = tanh(2 h + b) before h and h' meet: refused, or right to within the error, by 40 digits."""
    meeting = np.sqrt(0.5)
    answers = refused = 0
    for gap in 10.0 ** np.arange(-14, 0):
        b = np.arctanh(meeting) - 2 * meeting + gap
        net = rg.Network.init("vanilla", 0, 1).replace(W=np.array([[[2.0]]]), b=np.array([[b]])).astype(dtype)
        tol = 1e-13 if dtype == "float64" else 1e-6
        fp = rg.solve_fixed_point(net, s0=np.array([0.95], dtype), method="newton", tol=tol)
        if not fp.converged[0] or fp.h[0, 0] < 0:
            continue
        with mpmath.workdps(40):
            own = mpmath.mpf(float(net.b[0, 0]))
            try:
                h = mpmath.findroot(lambda h, own=own: h - mpmath.tanh(2 * h + own), [meeting, 1], solver="anderson")
            except ValueError:
                h = mpmath.findroot(lambda h, own=own: h - mpmath.tanh(2 * h + own), float(fp.h[0, 0]) + 1e-3)
            z = float(mpmath.mpf(float(fp.h[0, 0])) / (1 - 2 * (1 - h * h)))
        loss = rg.losses.squared_error(np.zeros((1, 1), dtype))
        for seed in range(SEEDS):  # an error that is drawn too small once in a while is none
            try:
                grads = rg.implicit_gradient(fp, loss, method="lu", seed=seed)
            except (rg.ConvergenceError, rg.SingularError):
                refused += 1
                continue
            answers += 1
            assert abs(grads.z[0, 0, 0] / z - 1) <= 2 * grads.error[0] + 1e-14, (gap, seed)
            assert grads.error[0] < 2e-8
    assert answers >= SEEDS * (6 if dtype == "float64" else 3) and refused >= 3 * SEEDS


def test_float32_has_the_digits_of_float64():
    """J of the float32 weights at their own root, not rounded: z to nine digits where float32 would leave four."""
    fp, _ = placed(np.random.default_rng(3), 4, 0.95)
    net = fp.map.net.astype("float32")
    narrow = rg.solve_fixed_point(net, s0=fp.s[0].astype(np.float32), tol=1e-6, method="newton")
    wide = rg.solve_fixed_point(net.astype("float64"), s0=fp.s[0], tol=1e-14, method="newton")
    loss = rg.losses.squared_error(np.zeros((1, 4), np.float32))
    J = (1 - wide.h[0] ** 2)[:, None] * net.W[0].astype(np.float64)
    truth = np.linalg.solve(np.eye(4) - J.T, narrow.h[0].astype(np.float64))
    for method in METHODS:
        grads = rg.implicit_gradient(narrow, loss, method=method)
        assert_close(grads.z[0, 0], truth, 1e-9, method)
        assert grads.b.dtype == np.float32


@pytest.mark.parametrize("method", [*METHODS, "neumann"])
def test_losses_of_any_size(method):
    """Squares of the gradient under- and overflow; z is linear in it all the same."""
    net = rg.Network.init("linear", 0, 2).replace(W=np.array([[[0.9, 0.1], [0.0, 0.5]]]), b=np.array([[1.0, 2.0]]))
    fp = rg.solve_fixed_point(net, method="newton")
    options = {"method": method, "terms": 9} if method == "neumann" else {"method": method}
    usual = rg.implicit_gradient(fp, rg.losses.squared_error(np.zeros((1, 2))), **options)
    for weight in (1e-200, 1e-165, 1e-150, 1e160, 1e200):
        loss = rg.losses.squared_error(np.zeros((1, 2)), weights=np.array([weight]))
        grads = rg.implicit_gradient(fp, loss, **options)
        np.testing.assert_allclose(grads.z / weight, usual.z, rtol=1e-9)
        np.testing.assert_allclose(grads.error, usual.error, rtol=0.1, atol=1e-10)


def test_lengths_of_any_size():
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [np.inf, 0.0], [np.nan, 1.0]])
    for scale in (1e-300, 1e-170, 1.0, 1e170, 1e300):
        np.testing.assert_allclose(lengths(scale * rows), [5 * scale, 0, np.inf, np.nan], rtol=1e-15)


def test_an_adjoint_beyond_the_numbers_is_no_answer():
    net = rg.Network.init("linear", 0, 1).replace(W=np.array([[[0.9999]]]), b=np.array([[1e-6]]))
    fp = rg.solve_fixed_point(net, method="newton", tol=1e-15)
    with pytest.raises(rg.ConvergenceError, match="leaves the numbers"):
        rg.implicit_gradient(fp, rg.losses.squared_error(np.zeros((1, 1)), weights=np.array([1e307])), method="lu")


@pytest.mark.parametrize("method", ["iteration", "cg", "gmres", "bicgstab"])
def test_max_iterations_bounds_products(method, monkeypatch):
    """Of both right-hand sides together at most twice as many products are made, refinements included."""
    from rnngrad.fixedpoint import linear

    fp, _ = placed(np.random.default_rng(2), 6, 0.5)
    loss = rg.losses.squared_error(np.zeros((1, 6)))
    made = []

    def counting(jacobians, shape, b):
        J = products(jacobians, shape, b)
        return scipy.sparse.linalg.LinearOperator(
            J.shape,
            matvec=lambda v: made.append(0) or J @ v,
            rmatvec=lambda v: made.append(0) or J.rmatvec(v),
            dtype=np.float64,
        )

    products = linear.products
    monkeypatch.setattr(linear, "products", counting)
    needed = int(rg.implicit_gradient(fp, loss, method=method).iterations[0])
    for limit in (1, 3, 1000):
        made.clear()
        try:
            grads = rg.implicit_gradient(fp, loss, method=method, max_iterations=limit)
        except rg.ConvergenceError:
            assert limit < 2 * needed
        else:
            assert grads.iterations[0] <= limit and needed == grads.iterations[0]
        assert len(made) <= 2 * limit
        if method != "iteration" and limit == 1000:  # the random one need not be solved as far
            assert needed < len(made) <= 2 * needed + 4


def test_elimination_is_not_advised_to_who_eliminates():
    fp, _ = placed(np.random.default_rng(2), 6, 0.5)
    with pytest.raises(rg.ConvergenceError, match=r"failed .*: use a larger tol$"):
        rg.implicit_gradient(fp, rg.losses.squared_error(np.ones((1, 6))), method="lu", tol=1e-30)


def test_growth_that_the_loss_does_not_excite():
    """rho(J) = 1.2, but the loss's own series converges within 40 terms: the iteration is refused all the same."""
    net = rg.Network.init("linear", 0, 2).replace(W=np.diag([1.2, 0.5])[None], b=np.array([[0.0, 1.0]]))
    fp = rg.solve_fixed_point(net, method="newton")
    loss = rg.losses.squared_error(np.array([[0.0, 1.0]]))
    with pytest.raises(rg.ConvergenceError, match=r"rho\(J\) = 1.2 >= 1"):
        rg.implicit_gradient(fp, loss)
    np.testing.assert_allclose(rg.implicit_gradient(fp, loss, method="lu").z[0, 0], [0, 2], rtol=1e-12)


def test_slow_convergence_says_how_long():
    net = rg.Network.init("linear", 0, 1).replace(W=np.array([[[0.999]]]), b=np.array([[1.0]]))
    fp = rg.solve_fixed_point(net, method="newton")
    loss = rg.losses.squared_error(np.zeros((1, 1)))
    with pytest.raises(rg.ConvergenceError, match=r"0.999: it takes about 25316 iterations \(max_iterations\)"):
        rg.implicit_gradient(fp, loss, max_iterations=1000)
    grads = rg.implicit_gradient(fp, loss, max_iterations=60_000)
    np.testing.assert_allclose(grads.z, 1e3 * fp.s, rtol=1e-9)


def test_answers_are_refined_until_the_error_is_small():
    """I - J is small where the loss does not look: its residual counts a hundredfold."""
    net = rg.Network.init("linear", 0, 2).replace(W=np.diag([0.99, 0.1])[None], b=np.array([[0.0, 1.0]]))
    fp = rg.solve_fixed_point(net, method="newton")
    grads = rg.implicit_gradient(fp, rg.losses.squared_error(np.zeros((1, 2))))
    assert grads.error[0] <= 1e-10


def test_one_bad_sample_is_named():
    net = rg.Network.init("vanilla", 1, 1, seed=0).replace(W=np.array([[[2.0]]]), U=np.ones((1, 1, 1)))
    x = np.array([[0.5], [0.0]])
    fp = rg.solve_fixed_point(net, x, method="newton", s0=np.array([[[0.9]], [[0.0]]]))
    with pytest.raises(rg.ConvergenceError, match=r"failed for 1 of 2 samples .* sample 1: rho\(J\) = 2 "):
        rg.implicit_gradient(fp, rg.losses.squared_error(np.zeros((2, 1))))
    lost = rg.solve_fixed_point(net, x, method="picard", max_iterations=1)
    with pytest.raises(rg.ConvergenceError, match=r"1 of 2 samples are not at a fixed point: sample 0 is 'limit'"):
        rg.implicit_gradient(lost, rg.losses.squared_error(np.zeros((2, 1))))


@pytest.mark.parametrize("method", ["iteration", "gmres"])
def test_float32(method):
    drawn, x, fp, target, loss = at_rest("gru", "float32", tol=1e-6)
    grads = rg.implicit_gradient(fp, loss, method=method)
    assert grads.W.dtype == np.float32 and grads.x.dtype == np.float32
    truth = unrolled(drawn, x, target.astype(np.float32))
    del truth["loss"]
    assert_same(grads, truth, 2e-5)


def test_losses_of_one_step():
    """Targets and weights with the time axis and without; labels too."""
    drawn, _, fp, target, loss = at_rest("gru", p=3)
    weights = np.array([1.0, 0.0, 2.0])
    for one, other in (
        (loss, rg.losses.squared_error(target[None])),
        (rg.losses.squared_error(target, weights), rg.losses.squared_error(target[None], weights[None])),
        (rg.losses.cross_entropy(np.array([0, 2, 1])), rg.losses.cross_entropy(np.array([[0, 2, 1]]))),
    ):
        a, b = (rg.implicit_gradient(fp, each) for each in (one, other))
        assert a.loss == b.loss
        np.testing.assert_array_equal(a.W, b.W)
    nothing = rg.implicit_gradient(fp, rg.losses.squared_error(fp.y))
    assert nothing.norm() == 0 and nothing.residual.max() == 0 and nothing.error.max() == 0


def test_bad_arguments():
    _, _, fp, _, loss = at_rest()
    for arguments, options, message in (
        ((fp, loss, "sor"), {}, r"method is 'sor'; it must be one of 'iteration'"),
        ((fp, loss, "neumann"), {}, r"terms is None and method is 'neumann'"),
        ((fp, loss, "lu"), {"terms": 3}, r"terms is 3 and method is 'lu'"),
        ((fp, loss, "neumann"), {"terms": 0}, r"terms is 0; it must be at least 1"),
        ((fp, loss), {"tol": 0.0}, r"tol is 0.0"),
        ((fp, loss), {"max_iterations": 0}, r"max_iterations is 0"),
        ((fp.traj, loss), {}, r"fp is Trajectory; it must come from solve_fixed_point"),
        ((fp, 3.0), {}, r"loss is float"),
        ((fp, rg.losses.squared_error(np.zeros((3, 5)))), {}, r"target has shape \(1, 3, 5\)"),
    ):
        with pytest.raises(ValueError, match=message):
            rg.implicit_gradient(*arguments, **options)


def test_the_rounding_that_is_drawn_knows_nothing_of_the_probe():
    """One draw serves both judgements of a fixed point; a direction that one hardly meets must not be lost to both."""
    from rnngrad.fixedpoint.polish import _lower_digits, _rounding

    drawn = np.random.default_rng(0).uniform(-1, 1, (20_000, 1, 8))
    lower = _lower_digits(drawn)
    assert np.abs(lower).max() <= 1 and abs(lower.var() * 3 - 1) < 0.02 and abs(lower.mean()) < 0.01
    sizes = np.abs(_rounding(lower)) / np.finfo(float).eps
    assert 1 <= sizes.min() < 1.01 and 1.99 < sizes.max() <= 2 and 0.49 < (_rounding(lower) > 0).mean() < 0.51
    for direction in (np.ones(8), np.eye(8)[3], (-1.0) ** np.arange(8)):
        probe, rounding = np.abs(drawn[:, 0] @ direction), np.abs(lower[:, 0] @ direction)
        hardly = probe < np.quantile(probe, 0.05)
        shares = (rounding[hardly] < np.quantile(rounding, [[0.1], [0.5], [0.9]])).mean(axis=1)
        np.testing.assert_allclose(shares, [0.1, 0.5, 0.9], atol=0.05)  # of 1000: 5 standard deviations
