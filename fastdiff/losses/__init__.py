"""Losses: what networks are trained to do, from a batch of data to one number for each sample."""

from .diffusion import diffusion_loss
from .guidance import classifier_loss, discriminator_loss
from .levels import Levels, LogNormal, UniformLog, UniformSteps, UniformTime
from .score_matching import implicit_score_matching_loss, score_matching_loss, sliced_score_matching_loss
from .weighting import WEIGHTINGS, Weighting, weighting

__all__ = [
    "WEIGHTINGS", "Levels", "LogNormal", "UniformLog", "UniformSteps", "UniformTime", "Weighting", "classifier_loss", "diffusion_loss",
    "discriminator_loss", "implicit_score_matching_loss", "score_matching_loss", "sliced_score_matching_loss", "weighting",
]  # fmt: skip
