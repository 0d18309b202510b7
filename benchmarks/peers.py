"""What fastdiff is compared with: the same mathematics as people write it, eager, hand-fused, and under torch.compile."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastdiff.schedules import edm_sigmas


class ConstantNet:
    """A network of EDM's kind that costs nothing: what is left is the sampler."""

    sigma_min, sigma_max = 0.0, float("inf")

    def __init__(self, like: Tensor) -> None:
        self.D = torch.zeros_like(like, dtype=torch.float32)

    def round_sigma(self, sigma):
        return torch.as_tensor(sigma)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.D


class LinearNet(ConstantNet):
    """D = (x + sigma)/(1 + sigma^2): a network whose samples depend on every coefficient of every step."""

    def __init__(self) -> None:
        pass

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        sigma = torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, *[1] * (x.dim() - 1))
        return (x + sigma) / (1 + sigma**2)


def _euler_update(x_hat: Tensor, denoised: Tensor, t_hat: Tensor, t_next: Tensor) -> tuple[Tensor, Tensor]:
    d = (x_hat - denoised.to(torch.float64)) / t_hat
    return x_hat + (t_next - t_hat) * d, d


def _heun_update(x_hat: Tensor, x: Tensor, d: Tensor, denoised: Tensor, t_hat: Tensor, t_next: Tensor) -> Tensor:
    d_next = (x - denoised.to(torch.float64)) / t_next
    return x_hat + (t_next - t_hat) * (0.5 * d + 0.5 * d_next)


def _churn(x: Tensor, t: Tensor, t_hat: Tensor) -> Tensor:
    return x + (t_hat**2 - t**2).sqrt() * torch.randn_like(x)


@torch.no_grad()
def compiled_edm_sampler(net, latents: Tensor, num_steps: int = 18, S_churn: float = 0.0) -> Tensor:
    """EDM's algorithm 2 with its updates under torch.compile, float64 state, device scalars."""
    euler, heun, churn = (compiled(f) for f in (_euler_update, _heun_update, _churn))
    sigmas = torch.cat([torch.from_numpy(edm_sigmas(num_steps, 0.002, 80.0)), torch.zeros(1, dtype=torch.float64)]).to(latents.device)
    x = latents.to(torch.float64) * sigmas[0]
    gamma = min(S_churn / num_steps, 2**0.5 - 1)
    for i in range(num_steps):
        t, t_next = sigmas[i], sigmas[i + 1]
        t_hat = t + gamma * t
        x_hat = churn(x, t, t_hat) if gamma else x
        x, d = euler(x_hat, net(x_hat, t_hat), t_hat, t_next)
        if i < num_steps - 1:
            x = heun(x_hat, x, d, net(x, t_next), t_hat, t_next)
    return x


@torch.no_grad()
def fused_edm_sampler(net, latents: Tensor, num_steps: int = 18, S_churn: float = 0.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """EDM's algorithm 2 as a careful engineer writes it: host scalars, in-place operations, no dead work, the state in `dtype`."""
    sigmas = [*edm_sigmas(num_steps, 0.002, 80.0).tolist(), 0.0]
    x = latents.to(dtype) * sigmas[0]
    gamma = min(S_churn / num_steps, 2**0.5 - 1)
    for i in range(num_steps):
        t, t_next = sigmas[i], sigmas[i + 1]
        t_hat = t + gamma * t
        if gamma:
            x.add_(torch.randn_like(x), alpha=(t_hat**2 - t**2) ** 0.5)
        slope = (x - net(x, t_hat)).mul_(1 / t_hat)
        following = torch.add(x, slope, alpha=t_next - t_hat)
        if i < num_steps - 1:
            slope.add_((following - net(following, t_next)).mul_(1 / t_next))
            following = x.add_(slope, alpha=0.5 * (t_next - t_hat))
        x = following
    return x


def eager_step(x: Tensor, F: Tensor, H: Tensor, a: float, b: float, c_x: float, c_D: float, c_h: float) -> Tensor:
    """One step as it stands in papers."""
    D = a * x + b * F
    return c_x * x + c_D * D + c_h * H


def fused_step(x: Tensor, F: Tensor, H: Tensor, a: float, b: float, c_x: float, c_D: float, c_h: float) -> Tensor:
    """One step with the coefficients folded by hand and in-place operations: three passes."""
    return x.mul(c_x + c_D * a).add_(F, alpha=c_D * b).add_(H, alpha=c_h)


def eager_perturb(x0: Tensor, mean_coef: Tensor, std: Tensor) -> Tensor:
    """x_t = m*x0 + s*z as every training loop has it."""
    shape = (-1, *[1] * (x0.dim() - 1))
    return mean_coef.reshape(shape) * x0 + std.reshape(shape) * torch.randn_like(x0)


def eager_denoising_loss(F: Tensor, x0: Tensor, x_t: Tensor, c_skip: Tensor, c_out: Tensor, weight: Tensor) -> Tensor:
    """EDM's loss of each sample as training loops have it."""
    D = c_skip * x_t + c_out * F
    return (weight * (D - x0) ** 2).sum(dim=tuple(range(1, x0.dim())))


def eager_group_norm_silu(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """As networks have it."""
    return torch.nn.functional.silu(torch.nn.functional.group_norm(x, groups, weight, bias, 1e-5))


_COMPILED: dict[Callable, Callable] = {}


def compiled(function: Callable) -> Callable:
    """The function under torch.compile, compiled once for each shape."""
    if function not in _COMPILED:
        _COMPILED[function] = torch.compile(function, fullgraph=True, dynamic=False)
    return _COMPILED[function]


def eager_edm_loss(net, sigma_data: float, images: Tensor, class_labels: Tensor, p_mean: float, p_std: float) -> Tensor:
    """EDM's loss as its repository writes it."""
    sigma = (torch.randn(len(images), 1, 1, 1) * p_std + p_mean).exp()
    weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    denoised = net(images + sigma * torch.randn_like(images), sigma.flatten(), class_labels)
    return (weight * (denoised - images) ** 2).mean()


@torch.no_grad()
def update_average(average: torch.nn.Module, net: torch.nn.Module, beta: float) -> None:
    """An exponential moving average, tensor by tensor."""
    for kept, new in zip(average.parameters(), net.parameters(), strict=True):
        kept.copy_(new.detach().lerp(kept, beta))
