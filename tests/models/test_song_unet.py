"""The networks under all four preconditioners against the originals' outputs, with weights by the golden file's rule."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from fastdiff.models import NETWORKS, EDMPrecond, SongUNet
from fastdiff.models.layers import Conv2d, Linear

PATH = Path(__file__).parents[1] / "golden" / "edm_networks.safetensors"
with safe_open(PATH, "pt") as _file:
    CASES = json.loads(_file.metadata()["meta"])


def fill(net: torch.nn.Module, seed: int, gain: float) -> None:
    """The rule in the golden file's metadata."""
    for name, tensor in sorted(net.state_dict().items()):
        if name.endswith("resample_filter") or name == "u":
            continue
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        z = np.random.RandomState(int.from_bytes(digest[:4], "little")).standard_normal(tuple(tensor.shape))
        if tensor.dim() == 1:
            value = z * 0.3 + (1.0 if name.endswith(".weight") else 0.0)
        else:
            value = z * gain / np.sqrt(np.prod(tensor.shape[1:]))
        tensor.copy_(torch.from_numpy(value.astype(np.float32)))


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_golden(case):
    net = NETWORKS[case["precond"]](**case["kwargs"]).eval()
    assert net.sigma_min == pytest.approx(case["sigma_min"], rel=1e-6)
    assert net.sigma_max == pytest.approx(case["sigma_max"], rel=1e-6)
    assert {name: list(t.shape) for name, t in net.state_dict().items()} == case["state_dict"]
    fill(net, case["seed"], case["gain"])
    with safe_open(PATH, "pt") as file:
        given = {key.split("/")[1]: file.get_tensor(key) for key in file.keys() if key.startswith(case["name"] + "/")}  # noqa: SIM118
    extra = {"augment_labels": given["augment_labels"]} if "augment_labels" in given else {}
    with torch.no_grad():
        D = net(given["x"], given["sigma"], given.get("class_labels"), **extra)
    # D of an eps network is x - sigma*F with values up to 21 here: 1e-5 of the largest, where that is above 1.
    assert float((D - given["out"]).abs().max()) < 1e-5 * max(1.0, float(given["out"].abs().max()))


def test_all_golden_cases_are_there():
    assert {case["precond"] for case in CASES} == {"EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond"}
    assert {case["kwargs"]["model_type"] for case in CASES} == {"SongUNet", "DhariwalUNet"}


@pytest.mark.parametrize("encoder", ["standard", "skip", "residual"])
@pytest.mark.parametrize("decoder", ["standard", "skip"])
def test_variants_run_and_have_gradients(encoder, decoder):
    net = SongUNet(
        8, 3, 3, label_dim=4, model_channels=8, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[4],
        encoder_type=encoder, decoder_type=decoder, resample_filter=[1, 3, 3, 1], label_dropout=0.1,
    )  # fmt: skip
    out = net(torch.randn(2, 3, 8, 8), torch.rand(2), torch.eye(4)[:2])
    assert out.shape == (2, 3, 8, 8)
    out.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def test_cifar10_parameter_count():
    """DDPM++ of Karras et al. 2022: 55.7 million parameters."""
    with torch.device("meta"):
        net = EDMPrecond(32, 3, augment_dim=9, model_type="SongUNet", model_channels=128, channel_mult=[2, 2, 2])
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(55.7e6, rel=2e-3)


def test_bad_arguments():
    with pytest.raises(ValueError, match="embedding_type: expected one of positional, fourier, got 'sine'"):
        SongUNet(8, 1, 1, embedding_type="sine")
    with pytest.raises(ValueError, match="model_type: expected one of SongUNet, DhariwalUNet, got 'VGG'"):
        EDMPrecond(8, 1, model_type="VGG")
    with pytest.raises(ValueError, match="up, down: expected at most one"):
        Conv2d(1, 1, 3, up=True, down=True)
    with pytest.raises(ValueError, match="init_mode: expected"):
        Linear(1, 1, init_mode="normal")


def test_training_step_compiles_without_graph_breaks():
    net = EDMPrecond(8, 1, model_type="SongUNet", model_channels=8, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[4], dropout=0)
    torch._dynamo.reset()
    x, sigma = torch.randn(2, 1, 8, 8), torch.tensor([0.5, 2.0])
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, sigma), net(x, sigma))
