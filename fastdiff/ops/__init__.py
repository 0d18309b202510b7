"""The fused ops, on every backend: see docs/ops.md for the table."""

from ._table import OPS, Op, has_kernel
from .coef import COLUMNS, coef_row
from .denoising_loss import denoising_loss
from .group_norm_silu import group_norm_silu, group_norm_silu_backward
from .langevin_row import langevin_row
from .noise import normal, rademacher, uniform
from .normal_sum import normal_sum
from .ode_error import ode_error
from .ode_stage import ode_stage
from .perturb import perturb
from .probe_dot import probe_dot
from .sampler_step import SamplerStep, sampler_step

__all__ = [
    "COLUMNS",
    "OPS",
    "Op",
    "SamplerStep",
    "coef_row",
    "denoising_loss",
    "group_norm_silu",
    "group_norm_silu_backward",
    "has_kernel",
    "langevin_row",
    "normal",
    "normal_sum",
    "ode_error",
    "ode_stage",
    "perturb",
    "probe_dot",
    "rademacher",
    "sampler_step",
    "uniform",
]
