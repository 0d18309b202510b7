"""EDM's algorithm 2 in plain eager PyTorch, as its users run it: what the command line and the benchmarks compare with."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def edm_sampler(
    net, latents: Tensor, num_steps: int = 18, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0,
    S_churn: float = 0.0, S_min: float = 0.0, S_max: float = float("inf"), S_noise: float = 1.0, eps_scaler: float = 1.0,
    **condition,
) -> Tensor:  # fmt: skip
    """Stochastic Heun (Karras et al. 2022, algorithm 2) with a float64 state and device scalars, an operation at a time."""
    ramp = torch.arange(num_steps, dtype=torch.float64, device=latents.device) / (num_steps - 1)
    sigmas = (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    sigmas = torch.cat([sigmas, torch.zeros_like(sigmas[:1])])
    x = latents.to(torch.float64) * sigmas[0]
    for i in range(num_steps):
        sigma, sigma_next = sigmas[i], sigmas[i + 1]
        gamma = min(S_churn / num_steps, 2**0.5 - 1) if S_min <= sigma <= S_max else 0.0
        sigma_hat = sigma + gamma * sigma
        x_hat = x + (sigma_hat**2 - sigma**2).sqrt() * S_noise * torch.randn_like(x)

        def slope(x: Tensor, sigma: Tensor) -> Tensor:
            eps = (x - net(x, sigma, **condition).to(torch.float64)) / sigma
            return eps / eps_scaler if eps_scaler != 1 else eps

        d = slope(x_hat, sigma_hat)
        x = x_hat + (sigma_next - sigma_hat) * d
        if i < num_steps - 1:
            d_next = slope(x, sigma_next)
            x = x_hat + (sigma_next - sigma_hat) * (0.5 * d + 0.5 * d_next)
    return x
