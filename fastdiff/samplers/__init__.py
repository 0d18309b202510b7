"""Samplers: each makes the rows of a plan and nothing else. There is one loop, in fastdiff/loop.py."""

from ..epsilon_scaling import EpsilonScaling
from ._rows import Sampler, SigmaSampler
from .ddpm import DDIM, DDPM
from .dpm import DPMSolver2M, DPMSolver2S, DPMSolver3M, EulerAncestral
from .dpm2 import DPM2Ancestral, SDEDPMSolver2S
from .dpm_fast import DPMSolverFast
from .edm import EDMSampler
from .langevin import AnnealedLangevin, Langevin
from .lms import LinearMultistep, adams_weights
from .pc import PCSampler
from .unipc import UniPC

__all__ = [
    "DDIM",
    "DDPM",
    "AnnealedLangevin",
    "DPM2Ancestral",
    "DPMSolver2M",
    "DPMSolver2S",
    "DPMSolver3M",
    "DPMSolverFast",
    "EDMSampler",
    "EpsilonScaling",
    "EulerAncestral",
    "Langevin",
    "LinearMultistep",
    "PCSampler",
    "SDEDPMSolver2S",
    "Sampler",
    "SigmaSampler",
    "UniPC",
    "adams_weights",
]
