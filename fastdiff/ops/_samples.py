"""States for the op table: the shapes, strides and edge cases that every backend must get right."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

#: (label, shape): no element, no batch, one, odd lengths, a ragged image, more than one block, 5-D, many small samples.
SHAPES = (
    ("one", (1,)),
    ("vector", (7,)),
    ("no elements", (2, 0)),
    ("no batch", (0, 3, 4, 4)),
    ("odd image", (2, 3, 5, 7)),
    ("several ranges", (2, 3, 41, 43)),
    ("video", (2, 2, 3, 4, 5)),
    ("small samples", (65, 3)),
)


def randn(shape, device, dtype, seed: int) -> Tensor:
    """Test data: a fixed function of (shape, seed), the same numbers in every dtype."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(device=device, dtype=dtype)


def keys(batch: int, device, seed: int = 0) -> Tensor:
    """[B] keys that fill all 64 bits."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-(2**63), 2**63 - 1, (batch,), generator=generator).to(device)


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The values of x [B, C, H, W] in memory laid out otherwise."""
    if layout == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "strided":
        wide = torch.zeros(*x.shape[:-1], 2 * x.shape[-1], device=x.device, dtype=x.dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    if layout == "transposed":
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    if layout == "offset":
        flat = torch.zeros(x.numel() + 3, device=x.device, dtype=x.dtype)
        flat[3:] = x.flatten()
        return flat[3:].view(x.shape)
    raise ValueError(f"layout: {layout}")


LAYOUTS = ("channels_last", "strided", "transposed", "offset")


def states(device, dtype, seed: int = 1) -> Iterator[tuple[str, Tensor]]:
    """Every shape in plain memory, and an image in every other layout."""
    for label, shape in SHAPES:
        yield label, randn(shape, device, dtype, seed)
    for layout in LAYOUTS:
        yield layout, laid_out(randn((2, 3, 6, 9), device, dtype, seed), layout)
