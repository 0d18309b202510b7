"""A multilayer perceptron for data without pixels, such as points of a plane."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from .layers import PositionalEmbedding


class MLP(nn.Module):
    """Fully connected layers with SiLU, the noise label embedded at geometric frequencies.

    Args:
        dim: of the data; hidden, layers: width and depth; emb_channels: size of the embedding.
        label_dim: number of classes, 0 for none; label_scale: factor of the noise label before its embedding.

    Called with x [B, dim], noise_labels [B] and class_labels [B, label_dim] or None; returns [B, dim].
    """

    def __init__(
        self, dim: int = 2, hidden: int = 128, layers: int = 3, emb_channels: int = 32, label_dim: int = 0, label_scale: float = 100.0
    ):
        super().__init__()
        self.label_dim = label_dim
        self.label_scale = label_scale
        self.map_noise = PositionalEmbedding(emb_channels, endpoint=True)
        widths = [dim + emb_channels + label_dim, *[hidden] * layers]
        blocks = [(nn.Linear(a, b), nn.SiLU()) for a, b in itertools.pairwise(widths)]
        self.body = nn.Sequential(*[layer for block in blocks for layer in block], nn.Linear(hidden, dim))

    def forward(self, x: Tensor, noise_labels: Tensor, class_labels: Tensor | None = None) -> Tensor:
        parts = [x, self.map_noise(noise_labels.to(x.dtype) * self.label_scale).to(x.dtype)]
        if self.label_dim:
            parts.append(x.new_zeros(len(x), self.label_dim) if class_labels is None else class_labels.to(x.dtype).expand(len(x), -1))
        return self.body(torch.cat(parts, dim=1))
