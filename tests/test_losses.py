"""Losses at given outputs: values and dL/dy against torch, masks that hide garbage, and what is refused."""

import mpmath
import numpy as np
import oracles
import pytest
from cases import LOSSES, assert_close, random_target

from rnngrad import losses

T, B, P = 4, 3, 5
LENGTHS = (4, 1, 3)


def draw(kind, seed=0, dtype="float64"):
    """(rng, outputs y (T, B, P), target, name of the loss)."""
    rng = np.random.default_rng(seed)
    y = 3 * rng.standard_normal((T, B, P)).astype(dtype)
    return rng, y, *random_target(rng, kind, y.shape)


def truth(name, target, weights, reduction, y, lengths):
    """(value, dL/dy) by torch."""
    out = oracles.tensor(y).requires_grad_()
    value = getattr(oracles, name)(target, weights, reduction)(out, oracles.active_steps(T, B, lengths))
    value.backward()
    return float(value.detach()), out.grad.numpy()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["even", "uneven"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("weights", [None, "last", "steps", "mask"])
@pytest.mark.parametrize("kind", LOSSES)
def test_value_and_slope_are_those_of_torch(kind, weights, reduction, lengths, dtype):
    rng, y, target, name = draw(kind, dtype=dtype)
    ends = np.full(B, T) if lengths is None else np.array(lengths)
    steps = np.arange(1, T + 1)[:, None]
    given = {"steps": rng.random(T), "mask": rng.random((T, B)) * (steps != 2)}.get(weights, weights)
    explicit = (steps == ends).astype(float) if weights == "last" else given
    actual = getattr(losses, name)(target, given, reduction=reduction)(y, None if lengths is None else ends)
    value, slope = truth(name, target, explicit, reduction, y, lengths)
    rtol = 1e-13 if dtype == "float64" else 1e-6
    assert actual.value == pytest.approx(value, rel=rtol * 10)
    assert_close(actual.dy, slope, rtol, "dy")
    assert actual.dy.dtype == actual.steps.dtype == np.dtype(dtype)
    assert actual.steps.shape == (T, B)
    assert actual.steps.sum(dtype=float) == pytest.approx(actual.value, rel=rtol)
    assert isinstance(actual.value, float)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("kind", LOSSES)
def test_garbage_behind_a_mask_changes_nothing(kind, reduction):
    rng, y, target, name = draw(kind)
    mask = rng.random((T, B)) < 0.5
    mask[0, 0], mask[1, 0] = True, False
    clean = getattr(losses, name)(target, mask, reduction=reduction)(y)
    hidden = target.copy()
    hidden[~mask] = -100 if target.dtype.kind == "i" else np.nan
    dirty = getattr(losses, name)(hidden, mask, reduction=reduction)(y)
    assert dirty.value == clean.value
    np.testing.assert_array_equal(dirty.dy, clean.dy)
    np.testing.assert_array_equal(dirty.dy[~mask], 0)
    np.testing.assert_array_equal(dirty.steps[~mask], 0)
    padded = target.copy()
    padded[np.arange(T)[:, None] >= np.array(LENGTHS)] = -100 if target.dtype.kind == "i" else np.nan
    make = getattr(losses, name)
    whole, cut = (make(z, reduction=reduction)(y, np.array(LENGTHS)) for z in (target, padded))
    assert cut.value == whole.value
    np.testing.assert_array_equal(cut.dy, whole.dy)


@pytest.mark.parametrize("kind", LOSSES)
def test_one_sequence_without_its_batch_axis(kind):
    _, y, target, name = draw(kind)
    with_axis = getattr(losses, name)(target[:, :1])(y[:, :1])
    without = getattr(losses, name)(target[:, 0])(y[:, :1])
    assert without.value == with_axis.value
    np.testing.assert_array_equal(without.dy, with_axis.dy)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "y", "target", "value", "slope"),
    [
        ("binary_cross_entropy", [800.0], [0.0], 800.0, [1.0]),
        ("binary_cross_entropy", [800.0], [1.0], 0.0, [0.0]),
        ("binary_cross_entropy", [-800.0], [1.0], 800.0, [-1.0]),
        ("binary_cross_entropy", [0.0], [0.25], np.log(2), [0.25]),
        ("cross_entropy", [1000.0, 0.0], [0.0, 1.0], 1000.0, [1.0, -1.0]),
        ("cross_entropy", [-1000.0, 0.0], [0.0, 1.0], 0.0, [0.0, 0.0]),
        ("cross_entropy", [7.0, 7.0], [0.5, 0.5], np.log(2), [0.0, 0.0]),
        ("squared_error", [3.0, 1.0], [1.0, 2.0], 2.5, [2.0, -1.0]),
        ("sum_of_squares", [3.0, 1.0], [1.0, 2.0], 5.0, [4.0, -2.0]),
    ],
)
def test_values_by_hand_and_far_tails(name, y, target, value, slope):
    y, target = np.array([[y]]), np.array([[target]])
    actual = getattr(losses, name)(target)(y)
    assert actual.value == pytest.approx(value, rel=1e-15)
    np.testing.assert_allclose(actual.dy[0, 0], slope, rtol=1e-15, atol=1e-300)


