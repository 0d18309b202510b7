"""Per-sample numbers against states: how they broadcast and how they are summed."""

from __future__ import annotations

import torch
from torch import Tensor

from .coef import COLUMNS


def column(t: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    """[B] as [B, 1, ...], to broadcast against x [B, ...]."""
    return t.to(dtype).reshape(-1, *[1] * (x.dim() - 1))


def sum_per_sample(t: Tensor) -> Tensor:
    """[B, ...] to [B]."""
    return t.flatten(1).sum(1) if t.dim() > 1 else t


def compute_dtype(x: Tensor) -> torch.dtype:
    """What the kernels compute in: float64 for a float64 state, else float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def columns(coef: Tensor, x: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Each coefficient of a row by name, shaped to broadcast against x."""
    shape = (-1, *[1] * (x.dim() - 1)) if coef.dim() == 2 else ()
    return {name: coef[..., i].to(dtype).reshape(shape) for i, name in enumerate(COLUMNS)}
