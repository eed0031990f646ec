"""Reports on stacks: reach by layer, and every direction of a bidirectional one by itself."""

import json

import numpy as np
import pytest

import rnngrad as rg
from rnngrad import cli


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Checkpoints of a forward and of a bidirectional module, and an input, as a user has them."""
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("stacks")
    torch.manual_seed(0)
    for name, both in (("forward", False), ("both", True)):
        module = torch.nn.GRU(3, 5, num_layers=2, bidirectional=both)
        np.savez(folder / f"{name}.npz", **{key: value.numpy() for key, value in module.state_dict().items()})
    np.save(folder / "x.npy", np.random.default_rng(0).standard_normal((40, 2, 3)).astype(np.float32))
    return folder


def run(files, name, out):
    assert cli.main(["report", str(files / f"{name}.npz"), "--input", str(files / "x.npy"), "--out", str(out)]) == 0
    return json.loads((out / "report.json").read_text())


def test_forward_stack(files, tmp_path):
    said = run(files, "forward", tmp_path / "report")
    assert list(said["networks"]) == ["2-layer GRU"]
    numbers = np.load(tmp_path / "report" / "layers.npz")
    stack = rg.load(files / "forward.npz")
    traj = rg.rollout(stack, np.load(files / "x.npy"))
    reach = rg.layer_reach(
        traj, rg.losses.squared_error(0 * traj.y), times=numbers["times"], max_lag=int(numbers["lags"][-1])
    )
    for name in ("l0", "l1"):
        np.testing.assert_array_equal(numbers[f"log_norm.{name}"], reach.log_norm[name])
    assert "Gradient by layer" in (tmp_path / "report" / "index.html").read_text()


def test_bidirectional_stack(files, tmp_path):
    said = run(files, "both", tmp_path / "report")
    assert list(said["networks"]) == [f"layer {i}, {way}" for i in (0, 1) for way in ("forward", "backward")]
    assert "bidirectional 2-layer GRU" in said["title"] and "Each direction of each layer" in said["findings"][0]
    stack, x = rg.load(files / "both.npz"), np.load(files / "x.npy")
    parts = [one for row in rg.rollout(stack, x).layers for one in row]
    for i, part in enumerate(parts):  # each section is about the direction that its name says
        assert (tmp_path / "report" / f"gradient_by_lag_{i}.svg").exists()
        drawn = np.load(tmp_path / "report" / f"gradient_map_{i}.npz")
        first = int(drawn["first"])
        own = rg.gradient_map(part, rg.losses.squared_error(0 * part.y), first=first)
        np.testing.assert_array_equal(drawn["log_norm"], own.log_norm)
    with pytest.raises(ValueError, match=r"loss was given, but the stack runs in both directions"):
        rg.report(stack, x, tmp_path / "other", loss=rg.losses.squared_error(np.zeros((40, 2, 10), np.float32)))
    assert not (tmp_path / "other").exists()