def test_binary_slope_keeps_its_tail():
    """s(y) - z for z = 1, y = 40: -e^-40, not the 0 that 1 - s gives."""
    slope = losses.binary_cross_entropy(np.ones((1, 1, 1)))(np.full((1, 1, 1), 40.0)).dy[0, 0, 0]
    assert slope == pytest.approx(-np.exp(-40), rel=1e-10)


def test_weights_from_a_step_on():
    np.testing.assert_array_equal(losses.from_step(3, 5), [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(losses.from_step(1, 2), [1, 1])
    for tau in (0, 6):
        with pytest.raises(ValueError, match=f"tau is {tau}; it must be in 1…5"):
            losses.from_step(tau, 5)


def test_mean_over_components_and_weights():
    y, target = np.ones((T, B, P)), np.zeros((T, B, P))
    assert losses.sum_of_squares(target, reduction="mean")(y).value == pytest.approx(1, rel=1e-15)
    assert losses.sum_of_squares(target, [0, 2, 0, 0.5], reduction="mean")(y).value == pytest.approx(1, rel=1e-15)
    labels = np.zeros((T, B), int)
    assert losses.cross_entropy(labels, reduction="mean")(y).value == pytest.approx(np.log(P), rel=1e-14)


def zeros(*shape):
    return np.zeros(shape)


@pytest.mark.parametrize(
    ("name", "target", "options", "message"),
    [
        ("squared_error", zeros(T, B, P + 1), {}, r"target has shape \(4, 3, 6\); it must have shape \(4, 3, 5\)"),
        ("squared_error", zeros(T, P), {}, r"target has shape \(4, 5\); it must have shape \(4, 3, 5\)"),
        ("cross_entropy", zeros(T, B).astype(int)[1:], {}, r"target has shape \(3, 3\); it must have shape \(4, 3\)"),
        ("cross_entropy", zeros(T, B), {}, r"target has shape \(4, 3\); it must have shape \(4, 3, 5\)"),
        ("cross_entropy", np.full((T, B), P), {}, r"target has labels in 5…5; they must be in 0…4"),
        ("cross_entropy", np.full((T, B), -100), {}, r"target has labels in -100…-100; they must be in 0…4"),
        ("squared_error", np.full((T, B, P), np.nan), {}, r"target is nan at index \(0, 0, 0\)"),
        ("sum_of_squares", np.where(np.arange(P) == 2, np.inf, zeros(T, B, P)), {}, r"target is inf at index"),
        ("binary_cross_entropy", np.full((T, B, P), 1.5), {}, r"target is in \[1.5, 1.5\]; it must be in \[0, 1\]"),
        ("squared_error", zeros(T, B, P), {"weights": np.ones(T + 1)}, r"weights has shape \(5,\); it must be \(4,\)"),
        ("squared_error", zeros(T, B, P), {"weights": np.ones((B, T))}, r"weights has shape \(3, 4\)"),
        ("squared_error", zeros(T, B, P), {"weights": -np.ones(T)}, r"weights has a negative entry"),
        ("squared_error", zeros(T, B, P), {"weights": [1, np.nan, 1, 1]}, r"weights is nan at index \(1,\)"),
        ("squared_error", zeros(T, B, P), {"weights": "first"}, r"weights is 'first'; it must be one of 'last'"),
        ("squared_error", zeros(T, B, P), {"weights": zeros(T), "reduction": "mean"}, r"weights sum to 0"),
        ("squared_error", zeros(T, B, P), {"reduction": "max"}, r"reduction is 'max'; it must be one of 'sum', 'mean'"),
        ("squared_error", np.array("abc"), {}, r"target has dtype <U3; it must be real numbers"),
        ("squared_error", [[1.0], [1.0, 2.0]], {}, r"^target "),
        ("squared_error", zeros(T, B, P), {"weights": ["a"] * T}, r"^weights "),
        ("squared_error", zeros(T, B, P), {"weights": [[1.0], [1.0, 2.0]]}, r"^weights "),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(name, target, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(losses, name)(target, **options)(np.zeros((T, B, P)))


def test_second_derivatives_keep_their_tails():
    """s (1 - s) of the logistic function and diag p - p p^T of the softmax, relative accuracy far from 0."""
    y = np.array([-700.0, -40.0, -1.0, 0.0, 2.0, 36.0, 700.0]).reshape(7, 1, 1)
    u = np.full(y.shape, 3.0)
    found = losses.binary_cross_entropy(np.full(y.shape, 0.3)).curvature(y, u)
    with mpmath.workdps(400):
        expected = [float(3 / ((1 + mpmath.exp(-v)) * (1 + mpmath.exp(v)))) for v in y.ravel().tolist()]
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-13)  # interpreted, e^-700 is good to 700 eps/2
    y, z = np.array([[[0.0, 300.0, -300.0]]]), np.array([[[0.2, 0.3, 0.5]]])
    found = losses.cross_entropy(z).curvature(y, np.array([[[1.0, 0.0, 0.0]]]))
    tail = np.exp(-300.0)
    np.testing.assert_allclose(found[0, 0], [tail, -tail, -tail * np.exp(-600.0)], rtol=1e-13)
    several = losses.squared_error(z, weights=np.array([0.5])).curvature(y, np.ones((1, 4, 3)))
    np.testing.assert_array_equal(several, np.full((1, 4, 3), 0.5))
