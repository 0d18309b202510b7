"""With a real network: what share of the time the sampler was, and so what there is to gain. Large networks: nothing."""

from __future__ import annotations

import time

import pytest
import torch

import fastdiff
from benchmarks.conftest import ROWS
from fastdiff import Denoiser, EDMSampler
from fastdiff.eager import edm_sampler
from fastdiff.models import EDMPrecond, layers, load_model


def _cifar10() -> torch.nn.Module:
    """DDPM++ as EDM trains it on CIFAR-10: 55.7 M parameters, random weights."""
    torch.manual_seed(0)
    return EDMPrecond(32, 3, augment_dim=9, model_type="SongUNet", channel_mult=[2, 2, 2]).eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("name", "build", "shape", "steps", "rounds"),
    [
        ("digits, 0.75 M parameters", lambda: load_model("digits"), (4, 1, 8, 8), 18, 7),
        ("DDPM++, 55.7 M parameters", _cifar10, (2, 3, 32, 32), 2, 3),
    ],
    ids=["digits", "cifar10"],
)
def test_end_to_end(compare, name, build, shape, steps, rounds):
    net = build()
    latents = fastdiff.randn(shape, seeds=0)
    plan = EDMSampler(steps=steps).plan(Denoiser.of(net))
    peers = {"eager": lambda: edm_sampler(net, latents, num_steps=steps)}

    def ours():
        return fastdiff.run(plan, net, latents)

    def check():
        torch.testing.assert_close(ours().double(), peers["eager"](), rtol=1e-2, atol=1e-2)

    compare(f"EDM Heun {steps} steps {list(shape)}, network {name}", ours, peers, check, rounds=rounds)


@pytest.mark.parametrize("setting", ["float32", "float32, channels_last", "bf16 autocast, channels_last", "torch.compile"])
def test_images_per_second_in_the_settings_that_users_pick(compare, setting):
    """The same network in the same setting under both samplers; the share of upstream's sampler says what there is to gain."""
    net = load_model("digits")
    batch, steps = 64, 18
    latents = fastdiff.randn((batch, 1, 8, 8), seeds=0)
    if "channels_last" in setting:
        net = net.to(memory_format=torch.channels_last)
        latents = latents.contiguous(memory_format=torch.channels_last)
    plan = EDMSampler(steps=steps).plan(Denoiser.of(net))
    called = torch.compile(net, dynamic=False) if setting == "torch.compile" else net

    def under(sampler):
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in setting):
            return sampler()

    inside: list[float] = []

    def timed(*args, **kwargs):
        start = time.perf_counter()
        result = called(*args, **kwargs)
        inside.append(time.perf_counter() - start)
        return result

    class Network:
        sigma_min, sigma_max, round_sigma = net.sigma_min, net.sigma_max, net.round_sigma
        __call__ = staticmethod(timed)

    def ours():
        return under(lambda: fastdiff.run(plan, called, latents))

    def upstream():
        return under(lambda: edm_sampler(Network(), latents, num_steps=steps))

    def check():
        torch.testing.assert_close(
            ours().double(), upstream().double(), rtol=0.1 if "bf16" in setting else 1e-2, atol=0.3 if "bf16" in setting else 1e-2
        )

    name = f"{batch} digits, EDM Heun {steps} steps, network in {setting}"
    compare(name, ours, {"upstream's sampler": upstream}, check, rounds=3)
    inside.clear()
    start = time.perf_counter()
    upstream()
    whole = time.perf_counter() - start
    ROWS[-1]["case"] += f" (upstream's sampler is {1 - sum(inside) / whole:.1%} of its run)"


@pytest.mark.parametrize("kind", ["DDPM++", "ADM"])
def test_group_norm_in_a_forward_of_a_real_network(compare, kind, monkeypatch):
    """What the fused group norm saves of a forward, and the share of all norms with their SiLU in it."""
    torch.manual_seed(0)
    arguments = (
        {"model_type": "SongUNet", "channel_mult": [2, 2, 2]} if kind == "DDPM++" else {"model_channels": 96, "channel_mult": [1, 2, 2]}
    )
    net = EDMPrecond(32, 3, **arguments).eval().requires_grad_(False)
    x, sigma = fastdiff.randn((2, 3, 32, 32), seeds=0), torch.ones(2)

    @torch.no_grad()
    def forward(pixels: int) -> torch.Tensor:
        monkeypatch.setattr(layers, "FUSED_PIXELS", pixels)
        return net(x, sigma)

    fused, plain = (lambda: forward(256)), (lambda: forward(2**60))

    def check():
        torch.testing.assert_close(fused(), plain(), rtol=1e-4, atol=1e-4)

    compare(f"forward of {kind} [2, 3, 32, 32] with group_norm_silu", fused, {"PyTorch's group norm and SiLU": plain}, check, rounds=5)
    spent: list[float] = []
    original = layers.GroupNorm.forward

    def timed(self, *args, **kwargs):
        start = time.perf_counter()
        result = original(self, *args, **kwargs)
        spent.append(time.perf_counter() - start)
        return result

    monkeypatch.setattr(layers.GroupNorm, "forward", timed)
    start = time.perf_counter()
    plain()
    ROWS[-1]["case"] += f" (norms are {sum(spent) / (time.perf_counter() - start):.1%} of a forward with PyTorch's)"
