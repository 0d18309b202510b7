"""The denoising loss: equal to its eager form in every parametrization, and to every loss of the literature by its weight."""

from __future__ import annotations

import math

import pytest
import torch

import fastdiff
from fastdiff import VPSDE, Discrete, Stream, keys
from fastdiff.discrete import linear_betas
from fastdiff.losses import (
    LogNormal,
    UniformLog,
    UniformSteps,
    UniformTime,
    classifier_loss,
    diffusion_loss,
    discriminator_loss,
    score_matching_loss,
    weighting,
)  # fmt: skip
from fastdiff.models import EDMPrecond, VEPrecond, VPPrecond, iDDPMPrecond
from fastdiff.parametrizations import EDM, Data, Denoiser, Epsilon, Score, Velocity
from fastdiff.schedules import VP

SDE = VPSDE()
PARAMETRIZATIONS = {
    "D": Denoiser(), "F": EDM(sigma_data=0.7), "eps": Epsilon(), "score": Score(), "v": Velocity(schedule=VP("vp")), "x0": Data(),
}  # fmt: skip


def net(x, label, **_):
    return 0.3 * x + torch.sin(label.to(x.dtype)).reshape(-1, *[1] * (x.dim() - 1))


def setup(count: int = 6, dtype=torch.float64):
    x0 = torch.rand(count, 2, 3, 3, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 2 - 1
    key = keys(3, count)
    return x0, key, LogNormal(-0.5, 1.0).draw(key)


def column(v, x):
    return v.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))


@pytest.mark.parametrize("name", list(PARAMETRIZATIONS))
def test_equals_the_eager_loss_in_every_parametrization(name):
    x0, key, sigma = setup()
    meaning = PARAMETRIZATIONS[name]
    w = weighting("edm", sigma_data=0.7)(sigma)
    loss = diffusion_loss(net, x0, sigma, key, parametrization=meaning, weight=w, draw=4)
    z = fastdiff.normal(x0, key, 4, int(Stream.DATA))
    x = x0 + column(sigma, x0) * z
    a, b = meaning.denoiser(sigma)
    D = column(a, x0) * x + column(b, x0) * net(column(meaning.c_in(sigma), x0) * x, meaning.label(sigma))
    torch.testing.assert_close(loss, w * (D - x0).square().flatten(1).sum(1), rtol=1e-6, atol=1e-6)


def test_simple_and_likelihood_weights_are_the_losses_of_score_sde():
    x0, key, _ = setup()
    t = torch.linspace(0.05, 0.95, 6, dtype=torch.float64)
    sigma = SDE.sigma(t)
    for name, likelihood, factor in (("simple", False, 0.5), ("likelihood", True, 1.0)):
        w = factor * weighting(name, process=SDE)(sigma)
        ours = diffusion_loss(net, x0, sigma, key, parametrization=Epsilon(), weight=w)
        theirs = score_matching_loss(net, x0, t, parametrization="eps", seeds=key, likelihood_weighting=likelihood)
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_variational_weights_are_ddpms():
    betas = linear_betas(100, 1e-3, 0.2)
    schedule = Discrete(betas)
    sigma = torch.tensor(schedule.sigmas)
    alpha, alpha_bar = 1 - torch.tensor(betas), torch.tensor(schedule.alpha_bar)
    before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    beta = torch.tensor(betas)
    variance = beta * (1 - before) / (1 - alpha_bar)
    variance[0] = beta[0]  # the decoder's, which the posterior leaves at 0
    of_eps = beta**2 / (2 * variance * alpha * (1 - alpha_bar))  # Ho et al. 2020, eq. 12
    torch.testing.assert_close(weighting("variational", process=schedule)(sigma) * sigma**2, of_eps)


def test_other_weights():
    sigma = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    torch.testing.assert_close(weighting("edm", sigma_data=0.5)(sigma), (sigma**2 + 0.25) / (0.5 * sigma) ** 2)
    assert weighting("x0")(sigma).tolist() == [1, 1, 1]
    assert weighting("min-snr")(sigma).tolist() == pytest.approx([5, 1, 0.01])
    with pytest.raises(ValueError, match="weighting: expected one of"):
        weighting("vlb")
    with pytest.raises(ValueError, match="process: expected an SDE"):
        weighting("likelihood")
    with pytest.raises(ValueError, match="process: expected a Discrete"):
        weighting("variational", process=SDE)


def test_gradients_in_float32_equal_the_eager_ones():
    x0, key, sigma = setup(dtype=torch.float32)
    weight = torch.tensor(0.3, requires_grad=True)
    w = weighting("edm")(sigma)
    loss = diffusion_loss(lambda x, label: weight * x, x0, sigma, key, parametrization=EDM(), weight=w).sum()
    z = fastdiff.normal(x0, key, 0, int(Stream.DATA))
    x = x0 + column(sigma, x0) * z
    a, b = EDM().denoiser(sigma)
    D = column(a, x0) * x + column(b, x0) * weight * column(EDM().c_in(sigma), x0) * x
    eager = (w.float() * (D - x0).square().flatten(1).sum(1)).sum()
    torch.testing.assert_close(torch.autograd.grad(loss, weight), torch.autograd.grad(eager, weight), rtol=1e-4, atol=0)


