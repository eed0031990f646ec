"""The numerical radius against closed forms, every quadratic form, and the powers that it bounds."""

import numpy as np
import pytest

import rnngrad as rg
from rnngrad.analysis.numerical_range import numerical_radius


@pytest.mark.parametrize(
    "A, radius",
    [
        (np.array([[0.9, 10.0], [0.0, 0.9]]), 5.9),  # a disc of radius 5 around .9
        (np.eye(5, k=1), np.cos(np.pi / 6)),  # a disc around 0
        (np.array([[0.0, -3.0], [3.0, 0.0]]), 3.0),  # normal: the segment from -3i to 3i
        (np.diag([1.0, -2.0, 0.5]), 2.0),
        (1e-200 * np.array([[0.0, 1.0], [0.0, 0.0]]), 0.5e-200),
        (np.zeros((3, 3)), 0.0),
    ],
)
def test_numerical_radius_where_it_is_known(A, radius):
    for tol in (1e-2, 1e-4, 1e-6):
        low, high = numerical_radius(A, tol=tol)
        assert low <= radius * (1 + 1e-14) and radius <= high * (1 + 1e-14) and high - low <= tol * high


@pytest.mark.parametrize("n", [1, 2, 3, 8, 20])
def test_numerical_radius_holds_every_quadratic_form_and_bounds_every_power(n):
    rng = np.random.default_rng(n)
    A = rng.standard_normal((n, n)) / np.sqrt(n)
    low, high = numerical_radius(A)
    fine = [np.linalg.eigvalsh((np.exp(1j * t) * A + np.exp(-1j * t) * A.T) / 2)[-1] for t in np.linspace(0, 7, 2001)]
    assert low - 1e-12 <= max(fine) * (1 + 1e-5) and max(fine) <= high * (1 + 1e-12) and high - low <= 1e-4 * high
    v = rng.standard_normal((200, n)) + 1j * rng.standard_normal((200, n))
    assert (
        np.abs(np.einsum("bi,ij,bj->b", v.conj(), A, v)) <= high * (1 + 1e-12) * np.sum(np.abs(v) ** 2, axis=1)
    ).all()
    assert np.linalg.norm(A, 2) / 2 <= high <= np.linalg.norm(A, 2) * (1 + 1e-4)
    power = np.eye(n)
    for k in range(1, 40):
        power = power @ A
        assert np.linalg.norm(power, 2) <= 2 * high**k * (1 + 1e-12)


def test_numerical_radius_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="A has shape"):
        numerical_radius(np.ones((2, 3)))
    with pytest.raises(ValueError, match="tol is 0"):
        numerical_radius(np.eye(2), tol=0)
    with pytest.raises(rg.ConvergenceError, match="after 4096 angles"):
        numerical_radius(np.eye(3, k=1), tol=1e-12)
