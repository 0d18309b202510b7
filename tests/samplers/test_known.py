"""Known data: what is known stays known, with every sampler; bases; what the free part learns from it."""

from __future__ import annotations

import math

import pytest
import torch

import fastdiff
from fastdiff import (
    DDIM,
    VESDE,
    VPSDE,
    AnnealedLangevin,
    Denoiser,
    DPMSolver2M,
    DPMSolver2S,
    DPMSolver3M,
    EDMSampler,
    Epsilon,
    EulerAncestral,
    Known,
    PCSampler,
    UniPC,
)
from tests.samplers.mixture import Mixture, MixtureScore

MEANS = torch.tensor([[1.0, 1.0, -1.0, 0.5], [-1.0, -1.0, 1.0, -0.5]])
NET = Mixture(MEANS, torch.tensor([0.5, 0.5]), 0.2)
MASK = torch.tensor([1.0, 1.0, 0.0, 0.0])
SIGMA_SAMPLERS = [
    EDMSampler(steps=40, S_churn=60),
    EDMSampler(steps=20),
    EDMSampler(steps=30, solver="euler"),
    DPMSolver2M(steps=20, eta=1.0),
    DPMSolver2M(steps=20),
    DPMSolver2S(steps=20),
    DPMSolver3M(steps=20),
    UniPC(steps=20),
    EulerAncestral(steps=40),
    AnnealedLangevin(sigmas=fastdiff.geometric_sigmas(10, 10.0, 0.05), steps_each=20, eps=1e-3, denoise=True),
]


def _name(sampler) -> str:
    return f"{type(sampler).__name__}-{getattr(sampler, 'eta', getattr(sampler, 'S_churn', ''))}-{getattr(sampler, 'solver', '')}"


@pytest.mark.parametrize("sampler", SIGMA_SAMPLERS, ids=_name)
def test_known_data_stay_and_choose_the_rest(sampler):
    data = torch.cat([NET.sample(100, seed=0), NET.sample(100, seed=1)]).float()
    out = fastdiff.sample(NET, data.shape, seeds=0, sampler=sampler, known=Known(data, MASK))
    assert torch.equal(out[:, :2], data[:, :2])  # the last level is clean
    assert not torch.allclose(out[:, 2:], data[:, 2:], atol=0.05)
    # The known half says which Gaussian it is; the free half must be of the same one.
    agreement = (out[:, 2:] @ MEANS[0, 2:]).sign() == (data[:, :2] @ MEANS[0, :2]).sign()
    # Fresh noise lets the two halves agree; without it an early choice of the free half stays.
    stochastic = sampler.plan(Denoiser()).stochastic
    assert agreement.float().mean() > (0.97 if stochastic else 0.9)
    spread = (out[:, 2:] - torch.where(data[:, :1] > 0, MEANS[0, 2:], MEANS[1, 2:])).std()
    assert 0.15 < spread < (0.25 if stochastic else 0.5)  # that Gaussian's own is 0.2


@pytest.mark.parametrize("corrector", ["langevin", "ald", "none"])
@pytest.mark.parametrize("sde", [VPSDE(), VESDE(0.01, 10.0)], ids=["vp", "ve"])
def test_known_data_under_song_sdes(sde, corrector):
    net = MixtureScore(sde, MEANS, torch.tensor([0.5, 0.5]), 0.2)
    data = NET.sample(100, seed=0).float()
    sampler = PCSampler(sde, steps=150, corrector=corrector, snr=0.1)
    out = fastdiff.sample(net, data.shape, seeds=0, sampler=sampler, parametrization=net.parametrization, known=Known(data, MASK))
    assert torch.equal(out[:, :2], data[:, :2])
    agreement = (out[:, 2:] @ MEANS[0, 2:]).sign() == (data[:, :2] @ MEANS[0, :2]).sign()
    assert agreement.float().mean() > 0.95


