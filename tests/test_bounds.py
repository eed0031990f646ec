"""Bounds of ||Phi(t, k)|| against what is measured, closed forms, and a million random cases."""

import numpy as np
import pytest
from cases import CELLS, UNEVEN, make_case
from systems import linear, orthogonal

import rnngrad as rg
from rnngrad.analysis import growth, products, reach
from rnngrad.analysis.step_bounds import step_bounds, step_norms
from rnngrad.dynamics.jacobian import local_jacobians
from rnngrad.dynamics.unit_norms import unit_norms
from rnngrad.losses import squared_error


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_bounds_hold(cell, scale):
    """The documented order, for every pair, padded steps included."""
    traj = make_case(cell, n=5, T=9, lengths=UNEVEN, scale=scale).traj
    result = rg.growth_bounds(traj)
    pairs = np.broadcast_to(np.tri(10, dtype=bool), (3, 10, 10))
    assert not np.isnan(result.log_measured[pairs]).any() and np.isnan(result.log_measured[~pairs]).all()
    for line in (("lower", "measured", "product", "upper"), ("measured", "block", "gamma_measured")):
        values = [getattr(result, f"log_{name}")[pairs] for name in line]
        if not np.isnan(result.log_gamma_lambda[pairs]).any():
            values.append(result.log_gamma_lambda[pairs])
        for below, above in zip(values, values[1:]):
            assert (below <= above + 1e-9).all()
    if traj.net.S == 1:
        np.testing.assert_allclose(result.log_block[pairs], result.log_upper[pairs], atol=1e-12)
    assert (result.log_best[pairs] <= np.fmin(result.log_upper, result.log_block)[pairs]).all()
    np.testing.assert_allclose(result.log_measured, rg.jacobian_chain(traj).log_norms(), rtol=1e-9, atol=1e-9)
    assert (result.log_tightness[pairs] >= -1e-9).all()


def test_gamma_lambda_only_for_one_activation_around_one_matrix():
    for cell in CELLS:
        known = not np.isnan(step_bounds(make_case(cell).traj).log_a_priori).any()
        assert known == (cell in ("vanilla", "linear", "vanilla_s", "continuous"))


def test_gamma_of_the_logistic_is_a_quarter():
    traj = make_case("vanilla", "logistic", n=6, T=7).traj
    steps = step_bounds(traj)
    assert steps.gamma == 0.25
    np.testing.assert_allclose(steps.log_a_priori, np.log(0.25 * np.linalg.norm(traj.net.W[0], 2)))


def test_continuous_rate_is_one_minus_alpha_plus_alpha_gamma_lambda():
    net = rg.Network.init("continuous", 1, 4, dt=0.2, tau=1.0, seed=3)
    steps = step_bounds(rg.rollout(net, np.zeros((5, 1, 1))))
    np.testing.assert_allclose(np.exp(steps.log_a_priori), 0.8 + 0.2 * np.linalg.norm(net.W[0], 2))


def test_orthogonal_w_every_bound_is_tight():
    traj = linear(orthogonal(6), T=40)
    result = rg.growth_bounds(traj)
    pairs = np.tri(41, dtype=bool)
    for value in (result.log_lower, result.log_measured, result.log_product, result.log_upper, result.log_gamma_lambda):
        np.testing.assert_allclose(value[0][pairs], 0, atol=1e-12)


def test_normal_w_norm_is_the_spectral_radius_to_the_lag():
    Q = orthogonal(5)
    W = Q @ np.diag([0.9, -0.7, 0.5, 0.2, -0.1]) @ Q.T
    result = rg.growth_bounds(linear(W), times=[12])
    np.testing.assert_allclose(result.log_measured[0, 12], np.log(0.9) * np.arange(12, -1, -1), atol=1e-12)
    assert np.isnan(result.log_measured[0, 11]).all()


