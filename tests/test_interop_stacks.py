"""Stacks from PyTorch modules and files: the same network by every way, exact round trips, what is missing is named."""

import numpy as np
import pytest
import stacks
from test_interop import file, torch, write  # noqa: F401  (fixtures)

import rnngrad as rg

MODULES = [
    ("LSTM", {"num_layers": 2}),
    ("GRU", {"num_layers": 3, "bidirectional": True}),
    ("RNN", {"num_layers": 2, "bidirectional": True, "nonlinearity": "relu"}),
    ("LSTM", {"bidirectional": True, "bias": False}),
    ("GRU", {"num_layers": 2, "batch_first": True}),
]


def assert_same(one, other):
    assert isinstance(one, rg.Stack) and repr(one) == repr(other)
    for row, wanted in zip(one.layers, other.layers, strict=True):
        for net, expected in zip(row, wanted, strict=True):
            assert (net.cell, net.activation, net.dt) == (expected.cell, expected.activation, expected.dt)
            np.testing.assert_equal(dict(net.constants), dict(expected.constants))
    for (name, a), (_, b) in zip(one.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize(("kind", "options"), MODULES, ids=str)
def test_module_and_file_make_one_stack(torch, file, kind, options):  # noqa: F811
    """Through the module, or through a file of its state_dict with a linear layer beside it: torch's own outputs."""
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(3, 4, dtype=torch.float64, **options)
    D = 1 + options.get("bidirectional", False)
    linear = torch.nn.Linear(4 * D, 2, dtype=torch.float64)
    stack = rg.from_torch(module, readout=linear)
    tensors = {f"rnn.{name}": value.numpy() for name, value in module.state_dict().items()}
    write(file, tensors | {f"fc.{name}": value.numpy() for name, value in linear.state_dict().items()})
    loaded = rg.load(file, prefix="rnn.", readout="fc.", activation=options.get("nonlinearity"))
    assert_same(loaded, stack)
    x = np.random.default_rng(0).standard_normal((5, 6, 3))  # (B, T, m) or (T, B, m)
    batch_first = options.get("batch_first", False)
    y = linear(module(torch.tensor(x))[0]).detach().numpy()
    ours = rg.rollout(stack, x, batch_first=batch_first).y
    np.testing.assert_allclose(ours, y.swapaxes(0, 1) if batch_first else y, rtol=0, atol=1e-13)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("mix", stacks.MIXES, ids=str)
def test_round_trip(file, mix, bidirectional):  # noqa: F811
    stack = stacks.make_stack_case(mix, bidirectional=bidirectional).stack
    rg.save(stack, file)
    assert_same(rg.load(file), stack)
    assert rg.load(file, dtype="float32").dtype == np.float32


PARTS = ("weight_hh", "weight_ih", "bias_ih", "bias_hh")


def test_feedback_is_kept(file):  # noqa: F811
    stack = rg.Stack.init("gru", 2, 4, 3, n_layers=2, feedback=True)
    rg.save(stack, file)
    loaded = rg.load(file)
    assert_same(loaded, stack)
    assert loaded.feedback and loaded.m == 2


BROKEN = [
    ([f"{part}_l1" for part in PARTS], r"layer 1 lacks its forward half: there is no 'weight_hh_l1'"),
    ([f"{part}_l1_reverse" for part in PARTS], r"layer 1 lacks its backward half: there is no 'weight_hh_l1_reverse'"),
    (
        [f"{part}_l1{end}" for part in PARTS for end in ("", "_reverse")],
        r"layer 1 is missing: there is no 'weight_hh_l1'",
    ),
    (["weight_hh_l2_reverse"], r"missing tensors: 'weight_hh_l2_reverse'"),
    (["bias_hh_l0"], r"missing tensors: 'bias_hh_l0'; a network without bias lacks both"),
]


@pytest.mark.parametrize(("left_out", "message"), BROKEN, ids=range(5))
def test_what_a_checkpoint_lacks_is_named(torch, file, left_out, message):  # noqa: F811
    module = torch.nn.GRU(3, 4, num_layers=3, bidirectional=True)
    tensors = {name: value.numpy() for name, value in module.state_dict().items() if name not in left_out}
    with pytest.raises(ValueError, match=message):
        rg.load(write(file, tensors))


def test_sizes_that_do_not_chain(torch, file):  # noqa: F811
    module = torch.nn.GRU(3, 4, num_layers=2)
    tensors = {name: value.numpy() for name, value in module.state_dict().items()}
    write(file, tensors | {"weight_ih_l1": np.ones((12, 5), np.float32)})
    with pytest.raises(ValueError, match=r"layers\[1\] takes 5 inputs; it must take 4, which layers\[0\] gives"):
        rg.load(file)


def test_a_file_of_ours_that_lacks_what_it_says(file):  # noqa: F811
    stack = stacks.make_stack_case(stacks.MIXES[0]).stack
    arrays = {name: np.array(a) for name, a in stack.parameters()}
    write(file, arrays)
    with pytest.raises(ValueError, match=r"has layers W_l0, … but does not say their cells"):
        rg.load(file)
    rg.save(stack, file)
    with pytest.raises(ValueError, match=r"the file says the cell and the activation of every layer"):
        rg.load(file, cell="lstm")
