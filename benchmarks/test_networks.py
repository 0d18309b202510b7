"""With a real network: what share of the time the sampler was, and so what there is to gain. Large networks: nothing."""

from __future__ import annotations

import pytest
import torch

import fastdiff
from fastdiff import Denoiser, EDMSampler
from fastdiff.eager import edm_sampler
from fastdiff.models import EDMPrecond, load_model


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