def test_non_normal_w_violates_the_eigenvalue_rate_and_obeys_the_singular_value_bound():
    """The folklore's eigenvalue "bound" is an asymptotic rate."""
    W = np.array([[0.9, 10.0], [0.0, 0.9]])
    result = rg.growth_bounds(linear(W, T=10))
    rate = result.steps.log_eigen_rate
    np.testing.assert_allclose(rate, np.log(0.9))
    measured = result.log_measured[0, 10, 0]
    np.testing.assert_allclose(measured, np.log(np.linalg.norm(np.linalg.matrix_power(W, 10), 2)))
    assert measured > 10 * rate + 4
    assert measured <= result.log_gamma_lambda[0, 10, 0]
    np.testing.assert_allclose(result.log_gamma_lambda[0, 10, 0], 10 * np.log(np.linalg.norm(W, 2)))


def test_bounds_of_a_zero_matrix_are_minus_infinity():
    result = rg.growth_bounds(linear(np.zeros((3, 3)), T=3))
    for value in (result.log_lower, result.log_measured, result.log_product, result.log_upper, result.log_gamma_lambda):
        assert value[0, 2, 2] == 0
        assert value[0, 2, 0] == -np.inf


def test_bounds_of_a_users_system_are_products_of_its_norms():
    system = rg.System(lambda s, x, p: (1 - p[0] * s[0] * s[0] + s[1], p[1] * s[0]), n_state=2, params=[1.4, 0.3])
    result = rg.growth_bounds(rg.rollout(system, steps=20))
    pairs = np.tri(21, dtype=bool)
    np.testing.assert_array_equal(result.log_upper[0][pairs], result.log_product[0][pairs])
    assert (result.log_measured[0][pairs] <= result.log_product[0][pairs] + 1e-9).all()


def test_lower_bounds_are_left_out_on_request():
    result = rg.growth_bounds(linear(orthogonal(3), T=4), lower=False)
    off_diagonal = np.tri(5, k=-1, dtype=bool)
    assert np.isnan(result.log_lower[0][off_diagonal]).all() and np.isnan(result.log_product[0][off_diagonal]).all()


def test_bounds_of_a_long_record_neither_overflow_nor_underflow():
    for factor in (0.1, 10.0):
        result = rg.growth_bounds(linear(factor * orthogonal(3), T=300), times=[300])
        for value in (result.log_measured, result.log_upper, result.log_product, result.log_lower):
            np.testing.assert_allclose(value[0, 300, 0], 300 * np.log(factor), rtol=1e-12)


@pytest.mark.parametrize("times", [[13], [-1], [], [[1]], [0.5]])
def test_reference_times_out_of_range_are_refused(times):
    with pytest.raises(ValueError, match="time|t is"):
        rg.growth_bounds(linear(orthogonal(2)), times=times)


# ---------------------------------------------------------------- block bounds


