"""Noise schedules: x(t) = s(t) * (x0 + sigma(t) * z), and the noise levels at which a sampler stops.

The language of Karras et al. 2022: sigma is the noise standard deviation in data units, s the scale of the state.
(Song et al. write alpha = s and sigma_song = s*sigma.) Everything here is float64 NumPy and runs before the loop.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Schedule(ABC):
    """sigma(t) and s(t) with their derivatives.

    Args:
        scaling: "none" for s = 1, "vp" for s = 1/sqrt(1 + sigma^2), which keeps the variance of the state.
    """

    scaling: Literal["none", "vp"] = "none"

    def __post_init__(self) -> None:
        if self.scaling not in ("none", "vp"):
            raise ValueError(f"scaling: expected 'none' or 'vp', got {self.scaling!r}")

    @abstractmethod
    def sigma(self, t: float) -> float:
        """Noise level at time t."""

    @abstractmethod
    def sigma_deriv(self, t: float) -> float:
        """d sigma / dt."""

    @abstractmethod
    def time(self, sigma: float) -> float:
        """The t at which the noise level is sigma."""

    def scale(self, t: float) -> float:
        """s(t)."""
        return 1.0 if self.scaling == "none" else 1 / math.sqrt(1 + self.sigma(t) ** 2)

    def scale_deriv(self, t: float) -> float:
        """ds / dt."""
        return 0.0 if self.scaling == "none" else -self.sigma(t) * self.sigma_deriv(t) * self.scale(t) ** 3


@dataclass(frozen=True)
class Linear(Schedule):
    """sigma = t: the schedule of EDM and, with scaling "vp", of DDIM (Karras et al. 2022, table 1)."""

    def sigma(self, t: float) -> float:
        return t

    def sigma_deriv(self, t: float) -> float:
        return 1.0

    def time(self, sigma: float) -> float:
        return sigma


@dataclass(frozen=True)
class VE(Schedule):
    """sigma = sqrt(t): the variance-exploding SDE in Karras' form."""

    def sigma(self, t: float) -> float:
        return math.sqrt(t)

    def sigma_deriv(self, t: float) -> float:
        return 0.5 / math.sqrt(t)

    def time(self, sigma: float) -> float:
        return sigma**2


@dataclass(frozen=True)
class VP(Schedule):
    """sigma = sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1): the variance-preserving SDE, beta(t) = beta_min + beta_d t."""

    beta_d: float = 19.9
    beta_min: float = 0.1

    def sigma(self, t: float) -> float:
        return math.sqrt(math.expm1(0.5 * self.beta_d * t**2 + self.beta_min * t))

    def sigma_deriv(self, t: float) -> float:
        sigma = self.sigma(t)
        return 0.5 * (self.beta_min + self.beta_d * t) * (sigma + 1 / sigma)

    def time(self, sigma: float) -> float:
        return (math.sqrt(self.beta_min**2 + 2 * self.beta_d * math.log1p(sigma**2)) - self.beta_min) / self.beta_d

    @classmethod
    def between(cls, sigma_min: float, sigma_max: float, epsilon_s: float = 1e-3, scaling: Literal["none", "vp"] = "none") -> VP:
        """The VP schedule with sigma(epsilon_s) = sigma_min and sigma(1) = sigma_max."""
        low, high = math.log1p(sigma_min**2), math.log1p(sigma_max**2)
        beta_d = 2 * (low / epsilon_s - high) / (epsilon_s - 1)
        return cls(scaling, beta_d, high - 0.5 * beta_d)


# ---- Noise levels, from sigma_max down to sigma_min; the samplers append 0 --------------------------------------------


def _ramp(steps: int) -> Float:
    """0, ..., 1."""
    if steps < 1:
        raise ValueError(f"steps: expected an integer >= 1, got {steps}")
    return np.arange(steps, dtype=np.float64) / max(steps - 1, 1)


def edm_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Float:
    """(sigma_max^(1/rho) + i/(N-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho (Karras et al. 2022, eq. 5)."""
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return (high + _ramp(steps) * (low - high)) ** rho


def ve_sigmas(steps: int, sigma_min: float, sigma_max: float) -> Float:
    """Geometric noise levels (Song et al. 2021)."""
    return np.sqrt(sigma_max**2 * (sigma_min**2 / sigma_max**2) ** _ramp(steps))


def vp_sigmas(steps: int, schedule: VP, epsilon_s: float = 1e-3) -> Float:
    """Noise levels of the VP schedule at t = 1, ..., epsilon_s, evenly spaced."""
    return np.array([schedule.sigma(t) for t in 1 + _ramp(steps) * (epsilon_s - 1)])


def iddpm_sigmas(steps: int, sigma_min: float, sigma_max: float, C_1: float = 0.001, C_2: float = 0.008, M: int = 1000) -> Float:
    """A subset of iDDPM's M cosine noise levels within [sigma_min, sigma_max] (Nichol and Dhariwal 2021; Karras 2022, table 1).

    Raises:
        ValueError: no level lies in the range.
    """
    # In float32, as NVlabs/edm computes it: the levels of published models are these, 5e-6 away from the exact ones.
    alpha_bar = ((0.5 * math.pi * torch.arange(M + 1, dtype=torch.float32, device="cpu") / M / (C_2 + 1)).sin() ** 2).numpy()
    u = np.zeros(M + 1)
    for j in range(M, 0, -1):
        u[j - 1] = math.sqrt((u[j] ** 2 + 1) / max(alpha_bar[j - 1] / alpha_bar[j], C_1) - 1)
    inside = u[(u >= sigma_min) & (u <= sigma_max)]
    if not len(inside):
        raise ValueError(f"sigma_min, sigma_max: expected a range that holds a level of iDDPM, got [{sigma_min}, {sigma_max}]")
    return inside[np.rint((len(inside) - 1) * _ramp(steps)).astype(np.int64)]