def test_ddim_with_known_data_draws_noise_for_them_alone():
    net = MixtureScore(VPSDE(), MEANS, torch.tensor([0.5, 0.5]), 0.2)
    data = NET.sample(50, seed=0).float()
    arguments = {"sampler": DDIM(VPSDE(), steps=30), "parametrization": Epsilon(schedule=VPSDE()), "known": Known(data, MASK)}
    out = fastdiff.sample(net, data.shape, seeds=0, **arguments)
    assert torch.equal(out[:, :2], data[:, :2])
    assert torch.equal(out, fastdiff.sample(net, data.shape, seeds=0, **arguments))
    assert not torch.equal(out, fastdiff.sample(net, data.shape, seeds=1, **arguments))
    with pytest.raises(ValueError, match="key: expected noise keys or a noise callable"):
        fastdiff.run(DDIM(VPSDE(), steps=3).plan(Epsilon()), net, data, known=Known(data, MASK))


def test_a_sample_with_known_data_does_not_depend_on_its_batch():
    def net(x, sigma):
        return 0.3 * x

    data = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(8) % 2).float()
    plan = EDMSampler(steps=6, S_churn=20).plan(Denoiser())
    key = fastdiff.keys(0, 6)
    latents = fastdiff.randn((6, 8), key)
    together = fastdiff.run(plan, net, latents, key=key, known=Known(data, mask))
    parts = [fastdiff.run(plan, net, latents[i : i + 2], key=key[i : i + 2], known=Known(data[i : i + 2], mask)) for i in (0, 2, 4)]
    assert torch.equal(together, torch.cat(parts))


def test_known_data_beside_a_brownian_path():
    data = NET.sample(100, seed=0).float()
    arguments = {"seeds": 0, "path": fastdiff.BrownianPath(), "known": Known(data, MASK)}
    coarse, fine = (fastdiff.sample(NET, data.shape, sampler=DPMSolver2M(steps=steps, eta=1.0), **arguments) for steps in (30, 60))
    assert torch.equal(coarse[:, :2], data[:, :2])
    agreement = (coarse[:, 2:] @ MEANS[0, 2:]).sign() == (data[:, :2] @ MEANS[0, :2]).sign()
    assert agreement.float().mean() > 0.97
    assert (coarse - fine).abs().mean() < 0.1  # the path is the same


def test_what_is_unknown_may_be_nan():
    data = NET.sample(5, seed=0).float()
    marked = torch.where(MASK > 0, data, torch.nan)
    arguments = {"seeds": 0, "sampler": EDMSampler(steps=5)}
    free, same = (fastdiff.sample(NET, data.shape, known=Known(d, MASK), **arguments) for d in (marked, data))
    assert torch.equal(free, same)


def test_a_soft_mask_is_a_convex_combination_in_the_last_step():
    data = torch.ones(3, 4)
    free = fastdiff.sample(lambda x, sigma: 0 * x, (3, 4), seeds=0)
    half = fastdiff.sample(lambda x, sigma: 0 * x, (3, 4), seeds=0, known=Known(data, torch.full((4,), 0.25)))
    torch.testing.assert_close(free, torch.zeros(3, 4))
    torch.testing.assert_close(half, torch.full((3, 4), 0.25))


def test_colorization_keeps_the_grey_image():
    generator = torch.Generator().manual_seed(0)
    grey = torch.rand(2, 1, 4, 4, generator=generator).expand(-1, 3, -1, -1)
    seen = []
    out = fastdiff.sample(
        lambda x, sigma: 0.5 * torch.tanh(x), (2, 3, 4, 4), seeds=0, sampler=EDMSampler(steps=10, S_churn=20), known=Known.gray(grey),
        callback=lambda info: seen.append(info.x),
    )  # fmt: skip
    torch.testing.assert_close(out.mean(1), grey[:, 0], rtol=0, atol=1e-5)
    assert out.std(1).mean() > 0.005  # and it is not grey
    assert torch.equal(seen[-1], out)  # a callback sees pixels