def test_blocks_of_an_lstm_by_hand():
    """M = [[w(dh'/da) 1, max|o phi'(c) f|], [w(dc'/da) 1, max f]], w the smaller of two ways to pass the gates."""
    traj = make_case("lstm", n=5, T=3, B=2, seed=4).traj
    W, (i, f, v, o), c = traj.net.W, np.moveaxis(traj.a, 2, 0), traj.states[:, :, 1]
    i, f, o = (1 / (1 + np.exp(-z)) for z in (i, f, o))
    v, r = np.tanh(v), np.tanh(c[1:])
    to_c = np.stack([v * i * (1 - i), c[:-1] * f * (1 - f), i * (1 - v**2), 0 * o])  # dc'/da[G, T, B, n]
    to_h = o * (1 - r**2) * to_c
    to_h[3] = r * o * (1 - o)
    each, stacked = [np.linalg.norm(one, 2) for one in W], np.linalg.norm(W.reshape(-1, 5), 2)

    def through(d):
        gates = sum(np.abs(one).max(axis=-1) * norm for one, norm in zip(d, each))
        return np.minimum(gates, np.sqrt((d**2).sum(axis=0).max(axis=-1)) * stacked)

    rows = [[through(to_h), (o * (1 - r**2) * f).max(axis=-1)], [through(to_c), f.max(axis=-1)]]
    np.testing.assert_allclose(step_bounds(traj).blocks, np.moveaxis(np.array(rows), (0, 1), (2, 3)), rtol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_blocks_are_made_of_the_partials_by_the_formula(cell):
    """M_rc = max|ds'_r/ds_c| + w(ds'_r/da) max|de/ds_c| + w'(ds'_r/da') p_c, gates without a recurrent part apart."""
    traj = make_case(cell, n=4, T=4, lengths=(4, 3, 1)).traj
    net, f = traj.net, local_jacobians(traj)

    def largest(partial):
        return np.abs(partial).max(axis=-1)

    def through(partial, W):  # partial[…, G, n]
        each, stacked = [np.linalg.norm(one, 2) for one in W], np.linalg.norm(W.reshape(-1, 4), 2)
        return np.minimum(largest(partial) @ each, np.sqrt((partial**2).sum(axis=-2).max(axis=-1)) * stacked)

    emit, G = largest(f.emit_s)[:, :, None], net.cell.recurrent
    M = largest(f.update_s) + through(f.update_a[..., :G, :], net.W)[..., None] * emit
    if net.cell.two_stage:
        p = largest(f.inner_s) + through(f.inner_a[..., :G, :], net.W)[..., None] * emit[:, :, 0]
        M += through(f.update_a2, net.W2)[..., None] * p[:, :, None]
    np.testing.assert_allclose(step_bounds(traj).blocks, M, rtol=1e-13)


@pytest.mark.parametrize("cell", CELLS)
def test_blocks_bound_the_blocks_of_every_product(cell):
    """Not only the norm of the whole: ||Phi(t, k)_rc|| <= (M_t … M_{k+1})_rc, with Jacobians from autograd."""
    oracles = pytest.importorskip("oracles")
    case = make_case(cell, n=4, T=6, lengths=UNEVEN, seed=1)
    J, M, n = oracles.jacobians(*case.args, **case.kwargs), step_bounds(case.traj).blocks, case.net.n
    Phi, bound = np.broadcast_to(np.eye(case.net.N), J[0].shape), np.eye(case.net.S)
    for t in range(6):
        Phi, bound = J[t] @ Phi, M[t] @ bound
        blocks = Phi.reshape(3, case.net.S, n, case.net.S, n).swapaxes(2, 3)
        assert (np.linalg.norm(blocks, 2, axis=(-2, -1)) <= bound * (1 + 1e-12) + 1e-300).all()


def test_block_bound_can_be_tighter_than_the_product_of_norms():
    """c feeds h by a lot and nothing comes back: the product of ||J_t|| grows, the blocks know that Phi does not."""
    net = rg.Network.init("lstm", 1, 4, seed=0)
    net = net.replace(W=0.01 * net.W, U=0 * net.U, b=np.array([[-9.0], [-0.2], [0.0], [9.0]]) * np.ones(4))
    result = rg.growth_bounds(rg.rollout(net, np.zeros((40, 1, 1))))
    measured, block, product = (getattr(result, f"log_{name}")[0, 40, 0] for name in ("measured", "block", "product"))
    assert measured <= block < product - 5
    assert result.log_tightness[0, 40, 0] == block - measured
    np.testing.assert_allclose(result.log_tightness_of(result.log_product)[0, 40, 0], product - measured)


def test_measured_gamma_is_the_largest_slope_of_each_sequence():
    traj = make_case("vanilla", n=6, T=8, lengths=(8, 5, 2)).traj
    steps, lam = step_bounds(traj), np.linalg.norm(traj.net.W[0], 2)
    slopes = 1 - np.tanh(traj.a[:, :, 0]) ** 2
    gamma = np.array([slopes[:length, b].max() for b, length in enumerate((8, 5, 2))])
    np.testing.assert_allclose(steps.gamma_measured, gamma, rtol=1e-12)
    result = rg.growth_bounds(traj)
    live = np.minimum(np.arange(9)[:, None], (8, 5, 2))  # steps that a sequence has really made
    expected = (live[:, None] - live[None]) * np.log(gamma * lam)
    pairs = np.tri(9, dtype=bool)
    np.testing.assert_allclose(np.moveaxis(result.log_gamma_measured, 0, 2)[pairs], expected[pairs], atol=1e-12)
    assert np.isnan(result.log_gamma_measured[0][~pairs]).all()


@pytest.mark.parametrize("cell", ["vanilla_s", "continuous"])
def test_measured_gamma_of_a_pre_activation_network(cell):
    traj = make_case(cell, n=3, T=6).traj
    slopes = 1 - np.tanh(traj.states[:-1, :, 0]) ** 2
    np.testing.assert_allclose(step_bounds(traj).gamma_measured, slopes.max(axis=(0, 2)), rtol=1e-12)


def test_blocks_of_a_stack_are_the_norms_of_its_jacobians_blocks():
    stack = rg.Stack.init(["lstm", "gru"], 2, [3, 4], seed=1)
    traj = rg.rollout(stack, np.random.default_rng(0).standard_normal((6, 2, 2)))
    result, J = rg.growth_bounds(traj), rg.jacobians(traj)
    cuts = [slice(0, 3), slice(3, 6), slice(6, 10)]
    expected = [[np.linalg.norm(J[..., row, column], 2, axis=(-2, -1)) for column in cuts] for row in cuts]
    np.testing.assert_allclose(result.steps.blocks, np.moveaxis(np.array(expected), (0, 1), (2, 3)), rtol=1e-12)
    pairs = np.broadcast_to(np.tri(7, dtype=bool), (2, 7, 7))
    for line in (("lower", "measured", "product", "upper"), ("measured", "block", "gamma_measured")):
        for below, above in zip(line, line[1:]):
            assert (getattr(result, f"log_{below}")[pairs] <= getattr(result, f"log_{above}")[pairs] + 1e-9).all()
    assert result.weights is None and np.isnan(result.steps.gamma_measured).all()


def test_bounds_across_a_bridge_are_refused():
    decoder = rg.Stack.init("lstm", n_inputs=0, n_hidden=3, n_outputs=2, n_layers=1, feedback=True)
    model = rg.EncoderDecoder.join(rg.Stack.init("lstm", 2, 3, n_layers=1), decoder)
    traj = rg.encode_decode(model, np.zeros((4, 1, 2)), steps=3)
    with pytest.raises(ValueError, match="traj.encoder"):
        rg.growth_bounds(traj)
    rg.growth_bounds(traj.decoder)


def test_departure_from_normality_stands_beside_the_rate():
    W = np.array([[0.9, 10.0], [0.0, 0.9]])
    spectrum = rg.growth_bounds(linear(W, T=2)).weights
    np.testing.assert_allclose(spectrum.henrici, 10 / np.sqrt(100 + 2 * 0.81))
    np.testing.assert_allclose(spectrum.abscissa, 0.9 + 5)


# ---------------------------------------------------------------- random cases


def random_trajectory(rng):
    """A network of any cell or a stack of two, of any size, activation, precision and scale, along random inputs."""
    n, m, T, B = rng.integers(1, 7), rng.integers(0, 4), rng.integers(1, 15), 8
    x = 10 ** rng.uniform(-1, 1) * rng.standard_normal((T, B, m))
    lengths = rng.integers(1, T + 1, B) if rng.random() < 0.3 else None
    if rng.random() < 0.03:
        stack = rg.Stack.init([str(one) for one in rng.choice(CELLS, 2)], m, [int(n), 3], seed=rng)
        return rg.rollout(stack, x, lengths=lengths)
    cell = str(rng.choice(CELLS))
    spec, single = rg.CELLS[cell], rng.random() < 0.1
    activation = spec.activation if single else str(rng.choice(spec.activations))
    parameters = {
        name: 10 ** rng.uniform(-1, 1) * rng.standard_normal(shape) / np.sqrt(n)
        for name, shape in spec.shapes(n, m).items()
    }
    time = {"dt": 0.1, "tau": rng.uniform(0.1, 2.0, n)} if "alpha" in spec.constants else {}
    net = rg.Network.from_parameters(cell, parameters, activation=activation, **time)
    s0 = rng.standard_normal((B, net.S, n))
    if single:
        net, x, s0 = net.astype("float32"), x.astype(np.float32), s0.astype(np.float32)
    with np.errstate(over="ignore"):
        return rg.rollout(net, x, s0, lengths)


def violations(traj):
    """(cases, those that violate a bound beyond rounding, those whose slack is under a millionth of the bound).

    The truth is plain products of dense Jacobians, a power of two taken out of each. Rounding: forming J and one
    product more leave an error of at most (N + 10) N u per block of the norms that M bounds, so after l steps Phi's is
    (l + 1) (N + 10) N u of the bounds from the partials; that is small beside these bounds, but not always beside
    prod ||J_j||, where terms of J have cancelled, and prod sigma_min. A sum of logarithms has T u of their size.
    Sequences with a step whose numbers are
    denormal, without digits, are left out.
    """
    result, T, N = rg.growth_bounds(traj, times=[traj.T]), traj.T, traj.net.N
    smallest = np.where(np.isneginf(result.steps.log_factored), 0, result.steps.log_factored).min(axis=0)
    kept = smallest > np.log(np.finfo(traj.net.dtype).tiny) + 40
    size = sum(np.abs(np.where(np.isfinite(one), one, 0)).sum(axis=0) for one in each_step(result))
    J = rg.jacobians(traj).astype(np.float64)
    u = np.finfo(traj.net.dtype).eps
    Phi, exponent = np.broadcast_to(np.eye(N), J.shape), np.zeros(J.shape[:2], int)
    cases = bad = sharp = 0
    for lag in range(1, T + 1):
        Phi = Phi[-(T - lag + 1) :] @ J[: T - lag + 1]  # Phi[t, B, N, N], t = lag … T
        shift = np.frexp(np.abs(Phi).max(axis=(-2, -1)))[1]
        Phi, exponent = np.ldexp(Phi, -shift[..., None, None]), exponent[-(T - lag + 1) :] + shift
        with np.errstate(divide="ignore"):
            measured = np.log(np.linalg.norm(Phi, 2, axis=(-2, -1))) + exponent * np.log(2)

        def at(name, lag=lag):
            return np.diagonal(getattr(result, f"log_{name}"), -lag, 1, 2).T

        slack = (lag + 1) * (N + 10) * N * u + T * np.finfo(float).eps * size
        with np.errstate(divide="ignore"):
            error = np.log(slack) + at("upper")
        wrong = measured > np.logaddexp(at("product"), error)
        wrong |= at("lower") > np.logaddexp(measured, error)
        for below, above in (
            *(("lower", "product"), ("product", "upper"), ("upper", "gamma_lambda")),
            *(("block", "gamma_measured"), ("gamma_measured", "gamma_lambda")),
        ):
            wrong |= at(below) > at(above) + slack
        for name in ("upper", "block", "gamma_measured", "gamma_lambda"):
            wrong |= measured > at(name) + slack
        cases, bad = cases + wrong[:, kept].size, bad + int(wrong[:, kept].sum())
        sharp += int((error < at("product") - np.log(1e6))[:, kept].sum())
    got, expected, error = (values[kept] for values in (result.log_measured[:, T, 0], measured[-1], error[-1]))
    ended = 1e-12  # Lanczos steps end where the value hardly grows, which is short of it where the two largest are near
    assert (got <= np.logaddexp(expected, error) + ended).all()
    assert (expected <= np.logaddexp(got, error) + ended).all()
    return cases, bad, sharp


def each_step(result):
    """Logarithms of the steps themselves, (T, B) each, of every bound that is a sum of them."""
    for name in ("upper", "product", "lower"):
        yield np.diagonal(getattr(result, f"log_{name}"), -1, 1, 2).T


def count_violations(wanted, seed):
    rng = np.random.default_rng(seed)
    total = np.zeros(3, int)
    while total[0] < wanted:
        total += violations(random_trajectory(rng))
    return total


def test_no_bound_is_violated():
    cases, bad, sharp = count_violations(10_000, seed=1)
    assert bad == 0 and sharp > 0.8 * cases


@pytest.mark.slow
def test_no_bound_is_violated_in_a_million_cases():
    cases, bad, sharp = count_violations(1_000_000, seed=2)
    assert cases >= 1_000_000 and bad == 0 and sharp > 0.8 * cases


def test_slopes_whose_squares_underflow_are_bounded():
    net = rg.Network.from_parameters(
        "lstm", {"W": np.ones((4, 1, 1)), "b": np.array([[-400.0], [-420], [0.5], [-430]])}
    )
    result = rg.growth_bounds(rg.rollout(net, steps=2, s0=[[0.0], [1.0]]))
    for name in ("upper", "block", "gamma_measured"):
        assert np.isfinite(result.log_measured[0, 1, 0])
        assert result.log_measured[0, 1, 0] <= getattr(result, f"log_{name}")[0, 1, 0] + 1e-12


@pytest.mark.parametrize("cell", ["vanilla", "lstm"])
def test_growth_by_lag_holds_the_smallest_bound_over_the_chain(cell):
    traj = make_case(cell, n=4, T=20, B=2).traj
    loss = squared_error(np.zeros_like(traj.y))
    chain, gradient = products.singular_values(traj, times=[20]), reach.gradient_reach(traj, loss)
    constants = rg.time_constants(traj, reach=gradient, chain=chain)
    norms = step_norms(traj)[0]
    by_lag = growth.growth_by_lag(gradient, chain, step_bounds(traj), constants, 1e-3, norms)
    result = rg.growth_bounds(traj, times=[20])
    k = 20 - chain.lags
    expected = np.sort(result.log_tightness[:, 20][:, k], axis=0)[0]  # the lower median of two samples
    np.testing.assert_allclose(by_lag.tightness, expected, atol=1e-9)
    assert by_lag.at(10)["tightness"] == by_lag.tightness[chain.lags == 10] > 0


def test_dropout_and_batch_normalised_networks_are_bounded_too():
    x = np.random.default_rng(0).standard_normal((6, 4, 3))
    net = rg.BatchNormLSTM.init(3, 5, seed=0)
    training = rg.rollout(net, x)
    with pytest.raises(ValueError, match="training mode"):
        rg.growth_bounds(training)
    fixed = net.with_statistics(training)
    dropped = rg.rollout(rg.Network.init("lstm", 3, 5), x, dropout=rg.Dropout(0.3, policy="step", seed=0))
    pairs = np.tri(7, dtype=bool)
    for traj in (rg.rollout(fixed, x), rg.rollout(fixed.folded(), x), dropped):
        result = rg.growth_bounds(traj)
        assert result.steps.blocks.shape == (6, 4, 2, 2)
        assert (result.log_measured <= result.log_best + 1e-12)[:, pairs].all()
        assert (result.log_lower <= result.log_measured + 1e-12)[:, pairs].all()


def test_a_stack_in_both_directions_has_no_bound_of_its_own():
    stack = rg.Stack.init("lstm", 3, 5, n_layers=1, bidirectional=True)
    traj = rg.rollout(stack, np.zeros((4, 1, 3)))
    with pytest.raises(ValueError, match="both directions"):
        rg.growth_bounds(traj)
    rg.growth_bounds(traj.layers[0][1])


def test_slopes_of_a_unit_that_vanish_beside_those_of_another():
    """Their squares are at the end of the numbers, and rows of one length: the larger ones alone make the norm."""
    A = np.array([[1.0, 0.5], [0.5, 1.0]])
    for size in (1e-40, 1e-78, 1e-85, 1e-150, 1e-161, 1e-162, 1e-200):
        partials = np.stack([A, size * A], axis=-1)[None]
        np.testing.assert_allclose(unit_norms(partials, partials.shape), [1.5], rtol=1e-15)
