"""Noise levels as k-diffusion makes them, bit for bit, and its small functions of noise levels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...samplers import adams_weights
from ...samplers._rows import ancestral_split


def append_zero(x: Tensor) -> Tensor:
    """[n + 1]: x with a 0 at its end."""
    return torch.cat([x, x.new_zeros(1)])


def get_sigmas_karras(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0, device: torch.device | str = "cpu") -> Tensor:
    """[n + 1] levels of Karras et al. 2022, eq. 5, and 0."""
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return append_zero((high + torch.linspace(0, 1, n) * (low - high)) ** rho).to(device)


def get_sigmas_exponential(n: int, sigma_min: float, sigma_max: float, device: torch.device | str = "cpu") -> Tensor:
    """[n + 1] levels in equal ratios, and 0."""
    return append_zero(torch.linspace(math.log(sigma_max), math.log(sigma_min), n, device=device).exp())


def get_sigmas_polyexponential(
    n: int, sigma_min: float, sigma_max: float, rho: float = 1.0, device: torch.device | str = "cpu"
) -> Tensor:  # fmt: skip
    """[n + 1] levels whose ln is a polynomial of degree rho, and 0."""
    low, high = math.log(sigma_min), math.log(sigma_max)
    return append_zero(torch.exp(torch.linspace(1, 0, n, device=device) ** rho * (high - low) + low))


def get_sigmas_vp(
    n: int, beta_d: float = 19.9, beta_min: float = 0.1, eps_s: float = 1e-3, device: torch.device | str = "cpu"
) -> Tensor:  # fmt: skip
    """[n + 1] levels of the VP SDE at even times from 1 to eps_s, and 0."""
    t = torch.linspace(1, eps_s, n, device=device)
    return append_zero(torch.sqrt(torch.exp(beta_d * t**2 / 2 + beta_min * t) - 1))


def to_d(x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
    """[B, ...] slope (x - D)/sigma of the probability-flow ODE, sigma a scalar or [B]."""
    return (x - denoised) / sigma.reshape(*sigma.shape, *[1] * (x.dim() - sigma.dim()))


def get_ancestral_step(sigma_from: Tensor | float, sigma_to: Tensor | float, eta: float = 1.0) -> tuple[Tensor | float, Tensor | float]:
    """(sigma_down, sigma_up): how far to go down, and the noise to add then."""
    if not eta:
        return sigma_to, 0.0
    down, up = ancestral_split(float(sigma_from), float(sigma_to), eta)
    return (sigma_to.new_tensor(down), sigma_to.new_tensor(up)) if isinstance(sigma_to, Tensor) else (down, up)


def linear_multistep_coeff(order: int, t: Sequence[float], i: int, j: int) -> float:
    """Weight of the slope at level i - j in the step from level i to i + 1, with `order` slopes.

    Raises:
        ValueError: more slopes than there have been levels.
    """
    return adams_weights(t, i, order)[j]
