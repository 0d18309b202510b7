"""The denoising loss in every parametrization: two fused kernels around the network, and no noise in memory.

    L = w(sigma)*|D - x0|^2,  D = a*x + b*F(c_in*x, label),  x = x0 + sigma*z

`perturb` writes c_in*x; `ops.denoising_loss` sums (sqrt(w)*(b*F + (a - 1)*x0 + a*sigma*z))^2 with z made again from its key, in the
forward and in the backward. Neither x, nor z, nor D, nor the residual is ever kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..noise import Stream
from ..parametrizations import Parametrization, parametrization_of


def diffusion_loss(
    net: Callable[..., Tensor], x0: Tensor, sigma: Tensor, key: Tensor, *, parametrization: str | Parametrization = "D",
    weight: Tensor | None = None, draw: int = 0, perturbation: float = 0.0, **condition: Any,
) -> Tensor:  # fmt: skip
    """The loss of each sample, [B]: w*|D - x0|^2 summed over its elements.

    Args:
        net, parametrization, condition: as for `fastdiff.sample`; a network with a learned variance gives its first channels.
        x0: [B, ...] data; sigma: [B] noise levels, data units; key: [B] int64 noise keys.
        weight: [B] w, of a `weighting`; default: 1.
        draw: of the noise: a new one for another look at the same keys.
        perturbation: gamma of input perturbation (Ning et al. 2023, arXiv:2301.11706): the network sees x0 + sigma*(z + gamma*z')
            and must still find z, which is the loss of the data x0 + sigma*gamma*z'.

    Raises:
        ValueError: names the argument, what was expected and what came.
    """
    if sigma.shape != x0.shape[:1]:
        raise ValueError(f"sigma: expected [{x0.shape[0]}], got {list(sigma.shape)}")
    if perturbation < 0:
        raise ValueError(f"perturbation: expected a number >= 0, got {perturbation}")
    meaning = parametrization_of(net, parametrization)
    sigma = sigma.double()
    if perturbation:
        x0 = ops.perturb(x0, 1.0, perturbation * sigma, key, draw, int(Stream.PERTURBATION))
    a, b = meaning.denoiser(sigma)
    c_in = meaning.c_in(sigma)
    net_in = ops.perturb(x0, c_in, c_in * sigma, key, draw, int(Stream.DATA))
    F = net(net_in, meaning.label(sigma).to(torch.promote_types(x0.dtype, torch.float32)), **condition)
    if F.dim() > 1 and F.shape[1] == 2 * x0.shape[1]:
        F = F[:, : x0.shape[1]]
    root = torch.ones_like(sigma) if weight is None else weight.double().sqrt()
    coef = torch.stack([root * b, root * (a - 1), root * a * sigma, torch.ones_like(sigma)], dim=1)
    return ops.denoising_loss(F, x0, coef, key, draw, int(Stream.DATA))
