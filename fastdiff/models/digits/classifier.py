"""The digits classifier: which digit a noisy image shows, at every noise level, for classifier guidance."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from ..layers import Conv2d, GroupNorm, Linear, PositionalEmbedding
from ..song_unet import UNetBlock
from .network import SIGMA_DATA

CLASSES = 10
SIGMA_FLOOR = 1e-4


class DigitsClassifier(nn.Module):
    """ln p(digit | x; sigma), up to a constant, of x = x0 + sigma*z with x0 in [-1, 1].

    The network sees c_in*x with c_in = 1/sqrt(sigma^2 + sigma_data^2), and ln(sigma)/4 as its noise label, like the denoiser. All
    of it is smooth, so that the gradient of a log probability can be differentiated again.

    Args:
        channels: width at 8x8, doubled at 4x4; dropout: rate while training.

    Called with x [B, 1, 8, 8] float32 or float64, unscaled, and sigma [B] or a scalar, both in data units; below 1e-4, sigma counts
    as 1e-4. Returns logits [B, 10] in the dtype of x.
    """

    def __init__(self, channels: int = 16, dropout: float = 0.2):
        super().__init__()
        self.dropout = dropout
        wide, embedded = 2 * channels, 2 * channels
        self.map_noise = PositionalEmbedding(16, endpoint=True)
        self.map_layer = Linear(16, embedded)
        self.stem = Conv2d(1, channels, kernel=3)
        self.fine = UNetBlock(channels, channels, embedded, dropout=dropout)
        self.coarse = UNetBlock(channels, wide, embedded, dropout=dropout, down=True)
        self.norm = GroupNorm(wide)
        self.head = Linear(wide * 4 * 4, CLASSES, init_weight=0.1)

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        sigma = torch.as_tensor(sigma, device=x.device).to(x.dtype).reshape(-1).clamp(min=SIGMA_FLOOR).expand(len(x))
        emb = nnf.silu(self.map_layer(self.map_noise(sigma.log() / 4)))
        c_in = (sigma**2 + SIGMA_DATA**2).rsqrt()
        h = self.coarse(self.fine(self.stem(c_in.reshape(-1, 1, 1, 1) * x), emb), emb)
        h = nnf.dropout(nnf.silu(self.norm(h)), self.dropout, self.training)
        return self.head(h.flatten(1))


def build_classifier() -> DigitsClassifier:
    """The untrained classifier."""
    return DigitsClassifier()
