"""Identities that hold for every network, over random shapes, cells, precisions and lengths (Hypothesis)."""

import numpy as np
import pytest
from cases import CELLS, assert_close, assert_gradients, make_case
from hypothesis import example, given, settings
from hypothesis import strategies as st

import rnngrad as rg

EXACT = {"float64": 1e-12, "float32": 1e-5}


@st.composite
def cases(draw, dtypes=("float64", "float32"), ragged=False):
    """A case of any cell with its default activation; lengths are anything in 1 … T, or (but for ragged) none."""
    T, B = draw(st.integers(1, 7)), draw(st.integers(1, 4))
    uneven = st.lists(st.integers(1, T), min_size=B, max_size=B)
    lengths = draw(uneven if ragged else st.none() | uneven)
    return make_case(
        draw(st.sampled_from(CELLS)), T=T, B=B, lengths=lengths,
        n=draw(st.integers(1, 5)), m=draw(st.integers(1, 3)), p=draw(st.integers(0, 3)),
        dtype=draw(st.sampled_from(dtypes)), seed=draw(st.integers(0, 10**6)), scale=0.8,
    )  # fmt: skip


def squared_error(case):
    target = np.random.default_rng(5).standard_normal((*case.x.shape[:2], case.net.p))
    return rg.losses.squared_error(target)


def steps(case, data, count):
    """That many steps in 0 … T, descending."""
    T = len(case.x)
    return sorted(data.draw(st.lists(st.integers(0, T), min_size=count, max_size=count)), reverse=True)


def scaled(Phi):
    return max(float(np.abs(Phi).max()), 1.0)


@given(cases(), st.data())
def test_vjp_and_jvp_are_adjoint(case, data):
    """u (Phi v) = (u Phi) v, per sample, and both are products with the dense Phi."""
    t, k = steps(case, data, 2)
    chain = rg.jacobian_chain(case.traj)
    u, v = np.random.default_rng(1).standard_normal((2, *case.s0.shape)).astype(case.net.dtype)
    forward, back, Phi = chain.jvp(v, t, k), chain.vjp(u, t, k), chain.product(t, k)
    B = len(u)
    size = scaled(Phi) * case.net.N * EXACT[case.net.dtype.name]
    left, right = (np.sum((a * b).reshape(B, -1), axis=1, dtype=float) for a, b in ((u, forward), (back, v)))
    np.testing.assert_allclose(left, right, rtol=0, atol=10 * size)
    np.testing.assert_allclose(
        np.einsum("brc,bc->br", Phi, v.reshape(B, -1)), forward.reshape(B, -1), rtol=0, atol=10 * size
    )
    np.testing.assert_allclose(
        np.einsum("br,brc->bc", u.reshape(B, -1), Phi), back.reshape(B, -1), rtol=0, atol=10 * size
    )


@given(cases(), st.data())
def test_chains_compose(case, data):
    """Phi(t, k) = Phi(t, j) Phi(j, k), and every way of asking for Phi(t, k) gives the same."""
    t, j, k = steps(case, data, 3)
    chain = rg.jacobian_chain(case.traj)
    first, second, whole = chain.product(t, j), chain.product(j, k), chain.product(t, k)
    size = scaled(first) * scaled(second) * case.net.N * EXACT[case.net.dtype.name]
    np.testing.assert_allclose(first @ second, whole, rtol=0, atol=size)
    np.testing.assert_allclose(chain.all_from(k)[t - k], whole, rtol=0, atol=size)
    np.testing.assert_allclose(chain.all_to(t)[k], whole, rtol=0, atol=size)
    if t == k + 1:
        np.testing.assert_allclose(rg.jacobians(case.traj)[k], whole, rtol=0, atol=size)


@given(cases(), st.data())
def test_gradient_of_the_state_obeys_the_chain(case, data):
    """dL/ds_k = sum over t >= k of (dL_t/ds_t) Phi(t, k): BPTT is the chain, summed."""
    (k,) = steps(case, data, 1)
    loss, T = squared_error(case), len(case.x)
    chain, flow = rg.jacobian_chain(case.traj), rg.gradient_flow(case.traj, loss)
    grads = rg.bptt(case.traj, loss)
    total = sum(
        (chain.vjp(flow.direct[t - 1], t, k).astype(float) for t in range(max(k, 1), T + 1)), np.zeros(case.s0.shape)
    )
    size = max(np.abs(grads.s).max(), 1) * scaled(chain.all_to(T)) * EXACT[case.net.dtype.name]
    np.testing.assert_allclose(grads.s[k], total, rtol=0, atol=10 * size)
    np.testing.assert_array_equal(grads.s0, grads.s[0])


