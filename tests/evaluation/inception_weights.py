"""Weights for Inception that a seed fills, for want of the real ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def filled(net: nn.Module) -> dict[str, Tensor]:
    """Names to tensors: convolutions are random and keep the size of signals, batch norms are the identity."""
    random = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in sorted(net.state_dict().items()):
        if tensor.dim() >= 2:
            state[name] = torch.randn(tensor.shape, generator=random) * (2 / tensor[0].numel()) ** 0.5
        elif not name.endswith("num_batches_tracked"):
            state[name] = torch.full_like(tensor, float(name.endswith(("running_var", "bn.weight"))))
    return state
