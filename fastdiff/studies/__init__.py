"""Figures of the literature, computed again with the one loop: `fastdiff study NAME`.

A study is one file: `compute` makes the numbers, `finding` says them in one sentence, `draw` shows them. Adding one is writing
that file and naming it below.
"""

from . import exposure_bias, kernels, log_sobolev, mixture_field, nfe_quality, sde_ode, sedm, slow_mixing, swiss_roll
from ._common import Study

STUDIES: dict[str, Study] = {
    module.STUDY.name: module.STUDY
    for module in (mixture_field, slow_mixing, swiss_roll, sde_ode, nfe_quality, log_sobolev, kernels, exposure_bias, sedm)
}

__all__ = ["STUDIES", "Study"]
