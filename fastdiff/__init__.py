"""fastdiff: fused kernels and samplers for score-based and diffusion models.

>>> import fastdiff
>>> images = fastdiff.sample(net, (64, 3, 32, 32), seeds=0)  # net(x, sigma) returns the denoised estimate

Importing needs torch and numpy only, and never compiles anything. `fastdiff.doctor()` says what runs where.
"""

from . import ops
from ._backends import CPU_EXTENSION_ERROR
from ._version import __version__
from .brownian import BrownianPath
from .discrete import Discrete, cosine_betas, geometric_sigmas, linear_betas, scaled_linear_betas
from .doctor import doctor
from .encoding import ODESampler, decode, encode, slerp, with_temperature
from .epsilon_scaling import EpsilonScaling
from .guidance import ClassifierFree, Guidance, classifier_guidance, vp_time_window
from .known import Basis, Known, channel_basis, gray_basis
from .likelihood import Likelihood, log_likelihood
from .loop import StepInfo, run
from .losses import score_matching_loss
from .noise import Stream, keys, randn
from .ode import ODEError, ODESolver
from .ops import (
    coef_row,
    denoising_loss,
    group_norm_silu,
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
from .parametrizations import EDM, Data, Denoiser, Epsilon, Mean, Parametrization, RectifiedFlow, Score, Velocity, tweedie
from .plan import Plan, Row
from .samplers import (
    DDIM,
    DDPM,
    AnnealedLangevin,
    DPM2Ancestral,
    DPMSolver2M,
    DPMSolver2S,
    DPMSolver3M,
    DPMSolverFast,
    EDMSampler,
    EulerAncestral,
    Langevin,
    LinearMultistep,
    PCSampler,
    Sampler,
    SDEDPMSolver2S,
    UniPC,
)
from .sampling import sample
from .sdes import EDMSDE, SDE, VESDE, VPSDE, SubVPSDE
from .time_shift import TimeShift

__all__ = [
    "CPU_EXTENSION_ERROR",
    "DDIM",
    "DDPM",
    "EDM",
    "EDMSDE",
    "SDE",
    "VESDE",
    "VPSDE",
    "AnnealedLangevin",
    "Basis",
    "BrownianPath",
    "ClassifierFree",
    "DPM2Ancestral",
    "DPMSolver2M",
    "DPMSolver2S",
    "DPMSolver3M",
    "DPMSolverFast",
    "Data",
    "Denoiser",
    "Discrete",
    "EDMSampler",
    "Epsilon",
    "EpsilonScaling",
    "EulerAncestral",
    "Guidance",
    "Known",
    "Langevin",
    "Likelihood",
    "LinearMultistep",
    "Mean",
    "ODEError",
    "ODESampler",
    "ODESolver",
    "PCSampler",
    "Parametrization",
    "Plan",
    "RectifiedFlow",
    "Row",
    "SDEDPMSolver2S",
    "Sampler",
    "Score",
    "StepInfo",
    "Stream",
    "SubVPSDE",
    "TimeShift",
    "UniPC",
    "Velocity",
    "__version__",
    "channel_basis",
    "classifier_guidance",
    "coef_row",
    "cosine_betas",
    "decode",
    "denoising_loss",
    "doctor",
    "encode",
    "geometric_sigmas",
    "gray_basis",
    "group_norm_silu",
    "keys",
    "langevin_row",
    "linear_betas",
    "log_likelihood",
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
    "scaled_linear_betas",
    "score_matching_loss",
    "slerp",
    "tweedie",
    "uniform",
    "vp_time_window",
    "with_temperature",
]
