"""tanh, logistic, softplus and their slopes against mpmath, in units in the last place, in both precisions."""

import mpmath
import numba
import numpy as np
import pytest
from numba.core import config

from rnngrad import _math

pytestmark = pytest.mark.skipif(config.DISABLE_JIT, reason="interpreted units take e^x - 1 from the C library")

VALUE_ULP, SLOPE_ULP = 3.5, 5.5  # what rnngrad._math states

#: where a search over millions of points found the largest errors of some function
HARD = (0.21887432763683562, 0.22077397900777063, 2.4183099556696357, 4.1322450712333385, 1.9539929559635112,
        7.62450750900604, 2.643742366156426, 0.22560960054397583, 0.23464253544807434, 1.708081841468811,
        1.957135558128357, 2.647982120513916, 3.416163682937622, 3.464146614074707)  # fmt: skip

#: largest |y| with e^-y a normal number, as the module documents: beyond it e^-|y| is held at this value
RANGE = {"float64": 708.0, "float32": 87.0}
DTYPES = tuple(RANGE)


@numba.njit(error_model="numpy")
def run_tanh(x, out):
    for i in range(x.size):
        out[0, i], out[1, i] = _math.tanh_slope(x[i])
        out[2, i] = _math.tanh(x[i])


@numba.njit(error_model="numpy")
def run_logistic(x, out):
    for i in range(x.size):
        out[0, i], out[1, i], out[2, i] = _math.logistic_slope(x[i])
        out[3, i] = _math.logistic(x[i])


@numba.njit(error_model="numpy")
def run_log(x, out):
    for i in range(x.size):
        out[0, i], out[1, i] = _math.log(x[i]), _math.exp_minus(x[i])


def run_phi(kind):
    @numba.njit(error_model="numpy")
    def run(x, out):
        for i in range(x.size):
            out[0, i], out[1, i] = _math.phi_slope(kind, x[i])
            out[2, i] = _math.phi(kind, x[i])

    return run


RUN_PHI = {name: run_phi(kind) for name, kind in _math.ACTIVATIONS.items()}


def evaluate(run, x, dtype, rows=3):
    x = np.asarray(x, dtype)
    out = np.full((rows, x.size), np.nan, dtype)
    run(x, out)
    return out


def grid(dtype, limit):
    """Points of both signs from the smallest subnormal to ``limit``, dense where the functions bend."""
    info = np.finfo(dtype)
    rng = np.random.default_rng(1)
    points = np.concatenate([
        rng.uniform(0, 1, 300), rng.uniform(0, 12, 300), rng.uniform(0, limit, 300), np.linspace(0, 3, 97),
        np.geomspace(float(info.smallest_normal), limit, 200), [float(info.smallest_subnormal), limit],
        np.log(2) * (np.arange(0, 40) + 0.5),  # where the argument reduction changes its integer
        np.log(2) * (np.arange(0, 40) + 0.5) / 2, HARD,
    ])  # fmt: skip
    points = np.minimum(points, limit).astype(dtype)
    return np.concatenate([points, -points])


def assert_ulp(actual, x, exact, bound):
    """|actual - exact(x)| is at most ``bound`` units in the last place of the exact value, everywhere."""
    info = np.finfo(actual.dtype)
    errors = []
    with mpmath.workdps(50):
        for value, point in zip(actual, x, strict=True):
            truth = exact(mpmath.mpf(float(point)))
            exponent = int(mpmath.floor(mpmath.log(abs(truth), 2))) if truth else info.minexp
            place = mpmath.ldexp(mpmath.mpf(1), max(exponent, info.minexp) - info.nmant)
            errors.append(float(abs(mpmath.mpf(float(value)) - truth) / place))
    worst = int(np.argmax(errors))
    assert errors[worst] <= bound, f"{errors[worst]:.3f} ulp at {float(x[worst])!r}; bound {bound}"


def sech2(x):
    return mpmath.sech(x) ** 2


def logistic(x):
    return 1 / (1 + mpmath.exp(-x))


