"""Samplers: each makes the rows of a plan and nothing else. There is one loop, in fastdiff/loop.py."""

from .edm import EDMSampler, EpsilonScaling

__all__ = ["EDMSampler", "EpsilonScaling"]
