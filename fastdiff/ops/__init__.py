"""The fused ops, on every backend: see docs/ops.md for the table."""

from ._table import OPS, Op, has_kernel
from .coef import COLUMNS, coef_row
from .noise import normal, rademacher, uniform
from .perturb import perturb
from .sampler_step import SamplerStep, sampler_step

__all__ = [
    "COLUMNS",
    "OPS",
    "Op",
    "SamplerStep",
    "coef_row",
    "has_kernel",
    "normal",
    "perturb",
    "rademacher",
    "sampler_step",
    "uniform",
]
