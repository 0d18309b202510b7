"""Samples of every sampler, from the exact score of a mixture, against exact samples: sliced Wasserstein distances.

The distance between 2000 samples and the mixture's own quantiles is compared with those of 40 sets of 2000 exact samples. It is
taken twice: of the samples, where the sampling error of the weights rules, and of what is left of them after subtracting the
nearest mean, which shows an error of a twentieth in the width of a component.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

import fastdiff
from fastdiff import (
    DDIM,
    DDPM,
    VESDE,
    VPSDE,
    AnnealedLangevin,
    Discrete,
    DPMSolver2M,
    DPMSolver2S,
    DPMSolver3M,
    EDMSampler,
    EulerAncestral,
    Langevin,
    PCSampler,
    SubVPSDE,
    UniPC,
)
from fastdiff.samplers.pc import CORRECTORS, PREDICTORS
from tests.samplers.mixture import Mixture, MixtureScore

pytestmark = pytest.mark.slow

COUNT = 2000
#: A sampler passes within this factor of the largest distance of the exact sets.
FACTOR = 1.25

MEANS, WEIGHTS, STD = torch.tensor([[-2.0, 0.0], [1.5, 1.0], [0.5, -1.5]]), torch.tensor([0.3, 0.5, 0.2]), 0.3
NET = Mixture(MEANS, WEIGHTS, STD)
ANGLES = torch.arange(50, dtype=torch.float64) * math.pi / 50
PROJECTIONS = torch.stack([ANGLES.cos(), ANGLES.sin()])


@pytest.fixture(autouse=True)
def _one_thread(threads):
    """Thousands of calls on 2000 points: a second thread costs more than it does."""
    threads(1)


def residuals(x: Tensor) -> Tensor:
    """What is left after subtracting the nearest mean; the means are nine standard deviations apart."""
    means = MEANS.double()
    return x - means[(x[:, None] - means).square().sum(-1).argmin(1)]


@functools.cache
def quantiles(sigma: float) -> tuple[Tensor, Tensor]:
    """Of 40 000 exact samples with noise sigma, and of their residuals: [COUNT, 50] each."""
    x = exact(20 * COUNT, 0, sigma)
    return tuple((v @ PROJECTIONS).sort(0).values.reshape(COUNT, 20, 50).mean(1) for v in (x, residuals(x)))


def exact(count: int, seed: int, sigma: float = 0.0) -> Tensor:
    noise = torch.randn(count, 2, generator=torch.Generator().manual_seed(10_000 + seed), dtype=torch.float64)
    return NET.sample(count, seed) + sigma * noise


def distances(x: Tensor, sigma: float = 0.0) -> np.ndarray:
    """Sliced Wasserstein-1 distances to the mixture, of samples [COUNT, 2] and of their residuals."""
    x = x.double()
    pairs = zip((x, residuals(x)), quantiles(sigma), strict=True)
    return np.array([float(((v @ PROJECTIONS).sort(0).values - q).abs().mean()) for v, q in pairs])


@functools.cache
def limits(sigma: float = 0.0) -> np.ndarray:
    return FACTOR * np.max([distances(exact(COUNT, seed, sigma), sigma) for seed in range(1, 41)], axis=0)


def check(sampler, net=NET, parametrization="D") -> None:
    x = fastdiff.sample(net, (COUNT, 2), seeds=3, sampler=sampler, parametrization=parametrization)
    assert (distances(x) < limits()).all(), (distances(x), limits())


def test_the_distances_see_what_they_should():
    """A component too wide by a tenth, weights off by a tenth, a shift by a tenth: each is beyond the limit."""
    x = exact(COUNT, 200)
    assert (distances(x) < limits()).all()
    wide = x + 0.1 * residuals(x)
    assert distances(wide)[1] > limits()[1]
    assert distances(x + 0.1 * torch.tensor([1.0, 1.0]))[1] > limits()[1]
    skewed = Mixture(MEANS, torch.tensor([0.4, 0.4, 0.2]), STD).sample(COUNT, 200)
    assert distances(skewed)[0] > limits()[0]


DISCRETE = Discrete()
SAMPLERS = {
    "EDM Heun": EDMSampler(steps=32),
    "EDM Heun, churn 10": EDMSampler(steps=64, S_churn=10),
    "EDM Heun, churn 40": EDMSampler(steps=64, S_churn=40),
    "EDM Euler": EDMSampler(steps=200, solver="euler"),
    "EDM Heun, VP": EDMSampler(steps=64, discretization="vp", schedule="vp", scaling="vp"),
    "EDM Heun, VE": EDMSampler(steps=100, discretization="ve", schedule="ve"),
    "DDPM, small": DDPM(DISCRETE, steps=250),
    "DDPM, large": DDPM(DISCRETE, steps=250, variance="large"),
    "DDPM, small, sub-VP": DDPM(SubVPSDE(), steps=250),
    "DDIM, eta 0": DDIM(DISCRETE, steps=250),
    "DDIM, eta 0.5": DDIM(DISCRETE, steps=250, eta=0.5),
    "DDIM, eta 1": DDIM(DISCRETE, steps=250, eta=1.0),
    "DDIM, eta 0.5, VP": DDIM(VPSDE(), steps=250, eta=0.5),
    "2M": DPMSolver2M(steps=32),
    "2M, eta 1": DPMSolver2M(steps=64, eta=1.0),
    "2M, eta 1, heun, VP": DPMSolver2M(steps=64, eta=1.0, solver="heun", scaling="vp"),
    "2S": DPMSolver2S(steps=32),
    "2S, eta 1": DPMSolver2S(steps=64, eta=1.0),
    "3M": DPMSolver3M(steps=32),
    "3M, eta 1": DPMSolver3M(steps=64, eta=1.0),
    "UniPC 1": UniPC(steps=32, order=1),
    "UniPC 2": UniPC(steps=32, order=2),
    "UniPC 3": UniPC(steps=32, order=3, variant="bh1"),
    "UniPC 3, VP": UniPC(steps=32, order=3, scaling="vp"),
    "Euler ancestral": EulerAncestral(steps=250),
    "Euler ancestral, eta 0.5, VP": EulerAncestral(steps=250, eta=0.5, scaling="vp"),
    "annealed Langevin": AnnealedLangevin(sigmas=np.geomspace(10, 0.01, 10).tolist(), steps_each=100, eps=5e-5, denoise=True),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_are_of_the_mixture(name):
    check(SAMPLERS[name])


def test_langevin_samples_the_noisy_density():
    """At a noise level at which the components touch, so that the dynamics get from one to another."""
    sigma = 1.0
    x = fastdiff.sample(NET, (COUNT, 2), seeds=3, sampler=Langevin(sigma, step_size=0.05, steps=1000, prior_std=2.0))
    assert (distances(x, sigma) < limits(sigma)).all(), (distances(x, sigma), limits(sigma))


SDES = {"VP": VPSDE(), "sub-VP": SubVPSDE(), "VE": VESDE(0.01, 50.0)}


def _pc_arguments(predictor: str, corrector: str) -> dict:
    """Enough steps for a bias below the sampling error: a corrector alone must keep up with the falling noise by itself."""
    if predictor == "none":
        return {"steps": 750, "snr": 0.3} if corrector == "langevin" else {"steps": 500, "snr": 0.4, "corrector_steps": 3}
    return {"steps": 500 if predictor == "probability_flow" and corrector == "none" else 250}


@pytest.mark.parametrize("corrector", CORRECTORS)
@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("sde", SDES)
def test_predictors_and_correctors_sample_the_mixture(sde, predictor, corrector):
    net = MixtureScore(SDES[sde], MEANS, WEIGHTS, STD)
    sampler = PCSampler(SDES[sde], predictor=predictor, corrector=corrector, **_pc_arguments(predictor, corrector))
    if predictor == corrector:  # neither: the prior is returned
        prior = fastdiff.sample(net, (4, 2), seeds=0, sampler=sampler, parametrization=net.parametrization)
        assert torch.equal(prior, SDES[sde].prior_sample((4, 2), seeds=0))
    else:
        check(sampler, net, net.parametrization)


@pytest.mark.parametrize("step_size", ["batch", "sample"])
def test_langevin_step_sizes_of_the_batch_and_of_each_sample(step_size):
    """A step size e of each sample's own depends on its state, e ~ 1/|score(x)|^2, and such dynamics sample p/e.

    For a Gaussian in d dimensions p/e ~ p*|x|^2 has the variance (d + 2)/d instead of 1: of no account for images, but in two
    dimensions useless.
    """
    count, dimensions = 1000, 64
    means = torch.randn(2, dimensions, generator=torch.Generator().manual_seed(0))
    net = MixtureScore(VPSDE(), means, torch.tensor([0.3, 0.7]), STD)
    sampler = PCSampler(VPSDE(), steps=250, snr=0.1, step_size=step_size)
    x = fastdiff.sample(net, (count, dimensions), seeds=0, sampler=sampler, parametrization=net.parametrization).double()
    nearest = (x[:, None] - means.double()).square().sum(-1).argmin(1)
    assert abs(float((nearest == 0).double().mean()) - 0.3) < 4 * (0.21 / count) ** 0.5
    left = x - means.double()[nearest]
    assert float(left.mean(0).abs().max()) < 5 * STD / (0.3 * count) ** 0.5
    expected = 1 + (2 / dimensions if step_size == "sample" else 0)
    assert float(left.square().mean()) / STD**2 == pytest.approx(expected, abs=0.015)
