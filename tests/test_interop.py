"""Networks from PyTorch modules and files: outputs of torch, exact round trips, and a clear word on every error."""

import logging
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import rnngrad as rg
from rnngrad.interop.files import load, save
from rnngrad.interop.torch import from_torch

SPEECH = Path(__file__).resolve().parents[2] / "shared" / "data" / "speech_vad_lstm.safetensors"
FEATURES = SPEECH.with_name("speech_features.npy")
KINDS = {"lstm": "LSTM", "gru": "GRU", "vanilla": "RNN"}


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def safetensors():
    return pytest.importorskip("safetensors.numpy")


def arrays(cell="lstm", n=5, m=3, ending="", prefix="", dtype=np.float64, bias=True, seed=0):
    """Random parameters in PyTorch's names and shapes."""
    rng = np.random.default_rng(seed)
    G = {"lstm": 4, "gru": 3, "vanilla": 1}[cell]
    shapes = {"weight_ih": (G * n, m), "weight_hh": (G * n, n)}
    if bias:
        shapes |= {"bias_ih": (G * n,), "bias_hh": (G * n,)}
    return {prefix + name + ending: (rng.standard_normal(shape) / 2).astype(dtype) for name, shape in shapes.items()}


def write(path, tensors, metadata=None):
    if path.suffix == ".npz":
        np.savez(path, **tensors)
    else:
        pytest.importorskip("safetensors.numpy").save_file(tensors, path, metadata)
    return path


@pytest.fixture(params=[".npz", ".safetensors"])
def file(request, tmp_path):
    return tmp_path / f"model{request.param}"


# ---------------------------------------------------------------- agreement with torch


def _torch_modules():
    for cell, kind in KINDS.items():
        for end in ("", "Cell"):
            for bias in (True, False):
                yield pytest.param(kind + end, cell, bias, {}, id=f"{kind}{end}-{'bias' if bias else 'nobias'}")
    yield pytest.param("RNN", "vanilla", True, {"nonlinearity": "relu"}, id="RNN-relu")
    yield pytest.param("RNNCell", "vanilla", True, {"nonlinearity": "relu"}, id="RNNCell-relu")
    yield pytest.param("LSTM", "lstm", True, {"batch_first": True}, id="LSTM-batch_first")


TORCH_MODULES = tuple(_torch_modules())


def torch_outputs(torch, module, x):
    """h_1 … h_T of a module or a cell on time-major inputs."""
    x = torch.tensor(x)
    if isinstance(module, torch.nn.RNNBase):
        y, _ = module(x.transpose(0, 1) if module.batch_first else x)
        return (y.transpose(0, 1) if module.batch_first else y).detach().numpy()
    state, out = None, []
    for step in x:
        state = module(step, state)
        out.append(state[0] if isinstance(state, tuple) else state)
    return torch.stack(out).detach().numpy()


def make_module(torch, kind, bias, options):
    torch.manual_seed(0)
    return getattr(torch.nn, kind)(3, 5, bias=bias, dtype=torch.float64, **options)


