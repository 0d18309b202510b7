"""Averages of the weights over training: what samplers use."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import nn

from .config import TrainConfig


def power_exponent(std: float) -> float:
    """gamma of the power average whose relative width is std: std^2 = (gamma + 1)/((gamma + 2)^2*(gamma + 3)) (Karras et al. 2024)."""
    if not 0 < std < 0.28:
        raise ValueError(f"ema_std: expected a number between 0 and 0.28, got {std}")
    return float(np.roots([1, 7, 16 - std**-2, 12 - std**-2]).real.max())


def keep(config: TrainConfig, images: int) -> float:
    """beta of average <- beta*average + (1 - beta)*weights after the step that ends at `images`.

    half-life   2^(-batch/min(half_life, ramp*images))        Karras et al. 2022
    power       (1 - 1/t)^(gamma + 1), t counting steps       Karras et al. 2024 (arXiv:2312.02696), eq. 121
    """
    if config.ema == "none":
        return 0.0
    if config.ema == "power":
        return (1 - config.batch / images) ** (power_exponent(config.ema_std) + 1)
    half_life = float(config.ema_half_life)
    if config.ema_ramp:
        half_life = min(half_life, (images - config.batch) * config.ema_ramp)
    return math.exp2(-config.batch / max(half_life, 1e-8))


class Average:
    """The average of a network's parameters, in one fused operation for all; buffers are copied."""

    def __init__(self, net: nn.Module) -> None:
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        trained = [name for name, parameter in net.named_parameters() if parameter.requires_grad]
        kept, new = dict(self.net.named_parameters()), dict(net.named_parameters())
        self._pairs = [kept[name] for name in trained], [new[name] for name in trained]
        self._buffers = list(zip(self.net.buffers(), net.buffers(), strict=True))

    @torch.no_grad()
    def update(self, beta: float) -> None:
        """average <- beta*average + (1 - beta)*weights."""
        torch._foreach_lerp_(*self._pairs, 1 - beta)  # type: ignore[arg-type]
        for kept, new in self._buffers:
            kept.copy_(new)
