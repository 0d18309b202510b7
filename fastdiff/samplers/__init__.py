"""Samplers: each makes the rows of a plan and nothing else. There is one loop, in fastdiff/loop.py."""

from ..epsilon_scaling import EpsilonScaling
from ._rows import Sampler, SigmaSampler
from .ddpm import DDIM, DDPM
from .dpm import DPMSolver2M, DPMSolver2S, DPMSolver3M, EulerAncestral
from .edm import EDMSampler
from .langevin import AnnealedLangevin, Langevin
from .pc import PCSampler
from .unipc import UniPC

__all__ = [
    "DDIM",
    "DDPM",
    "AnnealedLangevin",
    "DPMSolver2M",
    "DPMSolver2S",
    "DPMSolver3M",
    "EDMSampler",
    "EpsilonScaling",
    "EulerAncestral",
    "Langevin",
    "PCSampler",
    "Sampler",
    "SigmaSampler",
    "UniPC",
]
