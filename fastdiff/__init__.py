"""fastdiff: fused kernels and samplers for score-based and diffusion models.

>>> import fastdiff
>>> images = fastdiff.sample(net, (64, 3, 32, 32), seeds=0)  # net(x, sigma) returns the denoised estimate

Importing needs torch and numpy only, and never compiles anything. `fastdiff.doctor()` says what runs where.
"""

from . import ops
from ._backends import CPU_EXTENSION_ERROR
from ._version import __version__
from .doctor import doctor
from .guidance import ClassifierFree, Guidance, vp_time_window
from .loop import StepInfo, run
from .noise import Stream, keys, randn
from .ops import (
    coef_row,
    langevin_row,
    normal,
    normal_sum,
    ode_error,
    ode_stage,
    perturb,
    probe_dot,
    rademacher,
    sampler_step,
    uniform,
)
from .parametrizations import EDM, Denoiser, Epsilon, Parametrization, Score, Velocity
from .plan import Plan, Row
from .samplers import EDMSampler, EpsilonScaling
from .sampling import sample

__all__ = [
    "CPU_EXTENSION_ERROR",
    "EDM",
    "ClassifierFree",
    "Denoiser",
    "EDMSampler",
    "Epsilon",
    "EpsilonScaling",
    "Guidance",
    "Parametrization",
    "Plan",
    "Row",
    "Score",
    "StepInfo",
    "Stream",
    "Velocity",
    "__version__",
    "coef_row",
    "doctor",
    "keys",
    "langevin_row",
    "normal",
    "normal_sum",
    "ode_error",
    "ode_stage",
    "ops",
    "perturb",
    "probe_dot",
    "rademacher",
    "randn",
    "run",
    "sample",
    "sampler_step",
    "uniform",
    "vp_time_window",
]