@pytest.mark.parametrize("precond", [EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond])
def test_preconditioned_networks_train_on_their_raw_output(precond):
    torch.manual_seed(0)
    model = precond(8, 1, model_type="SongUNet", model_channels=8, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[4]).eval()
    x0 = torch.rand(4, 1, 8, 8) * 2 - 1
    key = keys(0, 4)
    sigma = torch.tensor([float(model.round_sigma(s)) for s in (0.1, 0.5, 2.0, 10.0)], dtype=torch.float64)
    loss = diffusion_loss(model.raw, x0, sigma, key, parametrization=model.parametrization)
    D = model(x0 + column(sigma, x0) * fastdiff.normal(x0, key, 0, int(Stream.DATA)), sigma.float())
    torch.testing.assert_close(loss, (D - x0).square().flatten(1).sum(1), rtol=1e-3, atol=1e-4)


def test_input_perturbation_hides_part_of_the_noise_from_the_target():
    x0, key, sigma = setup()
    seen = []

    def recorded(x, label):
        seen.append(x)
        return net(x, label)

    loss = diffusion_loss(recorded, x0, sigma, key, parametrization="eps", weight=sigma**-2, perturbation=0.1)
    z, more = (fastdiff.normal(x0, key, 0, int(stream)) for stream in (Stream.DATA, Stream.PERTURBATION))
    x = x0 + column(sigma, x0) * (z + 0.1 * more)
    alpha = column(Epsilon().c_in(sigma), x0)
    torch.testing.assert_close(seen[0], alpha * x, rtol=1e-6, atol=1e-6)
    eps = net(alpha * x, Epsilon().label(sigma))
    torch.testing.assert_close(loss, (eps - z).square().flatten(1).sum(1), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    ("levels", "cumulative"),
    [
        (LogNormal(-1.2, 1.2), lambda s: 0.5 * (1 + math.erf((math.log(s) + 1.2) / 1.2 / math.sqrt(2)))),
        (UniformLog(0.02, 100), lambda s: math.log(s / 0.02) / math.log(5000)),
        (UniformTime(SDE), lambda s: SDE.time(s)),
    ],
)
def test_levels_have_their_distribution(levels, cumulative):
    sigma = levels.draw(keys(0, 20_000)).sort().values
    empirical = (torch.arange(20_000) + 0.5) / 20_000
    exact = torch.tensor([cumulative(float(s)) for s in sigma[::50]])
    assert (empirical[::50] - exact).abs().max() < 1.63 / math.sqrt(20_000)  # Kolmogorov-Smirnov at 1 %


def test_importance_sampled_time_is_uniform_in_ln_sigma():
    """The density of DG's time is beta/(1 - exp(-int beta)); its cumulative function is linear in ln sigma."""
    u = torch.linspace(0, 1, 1001, dtype=torch.float64)[1:]
    levels = UniformLog.of(SDE)
    t = SDE.time(levels.at(u))
    density = SDE.beta(t) / (1 - torch.exp(-SDE.integral(t)))
    slope = torch.diff(t) / torch.diff(u)
    product = slope * (density[1:] * density[:-1]).sqrt()
    torch.testing.assert_close(product, product.mean().expand_as(product), rtol=2e-3, atol=0)


def test_discrete_levels_are_all_drawn_alike():
    sigmas = (0.1, 1.0, 10.0)
    drawn = UniformSteps(sigmas).draw(keys(0, 9000))
    counts = [(drawn == s).sum().item() for s in sigmas]
    assert sum(counts) == 9000
    assert all(abs(count - 3000) < 150 for count in counts)


def test_classifier_and_discriminator_losses():
    x0, key, sigma = setup()
    z = fastdiff.normal(x0, key, 0, int(Stream.DATA))
    x = x0 + column(sigma, x0) * z
    logits = lambda x, sigma: torch.stack([x.flatten(1).sum(1), sigma], 1)  # noqa: E731
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    expected = -logits(x, sigma).log_softmax(1)[torch.arange(6), labels]
    torch.testing.assert_close(classifier_loss(logits, x0, labels, sigma, key), expected)

    ratio = lambda x, sigma, class_labels=None: x.flatten(1).mean(1)  # noqa: E731
    real = labels.double()
    d = torch.sigmoid(ratio(x, sigma))
    w = torch.arange(6) + 1.0
    expected = -w * (real * d.log() + (1 - real) * (1 - d).log())
    torch.testing.assert_close(discriminator_loss(ratio, x0, real, sigma, key, weight=w), expected)


def test_errors():
    x0, key, sigma = setup()
    with pytest.raises(ValueError, match=r"sigma: expected \[6\], got \[2\]"):
        diffusion_loss(net, x0, sigma[:2], key)
    with pytest.raises(ValueError, match="perturbation: expected a number >= 0"):
        diffusion_loss(net, x0, sigma, key, perturbation=-0.1)
    with pytest.raises(ValueError, match="sigma_min, sigma_max"):
        UniformLog(1.0, 0.5)
