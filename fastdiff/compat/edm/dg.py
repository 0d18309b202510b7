"""DG's edm_sampler: the arguments of discriminator guidance come first, without defaults."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from . import samplers
from .samplers import RandnLike


def edm_sampler(
    boosting: bool, time_min: float, time_max: float, vpsde: Any, dg_weight_1st_order: float, dg_weight_2nd_order: float,
    discriminator: Any, net: Any, latents: Tensor, class_labels: Tensor | None = None, randn_like: RandnLike | None = None,
    num_steps: int = 18, sigma_min: float = 0.002, sigma_max: float = 80, rho: float = 7, S_churn: float = 0, S_min: float = 0,
    S_max: float = math.inf, S_noise: float = 1, *, state_dtype: torch.dtype = torch.float64,
) -> Tensor:  # fmt: skip
    """EDM-G++'s sampler (Kim et al. 2023): `fastdiff.compat.edm.edm_sampler`, which says what every argument means."""
    return samplers.edm_sampler(
        net, latents, class_labels, randn_like, num_steps, sigma_min, sigma_max, rho, S_churn, S_min, S_max, S_noise,
        boosting=boosting, time_min=time_min, time_max=time_max, vpsde=vpsde, dg_weight_1st_order=dg_weight_1st_order,
        dg_weight_2nd_order=dg_weight_2nd_order, discriminator=discriminator, state_dtype=state_dtype,
    )  # fmt: skip
