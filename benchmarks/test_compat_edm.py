"""fastdiff.compat.edm against NVlabs/edm's program as its users run it (fastdiff/eager.py; DG's with its own noise level a sample)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.end_to_end import real_network, sampler_share
from benchmarks.peers import ConstantNet, LinearNet
from fastdiff.compat.edm import PhiloxGenerator, StackedRandomGenerator, edm_sampler
from fastdiff.eager import edm_sampler as upstream

CIFAR = (64, 3, 32, 32)


class Free(ConstantNet):
    """A network that costs nothing, called as upstream calls it."""

    def __call__(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        return self.D


class Linear(LinearNet):
    """A network whose samples depend on every coefficient, called as upstream calls it."""

    def __call__(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        return super().__call__(x, sigma)


def latents_of(shape) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def check_samples(**arguments) -> None:
    """Upstream's stream gives upstream's samples; noise made in the step gives those of its randn_like."""
    net, latents = Linear(), latents_of((8, 3, 8, 8))
    torch.manual_seed(1)
    expected = upstream(net, latents, **arguments)
    torch.manual_seed(1)
    torch.testing.assert_close(edm_sampler(net, latents, randn_like=torch.randn_like, **arguments), expected, rtol=1e-9, atol=1e-9)
    torch.manual_seed(1)
    single = edm_sampler(net, latents, randn_like=torch.randn_like, state_dtype=torch.float32, **arguments)
    torch.testing.assert_close(single.double(), expected, rtol=2e-3, atol=2e-3)
    fused, called = PhiloxGenerator("cpu", range(8)), PhiloxGenerator("cpu", range(8))
    torch.testing.assert_close(
        edm_sampler(net, latents, randn_like=fused, **arguments),
        edm_sampler(net, latents, randn_like=lambda like: called.randn_like(like), **arguments), rtol=1e-9, atol=1e-9,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("churn", "noise", "dtype", "target"),
    [
        (0.0, "none", torch.float64, 10),
        (0.0, "none", torch.float32, 10),
        (40.0, "none", torch.float64, 10),
        (40.0, "philox", torch.float32, 10),
        (0.0, "upstream", torch.float64, None),
        (40.0, "upstream", torch.float64, None),
    ],
    ids=["float64", "float32", "churn", "churn-philox-float32", "upstream-noise", "churn-upstream-noise"],
)
def test_edm_sampler_18_steps(compare, churn, noise, dtype, target):
    """Upstream's own noise is torch's to make: what it costs stays, dead draws included, and no target is set there."""
    latents = latents_of(CIFAR)
    net = Free(latents)

    randn_like = {"none": lambda: None, "upstream": lambda: torch.randn_like, "philox": lambda: PhiloxGenerator("cpu", range(64))}[noise]

    def ours():
        return edm_sampler(net, latents, randn_like=randn_like(), S_churn=churn, state_dtype=dtype)

    peers = {"NVlabs/edm": lambda: upstream(net, latents, S_churn=churn)}
    name = f"compat.edm edm_sampler 18 steps {list(CIFAR)}, S_churn {churn:g}, noise {noise}, {str(dtype)[6:]} state"
    compare(name, ours, peers, lambda: check_samples(S_churn=churn), {"NVlabs/edm": target} if target else None, rounds=7)


@pytest.mark.parametrize("name", ["torch", "philox"])
def test_a_draw_for_each_seed(compare, name):
    """64 seeds: a launch for each of torch's generators against one for the batch."""
    stacked, philox, like = (
        StackedRandomGenerator("cpu", range(64)),
        PhiloxGenerator("cpu", range(64)),
        torch.empty(CIFAR, dtype=torch.float64),
    )
    ours = (lambda: philox.randn_like(like)) if name == "philox" else (lambda: stacked.randn_like(like))
    peers = {"torch.randn_like": lambda: torch.randn_like(like)}

    def check():
        drawn = ours()
        assert abs(float(drawn.std()) - 1) < 0.01
        assert abs(float(drawn.mean())) < 0.01

    compare(
        f"{'PhiloxGenerator' if name == 'philox' else 'StackedRandomGenerator'}.randn_like {list(CIFAR)} float64",
        ours,
        peers,
        check,
        rounds=7,
    )


@pytest.mark.parametrize("model", ["digits", "ddpmpp"])
def test_end_to_end(compare, model):
    """With a real network the sampler is a small share, which the case's name says."""
    net, shape, labels = real_network(model)
    steps = 18 if model == "digits" else 4
    latents = latents_of(shape)

    def ours(net=net):
        return edm_sampler(net, latents, labels, num_steps=steps)

    def theirs(net=net):
        return upstream(net, latents, num_steps=steps, class_labels=labels)

    def check():
        torch.testing.assert_close(ours(), theirs(), rtol=1e-4, atol=1e-4)

    shares = f"sampler's share {sampler_share(ours, net):.1%}, upstream's {sampler_share(theirs, net):.1%}"
    compare(f"compat.edm end to end, {model} {list(shape)}, {steps} steps ({shares})", ours, {"NVlabs/edm": theirs}, check, rounds=5)