def softplus(x):
    return mpmath.log1p(mpmath.exp(x))


def logistic_slope(x):
    return logistic(x) * logistic(-x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_logarithm_and_exponential_of_a_negative_number(dtype):
    info, rng = np.finfo(dtype), np.random.default_rng(0)
    near = 1 + rng.standard_normal(300) * 10.0 ** rng.uniform(-7, -1, 300)
    edges = np.sqrt(0.5) * np.array([1 - 1e-7, 1, 1 + 1e-7, 2 * (1 - 1e-7), 2, 2 * (1 + 1e-7)])
    x = np.concatenate([2.0 ** np.linspace(info.minexp, info.maxexp - 0.01, 400), near, edges, [1.0]])
    x = x.astype(dtype)
    assert_ulp(evaluate(run_log, x, dtype, rows=2)[0], x, mpmath.log, VALUE_ULP)
    x = grid(dtype, RANGE[dtype])
    assert_ulp(evaluate(run_log, x, dtype, rows=2)[1], x, lambda x: mpmath.exp(-abs(x)), VALUE_ULP)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tanh_is_within_its_bounds(dtype):
    x = grid(dtype, RANGE[dtype] / 2)
    value, slope, alone = evaluate(run_tanh, x, dtype)
    assert_ulp(value, x, mpmath.tanh, VALUE_ULP)
    assert_ulp(slope, x, sech2, SLOPE_ULP)
    np.testing.assert_array_equal(alone, value)


@pytest.mark.parametrize("dtype", DTYPES)
def test_logistic_is_within_its_bounds(dtype):
    x = grid(dtype, RANGE[dtype])
    value, co, slope, alone = evaluate(run_logistic, x, dtype, rows=4)
    assert_ulp(value, x, logistic, VALUE_ULP)
    assert_ulp(co, x, lambda z: logistic(-z), VALUE_ULP)
    assert_ulp(slope, x, logistic_slope, SLOPE_ULP)
    np.testing.assert_array_equal(alone, value)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "value", "slope"),
    [
        ("tanh", mpmath.tanh, sech2),
        ("logistic", logistic, logistic_slope),
        ("softplus", softplus, logistic),
        ("relu", lambda x: max(x, 0), lambda x: mpmath.mpf(x > 0)),
        ("identity", lambda x: x, lambda x: mpmath.mpf(1)),
    ],
)
def test_activation_by_number_is_that_activation(name, value, slope, dtype):
    x = grid(dtype, RANGE[dtype] / 2)
    actual, actual_slope, alone = evaluate(RUN_PHI[name], x, dtype)
    exact = name in ("relu", "identity")
    assert_ulp(actual, x, value, 0 if exact else VALUE_ULP)
    assert_ulp(actual_slope, x, slope, 0 if exact else SLOPE_ULP)
    np.testing.assert_array_equal(alone, actual)


