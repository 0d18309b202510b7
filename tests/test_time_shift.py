"""Time-shift sampling: where the schedule is right nothing changes, where it is wrong the network is told the truth."""

from __future__ import annotations

import pytest
import torch

import fastdiff
from fastdiff import EDMSampler
from fastdiff.time_shift import TimeShift, variance_within

STD, D = 0.5, 65536


def gaussian(x, sigma, **_):
    """The denoiser of N(0, STD^2)."""
    sigma = sigma.reshape(-1, 1).to(x.dtype)
    return x * STD**2 / (STD**2 + sigma**2)


def test_a_sample_noisier_than_its_level_is_denoised_at_its_own():
    asked = []

    def net(x, sigma, **_):
        asked.append(sigma)
        return gaussian(x, sigma)

    x0, z = STD * fastdiff.randn((2, D), 0, dtype=torch.float64), fastdiff.randn((2, D), 1, dtype=torch.float64)
    x = x0 + torch.tensor([[2.0], [2.06]]) * z
    shift = TimeShift(net, STD**2, window=1.1)
    denoised = shift(x, torch.full((2,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(asked[0], torch.tensor([2.0, 2.06], dtype=torch.float64), rtol=0.02, atol=0)
    eps = (x - gaussian(x, asked[0])) / asked[0][:, None]
    torch.testing.assert_close(denoised, x - 2.0 * eps)
    shift(10 * x, torch.full((2,), 2.0, dtype=torch.float64))
    torch.testing.assert_close(asked[1], torch.full((2,), 2.2, dtype=torch.float64))
    shift(x, torch.full((2,), 0.5, dtype=torch.float64))
    assert asked[2].tolist() == [0.5, 0.5]  # below the cutoff


def test_samples_with_it_have_the_right_law():
    """From a low level, where the scatter of the prior's own variance is small against the data's."""
    samples = fastdiff.sample(TimeShift(gaussian, STD**2), (4, D), seeds=0, sampler=EDMSampler(40, sigma_max=3.0))
    exact = 3.0 / (9 + STD**2) ** 0.5 * STD  # the ODE takes the prior's std of 3 for sqrt(9 + STD^2)
    assert samples.std().item() == pytest.approx(exact, rel=0.03)


def test_arguments():
    assert variance_within(torch.tensor([[0.0, 2.0], [1.0, 1.0]])) == 1.0
    with pytest.raises(ValueError, match="window: expected a number > 1"):
        TimeShift(gaussian, 0.1, window=1.0)
    with pytest.raises(ValueError, match="variance: expected a number >= 0"):
        TimeShift(gaussian, -0.1)
