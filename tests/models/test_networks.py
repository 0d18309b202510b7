"""What all networks must do: half precision, memory formats, checkpointed activations, compilation, specs."""

from __future__ import annotations

import json

import pytest
import torch

from fastdiff.models import NETWORKS, Spec, build

SONG = {
    "img_resolution": 8,
    "in_channels": 1,
    "out_channels": 1,
    "model_channels": 16,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
    "dropout": 0.0,
}
ENCODER = {
    "image_size": 8,
    "in_channels": 1,
    "model_channels": 32,
    "out_channels": 10,
    "num_res_blocks": 1,
    "attention_resolutions": [2],
    "channel_mult": [1, 2],
    "num_head_channels": 16,
    "pool": "attention",
}
SPECS = {
    "song": Spec("SongUNet", SONG),
    "ncsnpp": Spec("SongUNet", SONG | {"embedding_type": "fourier", "encoder_type": "residual", "resample_filter": [1, 3, 3, 1]}),
    "adm": Spec("DhariwalUNet", SONG | {"model_channels": 32}),
    "encoder": Spec("ADMEncoder", ENCODER),
}  # fmt: skip


def net_of(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    net = build(SPECS[name])
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn_like(p))  # the zeros of the initialization would hide what is behind them
    return net


def inputs(batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 1, 8, 8, generator=generator), torch.rand(batch, generator=generator)


@pytest.mark.parametrize("name", list(SPECS))
def test_channels_last_gives_the_same_numbers(name):
    net = net_of(name).eval()
    x, t = inputs()
    with torch.no_grad():
        expected = net(x, t)
        got = net.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last), t)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(SPECS))
def test_autocast_to_bfloat16_is_close(name):
    net = net_of(name).eval()
    x, t = inputs()
    with torch.no_grad():
        expected = net(x, t)
        with torch.autocast("cpu", torch.bfloat16):
            got = net(x, t)
    assert (got.float() - expected).norm() < 0.05 * expected.norm()
    assert not torch.equal(got.float(), expected)


@pytest.mark.parametrize("precond", ["EDMPrecond", "VPPrecond", "VEPrecond"])
def test_preconditioning_stays_in_float32_under_autocast(precond):
    raw = {name: value for name, value in SONG.items() if name not in ("in_channels", "out_channels")}
    net = build(Spec(precond, {"img_channels": 1, "model_type": "SongUNet", **raw})).eval()
    x, _ = inputs()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        D = net(x, torch.full((3,), 0.02))
    assert D.dtype == torch.float32
    assert (D - x).abs().max() < 0.2  # at a low level D is nearly x, to float32's accuracy


@pytest.mark.parametrize("name", ["song", "adm"])
def test_checkpointed_activations_give_the_same_gradients_in_less_memory(name):
    x, t = inputs()
    kept, gradients = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        spec = SPECS[name]
        net = build(Spec(spec.network, {**spec.arguments, "checkpointing": checkpointing})).train()
        sizes: dict[int, int] = {}

        def note(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = net(x, t).square().sum()
        loss.backward()
        kept.append(sum(sizes.values()))
        gradients.append([p.grad for p in net.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[1], gradients[0])
    assert kept[1] < kept[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SPECS))
def test_compiles_without_graph_breaks(name):
    torch._dynamo.reset()
    net = net_of(name).eval()
    x, t = inputs()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(net, fullgraph=True)(x, t), net(x, t), rtol=1e-4, atol=1e-4)


def test_specs_are_what_json_can_say_and_errors_name_the_argument():
    for spec in SPECS.values():
        again = Spec(spec.network, json.loads(json.dumps(spec.arguments)))
        assert {k: v.shape for k, v in build(again).state_dict().items()} == {k: v.shape for k, v in build(spec).state_dict().items()}
    with pytest.raises(ValueError, match="network: expected one of EDMPrecond"):
        build(Spec("os.system", {}))
    with pytest.raises(ValueError, match="arguments: expected those of MLP"):
        build(Spec("MLP", {"width": 3}))
    assert set(NETWORKS) >= {"EDMPrecond", "SongUNet", "DhariwalUNet", "ADMEncoder", "Discriminator", "MLP"}


def test_classes_of_another_number_are_refused_and_not_reshaped():
    raw = {name: value for name, value in SONG.items() if name not in ("in_channels", "out_channels")}
    net = build(Spec("EDMPrecond", {"img_channels": 1, "label_dim": 6, "model_type": "SongUNet", **raw}))
    x, sigma = torch.zeros(3, 1, 8, 8), torch.ones(3)
    for labels in (torch.zeros(3, 2), torch.tensor([0, 1, 2])):
        with pytest.raises(ValueError, match=r"class_labels: expected \[B, 6\], one-hot, got"):
            net(x, sigma, labels)
    assert net(x, sigma, torch.zeros(3, 6)).shape == x.shape


def test_mlp_takes_points_and_classes():
    net = build(Spec("MLP", {"dim": 2, "hidden": 16, "label_dim": 3}))
    x, t = torch.randn(5, 2), torch.rand(5)
    assert net(x, t).shape == (5, 2)
    labels = torch.eye(3)[torch.tensor([0, 1, 2, 0, 1])]
    assert not torch.equal(net(x, t, labels), net(x, t))
