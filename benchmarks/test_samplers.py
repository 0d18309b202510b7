"""Whole samplers with a network that costs nothing: what is left is the sampler."""

from __future__ import annotations

import pytest
import torch

import fastdiff
from benchmarks.peers import ConstantNet, compiled_edm_sampler, fused_edm_sampler
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
        if churn:  # other noise: the means over many samples of a constant network agree
            assert abs(float(ours().mean()) - float(peers["eager"]().mean())) < 0.05
            return
        for peer in peers.values():
            torch.testing.assert_close(ours().double(), peer().double(), rtol=1e-3, atol=1e-5)

    name = f"EDM Heun 18 steps {list(shape)}, {str(dtype)[6:]} state" + (f", S_churn {churn:g}" if churn else "")
    compare(name, ours, peers, check, target, rounds=7)
