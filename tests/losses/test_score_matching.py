"""Denoising score matching: the original program's numbers, its minimum, its gradients."""

from __future__ import annotations

import pytest
import torch

from fastdiff import VPSDE, Epsilon, keys, randn
from fastdiff.losses import implicit_score_matching_loss, score_matching_loss, sliced_score_matching_loss
from tests.samplers.mixture import MixtureScore
from tests.test_ode import CASES, GOLDEN, SDES, recorded_mixture

LOSSES = [name for name in CASES if name.startswith("loss/")]


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_the_original_program(name):
    case = CASES[name]
    sde, net = SDES[case["sde"]], recorded_mixture(case["sde"])
    u, noise = torch.from_numpy(GOLDEN[f"{name}/u"]), torch.from_numpy(GOLDEN[f"{name}/noise"][0])
    data = torch.from_numpy(GOLDEN[f"ll/{case['sde']}/data"])
    loss = score_matching_loss(
        net, data, u * (1 - case["eps"]) + case["eps"], parametrization=net.parametrization, process=sde, noise=noise,
        likelihood_weighting=case["likelihood_weighting"], reduce_mean=case["reduce_mean"],
    )  # fmt: skip
    torch.testing.assert_close(loss.mean(), torch.from_numpy(GOLDEN[f"{name}/out0"]), rtol=2e-5, atol=2e-4)


def test_the_exact_score_is_the_minimum_and_gradients_flow():
    sde = VPSDE()
    net = MixtureScore(sde, torch.tensor([[1.0, -1.0], [-1.0, 0.5]]), torch.tensor([0.5, 0.5]), 0.4)
    x0 = net.sample(4000, seed=0)
    t = torch.rand(4000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.99 + 0.01
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    losses = {}
    for factor in (0.9, 1.0, 1.1):
        scaled = lambda x, label, f=factor: f * scale * net(x, label)  # noqa: E731
        value = score_matching_loss(scaled, x0, t, parametrization=Epsilon(schedule=sde), seeds=0)
        losses[factor] = value.mean()
    assert losses[1.0] < losses[0.9]
    assert losses[1.0] < losses[1.1]
    (gradient,) = torch.autograd.grad(losses[1.1], scale)
    assert gradient > 0


def test_errors():
    x0, t = torch.zeros(2, 3), torch.full((2,), 0.5)
    for arguments, message in (
        ({}, "seeds: expected seeds or noise, got neither"),
        ({"seeds": 0, "noise": x0}, "seeds: expected seeds or noise, got both"),
    ):
        with pytest.raises(ValueError, match=message):
            score_matching_loss(lambda x, label: x, x0, t, **arguments)
    with pytest.raises(ValueError, match=r"t: expected \[2\], got \[1\]"):
        score_matching_loss(lambda x, label: x, x0, t[:1], seeds=0)


@pytest.mark.parametrize("loss", ["implicit", "sliced"])
def test_losses_without_noise_have_their_minimum_at_the_exact_score(loss):
    key = keys(0, 20_000)
    x = 2 * randn((20_000, 3), 1, dtype=torch.float64) + 1

    def value(scale: float, shift: float = 0.0) -> float:
        score = lambda v: -scale * (v - 1 - shift) / 4  # noqa: E731
        if loss == "implicit":
            return implicit_score_matching_loss(score, x).mean().item()
        return sliced_score_matching_loss(score, x, key, slices=2).mean().item()

    exact = value(1.0)
    assert exact == pytest.approx(-0.5 * 3 / 4, abs=0.02)  # -E|score|^2/2
    assert exact < min(value(0.8), value(1.2), value(1.0, 0.5))


def test_sliced_loss_estimates_the_implicit_one_and_trains():
    x = randn((64, 4), 0, dtype=torch.float64)
    weight = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    score = lambda v: torch.tanh(v @ weight)  # noqa: E731
    exact = implicit_score_matching_loss(score, x).mean()
    sliced = sliced_score_matching_loss(score, x, keys(0, 64), slices=2000).mean()
    assert sliced.item() == pytest.approx(exact.item(), abs=0.05)
    gradients = [torch.autograd.grad(value, weight)[0] for value in (exact, sliced)]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0.05)
