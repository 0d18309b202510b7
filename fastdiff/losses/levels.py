"""Which noise levels a network is trained at: a distribution of sigma by its inverse cumulative function.

One uniform number of a sample's key gives its level, so that a level depends on the seed and the sample alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..noise import Stream
from ..ops import uniform
from ..schedules import Schedule


class Levels(ABC):
    """A distribution of noise levels."""

    @abstractmethod
    def at(self, u: Tensor) -> Tensor:
        """sigma [B] float64, data units, at cumulative probabilities u [B] float64 in (0, 1]."""

    def draw(self, key: Tensor, draw: int = 0) -> Tensor:
        """sigma [B] float64 of noise keys [B] int64."""
        u = torch.empty(len(key), 1, dtype=torch.float64, device=key.device)
        return self.at(uniform(u, key, draw, int(Stream.LEVEL))[:, 0])


@dataclass(frozen=True)
class LogNormal(Levels):
    """ln sigma ~ N(mean, std^2): EDM's P_mean and P_std (Karras et al. 2022, table 1)."""

    mean: float = -1.2
    std: float = 1.2

    def at(self, u: Tensor) -> Tensor:
        return torch.exp(self.mean + self.std * torch.special.ndtri(u.clamp(2.0**-26, 1 - 2.0**-26)))


@dataclass(frozen=True)
class UniformLog(Levels):
    """ln sigma uniform: the VE SDE's times, and the importance-sampled times of a VP SDE.

    The weight g^2/std^2 of the likelihood is the density of ln(sigma^2) in t, so drawing t in proportion to it, as the
    discriminator of EDM-G++ is trained (Kim et al. 2023), is drawing ln sigma uniformly.
    """

    sigma_min: float = 0.02
    sigma_max: float = 100.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"sigma_min, sigma_max: expected 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")

    @classmethod
    def of(cls, process: Schedule, epsilon_t: float = 1e-5, T: float = 1.0) -> UniformLog:
        """Between the levels of a process at times epsilon_t and T."""
        return cls(float(process.sigma(epsilon_t)), float(process.sigma(T)))

    def at(self, u: Tensor) -> Tensor:
        return torch.exp(math.log(self.sigma_min) + u * math.log(self.sigma_max / self.sigma_min))


@dataclass(frozen=True)
class UniformTime(Levels):
    """t uniform from epsilon_t to T under a schedule (Song et al. 2021, eq. 7)."""

    process: Schedule
    epsilon_t: float = 1e-5
    T: float = 1.0

    def at(self, u: Tensor) -> Tensor:
        return self.process.sigma(self.epsilon_t + u * (self.T - self.epsilon_t))


@lru_cache(maxsize=64)
def on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Numbers on a device, copied once."""
    return torch.tensor(values, dtype=torch.float64, device=device)


@dataclass(frozen=True)
class UniformSteps(Levels):
    """One of finitely many levels, all alike: DDPM's steps (Ho et al. 2020, algorithm 1), NCSN's levels (Song and Ermon 2019).

    Args:
        sigmas: the levels, e.g. Discrete().sigmas or geometric_sigmas().
    """

    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigmas", tuple(float(sigma) for sigma in self.sigmas))
        if not self.sigmas or min(self.sigmas) <= 0:
            raise ValueError(f"sigmas: expected levels > 0, got {self.sigmas}")

    def at(self, u: Tensor) -> Tensor:
        sigmas = on_device(self.sigmas, u.device)
        return sigmas[(u * len(sigmas)).ceil().long().clamp(1, len(sigmas)) - 1]
