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
from torch import Tensor

from .discrete import Discrete
from .schedules import N, Schedule, mathematics, posterior
from .sdes import VPSDE


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
    def denoiser(self, sigma: N) -> tuple[N, N]:
        """(a, b) with D = a*x + b*F."""

    def noise(self, sigma: N) -> tuple[N, N]:
        """(p, q) with eps = (x - D)/sigma = p*x + q*F."""
        a, b = self.denoiser(sigma)
        return (1 - a) / sigma, -b / sigma

    def c_in(self, sigma: N) -> N:
        """The network's input is c_in*x."""
        return sigma * 0 + 1

    def label(self, sigma: N) -> N:
        """The network's noise label."""
        return sigma


@dataclass(frozen=True)
class Denoiser(Parametrization):
    """The network returns D(x, sigma), as NVlabs/edm's and k-diffusion's denoisers do: (a, b) = (0, 1)."""

    def denoiser(self, sigma: N) -> tuple[N, N]:
        return sigma * 0, sigma * 0 + 1

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

    def denoiser(self, sigma: N) -> tuple[N, N]:
        variance = sigma**2 + self.sigma_data**2
        return self.sigma_data**2 / variance, sigma * self.sigma_data / mathematics(sigma).sqrt(variance)

    def c_in(self, sigma: N) -> N:
        return 1 / mathematics(sigma).sqrt(sigma**2 + self.sigma_data**2)

    def label(self, sigma: N) -> N:
        return mathematics(sigma).log(sigma) / 4


@dataclass(frozen=True)
class _Scheduled(Parametrization):
    """A network trained under a schedule: it sees s*x, and its label is a multiple of that schedule's time.

    Args:
        schedule: of training; the default is the VP SDE with beta from 0.1 to 20.
        label_scale: labels are label_scale*t; None for 1 under a Discrete schedule, whose t are the steps, and for score_sde's 999 else.
        label_is_sigma: labels are sigma instead (score_sde for VE).
    """

    schedule: Schedule = field(default_factory=VPSDE)
    label_scale: float | None = None
    label_is_sigma: bool = False

    def c_in(self, sigma: N) -> N:
        return self.schedule.scale(self.schedule.time(sigma))

    def label(self, sigma: N) -> N:
        if self.label_is_sigma:
            return sigma
        return self.labels_per_time * self.schedule.time(sigma)

    @property
    def labels_per_time(self) -> float:
        """label_scale, or its default."""
        return self.label_scale if self.label_scale is not None else 1.0 if isinstance(self.schedule, Discrete) else 999.0


@dataclass(frozen=True)
class Epsilon(_Scheduled):
    """The network returns the noise: D = x - sigma*eps (Ho et al. 2020)."""

    def denoiser(self, sigma: N) -> tuple[N, N]:
        return sigma * 0 + 1, -sigma

    def noise(self, sigma: N) -> tuple[N, N]:
        return sigma * 0, sigma * 0 + 1  # at sigma = 0 too


@dataclass(frozen=True)
class Score(_Scheduled):
    """The network returns the score of the scaled state: D = x + s*sigma^2*score (Song et al. 2021)."""

    def denoiser(self, sigma: N) -> tuple[N, N]:
        return sigma * 0 + 1, self.c_in(sigma) * sigma**2


@dataclass(frozen=True)
class Velocity(_Scheduled):
    """The network returns v = alpha*eps - sigma_vp*x0 of a variance-preserving state: D = s^2*x - s*sigma*v (Salimans and Ho 2022)."""

    def __post_init__(self) -> None:
        s = self.schedule.scale(self.schedule.time(1.0))
        if abs(2 * s**2 - 1) > 1e-6:
            raise ValueError(f"schedule: expected a variance-preserving one (scaling 'vp') for velocity prediction, got {self.schedule}")

    def denoiser(self, sigma: N) -> tuple[N, N]:
        s = self.c_in(sigma)
        return s**2, -s * sigma

    def noise(self, sigma: N) -> tuple[N, N]:
        s = self.c_in(sigma)
        return s**2 * sigma, s


@dataclass(frozen=True)
class RectifiedFlow(Parametrization):
    """The network returns u = z - x0 from the state x_t = (1 - t)*x0 + t*z (Liu et al. 2023; Lipman et al. 2023).

    In these words the scale is s = 1 - t and sigma = t/(1 - t), so t = sigma/(1 + sigma) and D = s*x - t*u, x unscaled.
    """

    def denoiser(self, sigma: N) -> tuple[N, N]:
        s = 1 / (1 + sigma)
        return s, -sigma * s

    def c_in(self, sigma: N) -> N:
        return 1 / (1 + sigma)

    def label(self, sigma: N) -> N:
        return sigma / (1 + sigma)


@dataclass(frozen=True)
class Data(_Scheduled):
    """The network returns x0 from the scaled state s*x: (a, b) = (0, 1)."""

    def denoiser(self, sigma: N) -> tuple[N, N]:
        return sigma * 0, sigma * 0 + 1


@dataclass(frozen=True)
class Mean(_Scheduled):
    """The network returns mu, the mean of q(x_{t-1} | x_t, x0) of a `Discrete` schedule (Ho et al. 2020, eq. 7 and 8).

    mu = m_x*x_t + m_0*x0 with the coefficients of `posterior`, so D = (mu - m_x*s*x)/m_0.
    """

    def __post_init__(self) -> None:
        if not isinstance(self.schedule, Discrete):
            raise ValueError(f"schedule: expected a Discrete one for mean prediction, got {type(self.schedule).__name__}")

    def denoiser(self, sigma: N) -> tuple[N, N]:
        if isinstance(sigma, Tensor):
            raise ValueError("sigma: expected a float, got a tensor: a posterior mean belongs to the steps of its schedule, use a plan")
        schedule = self.schedule
        t = round(schedule.time(sigma))
        previous = (schedule.scale(float(t - 1)), schedule.std(float(t - 1))) if t > 0 else (1.0, 0.0)
        m_x, m_0, _ = posterior((schedule.scale(float(t)), schedule.std(float(t))), previous)
        return -m_x / m_0 * schedule.scale(float(t)), 1 / m_0


def tweedie(x: Tensor, score: Tensor, sigma: float | Tensor, scale: float | Tensor = 1.0) -> Tensor:
    """E[x0 | x] = x/s + s*sigma^2*score: the denoised estimate from the score of the scaled state (Robbins 1956; Efron 2011).

    Args:
        x: [B, ...] state s*(x0 + sigma*z); score: [B, ...] gradient of its log density.
        sigma, scale: floats, or [B] tensors.
    """
    sigma, scale = (v.reshape(-1, *[1] * (x.dim() - 1)) if isinstance(v, Tensor) else v for v in (sigma, scale))
    return x / scale + scale * sigma**2 * score


#: Names that `fastdiff.sample(parametrization=...)` takes.
BY_NAME: dict[str, type[Parametrization]] = {"D": Denoiser, "F": EDM, "eps": Epsilon, "score": Score, "v": Velocity, "x0": Data}


def parametrization_of(net: Callable[..., Tensor], given: str | Parametrization) -> Parametrization:
    """A parametrization by name, with the noise levels that an EDM network object states.

    Raises:
        ValueError: unknown name.
    """
    if isinstance(given, Parametrization):
        return given
    if given not in BY_NAME:
        raise ValueError(f"parametrization: expected one of {', '.join(BY_NAME)} or a Parametrization, got {given!r}")
    return Denoiser.of(net) if given == "D" else BY_NAME[given]()
