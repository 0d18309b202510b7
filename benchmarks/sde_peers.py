"""The score-based framework as its users run it: eager tensors, a score function, a table indexed on the device, scipy's solver."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers import compiled

BETA_MIN, BETA_MAX, EPS = 0.1, 20.0, 1e-3


def column(v: Tensor) -> Tensor:
    """[B] against images."""
    return v[:, None, None, None]


def marginal_std(t: Tensor) -> Tensor:
    """Standard deviation of the VP SDE."""
    return torch.sqrt(1 - torch.exp(-0.5 * t**2 * (BETA_MAX - BETA_MIN) - t * BETA_MIN))


def score_of(net: Callable, x: Tensor, t: Tensor) -> Tensor:
    """The score from an eps network with labels 999*t."""
    return -net(x, t * 999) / column(marginal_std(t))


def langevin_update(x: Tensor, score: Tensor, noise: Tensor, alpha: Tensor, snr: float) -> Tensor:
    """One step at a given signal-to-noise ratio, from the mean norms of the batch."""
    score_norm = score.flatten(1).norm(dim=-1).mean()
    noise_norm = noise.flatten(1).norm(dim=-1).mean()
    step = 2 * alpha * (snr * noise_norm / score_norm) ** 2
    mean = x + column(step) * score
    return mean + column(torch.sqrt(2 * step)) * noise


def reverse_diffusion_update(x: Tensor, score: Tensor, noise: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the discretized reverse SDE: (x, mean)."""
    forward = column(torch.sqrt(1 - beta)) * x - x
    mean = x - (forward - column(beta) * score)
    return mean + column(torch.sqrt(beta)) * noise, mean


@torch.no_grad()
def pc_sampler(
    net: Callable, latents: Tensor, steps: int, snr: float = 0.16, noise: Callable = torch.randn_like, compile: bool = False
) -> Tensor:
    """Predictor-corrector on the VP SDE: reverse diffusion and one Langevin step at each time; the last mean."""
    correct, predict = (compiled(f) if compile else f for f in (langevin_update, reverse_diffusion_update))
    betas = torch.linspace(BETA_MIN / steps, BETA_MAX / steps, steps, device=latents.device)
    times = torch.linspace(1.0, EPS, steps, device=latents.device)
    x = mean = latents
    for i in range(steps):
        t = torch.ones(len(x), device=x.device) * times[i]
        index = (t * (steps - 1)).long()
        beta = betas[index]
        x = correct(x, score_of(net, x, t), noise(x), 1 - beta, snr)
        z = noise(x)
        x, mean = predict(x, score_of(net, x, t), z, beta)
    return mean


@torch.no_grad()
def ddpm_sampler(net: Callable, latents: Tensor, betas: Tensor, noise: Callable = torch.randn_like) -> Tensor:
    """DDPM's ancestral sampling: x0 from eps, posterior mean, fixed small variance."""
    alphas = 1 - betas
    alpha_bar = alphas.cumprod(0)
    before = torch.cat([torch.ones_like(alpha_bar[:1]), alpha_bar[:-1]])
    x = latents
    for i in reversed(range(len(betas))):
        t = torch.full((len(x),), i, device=x.device)
        eps = net(x, t)
        a, b = column(alpha_bar[t]), column(before[t])
        x0 = x / torch.sqrt(a) - torch.sqrt(1 / a - 1) * eps
        mean = column(betas[t]) * torch.sqrt(b) / (1 - a) * x0 + (1 - b) * torch.sqrt(column(alphas[t])) / (1 - a) * x
        variance = (column(betas[t]) * (1 - b) / (1 - a)).clamp(min=1e-20)
        z = noise(x)
        x = mean + (torch.sqrt(variance) * z if i > 0 else 0)
    return x


def edm_drift(net: Callable, x: Tensor, sigma: float) -> Tensor:
    """dx/dsigma of the probability-flow ODE."""
    return (x - net(x, torch.full((len(x),), sigma))) / sigma


def scipy_ode(net: Callable, x: Tensor, start: float, end: float, tolerance: float) -> tuple[Tensor, int]:
    """RK45 through NumPy: (x at the end, calls)."""
    from scipy.integrate import solve_ivp

    @torch.no_grad()
    def slope(t: float, flat: np.ndarray) -> np.ndarray:
        return edm_drift(net, torch.from_numpy(flat.reshape(x.shape)).float(), t).numpy().ravel()

    solution = solve_ivp(slope, (start, end), x.numpy().ravel(), rtol=tolerance, atol=tolerance, method="RK45")
    return torch.from_numpy(solution.y[:, -1].reshape(x.shape)).float(), solution.nfev


def scipy_likelihood(net: Callable, x: Tensor, start: float, end: float, tolerance: float, probe: Tensor) -> tuple[Tensor, int]:
    """log p by RK45 through NumPy, the drift and its divergence each with a forward of their own: ([B] nats, calls)."""
    from scipy.integrate import solve_ivp

    size = len(x)

    def slope(t: float, flat: np.ndarray) -> np.ndarray:
        state = torch.from_numpy(flat[:-size].reshape(x.shape)).float()
        with torch.no_grad():
            drift = edm_drift(net, state, t)
        with torch.enable_grad():
            leaf = state.requires_grad_(True)
            (product,) = torch.autograd.grad((edm_drift(net, leaf, t) * probe).sum(), leaf)
        divergence = (product * probe).flatten(1).sum(1)
        return np.concatenate([drift.numpy().ravel(), divergence.numpy()])

    initial = np.concatenate([x.numpy().ravel(), np.zeros(size)])
    solution = solve_ivp(slope, (start, end), initial, rtol=tolerance, atol=tolerance, method="RK45")
    z, divergence = torch.from_numpy(solution.y[:-size, -1].reshape(x.shape)), torch.from_numpy(solution.y[-size:, -1])
    n = x[0].numel()
    prior = -0.5 * n * np.log(2 * np.pi * end**2) - z.flatten(1).square().sum(1) / (2 * end**2)
    return prior + divergence, solution.nfev