def test_bases():
    basis = fastdiff.gray_basis()
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(basis.inverse(basis.forward(x)), x)
    torch.testing.assert_close(basis.forward(x).flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))
    torch.testing.assert_close(basis.forward(x)[:, 0], math.sqrt(3) * x.mean(1))
    with pytest.raises(ValueError, match="matrix: expected an orthogonal matrix"):
        fastdiff.channel_basis(torch.ones(3, 3))
    with pytest.raises(ValueError, match=r"matrix: expected \[C, C\], got \[2, 3\]"):
        fastdiff.channel_basis(torch.ones(2, 3))


def test_any_linear_measurement_in_an_orthogonal_basis():
    """Known: the mean of each pair of neighbours, a mask in the Haar basis of the elements."""
    r = math.sqrt(0.5)

    def forward(x):
        return torch.stack([(x[:, ::2] + x[:, 1::2]) * r, (x[:, ::2] - x[:, 1::2]) * r], 2).flatten(1)

    def inverse(y):
        return torch.stack([(y[:, ::2] + y[:, 1::2]) * r, (y[:, ::2] - y[:, 1::2]) * r], 2).flatten(1)

    data = NET.sample(20, seed=0).float()
    known = Known(data, torch.tensor([1.0, 0.0, 1.0, 0.0]), fastdiff.Basis(forward, inverse))
    out = fastdiff.sample(NET, data.shape, seeds=0, sampler=EDMSampler(steps=20, S_churn=20), known=known)
    torch.testing.assert_close(out[:, ::2] + out[:, 1::2], data[:, ::2] + data[:, 1::2], rtol=0, atol=1e-5)
    assert (out[:, ::2] - data[:, ::2]).abs().max() > 0.05


def test_guidance_sees_pixels_in_a_basis():
    grey = torch.zeros(2, 3, 4, 4)
    shapes, net = [], lambda x, sigma: 0.1 * x

    def gradient(x, sigma):
        shapes.append(x.mean(1).abs().max())
        return -x

    guidance = fastdiff.Guidance(gradient, weight=1e-3)
    fastdiff.sample(net, (2, 3, 4, 4), seeds=0, sampler=EDMSampler(steps=4), known=Known.gray(grey), guidance=guidance)
    assert shapes[-1] < 0.1 * shapes[0]  # the grey part goes to 0 as the noise does


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (lambda: Known(torch.zeros(2, 3, dtype=torch.int64), MASK), r"data: expected \[B, \.\.\.\] floating"),
        (lambda: Known(torch.zeros(2, 3), torch.zeros(5)), r"mask: expected a tensor that broadcasts to \[2, 3\], got \[5\]"),
        (lambda: Known(torch.zeros(2, 3), 1.0), "mask: expected a tensor that broadcasts"),
        (lambda: fastdiff.sample(NET, (2, 4), known=Known(torch.zeros(3, 4), MASK)), r"data: expected the state's shape \[2, 4\]"),
    ],
)
def test_errors(known, message):
    with pytest.raises(ValueError, match=message):
        known()


def test_known_data_keep_their_noise_beside_a_learned_variance():
    def net(x, label):
        return torch.cat([0.1 * x, torch.zeros_like(x)], 1)

    data, seen = torch.zeros(64, 1, 8, 8), []
    sampler = fastdiff.DDPM(fastdiff.Discrete(), steps=4, variance="learned")
    plan = sampler.plan(Epsilon(schedule=sampler.schedule))
    key = fastdiff.keys(0, 64)
    known = Known(data, torch.ones(1))
    fastdiff.run(plan, net, fastdiff.randn(data.shape, key), key=key, known=known, callback=lambda info: seen.append(info.x.std().item()))
    for row, std in zip(plan.rows, seen, strict=True):
        assert std == pytest.approx(row.next_scale * row.next_sigma, rel=0.05, abs=1e-6)
