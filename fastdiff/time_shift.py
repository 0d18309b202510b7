"""Time-shift sampling: tell the network the noise level that a sample shows, not the one that it should have.

A sampler's own errors make its states a little noisier (or less) than the schedule says: exposure bias. The variance over a sample's
elements shows how noisy it is: E var(x) = v + sigma^2 for x = x0 + sigma*z, v the variance within a data sample. The network is
asked at the level next to that, within a window around the schedule's:

    sigma' = sqrt(var(x) - v),  within [sigma/w, sigma*w];    eps = eps(x, sigma'),  D = x - sigma*eps

The step itself keeps the schedule's level, as in the original. The variance is an estimate from one sample: with n elements it scatters
by sqrt(2/n), so small images say little about their own level.

Source: Li et al. 2023 (arXiv:2305.15583).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class TimeShift:
    """A denoiser (parametrization "D") that looks at the samples' own noise levels.

    Args:
        net: called as net(x, sigma, **condition), returns D, as NVlabs/edm's.
        variance: v, the mean over the data of the variance within a sample; see `variance_within`.
        window: w > 1, how far the level may be shifted.
        cutoff: below this sigma nothing is shifted: there the samples' own variance outweighs the noise's.
    """

    net: Callable[..., Tensor]
    variance: float
    window: float = 1.05
    cutoff: float = 1.0

    def __post_init__(self) -> None:
        if not self.window > 1:
            raise ValueError(f"window: expected a number > 1, got {self.window}")
        if not self.variance >= 0:
            raise ValueError(f"variance: expected a number >= 0, got {self.variance}")

    def __call__(self, x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:
        sigma = sigma.expand(len(x))
        seen = (x.flatten(1).var(1) - self.variance).clamp(min=0).sqrt().to(sigma.dtype)
        shifted = torch.minimum(torch.maximum(seen, sigma / self.window), sigma * self.window)
        shifted = torch.where(sigma < self.cutoff, sigma, shifted)
        ratio = (sigma / shifted).reshape(-1, *[1] * (x.dim() - 1)).to(x.dtype)
        return x - ratio * (x - self.net(x, shifted, **condition))


def variance_within(data: Tensor) -> float:
    """The mean over data [N, ...] of the variance over a sample's elements."""
    return float(data.flatten(1).var(1).mean())
