"""The discriminator of EDM-G++ against the original's features, log ratios, gradients and samples (golden/dg.safetensors)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import fastdiff
from fastdiff import EDMSampler
from fastdiff.models import Discriminator, discriminator_guidance
from fastdiff.models.discriminator import cosine_time
from tests.models.test_song_unet import fill
from tests.samplers.mixture import Mixture

PATH = Path(__file__).parents[1] / "golden" / "dg.safetensors"
with safe_open(PATH, "pt") as _file:
    META = {case["name"]: case for case in json.loads(_file.metadata()["meta"])}
KINDS = ["uncond", "cond"]


def golden(kind: str) -> dict[str, torch.Tensor]:
    with safe_open(PATH, "pt") as file:
        return {key.split("/", 1)[1]: file.get_tensor(key) for key in file.keys() if key.startswith(kind + "/")}  # noqa: SIM118


def discriminator(kind: str) -> Discriminator:
    case = META[kind]
    net = Discriminator(case["extractor"] | case["common"], case["discriminator"] | case["common"]).eval()
    for part, name in ((net.extractor, "extractor"), (net.head, "discriminator")):
        assert {key: list(t.shape) for key, t in part.state_dict().items()} == case[f"{name}_state"]
        fill(part, case[f"seed_{name}"], case["gain"])
    return net


@pytest.mark.parametrize("kind", KINDS)
def test_features_log_ratio_and_gradient(kind):
    net, given = discriminator(kind), golden(kind)
    x, sigma = given["grad/x"], given["grad/sigma"]
    labels = given.get("class_labels")
    guidance = discriminator_guidance(net)
    with torch.no_grad():
        features = net.extractor(x.float(), torch.full_like(sigma, 0.5).float(), feature=True)
        torch.testing.assert_close(features, given["features"], rtol=0, atol=1e-4)  # of values up to 31
        torch.testing.assert_close(net.log_ratio(x, sigma, labels), given["grad/log_ratio"], rtol=2e-5, atol=2e-5)
        G = guidance.gradient(x, sigma, class_labels=labels)
    scale = sigma[:, None, None, None] ** 2
    torch.testing.assert_close((-scale * G).float(), given["grad/guidance"], rtol=1e-4, atol=1e-5)
    assert G.abs().max() > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["sampler_w1", "sampler_w12", "sampler_win"])
def test_guided_sampler(kind, name):
    case, given = META[f"{kind}/{name}"], golden(kind)
    model = Mixture(given["mu"], given["weights"], case["std"])
    guidance = discriminator_guidance(
        discriminator(kind), case["dg_weight_1st_order"], case["dg_weight_2nd_order"], case["time_min"], case["time_max"]
    )

    samples = fastdiff.sample(
        model, latents=given["latents"], sampler=EDMSampler(steps=case["num_steps"]), guidance=guidance, state_dtype=torch.float64,
        class_labels=given.get("class_labels"),
    )  # fmt: skip
    # The original ran the discriminator in float32; in float64 ours is 1.6e-4 away from it, in float32 2.8e-4.
    torch.testing.assert_close(samples, given[name], rtol=0, atol=5e-4)
    plain = fastdiff.sample(model, latents=given["latents"], sampler=EDMSampler(steps=case["num_steps"]), state_dtype=torch.float64)
    assert (plain - given[name]).abs().max() > 1e-3


def test_cosine_time_has_the_noise_level_of_the_linear_one():
    t = torch.linspace(0.01, 1, 50, dtype=torch.float64)
    s = 0.008
    angle = ((cosine_time(t) + s) / (1 + s) * torch.pi / 2).cos()
    mean = angle / torch.cos(torch.tensor(s / (1 + s) * torch.pi / 2, dtype=torch.float64))
    torch.testing.assert_close(mean, torch.exp(-0.25 * t**2 * 19.9 - 0.05 * t))


def test_the_extractor_is_frozen_and_never_drops():
    case = META["uncond"]
    net = Discriminator(case["extractor"] | case["common"] | {"dropout": 0.5}, case["discriminator"] | case["common"]).train()
    assert not any(p.requires_grad for p in net.extractor.parameters())
    assert net.head.training
    assert not net.extractor.training


def test_bad_arguments_say_what_was_expected():
    case = META["cond"]
    extractor, head = case["extractor"] | case["common"], case["discriminator"] | case["common"]
    with pytest.raises(ValueError, match="in_channels 64"):
        Discriminator(extractor, head | {"in_channels": 32})
    with pytest.raises(ValueError, match="time: expected"):
        Discriminator(extractor, head, time="log")
    net = Discriminator(extractor, head).eval()
    with pytest.raises(ValueError, match="condition: expected classes"):
        net.log_ratio(torch.zeros(2, 3, 16, 16), torch.ones(2))
    with pytest.raises(ValueError, match="expected features of 8x8"):
        net.log_ratio(torch.zeros(2, 3, 32, 32), torch.ones(2), torch.zeros(2, dtype=torch.int64))
