"""The digits features: what FID and its kin look at where the images are 8x8 digits; never to be called FID-Inception."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as nnf

from ..layers import Conv2d, GroupNorm, Linear
from .classifier import CLASSES

FEATURES = 64


class Read(NamedTuple):
    """features: [B, 64], the last layer's input; logits: [B, 10] of the digits."""

    features: Tensor
    logits: Tensor


class DigitsFeatures(nn.Module):
    """Reads clean digits: features for the distances between sets of images, and class probabilities for the inception score.

    SiLU rather than ReLU, so that no feature is constant and covariances have full rank.

    Args:
        channels: width at 8x8, doubled at 4x4; dropout: rate while training.

    Called with x [B, 1, 8, 8] in [-1, 1]. Returns Read.
    """

    def __init__(self, channels: int = 32, dropout: float = 0.3):
        super().__init__()
        self.dropout = dropout
        wide = 2 * channels
        self.stem = Conv2d(1, channels, kernel=3)
        self.fine = Conv2d(channels, channels, kernel=3)
        self.fine_norm = GroupNorm(channels)
        self.coarse = Conv2d(channels, wide, kernel=3)
        self.coarse_norm = GroupNorm(wide)
        self.flat = Linear(wide * 4 * 4, FEATURES)
        self.head = Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Read:
        h = nnf.silu(self.fine_norm(self.fine(nnf.silu(self.stem(x)))))
        h = nnf.silu(self.coarse_norm(self.coarse(nnf.avg_pool2d(h, 2))))
        features = nnf.silu(self.flat(nnf.dropout(h.flatten(1), self.dropout, self.training)))
        return Read(features, self.head(nnf.dropout(features, self.dropout, self.training)))


def build_features() -> DigitsFeatures:
    """The untrained network."""
    return DigitsFeatures()
