"""Discrete schedules: the noise rates beta_t of DDPM and the noise levels sigma_i of SMLD, as they are trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .schedules import Float, N, Schedule


def linear_betas(steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> Float:
    """Evenly spaced beta_t (Ho et al. 2020)."""
    return np.linspace(start, end, _at_least_one(steps))


def scaled_linear_betas(steps: int = 1000, start: float = 0.00085, end: float = 0.012) -> Float:
    """Evenly spaced sqrt(beta_t) (latent diffusion, Rombach et al. 2022)."""
    return np.linspace(math.sqrt(start), math.sqrt(end), _at_least_one(steps)) ** 2


def cosine_betas(steps: int = 1000, offset: float = 0.008, largest: float = 0.999) -> Float:
    """1 - alpha_bar(t + 1)/alpha_bar(t), alpha_bar(t) = cos^2 of a quarter turn (Nichol and Dhariwal 2021, eq. 17)."""
    u = np.arange(_at_least_one(steps) + 1) / steps
    alpha_bar = np.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2
    return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], largest)


def geometric_sigmas(steps: int = 10, sigma_max: float = 1.0, sigma_min: float = 0.01) -> Float:
    """sigma_1 > ... > sigma_L in equal ratios (NCSN: Song and Ermon 2019)."""
    return np.exp(np.linspace(math.log(sigma_max), math.log(sigma_min), _at_least_one(steps)))


@dataclass(frozen=True)
class Discrete(Schedule):
    """The variance-preserving schedule of DDPM's betas: t = 0, 1, ..., T - 1, alpha_bar_t = prod (1 - beta).

    Between the steps ln sigma is linear in t, as in k-diffusion and diffusers.

    Args:
        betas: beta_0, ..., beta_{T-1}, e.g. `linear_betas()`.
    """

    betas: Sequence[float] | Float = field(default_factory=linear_betas)

    def __post_init__(self) -> None:
        betas = np.asarray(self.betas, dtype=np.float64)
        if betas.ndim != 1 or len(betas) < 2 or not ((betas > 0) & (betas < 1)).all():
            raise ValueError(f"betas: expected at least two numbers in (0, 1), got {self.betas!r}")
        object.__setattr__(self, "betas", tuple(float(b) for b in betas))
        alpha_bar = np.cumprod(1 - betas)
        object.__setattr__(self, "_alpha_bar", alpha_bar)
        object.__setattr__(self, "_log_sigma", 0.5 * np.log((1 - alpha_bar) / alpha_bar))

    def __len__(self) -> int:
        return len(self.betas)

    @property
    def alpha_bar(self) -> Float:
        """[T] alpha_bar_t."""
        return self._alpha_bar  # type: ignore[attr-defined]

    @property
    def sigmas(self) -> Float:
        """[T] noise levels of the unscaled state, data units: sqrt((1 - alpha_bar)/alpha_bar)."""
        return np.exp(self._log_sigma)  # type: ignore[attr-defined]

    def sigma(self, t: N) -> N:
        return _exp(_interpolate(t, np.arange(len(self), dtype=np.float64), self._log_sigma))  # type: ignore[attr-defined]

    def sigma_deriv(self, t: N) -> N:
        slopes = np.diff(self._log_sigma)  # type: ignore[attr-defined]
        if isinstance(t, Tensor):
            segment = t.long().clamp(0, len(slopes) - 1)
            return _on(t.device, tuple(slopes))[segment].to(t.dtype) * self.sigma(t)
        return float(slopes[min(max(int(t), 0), len(slopes) - 1)]) * self.sigma(t)

    def time(self, sigma: N) -> N:
        logarithm = sigma.log() if isinstance(sigma, Tensor) else math.log(sigma)
        return _interpolate(logarithm, self._log_sigma, np.arange(len(self), dtype=np.float64))  # type: ignore[attr-defined]

    def scale(self, t: N) -> N:
        return (1 + self.sigma(t) ** 2) ** -0.5

    def scale_deriv(self, t: N) -> N:
        return -self.sigma(t) * self.sigma_deriv(t) * self.scale(t) ** 3


def _at_least_one(steps: int) -> int:
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps: expected an integer >= 1, got {steps!r}")
    return steps


def _exp(v: N) -> N:
    return v.exp() if isinstance(v, Tensor) else math.exp(v)


@lru_cache(maxsize=16)
def _on(device: torch.device, values: tuple[float, ...]) -> Tensor:
    """Numbers on a device, copied there once: a copy at every call would wait for it."""
    return torch.tensor(values, dtype=torch.float64, device=device)


def _interpolate(x: N, nodes: Float, values: Float) -> N:
    """Piecewise linear, constant outside."""
    if not isinstance(x, Tensor):
        return float(np.interp(x, nodes, values))
    xs, ys = (_on(x.device, tuple(v)) for v in (nodes, values))
    right = torch.searchsorted(xs, x.double().contiguous()).clamp(1, len(nodes) - 1)
    left = right - 1
    weight = ((x - xs[left]) / (xs[right] - xs[left])).clamp(0, 1)
    return (ys[left] + weight * (ys[right] - ys[left])).to(x.dtype)
