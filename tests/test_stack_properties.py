"""Random stacks (Hypothesis): any cells, sizes, directions, lengths and feedback, against autograd and each other."""

import numpy as np
import oracles
import stacks
from cases import CELLS, assert_close
from hypothesis import given, settings
from hypothesis import strategies as st

import rnngrad as rg


@st.composite
def cases(draw, bidirectional=None):
    """A random stack of one to three layers with inputs, lengths and a joint initial state."""
    mix = draw(st.lists(st.tuples(st.sampled_from(CELLS), st.integers(1, 4)), min_size=1, max_size=3))
    T, B = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    both = draw(st.booleans()) if bidirectional is None else bidirectional
    lengths = draw(st.none() | st.lists(st.integers(1, T), min_size=B, max_size=B))
    return stacks.make_stack_case(
        tuple(mix), bidirectional=both, m=draw(st.integers(0, 3)), p=draw(st.integers(0, 2)), T=T, B=B,
        lengths=lengths, seed=draw(st.integers(0, 10**6)), scale=0.8,
    )  # fmt: skip


@settings(max_examples=40)
@given(cases())
def test_gradients_of_random_stacks(case):
    traj = case.traj
    z = case.rng.standard_normal(traj.y.shape)
    grads = rg.bptt(traj, rg.losses.squared_error(z))
    expected = stacks.gradients(case, oracles.squared_error(z))
    for layer, row in enumerate(expected.pop("s")):
        for direction, s in enumerate(row):
            assert_close(grads.layers[layer][direction].s, s, 1e-11, f"s {layer} {direction}")
    expected.pop("y")
    for name, value in expected.items():
        assert_close(getattr(grads, name), value, 1e-11, name)


@settings(max_examples=40)
@given(cases(bidirectional=False), st.data())
def test_chains_of_random_stacks(case, data):
    traj, J = case.traj, stacks.jacobians(case)
    T = len(case.x)
    k, t = sorted(data.draw(st.lists(st.integers(0, T), min_size=2, max_size=2)))
    Phi = oracles.product(J, t, k)
    chain = rg.jacobian_chain(traj)
    size = max(np.abs(Phi).max(), 1.0)
    np.testing.assert_allclose(chain.product(t, k), Phi, rtol=0, atol=1e-11 * size)
    u, v = case.rng.standard_normal((2, len(Phi), 1, case.stack.N))
    np.testing.assert_allclose(
        chain.vjp(u, t, k)[:, 0], np.einsum("bi,bij->bj", u[:, 0], Phi), rtol=0, atol=1e-10 * size
    )
    np.testing.assert_allclose(
        chain.jvp(v, t, k)[:, 0], np.einsum("bij,bj->bi", Phi, v[:, 0]), rtol=0, atol=1e-10 * size
    )
    loss = rg.losses.squared_error(case.rng.standard_normal(traj.y.shape))
    full, grads = rg.truncated_bptt(traj, loss, window=T), rg.bptt(traj, loss)
    for (name, a), (_, b) in zip(full.parameters(), grads.parameters(), strict=True):
        assert_close(a, b, 1e-11, name)