@given(cases())
def test_a_full_window_is_the_full_gradient(case):
    loss, T = squared_error(case), len(case.x)
    full, rtol = rg.bptt(case.traj, loss), EXACT[case.net.dtype.name] * 10
    assert_gradients(rg.truncated_bptt(case.traj, loss, window=T), full, rtol)
    assert_gradients(rg.truncated_bptt(case.traj, loss, k1=max(T // 2, 1), k2=T), full, rtol)


@given(cases())
def test_samples_of_a_batch_do_not_meet(case):
    """Each sample alone: the same states bit for bit, the same adjoints to rounding, gradients that add up."""
    T, B, _ = case.x.shape
    target = np.random.default_rng(5).standard_normal((T, B, case.net.p))
    whole = rg.bptt(case.traj, rg.losses.squared_error(target))
    rtol = EXACT[case.net.dtype.name]
    total = dict.fromkeys([name for name, _ in whole.parameters()], 0.0)
    size = dict.fromkeys(total, 0.0)
    for b in range(B):
        alone = rg.rollout(case.net, case.x[:, b : b + 1], case.s0[b : b + 1], case.ends[b : b + 1])
        np.testing.assert_array_equal(alone.states, case.traj.states[:, b : b + 1])
        one = rg.bptt(alone, rg.losses.squared_error(target[:, b : b + 1]))
        assert_close(one.s, whole.s[:, b : b + 1], rtol, "s")
        assert_close(one.x, whole.x[:, b : b + 1], rtol, "x")
        for name, g in one.parameters():
            total[name] = total[name] + g.astype(float)
            size[name] = size[name] + np.abs(g).max(initial=0)
    for name, g in whole.parameters():
        np.testing.assert_allclose(g, total[name], rtol=0, atol=10 * rtol * size[name], err_msg=name)


@given(cases(ragged=True), st.sampled_from([0.0, -3.0, 1e30]))
def test_padding_changes_nothing(case, garbage):
    """Whatever stands in padded steps, and however many there are, every number is that of the sequences cut short."""
    T, B, m = case.x.shape
    target = np.random.default_rng(5).standard_normal((T, B, case.net.p))
    reference = rg.bptt(case.traj, rg.losses.squared_error(target))
    padded = np.arange(T + 2)[:, None] >= case.lengths
    x = np.concatenate([case.x, np.zeros((2, B, m), case.x.dtype)])
    target = np.concatenate([target, np.zeros((2, B, case.net.p))])
    x[padded], target[padded] = garbage, np.nan
    traj = rg.rollout(case.net, x, case.s0, case.lengths)
    np.testing.assert_array_equal(traj.states[: T + 1], case.traj.states)
    np.testing.assert_array_equal(traj.states[T + 1 :], np.broadcast_to(traj.states[T], (2, *case.s0.shape)))
    grads = rg.bptt(traj, rg.losses.squared_error(target))
    rtol = EXACT[case.net.dtype.name]
    for name, g in reference.parameters():
        assert_close(getattr(grads, name), g, rtol, name)
    np.testing.assert_array_equal(grads.s[: T + 1], reference.s)
    np.testing.assert_array_equal(grads.x[:T], reference.x)
    np.testing.assert_array_equal(grads.x[padded], 0)
    np.testing.assert_array_equal(rg.jacobians(traj)[:T], rg.jacobians(case.traj))


@given(cases(dtypes=("float64",)))
def test_precisions_agree(case):
    """The same network in float32, from the same (rounded) numbers."""
    narrow = case.net.astype("float32")
    wide = narrow.astype("float64")
    x, s0 = case.x.astype("float32"), case.s0.astype("float32")
    a = rg.bptt(rg.rollout(narrow, x, s0, case.lengths), squared_error(case))
    b = rg.bptt(rg.rollout(wide, x.astype(float), s0.astype(float), case.lengths), squared_error(case))
    assert_gradients(a, b, 3e-5)


@settings(max_examples=120)
@example(17, 9, 33, "float32", 0)
@example(33, 1, 16, "float64", 1)
@given(
    st.integers(1, 70),
    st.integers(1, 19),
    st.integers(0, 40),
    st.sampled_from(["float64", "float32"]),
    st.integers(0, 99),
)
def test_products_of_every_size(n, B, m, dtype, seed):
    """Tiles, panels and their edges: one step of a linear network, and its adjoint, are plain matrix products."""
    rng = np.random.default_rng(seed)
    W, U, b = rng.standard_normal((n, n)), rng.standard_normal((n, m)), rng.standard_normal(n)
    x, s0, z = rng.standard_normal((1, B, m)), rng.standard_normal((B, n)), rng.standard_normal((1, B, n))
    W, U, b, x, s0, z = (a.astype(dtype) for a in (W, U, b, x, s0, z))
    net = rg.Network.from_parameters("linear", {"W": W[None], "U": U[None], "b": b[None]})
    traj = rg.rollout(net, x, s0[:, None])
    W, U, b, x, s0, z = (a.astype(float) for a in (W, U, b, x, s0, z))
    new = s0 @ W.T + x[0] @ U.T + b
    rtol = {"float64": 1e-13, "float32": 1e-5}[dtype]
    assert_close(traj.states[1, :, 0], new, rtol)
    chain = rg.jacobian_chain(traj)
    v = rng.standard_normal((B, 1, n)).astype(dtype)
    assert_close(chain.vjp(v, 1, 0)[:, 0], v[:, 0] @ W, rtol)
    assert_close(chain.jvp(v, 1, 0)[:, 0], v[:, 0] @ W.T, rtol)
    assert_close(chain.product(1, 0), np.broadcast_to(W, (B, n, n)), rtol)
    if m:
        grads = rg.bptt(traj, rg.losses.squared_error(z))
        g = new - z[0]
        for name, truth in (("W", g.T @ s0), ("U", g.T @ x[0]), ("b", g.sum(axis=0))):
            assert_close(getattr(grads, name)[0], truth, 10 * rtol, name)
        assert_close(grads.x[0], g @ U, 10 * rtol, "x")


@pytest.mark.parametrize("cell", CELLS)
def test_calls_repeat_bit_for_bit(case, cell):
    one, two = case(cell), case(cell)
    np.testing.assert_array_equal(one.traj.states, two.traj.states)
    a, b = rg.bptt(one.traj, squared_error(one)), rg.bptt(two.traj, squared_error(two))
    for name, g in a.parameters():
        np.testing.assert_array_equal(g, getattr(b, name))
