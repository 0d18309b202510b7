"""What a network returns: a pair (a, b) with D = a*x + b*F, and how it wants its input and its noise label.

Everything is a function of sigma, in data units, with x = x0 + sigma*z unscaled. The network sees c_in*x.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from .schedules import VP, Schedule


def _identity(sigma: float) -> float:
    return sigma


@dataclass(frozen=True)
class Parametrization(ABC):
    """The meaning of a network's output.

    Args:
        sigma_min, sigma_max: noise levels that the network supports.
        round_sigma: the supported level nearest to a given one.
    """

    sigma_min: float = 0.0
    sigma_max: float = math.inf
    round_sigma: Callable[[float], float] = field(default=_identity, compare=False)

    @abstractmethod
    def denoiser(self, sigma: float) -> tuple[float, float]:
        """(a, b) with D = a*x + b*F."""

    def c_in(self, sigma: float) -> float:
        """The network's input is c_in*x."""
        return 1.0

    def label(self, sigma: float) -> float:
        """The network's noise label."""
        return sigma


@dataclass(frozen=True)
class Denoiser(Parametrization):
    """The network returns D(x, sigma), as NVlabs/edm's and k-diffusion's denoisers do: (a, b) = (0, 1)."""

    def denoiser(self, sigma: float) -> tuple[float, float]:
        return 0.0, 1.0

    @classmethod
    def of(cls, net: Any) -> Denoiser:
        """The noise levels that an EDM network object states: sigma_min, sigma_max and round_sigma, where it has them."""
        rounding = getattr(net, "round_sigma", None)
        return cls(
            float(getattr(net, "sigma_min", 0.0)),
            float(getattr(net, "sigma_max", math.inf)),
            _identity if rounding is None else lambda sigma: float(rounding(torch.tensor(sigma, dtype=torch.float64, device="cpu"))),
        )


@dataclass(frozen=True)
class EDM(Parametrization):
    """The raw network F of EDM preconditioning (Karras et al. 2022, table 1); its label is ln(sigma)/4."""

    sigma_data: float = 0.5

    def denoiser(self, sigma: float) -> tuple[float, float]:
        variance = sigma**2 + self.sigma_data**2
        return self.sigma_data**2 / variance, sigma * self.sigma_data / math.sqrt(variance)

    def c_in(self, sigma: float) -> float:
        return 1 / math.sqrt(sigma**2 + self.sigma_data**2)

    def label(self, sigma: float) -> float:
        return math.log(sigma) / 4


@dataclass(frozen=True)
class _Scheduled(Parametrization):
    """A network trained under a schedule: it sees s*x, and its label is a multiple of that schedule's time.

    Args:
        schedule: of training; the default is the VP SDE with beta from 0.1 to 20.
        label_scale: labels are label_scale*t (999 in score_sde for VP; 1000*t, ... as the network was trained).
        label_is_sigma: labels are sigma instead (score_sde for VE).
    """

    schedule: Schedule = field(default_factory=lambda: VP("vp"))
    label_scale: float = 999.0
    label_is_sigma: bool = False

    def c_in(self, sigma: float) -> float:
        return self.schedule.scale(self.schedule.time(sigma))

    def label(self, sigma: float) -> float:
        return sigma if self.label_is_sigma else self.label_scale * self.schedule.time(sigma)


@dataclass(frozen=True)
class Epsilon(_Scheduled):
    """The network returns the noise: D = x - sigma*eps (Ho et al. 2020)."""

    def denoiser(self, sigma: float) -> tuple[float, float]:
        return 1.0, -sigma


@dataclass(frozen=True)
class Score(_Scheduled):
    """The network returns the score of the scaled state: D = x + s*sigma^2*score (Song et al. 2021)."""

    def denoiser(self, sigma: float) -> tuple[float, float]:
        return 1.0, self.c_in(sigma) * sigma**2


@dataclass(frozen=True)
class Velocity(_Scheduled):
    """The network returns v = alpha*eps - sigma_vp*x0 of a variance-preserving state: D = s^2*x - s*sigma*v (Salimans and Ho 2022)."""

    def __post_init__(self) -> None:
        if self.schedule.scaling != "vp":
            raise ValueError(f"schedule: expected scaling 'vp' for velocity prediction, got {self.schedule.scaling!r}")

    def denoiser(self, sigma: float) -> tuple[float, float]:
        s = self.c_in(sigma)
        return s**2, -s * sigma


#: Names that `fastdiff.sample(parametrization=...)` takes.
BY_NAME: dict[str, type[Parametrization]] = {"D": Denoiser, "F": EDM, "eps": Epsilon, "score": Score, "v": Velocity}
