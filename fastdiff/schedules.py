"""Noise schedules: x(t) = s(t) * (x0 + sigma(t) * z), and the noise levels at which a sampler stops.

The language of Karras et al. 2022: sigma is the noise standard deviation in data units, s the scale of the state.
(Song et al. write alpha = s and sigma_song = s*sigma.) Everything here is float64 NumPy and runs before the loop.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Float = NDArray[np.float64]


#: A time or a noise level: a float before the loop, a tensor where every sample has its own (adaptive solvers, training).
N = TypeVar("N", float, Tensor)


def mathematics(t: float | Tensor) -> Any:
    """The module whose exp, log, sqrt, ... fit t: one formula serves floats and tensors."""
    return torch if isinstance(t, Tensor) else math


class Schedule(ABC):
    """sigma(t) and s(t) with their derivatives, and what follows from them: x(t) = s(t)*(x0 + sigma(t)*z).

    In the words of Song et al. 2021: alpha = s, std = s*sigma, and the linear SDE with these marginals is
    dx = f x dt + g dw with f = s'/s and g^2 = 2 s^2 sigma sigma' (Karras et al. 2022, eq. 156 to 158).
    """

    @abstractmethod
    def sigma(self, t: N) -> N:
        """Noise level at time t, data units."""

    @abstractmethod
    def sigma_deriv(self, t: N) -> N:
        """d sigma / dt."""

    @abstractmethod
    def time(self, sigma: N) -> N:
        """The t at which the noise level is sigma."""

    @abstractmethod
    def scale(self, t: N) -> N:
        """s(t)."""

    @abstractmethod
    def scale_deriv(self, t: N) -> N:
        """ds / dt."""

    def std(self, t: N) -> N:
        """s(t)*sigma(t): standard deviation of x(t) given x0."""
        return self.scale(t) * self.sigma(t)

    def drift(self, t: N) -> N:
        """f(t) of dx = f(t) x dt + g(t) dw."""
        return self.scale_deriv(t) / self.scale(t)

    def diffusion(self, t: N) -> N:
        """g(t) of dx = f(t) x dt + g(t) dw."""
        return self.scale(t) * mathematics(t).sqrt(2 * self.sigma(t) * self.sigma_deriv(t))

    def slope(self, t: N) -> tuple[N, N]:
        """(A, B) of the probability-flow ODE dx/dt = A*x - B*D: A = sigma'/sigma + s'/s, B = s*sigma'/sigma."""
        relative = self.sigma_deriv(t) / self.sigma(t)
        return relative + self.drift(t), relative * self.scale(t)


@dataclass(frozen=True)
class KarrasSchedule(Schedule):
    """A sigma(t) with one of the two scalings in use.

    Args:
        scaling: "none" for s = 1, "vp" for s = 1/sqrt(1 + sigma^2), which keeps the variance of the state.
    """

    scaling: Literal["none", "vp"] = "none"

    def __post_init__(self) -> None:
        if self.scaling not in ("none", "vp"):
            raise ValueError(f"scaling: expected 'none' or 'vp', got {self.scaling!r}")

    def scale(self, t: N) -> N:
        return t * 0 + 1 if self.scaling == "none" else 1 / mathematics(t).sqrt(1 + self.sigma(t) ** 2)

    def scale_deriv(self, t: N) -> N:
        return t * 0 if self.scaling == "none" else -self.sigma(t) * self.sigma_deriv(t) * self.scale(t) ** 3


@dataclass(frozen=True)
class Linear(KarrasSchedule):
    """sigma = t: the schedule of EDM and, with scaling "vp", of DDIM (Karras et al. 2022, table 1)."""

    def sigma(self, t: N) -> N:
        return t

    def sigma_deriv(self, t: N) -> N:
        return t * 0 + 1

    def time(self, sigma: N) -> N:
        return sigma


