"""fastdiff.compat.k_diffusion against k-diffusion's own sampling.py, called as its users call it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.end_to_end import real_network, sampler_share
from benchmarks.peers import ConstantNet, LinearNet
from fastdiff.compat import k_diffusion as K
from tests.compat.upstream_k_diffusion import upstream

CIFAR = (64, 3, 32, 32)
NOISY = ("euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde")


def states(shape, steps: int) -> tuple[Tensor, Tensor]:
    """(x, sigmas) of Karras' levels."""
    sigmas = K.get_sigmas_karras(steps, 0.03, 15.0)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * sigmas[0], sigmas


def check_samples(name: str, arguments: dict) -> None:
    """With upstream's noise, where there is any, and a network that depends on x: upstream's numbers."""
    net, (x, sigmas) = LinearNet(), states((8, 3, 8, 8), 8)
    results = []
    for module in (K, upstream()):
        if name in NOISY or ("s_churn" in arguments and module is K):
            arguments = arguments | {"noise_sampler": K.default_noise_sampler(x)}
        else:
            arguments = {key: value for key, value in arguments.items() if key != "noise_sampler"}
        torch.manual_seed(1)
        results.append(getattr(module, f"sample_{name}")(net, x, sigmas, disable=True, **arguments))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("euler", {}), ("euler", {"s_churn": 10.0}), ("heun", {}), ("dpm_2", {}), ("lms", {}), ("dpmpp_2m", {}), ("euler_ancestral", {}),
        ("dpm_2_ancestral", {}), ("dpmpp_2s_ancestral", {}), ("dpmpp_sde", {}), ("dpmpp_2m_sde", {}), ("dpmpp_3m_sde", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "churn" if value else "",
)  # fmt: skip
def test_samplers_18_steps(compare, name, arguments):
    x, sigmas = states(CIFAR, 18)
    net = ConstantNet(x)
    ours, theirs = (getattr(module, f"sample_{name}") for module in (K, upstream()))
    peers = {"k-diffusion": lambda: theirs(net, x, sigmas, disable=True, **arguments)}
    case = f"compat.k_diffusion sample_{name} 18 steps {list(CIFAR)}" + (", s_churn 10" if arguments else "")
    compare(
        case, lambda: ours(net, x, sigmas, disable=True, **arguments), peers, lambda: check_samples(name, arguments), {"k-diffusion": 10},
        rounds=7,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["dpm_fast", "dpm_adaptive"])
def test_dpm_solver(compare, name):
    """The adaptive one looks at its error at every step."""
    ours, theirs = (getattr(module, f"sample_{name}") for module in (K, upstream()))
    more = {"n": 18} if name == "dpm_fast" else {}

    def check():
        small = states((8, 3, 8, 8), 8)[0]
        results = [f(LinearNet(), small, 0.03, 15.0, disable=True, **more) for f in (ours, theirs)]
        torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)

    x, _ = states(CIFAR, 8)
    net = LinearNet() if name == "dpm_adaptive" else ConstantNet(x)  # (a constant one is solved in a few steps)
    peers = {"k-diffusion": lambda: theirs(net, x, 0.03, 15.0, disable=True, **more)}
    case = f"compat.k_diffusion sample_{name} {list(CIFAR)}"
    compare(case, lambda: ours(net, x, 0.03, 15.0, disable=True, **more), peers, check, rounds=5)


def test_brownian_noise(compare):
    """One increment of the default noise of the SDE samplers: a launch, against a tree."""
    x = torch.empty(CIFAR)
    samplers = [module.BrownianTreeNoiseSampler(x, 0.03, 15.0, seed=0) for module in (K, upstream())]
    ours, theirs = ((lambda s=s: s(torch.tensor(2.0), torch.tensor(1.0))) for s in samplers)

    def check():
        for noise in (ours(), theirs()):
            assert abs(float(noise.std()) - 1) < 0.01

    compare(f"compat.k_diffusion BrownianTreeNoiseSampler {list(CIFAR)}", ours, {"k-diffusion": theirs}, check, rounds=7)


@pytest.mark.parametrize(("model", "name"), [("digits", "dpmpp_2m"), ("digits", "dpmpp_2m_sde"), ("ddpmpp", "heun")])
def test_end_to_end(compare, model, name):
    """With a real network the sampler is a small share, which the case's name says."""
    net, shape, labels = real_network(model)
    steps = 12 if model == "digits" else 4
    x, sigmas = states(shape, steps)
    extra = {} if labels is None else {"class_labels": labels}

    def ours(net=net, **more):
        return getattr(K, f"sample_{name}")(net, x, sigmas, extra, disable=True, **more)

    def theirs(net=net, **more):
        return getattr(upstream(), f"sample_{name}")(net, x, sigmas, extra, disable=True, **more)

    def check():
        results = []
        for run in (ours, theirs):
            torch.manual_seed(2)
            results.append(run(**({"noise_sampler": K.default_noise_sampler(x)} if name in NOISY else {})))
        torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)

    shares = f"sampler's share {sampler_share(ours, net):.1%}, upstream's {sampler_share(theirs, net):.1%}"
    case = f"compat.k_diffusion end to end, {model} {list(shape)}, sample_{name}, {steps} steps ({shares})"
    compare(case, ours, {"k-diffusion": theirs}, check, rounds=5)
