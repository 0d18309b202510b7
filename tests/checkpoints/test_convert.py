"""Files in the formats of other code bases, written here, converted and compared with the networks they came from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from fastdiff.checkpoints import convert, load_network, read, read_network
from fastdiff.models import ADMEncoder, Discriminator, EDMPrecond, VEPrecond, VPPrecond, iDDPMPrecond
from tests.checkpoints.writers import edm_pickle, score_sde_content, torch_bytes

SMALL = dict(img_resolution=8, img_channels=1, label_dim=3, model_channels=8, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[4])
NCSNPP = dict(embedding_type="fourier", channel_mult_noise=2, encoder_type="residual", resample_filter=[1, 3, 3, 1])
GOLDEN = Path(__file__).parents[1] / "golden" / "score_sde_networks.safetensors"
with safe_open(GOLDEN, "pt") as _file:
    CASES = json.loads(_file.metadata()["meta"])


def randomized(net):
    torch.manual_seed(0)
    for tensor in net.state_dict().values():
        tensor.copy_(torch.randn_like(tensor) * 0.2)
    return net.eval()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_edm_pickle_in_every_protocol(tmp_path, protocol):
    keywords = SMALL | dict(model_type="SongUNet", sigma_data=np.float64(0.5))
    net = randomized(EDMPrecond(**keywords))
    marker = tmp_path / "executed"
    (tmp_path / "a.pkl").write_bytes(edm_pickle(net, keywords, marker, protocol))
    report = convert(tmp_path / "a.pkl", tmp_path / "a")
    assert not marker.exists()
    assert (report.kind, report.network, report.tensors) == ("edm", "EDMPrecond", len(net.state_dict()))
    spec, state, about = read_network(tmp_path / "a")
    assert spec is not None
    assert spec.arguments == keywords
    assert list(state) != []
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())
    assert about["file"] == "a.pkl"
    x, sigma, labels = torch.randn(2, 1, 8, 8), torch.tensor([0.1, 7.0]), torch.eye(3)[:2]
    torch.testing.assert_close(load_network(tmp_path / "a")(x, sigma, labels), net(x, sigma, labels), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("network", "extra"),
    [
        (VPPrecond, dict(model_type="SongUNet", dropout=np.float64(0.1))),
        (VEPrecond, dict(model_type="SongUNet", **NCSNPP)),
        (EDMPrecond, dict(model_type="DhariwalUNet", model_channels=64)),
        (iDDPMPrecond, dict(model_type="DhariwalUNet", model_channels=64, M=20)),
    ],
)
def test_edm_networks(tmp_path, network, extra):
    keywords = SMALL | extra
    net = network(**keywords).eval()
    (tmp_path / "a.pkl").write_bytes(edm_pickle(net, keywords, tmp_path / "executed"))
    convert(tmp_path / "a.pkl", tmp_path / "a", "edm")
    loaded = load_network(tmp_path / "a")
    assert type(loaded) is network
    x, sigma = torch.randn(2, 1, 8, 8), torch.tensor([0.1, 7.0])
    torch.testing.assert_close(loaded(x, sigma), net(x, sigma), rtol=0, atol=0)


def test_an_nvlabs_network_without_a_class_here_keeps_its_tensors(tmp_path):
    class Precond(EDMPrecond):
        pass

    keywords = SMALL | dict(model_type="SongUNet")
    (tmp_path / "a.pkl").write_bytes(edm_pickle(Precond(**keywords), keywords, tmp_path / "executed"))
    report = convert(tmp_path / "a.pkl", tmp_path / "a")
    assert report.network is None
    assert "no network Precond" in str(report)
    assert read_network(tmp_path / "a")[0] is None


def levels(image_size, channel_mult, num_res_blocks, attention_resolutions, pool="attention", **more):
    return dict(
        image_size=image_size, channel_mult=channel_mult, num_res_blocks=num_res_blocks, attention_resolutions=attention_resolutions,
        pool=pool, **more,
    )  # fmt: skip


ENCODERS = {
    "adm64": levels(64, (1, 2, 3, 4), 4, (2, 4, 8)),
    "dg32": levels(32, (1, 2, 4), 4, (1, 2, 4)),
    "adm256": levels(256, (1, 1, 2, 2, 4, 4), 2, (8, 16, 32)),
    "adm512": levels(512, (0.5, 1, 1, 2, 2, 4, 4), 2, (16, 32, 64)),
    "head": levels(8, (1,), 2, (1,), condition=True, num_class=10),
    "adaptive": levels(32, (1, 2, 4), 1, (4,), "adaptive", use_scale_shift_norm=False),
    "strided": levels(64, (1, 2), 2, (2,), resblock_updown=False),
    "pooled": levels(64, (1, 2), 2, (2,), resblock_updown=False, conv_resample=False),
}
COMMON = dict(in_channels=3, model_channels=64, out_channels=5, num_head_channels=64, use_scale_shift_norm=True, resblock_updown=True)


@pytest.mark.parametrize("name", ENCODERS)
def test_arguments_of_encoders_are_inferred(name):
    from fastdiff.checkpoints import guided_diffusion

    arguments = COMMON | ENCODERS[name]
    with torch.device("meta"):
        state = ADMEncoder(**arguments).state_dict()
    found = guided_diffusion.convert(dict(state))
    assert found.spec is not None
    got = dict(found.spec.arguments)
    if name == "head":
        arguments = arguments | {"resblock_updown": got["resblock_updown"]}  # without a resampling, nothing says it
    assert got == arguments


@pytest.mark.parametrize("legacy", [False, True])
def test_guided_diffusion_encoder(tmp_path, legacy):
    arguments = COMMON | dict(image_size=16, model_channels=32, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(2,))
    net = randomized(ADMEncoder(**arguments, pool="attention") if not legacy else ADMEncoder(**arguments, pool="adaptive"))
    (tmp_path / "a.pt").write_bytes(torch_bytes(net.state_dict(), legacy))
    if legacy:
        convert(tmp_path / "a.pt", tmp_path / "a", image_size=16, head_channels=32)
    else:
        convert(tmp_path / "a.pt", tmp_path / "a")
    loaded = load_network(tmp_path / "a")
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([0.2, 0.9])
    reference = net if not legacy else ADMEncoder(**arguments | {"num_head_channels": 32}, pool="adaptive").eval()
    reference.load_state_dict(net.state_dict())
    torch.testing.assert_close(loaded(x, t), reference(x, t), rtol=0, atol=0)


def test_discriminator_alone_and_with_its_extractor(tmp_path):
    shared = dict(num_head_channels=64, use_scale_shift_norm=True, resblock_updown=True, pool="attention")
    extractor = dict(
        image_size=16,
        in_channels=3,
        model_channels=64,
        out_channels=10,
        num_res_blocks=1,
        attention_resolutions=(1, 2),
        channel_mult=(1, 2),
    )
    head = dict(
        image_size=8, in_channels=128, model_channels=32, out_channels=1, num_res_blocks=2, attention_resolutions=(1,), channel_mult=(2,),
        condition=True, num_class=4,
    )  # fmt: skip
    net = randomized(Discriminator(extractor | shared, head | shared))
    (tmp_path / "extractor.pt").write_bytes(torch_bytes(net.extractor.state_dict()))
    (tmp_path / "head.pt").write_bytes(torch_bytes(net.head.state_dict()))
    report = convert(tmp_path / "head.pt", tmp_path / "head")
    assert (report.kind, report.network) == ("dg", "ADMEncoder")
    assert "--extractor" in report.note
    report = convert(tmp_path / "head.pt", tmp_path / "whole", extractor=tmp_path / "extractor.pt")
    assert report.network == "Discriminator"
    x, t, labels = torch.randn(2, 3, 16, 16), torch.tensor([0.2, 0.9]), torch.tensor([1, 3])
    torch.testing.assert_close(load_network(tmp_path / "whole")(x, t, labels), net(x, t, labels), rtol=0, atol=0)
    with pytest.raises(ValueError, match="extractor: expected a discriminator of DG with it, got guided-diffusion"):
        convert(tmp_path / "extractor.pt", tmp_path / "b", extractor=tmp_path / "extractor.pt")


def test_the_u_net_of_guided_diffusion_keeps_its_tensors(tmp_path):
    names = ("time_embed.0.weight", "input_blocks.0.0.weight", "middle_block.0.in_layers.0.weight", "output_blocks.0.0.in_layers.0.weight")
    (tmp_path / "a.pt").write_bytes(torch_bytes({name: torch.ones(2, 2) for name in names}))
    report = convert(tmp_path / "a.pt", tmp_path / "a")
    assert (report.kind, report.network, report.tensors) == ("guided-diffusion", None, 4)


def filled(case) -> dict[str, torch.Tensor]:
    """Tensors by the rule of the golden file."""
    found = {}
    for name, shape in case["tensors"].items():
        digest = hashlib.sha256(f"{case['seed']}/{name}".encode()).digest()
        z = np.random.RandomState(int.from_bytes(digest[:4], "little")).standard_normal(tuple(shape))
        if len(shape) == 1:
            value = z * 0.3 + (1.0 if name.endswith(".weight") else 0.0)
        else:
            value = z * case["gain"] / np.sqrt(np.prod(shape[1:]))
        found[name] = torch.from_numpy(value.astype(np.float32))
    found["sigmas"] = torch.linspace(50, 0.01, 1000)
    return found


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_score_sde_networks_give_the_original_outputs(tmp_path, case):
    content = score_sde_content(filled(case), case["not_averaged"])
    (tmp_path / "a.pth").write_bytes(torch_bytes(content, legacy=case["seed"] % 2 == 1))
    report = convert(tmp_path / "a.pth", tmp_path / "a", image_size=8)
    assert report.kind == "score_sde"
    net = load_network(tmp_path / "a")
    assert type(net) is (VPPrecond if case["config"].get("embedding_type") is None else VEPrecond)
    with safe_open(GOLDEN, "pt") as file:
        x, sigma, out = (file.get_tensor(f"{case['name']}/{key}") for key in ("x", "sigma", "out"))
    torch.testing.assert_close(net(x, sigma), out, rtol=2e-4, atol=2e-4)
    if type(net) is VEPrecond:
        assert (net.sigma_min, net.sigma_max) == pytest.approx((0.02, 100.0))
    assert read_network(tmp_path / "a")[2]["step"] == 600001


def test_score_sde_image_size_follows_from_attention_at_16(tmp_path):
    case = CASES[0]  # attention at the second level
    (tmp_path / "a.pth").write_bytes(torch_bytes(score_sde_content(filled(case), case["not_averaged"])))
    convert(tmp_path / "a.pth", tmp_path / "a")
    spec = read_network(tmp_path / "a")[0]
    assert spec is not None
    assert spec.arguments["img_resolution"] == 32


def test_another_network_of_score_sde_keeps_its_averaged_tensors(tmp_path):
    tensors = {"all_modules.0.weight": torch.ones(4, 4), "begin_conv.weight": torch.zeros(3)}
    (tmp_path / "a.pth").write_bytes(torch_bytes(score_sde_content(tensors, [])))
    report = convert(tmp_path / "a.pth", tmp_path / "a")
    assert report.network is None
    assert torch.equal(read_network(tmp_path / "a")[1]["all_modules.0.weight"], torch.ones(4, 4))


def test_averages_that_are_not_the_models(tmp_path):
    content = score_sde_content({"a": torch.ones(2), "b": torch.ones(3)}, [])
    content["ema"]["shadow_params"].pop()
    (tmp_path / "a.pth").write_bytes(torch_bytes(content))
    with pytest.raises(ValueError, match="expected 2 averaged tensors"):
        convert(tmp_path / "a.pth", tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


@pytest.mark.parametrize("legacy", [False, True])
def test_every_dtype_stride_and_sharing(tmp_path, legacy):
    base = torch.arange(24.0).reshape(4, 6)
    value = {
        "strided": base.T[1:], "shared": base, "empty": torch.empty(0, 3), "scalar": torch.tensor(3.5), "bool": torch.tensor([True, False]),
        "half": torch.ones(3, dtype=torch.float16), "bf16": torch.ones(3, dtype=torch.bfloat16), "long": torch.tensor([-(2**60)]),
        "parameter": torch.nn.Parameter(torch.ones(2)), "list": [(1, 2.5, None, True, "x", {3})], "size": torch.Size([2, 3]),
        "dtype": torch.float16, "device": torch.device("cpu"),
    }  # fmt: skip
    (tmp_path / "a.pt").write_bytes(torch_bytes(value, legacy))
    got = read(tmp_path / "a.pt")
    for name, expected in value.items():
        if isinstance(expected, torch.Tensor):
            assert got[name].dtype == expected.dtype
            assert torch.equal(got[name], expected)
    assert got["list"] == value["list"]
    assert got["size"] == (2, 3)
    assert got["dtype"] == torch.float16


def test_what_no_code_base_wrote(tmp_path):
    (tmp_path / "a.pt").write_bytes(torch_bytes({"weights": torch.ones(2)}))
    with pytest.raises(ValueError, match=r"expected one of edm, guided-diffusion, dg, score_sde, got a dict with 'weights' in .*a\.pt"):
        convert(tmp_path / "a.pt", tmp_path / "b")
    for kind in ("edm", "guided-diffusion", "dg", "score_sde"):
        with pytest.raises(ValueError, match="checkpoint: expected"):
            convert(tmp_path / "a.pt", tmp_path / "b", kind)
    with pytest.raises(ValueError, match="kind: expected auto"):
        convert(tmp_path / "a.pt", tmp_path / "b", "onnx")
    with pytest.raises(FileNotFoundError, match="no such file"):
        convert(tmp_path / "c.pt", tmp_path / "b")
    with pytest.raises(ValueError, match="image_size: expected an integer"):
        convert(tmp_path / "a.pt", tmp_path / "b", image_size=0)
