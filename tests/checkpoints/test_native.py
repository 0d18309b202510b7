"""The native format: a pair of files that belong together, or an error that says which does not."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from fastdiff.checkpoints import load_network, read_network, save_network
from fastdiff.models import EDMPrecond
from fastdiff.models.registry import Spec

ARGUMENTS = dict(
    img_resolution=8, img_channels=1, model_type="SongUNet", model_channels=8, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[4],
    sigma_max=float("inf"),
)  # fmt: skip
SPEC = Spec("EDMPrecond", ARGUMENTS)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return EDMPrecond(**ARGUMENTS).eval()


@pytest.mark.parametrize("suffix", ["", ".safetensors", ".json"])
def test_round_trip(net, tmp_path, suffix):
    about = {"step": 5, "losses": [0.5, float("nan")]}
    files = save_network(tmp_path / f"a.1{suffix}", SPEC, net.state_dict(), about)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.1.json", "a.1.safetensors"]
    json.loads(files.config.read_text(), parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    spec, state, back = read_network(files.weights)
    assert spec == SPEC
    assert back["step"] == 5
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())
    loaded = load_network(files.config)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    x, sigma = torch.randn(2, 1, 8, 8), torch.tensor([0.5, 3.0])
    torch.testing.assert_close(loaded(x, sigma), net(x, sigma), rtol=0, atol=0)


def test_shared_and_strided_tensors_are_written_apart(tmp_path):
    shared = torch.arange(6.0).reshape(2, 3)
    save_network(tmp_path / "a", None, {"one": shared, "two": shared.T})
    spec, state, _ = read_network(tmp_path / "a")
    assert spec is None
    assert torch.equal(state["two"], shared.T)
    with pytest.raises(ValueError, match=r"expected the name of a network, got none in .*a\.json"):
        load_network(tmp_path / "a")


def test_a_missing_partner(net, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file: .*a\.safetensors"):
        read_network(tmp_path / "a")
    files = save_network(tmp_path / "a", SPEC, net.state_dict())
    files.config.rename(tmp_path / "b.json")
    with pytest.raises(ValueError, match=r"expected .*a\.json beside .*a\.safetensors"):
        read_network(tmp_path / "a")
    with pytest.raises(ValueError, match=r"expected .*b\.safetensors beside .*b\.json"):
        read_network(tmp_path / "b")


def test_weights_of_another_run(net, tmp_path):
    files = save_network(tmp_path / "a", SPEC, net.state_dict())
    save_file({"x": torch.zeros(1)}, files.weights)
    with pytest.raises(ValueError, match=r"expected .*a\.safetensors with the sha256 that .*a\.json says"):
        load_network(tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "fastdiff-network-9"}, "expected the format fastdiff-network-1"),
        ({"network": 3}, "expected a network's name"),
        ({"arguments": []}, "expected a network's name and its arguments"),
        ({"network": "VGG"}, "network: expected one of"),
        ({"arguments": {**ARGUMENTS, "model_channels": 12}}, "of shape"),
        ({"arguments": {**ARGUMENTS, "num_blocks": 2}}, "with|without"),
        ({"arguments": {**ARGUMENTS, "num_blocks": 10**9}}, "much deeper"),
        ({"arguments": {**ARGUMENTS, "model_channels": 10**12}}, "of shape|expected those"),
        ({"arguments": {**ARGUMENTS, "colour": 1}}, "arguments: expected those of EDMPrecond"),
        ({"arguments": {}}, "arguments: expected those of EDMPrecond"),
    ],
)
def test_a_configuration_that_does_not_fit(net, tmp_path, change, message):
    files = save_network(tmp_path / "a", SPEC, net.state_dict())
    config = json.loads(files.config.read_text()) | {"arguments": {**ARGUMENTS, "sigma_max": 80.0}} | change
    files.config.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        load_network(tmp_path / "a")


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"format": "fastdiff-network-1"}', "[" * 100_000])
def test_a_configuration_that_is_none(net, tmp_path, text):
    files = save_network(tmp_path / "a", SPEC, net.state_dict())
    files.config.write_text(text)
    with pytest.raises(ValueError, match=r"checkpoint: expected .*a\.json"):
        read_network(tmp_path / "a")


def test_what_the_format_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match="arguments: expected numbers, texts"):
        save_network(tmp_path / "a", Spec("EDMPrecond", {"x": object()}), {})
    with pytest.raises(ValueError, match="state_dict: expected names and tensors"):
        save_network(tmp_path / "a", None, {"x": 3})
    with pytest.raises(FileNotFoundError, match="does not exist"):
        save_network(tmp_path / "no" / "a", None, {"x": torch.zeros(1)})
    assert list(tmp_path.iterdir()) == []
