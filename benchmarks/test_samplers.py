"""Whole samplers with a network that costs nothing: what is left is the sampler."""

from __future__ import annotations

import pytest
import torch

import fastdiff
from benchmarks.peers import ConstantNet, LinearNet, compiled_edm_sampler, fused_edm_sampler
from fastdiff import Denoiser, EDMSampler
from fastdiff.eager import edm_sampler

CIFAR, TINY = (64, 3, 32, 32), (4, 1, 8, 8)


@pytest.mark.parametrize(
    ("shape", "dtype", "churn", "target"),
    [
        (CIFAR, torch.float32, 0.0, {"eager": 35}),
        (CIFAR, torch.float64, 0.0, {"eager": 15}),
        (CIFAR, torch.float32, 40.0, {"eager": 30}),
        (TINY, torch.float32, 0.0, {"eager": 6}),
    ],
    ids=["float32", "float64", "churn", "tiny"],
)
def test_edm_heun_18_steps(compare, shape, dtype, churn, target):
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    net = ConstantNet(latents)
    plan = EDMSampler(S_churn=churn).plan(Denoiser.of(net))
    key = fastdiff.keys(0, shape[0])

    def ours():
        return fastdiff.run(plan, net, latents, key=key)

    peers = {
        "eager": lambda: edm_sampler(net, latents, S_churn=churn),
        "torch.compile": lambda: compiled_edm_sampler(net, latents, S_churn=churn),
        "hand-fused": lambda: fused_edm_sampler(net, latents, S_churn=churn, dtype=dtype),
    }

    def check():
        """With a network that depends on x (the constant one ends at its own output whatever the steps were)."""
        linear = LinearNet()
        recorded_noise = {"noise": lambda like: torch.randn_like(like, dtype=torch.float64).to(like.dtype)} if churn else {}
        torch.manual_seed(0)
        expected = edm_sampler(linear, latents, S_churn=churn)
        torch.manual_seed(0)
        got = fastdiff.run(EDMSampler(S_churn=churn).plan(Denoiser.of(linear)), linear, latents, **recorded_noise)
        torch.testing.assert_close(got.double(), expected, rtol=2e-3, atol=2e-3)
        if not churn:  # their noise is torch's own; without it they must agree
            for peer in (compiled_edm_sampler(linear, latents), fused_edm_sampler(linear, latents, dtype=dtype)):
                torch.testing.assert_close(peer.double(), expected, rtol=2e-3, atol=2e-3)

    name = f"EDM Heun 18 steps {list(shape)}, {str(dtype)[6:]} state" + (f", S_churn {churn:g}" if churn else "")
    compare(name, ours, peers, check, target, rounds=7)