@dataclass(frozen=True)
class VE(KarrasSchedule):
    """sigma = sqrt(t): the variance-exploding SDE in Karras' form."""

    def sigma(self, t: N) -> N:
        return mathematics(t).sqrt(t)

    def sigma_deriv(self, t: N) -> N:
        return 0.5 / mathematics(t).sqrt(t)

    def time(self, sigma: N) -> N:
        return sigma**2


class LinearBeta:
    """beta(t) = beta_min + beta_d*t and its integral: the noise rate of the VP and sub-VP SDEs."""

    beta_min: float
    beta_d: float

    def beta(self, t: N) -> N:
        """Noise rate at t."""
        return self.beta_min + self.beta_d * t

    def integral(self, t: N) -> N:
        """Integral of beta from 0 to t."""
        return (self.beta_min + 0.5 * self.beta_d * t) * t

    def time_of_integral(self, value: N) -> N:
        """The t at which the integral has a value."""
        if self.beta_d == 0:
            return value / self.beta_min
        return (mathematics(value).sqrt(self.beta_min**2 + 2 * self.beta_d * value) - self.beta_min) / self.beta_d


@dataclass(frozen=True)
class VP(LinearBeta, KarrasSchedule):
    """sigma = sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1): the variance-preserving SDE, beta(t) = beta_min + beta_d t."""

    beta_d: float = 19.9
    beta_min: float = 0.1

    def sigma(self, t: N) -> N:
        return mathematics(t).sqrt(mathematics(t).expm1(self.integral(t)))

    def sigma_deriv(self, t: N) -> N:
        sigma = self.sigma(t)
        return 0.5 * self.beta(t) * (sigma + 1 / sigma)

    def time(self, sigma: N) -> N:
        return self.time_of_integral(mathematics(sigma).log1p(sigma**2))

    @classmethod
    def between(cls, sigma_min: float, sigma_max: float, epsilon_s: float = 1e-3, scaling: Literal["none", "vp"] = "none") -> VP:
        """The VP schedule with sigma(epsilon_s) = sigma_min and sigma(1) = sigma_max."""
        low, high = math.log1p(sigma_min**2), math.log1p(sigma_max**2)
        beta_d = 2 * (low / epsilon_s - high) / (epsilon_s - 1)
        return cls(scaling, beta_d, high - 0.5 * beta_d)


# ---- Conversions between (t, sigma, alpha_bar, lambda), with alpha_bar = 1/(1 + sigma^2) and lambda = ln(alpha/std) = -ln sigma


def sigma_of_alpha_bar(alpha_bar: N) -> N:
    """sqrt((1 - alpha_bar)/alpha_bar)."""
    return mathematics(alpha_bar).sqrt((1 - alpha_bar) / alpha_bar)


def alpha_bar_of_sigma(sigma: N) -> N:
    """1/(1 + sigma^2): the squared scale of the variance-preserving state."""
    return 1 / (1 + sigma**2)


def lambda_of_sigma(sigma: N) -> N:
    """Half the log signal-to-noise ratio, -ln sigma (Lu et al. 2022)."""
    return -mathematics(sigma).log(sigma)


def sigma_of_lambda(lam: N) -> N:
    """exp(-lambda)."""
    return mathematics(lam).exp(-lam)


def posterior(now: tuple[float, float], before: tuple[float, float]) -> tuple[float, float, float]:
    """q(x_before | x_now, x0) of a linear Gaussian process, as (m_x, m_0, std): its mean is m_x*x_now + m_0*x0.

    Args:
        now, before: (alpha, std) at a time and at an earlier, less noisy one.

    Source: Ho et al. 2020, eq. 7, for any alpha and std.
    """
    (alpha, std), (alpha_b, std_b) = now, before
    ratio = alpha / alpha_b
    added = max(std**2 - ratio**2 * std_b**2, 0.0)  # variance that the process adds on the way
    return ratio * std_b**2 / std**2, alpha_b * added / std**2, std_b * math.sqrt(added) / std


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
