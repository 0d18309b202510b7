"""The discriminator of EDM-G++ (Kim et al. 2023, arXiv:2211.17091): a frozen ADM encoder and a shallow trained head.

    d(x_t, t) = sigmoid(head(features(x_t, t), t)),   ln r = ln d/(1 - d) = ln p_real/p_generated of noisy samples

Both see the time t of the VP SDE (beta from 0.1 to 20) and its state: x/sqrt(1 + sigma^2) for x = x0 + sigma*z.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..guidance import Guidance, vp_time_window
from ..schedules import VP
from .adm_encoder import ADMEncoder, vp_state

#: Probabilities are kept this far from 0 and 1.
MARGIN = 1e-5
_LIMIT = math.log((1 - MARGIN) / MARGIN)


class Discriminator(nn.Module):
    """ln p_real/p_generated of a noisy sample.

    Args:
        extractor: arguments of the ADMEncoder that makes the features; its weights stay as they are.
        head: arguments of the ADMEncoder on the features, one output; `condition` says whether it sees the class.
        time: "linear" for an extractor of the VP SDE, "cosine" for one of the cosine schedule (guided-diffusion's 64x64).
    """

    def __init__(self, extractor: Mapping[str, Any], head: Mapping[str, Any], time: Literal["linear", "cosine"] = "linear"):
        super().__init__()
        if time not in ("linear", "cosine"):
            raise ValueError(f"time: expected 'linear' or 'cosine', got {time!r}")
        self.time = time
        self.extractor = ADMEncoder(**extractor).requires_grad_(False)
        self.head = ADMEncoder(**head)
        if self.head.in_channels != self.extractor.features[0]:
            raise ValueError(f"head: expected in_channels {self.extractor.features[0]}, the features, got {self.head.in_channels}")

    def train(self, mode: bool = True) -> Discriminator:
        """The head alone trains: the extractor never drops anything."""
        super().train(mode)
        self.extractor.eval()
        return self

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Logits [B] of VP states x [B, C, H, W] at times t [B]; class_labels: [B] int64 or one-hot [B, K], for a conditional head."""
        t = cosine_time(t) if self.time == "cosine" else t
        features = self.extractor(x, t, feature=True)
        return self.head(features, t, condition=class_labels if self.head.condition else None).flatten()

    def logits(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """[B] ln r of unscaled samples x = x0 + sigma*z; sigma [B], both in data units."""
        state, t = vp_state(x, sigma, self.head.freqs.dtype)
        return self(state, t, class_labels)

    def log_ratio(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """`logits` within +-11.5, with no gradient beyond: what guides."""
        return self.logits(x, sigma, class_labels).clamp(-_LIMIT, _LIMIT)


def cosine_time(t: Tensor, offset: float = 0.008) -> Tensor:
    """The time at which the cosine schedule has the noise level of the VP SDE (beta from 0.1 to 20) at t."""
    mean = torch.exp(-0.5 * VP().integral(t))
    return (1 + offset) * 2 / math.pi * torch.arccos(math.cos(offset / (1 + offset) * math.pi / 2) * mean) - offset


def discriminator_guidance(
    discriminator: Discriminator, weight: float = 2.0, second_order_weight: float = 0.0, time_min: float = 0.01, time_max: float = 1.0
) -> Guidance:
    """score <- score + w*grad ln r: discriminator guidance (Kim et al. 2023, eq. 8; EDM-G++'s defaults).

    Args:
        discriminator: a Discriminator, or anything with its log_ratio(x, sigma, class_labels).
        weight: w at predictors; second_order_weight: w at correctors.
        time_min, time_max: the VP times within which it acts.
    """

    def gradient(x: Tensor, sigma: Tensor, class_labels: Tensor | None = None, **_: Any) -> Tensor:
        with torch.enable_grad():
            twice = x.requires_grad  # someone differentiates through the guidance
            leaf = x if twice else x.detach().requires_grad_()
            total = discriminator.log_ratio(leaf, sigma, class_labels).sum()
            return torch.autograd.grad(total, leaf, create_graph=twice)[0]

    return Guidance(gradient, weight, second_order_weight, vp_time_window(time_min, time_max))