@pytest.mark.parametrize(
    ("run", "truths"),
    [
        (run_tanh, (np.tanh, lambda x: np.cosh(x) ** -2)),
        (run_logistic, (lambda x: 1 / (1 + np.exp(-x)), lambda x: 1 / (1 + np.exp(x)))),
        (RUN_PHI["softplus"], (lambda x: np.logaddexp(0, x), lambda x: 1 / (1 + np.exp(-x)))),
    ],
    ids=["tanh", "logistic", "softplus"],
)
def test_single_precision_on_a_million_points(run, truths):
    """NumPy in float64 is exact at this scale: 1e-8 of a place."""
    x = np.random.default_rng(2).uniform(-20, 20, 1_000_000).astype("float32")
    out = evaluate(run, x, "float32", rows=4)
    for actual, truth, bound in zip(out, truths, (VALUE_ULP, SLOPE_ULP), strict=False):
        exact = truth(x.astype(float))
        place = np.exp2(np.floor(np.log2(np.abs(exact))) - 23)
        error = np.abs(actual - exact) / place
        assert error.max() <= bound, f"{error.max():.3f} ulp at {float(x[error.argmax()])!r}; bound {bound}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_saturated_units_keep_a_slope(dtype):
    # 1 - tanh^2 formed as a difference would be 0 for every one of these points
    x = np.array([20.0, 30.0, 40.0, -40.0], dtype)
    slope = evaluate(run_tanh, x, dtype)[1]
    assert (slope > 0).all()
    np.testing.assert_allclose(slope, 4 * np.exp(-2 * np.abs(x.astype(float))), rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_beyond_the_range_functions_sit_at_their_limits(dtype):
    """Past the range e^-|y| is held at the smallest it can be (about 1e-38, 1e-308): right to that, and never 0."""
    limit = RANGE[dtype]
    tail = float(np.exp(-limit))
    x = np.array([limit * 1.1, limit * 100, np.finfo(dtype).max, np.inf], dtype)
    x = np.concatenate([x, -x])
    sign, positive = np.sign(x), x > 0
    value, slope, _ = evaluate(run_tanh, x, dtype)
    np.testing.assert_array_equal(value, sign)
    assert ((slope > 0) & (slope <= 5 * tail)).all()
    value, co, slope, _ = evaluate(run_logistic, x, dtype, rows=4)
    np.testing.assert_array_equal(np.where(positive, value, co), 1)
    small = np.where(positive, co, value)
    assert ((small > 0) & (small <= 1.1 * tail)).all()
    assert ((slope > 0) & (slope <= 1.1 * tail)).all()
    value, slope, _ = evaluate(RUN_PHI["softplus"], x, dtype)
    np.testing.assert_array_equal(value[positive], x[positive])
    assert ((value[~positive] >= 0) & (value[~positive] <= 1.1 * tail)).all()
    np.testing.assert_array_equal(slope[positive], 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", _math.ACTIVATIONS)
def test_nan_stays_nan(name, dtype):
    value, slope, alone = evaluate(RUN_PHI[name], [np.nan], dtype)
    assert np.isnan(value).all()
    assert np.isnan(alone).all()
    assert np.isnan(slope).all() or name in ("relu", "identity")  # their slopes are constants


@pytest.mark.parametrize("dtype", DTYPES)
def test_small_arguments_and_the_sign_of_zero(dtype):
    info = np.finfo(dtype)
    x = np.array([0.0, -0.0, info.smallest_subnormal, -info.smallest_subnormal, info.smallest_normal], dtype)
    value, slope, _ = evaluate(run_tanh, x, dtype)
    np.testing.assert_array_equal(value, x)  # tanh x = x where x^3 is below the last place, subnormals too
    np.testing.assert_array_equal(np.signbit(value), np.signbit(x))
    np.testing.assert_array_equal(slope, 1)
    value, co, slope, _ = evaluate(run_logistic, x, dtype, rows=4)
    np.testing.assert_array_equal([value, co, slope], np.array([[0.5], [0.5], [0.25]]) * np.ones_like(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_has_slope_0_at_0(dtype):
    value, slope, _ = evaluate(RUN_PHI["relu"], [0.0, -0.0, 1.5, -1.5, np.inf, -np.inf], dtype)
    np.testing.assert_array_equal(value, [0, 0, 1.5, 0, np.inf, 0])
    np.testing.assert_array_equal(slope, [0, 0, 1, 0, 1, 0])


def test_units_stay_in_single_precision():
    outputs = {
        numba.typeof(np.float32(0)): [_math.tanh_slope, _math.logistic_slope],
        numba.typeof(np.float64(0)): [_math.tanh_slope, _math.logistic_slope],
    }
    for kind, units in outputs.items():
        for unit in units:
            unit(np.dtype(str(kind)).type(0.5))
            assert set(unit.overloads[(kind,)].signature.return_type) == {kind}


@pytest.mark.parametrize("name", _math.ACTIVATIONS)
def test_lipschitz_constant_is_the_largest_slope(name):
    slope = evaluate(RUN_PHI[name], np.linspace(-60, 60, 24001), "float64")[1]
    assert slope.max() == pytest.approx(_math.LIPSCHITZ[name], rel=1e-14)