@pytest.mark.parametrize("kind, cell, bias, options", TORCH_MODULES)
def test_from_torch_gives_the_outputs_of_torch(torch, kind, cell, bias, options):
    module = make_module(torch, kind, bias, options)
    net = from_torch(module)
    assert net.cell.name == cell and net.activation == options.get("nonlinearity", "tanh") and net.V is None
    x = np.random.default_rng(1).standard_normal((20, 4, 3))
    np.testing.assert_allclose(rg.rollout(net, x).h, torch_outputs(torch, module, x), rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind, cell, bias, options", TORCH_MODULES)
def test_load_gives_the_network_of_from_torch(torch, file, kind, cell, bias, options):
    module = make_module(torch, kind, bias, options)
    tensors = {f"encoder.rnn.{name}": value.numpy() for name, value in module.state_dict().items()}
    write(file, tensors | {"elsewhere.weight": np.full((2, 2), np.nan)})
    net = load(file, prefix="encoder.rnn.", activation=options.get("nonlinearity"))
    assert_same(net, from_torch(module))


def assert_same(one, other):
    assert all(getattr(one, name) == getattr(other, name) for name in ("cell", "activation", "dtype", "dt"))
    assert set(one.parameters) == set(other.parameters) and set(one.constants) == set(other.constants)
    for name, value in {**one.parameters, **one.constants}.items():
        np.testing.assert_array_equal(value, {**other.parameters, **other.constants}[name], err_msg=name)


def test_from_torch_gradients_are_those_of_torch(torch):
    module = make_module(torch, "GRU", True, {})
    x = np.random.default_rng(2).standard_normal((12, 2, 3))
    out, _ = module(torch.tensor(x))
    (0.5 * (out**2).sum()).backward()
    traj = rg.rollout(from_torch(module), x)
    grads = rg.bptt(traj, rg.losses.squared_error(np.zeros_like(traj.y)))
    np.testing.assert_allclose(grads.W.reshape(15, 5), module.weight_hh_l0.grad, atol=1e-12)
    np.testing.assert_allclose(grads.b[[0, 1, 2]].ravel(), module.bias_hh_l0.grad, atol=1e-12)
    np.testing.assert_allclose(grads.b[[0, 1, 3]].ravel(), module.bias_ih_l0.grad, atol=1e-12)


def test_from_torch_copies(torch):
    module = make_module(torch, "LSTM", True, {})
    net = from_torch(module)
    before = net.W.copy()
    with torch.no_grad():
        module.weight_hh_l0.zero_()
    np.testing.assert_array_equal(net.W, before)


@pytest.mark.parametrize("bias", [True, False])
def test_readout(torch, file, bias):
    module = make_module(torch, "GRU", True, {})
    linear = torch.nn.Linear(5, 2, bias=bias, dtype=torch.float64)
    net = from_torch(module, readout=linear)
    x = np.random.default_rng(3).standard_normal((7, 2, 3))
    expected = linear(module(torch.tensor(x))[0]).detach().numpy()
    np.testing.assert_allclose(rg.rollout(net, x).y, expected, atol=1e-13)
    tensors = {name: value.numpy() for name, value in module.state_dict().items()}
    write(file, tensors | {f"fc.{name}": value.numpy() for name, value in linear.state_dict().items()})
    assert_same(load(file, readout="fc."), net)


def test_precision_is_kept_or_converted(torch, file):
    module = torch.nn.LSTM(3, 5)
    assert from_torch(module).dtype == np.float32
    assert_same(from_torch(module, dtype="float64"), from_torch(module.double()))
    write(file, arrays(dtype=np.float32))
    assert load(file).dtype == np.float32
    wide = load(file, dtype="float64")
    assert wide.dtype == np.float64
    assert_same(wide.astype("float32"), load(file))


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision_must_be_converted(torch, tmp_path, half):
    save_file = pytest.importorskip("safetensors.torch").save_file
    module = torch.nn.LSTM(3, 5).to(getattr(torch, half))
    with pytest.raises(ValueError, match=rf"weight_ih_l0 has dtype {half}.*dtype='float64'"):
        from_torch(module)
    path = tmp_path / "half.safetensors"
    save_file(module.state_dict(), path)
    with pytest.raises(ValueError, match=rf"weight_ih_l0' has dtype {half}.*dtype='float64'"):
        load(path)
    assert_same(load(path, dtype="float32"), from_torch(module.float()))


# ---------------------------------------------------------------- our own files


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("cell", rg.CELLS)
def test_save_and_load_round_trip(file, cell, dtype):
    timing = {"dt": 0.1, "tau": np.linspace(0.3, 2, 4)} if cell == "continuous" else {}
    for n_inputs, n_outputs in ((3, 2), (0, 0)):
        net = rg.Network.init(cell, n_inputs, 4, n_outputs, seed=7, dtype=dtype, **timing)
        if len(net.cell.activations) > 1:
            net = net.replace(activation="softplus")
        save(net, file)
        assert_same(load(file), net)
        assert_same(load(file, cell=cell), net)


def test_our_own_names_without_metadata(file):
    for cell in ("vanilla", "gru", "lstm"):
        net = rg.Network.init(cell, 2, 3)
        write(file, {f"net.{name}": np.array(value) for name, value in net.parameters.items()})
        assert_same(load(file, prefix="net."), net)
    net = rg.Network.init("gated_unit", 2, 3)
    write(file, {name: np.array(value) for name, value in net.parameters.items()})
    with pytest.raises(ValueError, match=r"does not say its cell.*give cell="):
        load(file)
    assert_same(load(file, "gated_unit"), net)
    net = rg.Network.init("continuous", 2, 3)
    write(file, {name: np.array(value) for name, value in net.parameters.items()})
    with pytest.raises(ValueError, match="must hold dt and tau"):
        load(file, "continuous")


def test_file_and_arguments_must_agree(file):
    save(rg.Network.init("lstm", 2, 3), file)
    with pytest.raises(ValueError, match="cell is 'gru', but the file says 'lstm'"):
        load(file, "gru")
    with pytest.raises(ValueError, match="activation is 'relu', but the file says 'tanh'"):
        load(file, activation="relu")
    with pytest.raises(ValueError, match=r"readout is 'fc.', but .* is in our own layout"):
        load(file, readout="fc.")


def test_save_refuses_what_is_not_a_network(tmp_path):
    with pytest.raises(ValueError, match="net is dict"):
        save({}, tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"suffix of path is '.txt'"):
        save(rg.Network.init("gru", 1, 2), tmp_path / "a.txt")


# ---------------------------------------------------------------- what load states and refuses


def test_inferred_cell_is_stated(file, caplog):
    write(file, arrays("gru"))
    with caplog.at_level(logging.INFO, logger="rnngrad"):
        net = load(file)
    assert net.cell.name == "gru" and "cell 'gru' inferred from weight_hh (15, 5)" in caplog.text


HEADS = {"fc.weight": np.ones((2, 4)), "fd.weight": np.ones((2, 5)), "fd.bias": np.ones(3)}
BROKEN = [  # (tensors changed or, with None, left out; arguments of load; message)
    ({"weight_ih": None}, {}, r"missing tensors: 'weight_ih'"),
    ({"weight_hh": None}, {}, r"missing tensors: 'weight_hh'"),
    ({"bias_hh": None}, {}, r"missing tensors: 'bias_hh'; a network without bias lacks both"),
    ({"bias": np.zeros(3)}, {}, r"not part of one PyTorch module: 'bias'"),
    ({"fc.weight": np.zeros((2, 5))}, {}, r"'fc.weight'.*readout='fc.'"),
    ({"weight_hh": np.zeros((20, 6))}, {}, r"'weight_hh' has shape \(20, 6\); it must be \(4n, n\) for lstm"),
    ({"weight_hh": np.zeros(20)}, {}, r"'weight_hh' has shape \(20,\); it must be a matrix"),
    ({"weight_hh": np.zeros((0, 0))}, {}, r"'weight_hh' has shape \(0, 0\)"),
    ({"weight_ih": np.zeros((15, 3))}, {}, r"'weight_ih' has shape \(15, 3\); it must have shape \(20, m\)"),
    ({"bias_ih": np.zeros((20, 1))}, {}, r"'bias_ih' has shape \(20, 1\); it must have shape \(20,\)"),
    ({"bias_ih": np.full(20, np.nan)}, {}, r"'bias_ih' is nan at index \(0,\)"),
    ({"bias_ih": np.full(20, 1e300)}, {"dtype": "float32"}, r"'bias_ih' as float32 is inf at index \(0,\)"),
    ({}, {"dtype": "int8"}, r"dtype is 'int8'"),
    ({"weight_hh": np.ones((20, 5), np.int32)}, {}, r"'weight_hh'.* has dtype (int32|I32); it must be float"),
    ({"weight_hh": np.ones((20, 5), np.float32)}, {}, r"mixes precisions.*'weight_hh' is float32"),
    ({"weight_ih_l1": np.zeros((20, 5))}, {}, r"not part of one PyTorch module: 'weight_ih_l1'"),
    ({"weight_hr": np.zeros((2, 5))}, {}, r"'weight_hr' is the projection.*not supported"),
    ({}, {"cell": "gru"}, r"needs 'weight_hh' of shape \(3n, n\); it has shape \(20, 5\), the shape of 'lstm'"),
    ({}, {"cell": "mrnn"}, r"'mrnn'; tensors in PyTorch order make one of lstm, gru, vanilla"),
    ({}, {"activation": "sine"}, r"activation is 'sine'; it must be one of"),
    ({}, {"readout": "head."}, r"has no 'head.weight'"),
    (
        HEADS,
        {"readout": "fc.", "prefix": "rnn."},
        r"'fc.weight' has shape \(2, 4\); a readout must have shape \(p, 5\)",
    ),
    (HEADS, {"readout": "fd.", "prefix": "rnn."}, r"'fd.bias' has shape \(3,\); it must have shape \(2,\)"),
    ({"rnn.bias_ih": None}, {"prefix": "rnn."}, r"missing tensors: 'rnn.bias_ih'"),
]


@pytest.mark.parametrize("change, options, message", BROKEN)
def test_broken_tensors(file, change, options, message):
    prefix = options.get("prefix", "")
    tensors = arrays(prefix=prefix) | change
    write(file, {name: value for name, value in tensors.items() if value is not None})
    with pytest.raises(ValueError, match=message):
        load(file, **options)


def test_prefixes_that_would_work_are_named(file):
    conv = {"conv.weight": np.ones((2, 5))}
    write(file, arrays(prefix="lstm_cell.") | arrays("gru", ending="_l0", prefix="top.rnn.") | conv)
    for prefix in ("", "lstm_cell"):
        with pytest.raises(ValueError, match=r"no network under.*'lstm_cell.', 'top.rnn.'"):
            load(file, prefix=prefix)
    assert load(file, prefix="top.rnn.").cell.name == "gru"
    write(file, conv)
    with pytest.raises(ValueError, match=r"no network under prefix ''; the file has 'conv.weight'"):
        load(file)


def test_big_endian_npz(tmp_path):
    tensors = arrays()
    one, other = tmp_path / "little.npz", tmp_path / "big.npz"
    np.savez(one, **tensors)
    np.savez(other, **{name: value.astype(">f8") for name, value in tensors.items()})
    assert_same(load(other), load(one))


def test_files_that_are_not_what_they_say(file):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load(file)
    file.write_bytes(b"not a container at all")
    with pytest.raises(ValueError, match=r"is not an? (.npz archive|safetensors file)"):
        load(file)
    write(file, arrays())
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"is not an? (.npz archive|safetensors file)"):
        load(file)


