"""The coefficient row of `sampler_step`: names, order and defaults, in one place."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Column names in memory order (csrc/coef.h and kernels/sampler_step.py read them by this position).
COLUMNS = (
    "a", "b", "b_u", "lo", "hi", "c_x", "c_D", "c_g", "c_h1", "c_h2", "c_h3", "c_n", "c_in", "e_x", "e_D", "c_l", "k_x", "k_n",
)  # fmt: skip
DEFAULTS = {"lo": -math.inf, "hi": math.inf}


def coef_row(**values: float) -> Tensor:
    """One row [18] of float64 coefficients by name; what is not named is 0 (no clipping for lo and hi).

    >>> coef_row(b=1.0, c_x=0.5, c_D=0.5).shape
    torch.Size([18])

    Raises:
        ValueError: an unknown name.
    """
    unknown = set(values) - set(COLUMNS)
    if unknown:
        raise ValueError(f"coef_row: expected names among {', '.join(COLUMNS)}, got {', '.join(sorted(unknown))}")
    return torch.tensor([values.get(name, DEFAULTS.get(name, 0.0)) for name in COLUMNS], dtype=torch.float64, device="cpu")