def test_no_pickle_is_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("a pickle was executed",)

    for suffix in (".pt", ".pth", ".pkl", ".ckpt", ".bin"):
        path = tmp_path / f"model{suffix}"
        path.write_bytes(pickle.dumps(Trap()))
        with pytest.raises(ValueError, match=r"holds a pickle.*safetensors.torch.save_file"):
            load(path)
    path = tmp_path / "objects.npz"
    np.savez(path, **arrays() | {"weight_hh": np.array([Trap()], dtype=object)})
    with pytest.raises(ValueError, match=r"'weight_hh' in .* cannot be read.*allow_pickle=False"):
        load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weight_hh", b"no array")
        archive.writestr("weight_ih", b"no array")
    with pytest.raises(ValueError, match=r"'weight_(hh|ih)' in .* is not an array"):
        load(path)
    with pytest.raises(ValueError, match=r"suffix of path is '.h5'"):
        load(tmp_path / "model.h5")


# ---------------------------------------------------------------- what from_torch refuses


def test_from_torch_refuses_other_modules(torch):
    nn = torch.nn
    broken = nn.GRU(2, 2)
    with torch.no_grad():
        broken.weight_hh_l0[1, 0] = float("nan")
    for module, message in (
        (nn.LSTM(3, 5, proj_size=2), r"proj_size=2"),
        (nn.Linear(2, 2), r"module is Linear; it must be one of RNN, RNNCell, LSTM"),
        (nn.Sequential(nn.GRU(2, 2), nn.Linear(2, 2)), r"it contains module.0 \(GRU\)"),
        (nn.GRU(2, 2).state_dict(), r"module is OrderedDict"),
        (broken, r"weight_hh_l0 is nan at index \(1, 0\)"),
    ):
        with pytest.raises(ValueError, match=message):
            from_torch(module)
    with pytest.raises(ValueError, match="readout is GRU"):
        from_torch(nn.GRU(2, 2), readout=nn.GRU(2, 2))


def test_missing_extras_are_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"rnngrad\[torch\]"):
        from_torch(object())
    path = tmp_path / "model.safetensors"
    path.touch()
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"rnngrad\[safetensors\]"):
        load(path)


# ---------------------------------------------------------------- a real file


@pytest.mark.skipif(not SPEECH.exists(), reason="the speech model is not here")
def test_speech_model(torch, safetensors):
    net = load(SPEECH, prefix="lstm_cell.")
    assert (net.cell.name, net.n, net.m, net.dtype) == ("lstm", 128, 128, np.float32)
    with pytest.raises(ValueError, match=r"prefixes that hold one: 'lstm_cell.'"):
        load(SPEECH)
    module = torch.nn.LSTMCell(128, 128)
    tensors = safetensors.load_file(SPEECH)
    module.load_state_dict({name: torch.tensor(tensors[f"lstm_cell.{name}"]) for name in module.state_dict()})
    x = np.load(FEATURES)[:50, None].astype(np.float64)
    wide = load(SPEECH, cell="lstm", prefix="lstm_cell.", dtype="float64")
    np.testing.assert_allclose(rg.rollout(wide, x).h, torch_outputs(torch, module.double(), x), rtol=0, atol=1e-13)
