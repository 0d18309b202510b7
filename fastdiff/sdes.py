"""The stochastic differential equations of Song et al. 2021 (arXiv:2011.13456), and EDM's in sigma-space.

    dx = f(t) x dt + g(t) dw,   x(t) = alpha(t) x0 + std(t) z,   alpha = s, std = s*sigma

An SDE is a schedule (sigma and s determine f and g) with an end time, a prior, and a discretization. The reverse SDE and the
probability-flow ODE follow for all of them alike (eq. 6 and 13):

    dx = (f x - g^2 score) dt + g dw          dx = (f x - g^2 score / 2) dt
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .noise import Seeds, Stream, keys, randn
from .ops import perturb
from .ops._shapes import sum_per_sample
from .schedules import LinearBeta, N, Schedule, mathematics


class SDE(Schedule):
    """A schedule as a process: what Song et al. ask of an SDE.

    Attributes:
        T: end time. eps: the least time at which a network of this SDE is called while sampling.
    """

    T: float = 1.0
    eps: float = 1e-3

    @property
    @abstractmethod
    def prior_std(self) -> float:
        """Standard deviation of the prior N(0, prior_std^2 I)."""

    def discretize(self, t: float, steps: int) -> tuple[float, float]:
        """(m, G) of one step forward of N: x_{i+1} = m*x_i + G*z, at time t of the later state. Default: Euler-Maruyama."""
        dt = self.T / steps
        return 1 + self.drift(t) * dt, self.diffusion(t) * math.sqrt(dt)

    def transition(self, t: float, earlier: float) -> tuple[float, float]:
        """(m, G) of the exact kernel: x(t) = m*x(earlier) + G*z."""
        m = self.scale(t) / self.scale(earlier)
        return m, math.sqrt(max(self.std(t) ** 2 - (m * self.std(earlier)) ** 2, 0.0))

    def marginal(self, x0: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, std) of x(t) given x0: alpha(t)*x0 [B, ...] and std(t) [B], for t [B]."""
        t = _times(t, x0)
        return _column(self.scale(t), x0) * x0, self.std(t).to(x0.dtype)

    def perturb(self, x0: Tensor, t: Tensor, seeds: Seeds, *, draw: int = 0, return_noise: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """x(t) given x0, in one kernel: x_t, or (x_t, z) where the noise is asked for.

        Args:
            x0: [B, ...] data; t: [B]; seeds: see `fastdiff.keys`; draw: which draw of those keys, e.g. the training step.
        """
        t = _times(t, x0)
        return perturb(
            x0, self.scale(t), self.std(t), keys(seeds, x0.shape[0], device=x0.device), draw, int(Stream.DATA), return_noise=return_noise
        )

    def prior_sample(self, shape: Sequence[int], seeds: Seeds, **where) -> Tensor:
        """[B, ...] samples of the prior; `where`: dtype, device, memory_format as for `fastdiff.randn`."""
        return self.prior_std * randn(shape, seeds, **where)

    def prior_log_prob(self, z: Tensor) -> Tensor:
        """[B] log density of the prior in nats."""
        return normal_log_prob(z, self.prior_std)

    def reverse(self, score: Callable[[Tensor, Tensor], Tensor], probability_flow: bool = False) -> ReverseSDE:
        """The SDE, or the probability-flow ODE, that runs back in time; score is called with (x [B, ...], t [B])."""
        return ReverseSDE(self, score, probability_flow)


@dataclass(frozen=True)
class ReverseSDE:
    """dx = (f x - w g^2 score) dt + g dw, run from T to 0; w = 1, or 1/2 and no noise for the probability-flow ODE."""

    sde: SDE
    score: Callable[[Tensor, Tensor], Tensor]
    probability_flow: bool = False

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        """[B, ...] for t [B]."""
        times = _times(t, x)
        weight = 0.5 if self.probability_flow else 1.0
        return _column(self.sde.drift(times), x) * x - _column(weight * self.sde.diffusion(times) ** 2, x) * self.score(x, t)

    def diffusion(self, t: Tensor) -> Tensor:
        """[B]."""
        return torch.zeros_like(t) if self.probability_flow else self.sde.diffusion(t)


@dataclass(frozen=True)
class VPSDE(LinearBeta, SDE):
    """Variance preserving: f = -beta/2, g^2 = beta, beta from beta_min to beta_max (eq. 11); DDPM's continuous limit."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max:
            raise ValueError(f"beta_min, beta_max: expected 0 < beta_min <= beta_max, got {self.beta_min} and {self.beta_max}")

    @property
    def beta_d(self) -> float:  # type: ignore[override]
        """beta_max - beta_min."""
        return self.beta_max - self.beta_min

    @property
    def prior_std(self) -> float:
        return 1.0

    def sigma(self, t: N) -> N:
        return mathematics(t).sqrt(mathematics(t).expm1(self.integral(t)))

    def sigma_deriv(self, t: N) -> N:
        sigma = self.sigma(t)
        return 0.5 * self.beta(t) * (sigma + 1 / sigma)

    def time(self, sigma: N) -> N:
        return self.time_of_integral(mathematics(sigma).log1p(sigma**2))

    def scale(self, t: N) -> N:
        return mathematics(t).exp(-0.5 * self.integral(t))

    def scale_deriv(self, t: N) -> N:
        return -0.5 * self.beta(t) * self.scale(t)

    def diffusion(self, t: N) -> N:
        return mathematics(t).sqrt(self.beta(t))

    def discretize(self, t: float, steps: int) -> tuple[float, float]:
        """DDPM's kernel: m = sqrt(1 - beta_i), G = sqrt(beta_i), beta_i = beta(i/(N - 1))/N."""
        beta = self.step_beta(t, steps)
        return math.sqrt(1 - beta), math.sqrt(beta)

    def step_beta(self, t: float, steps: int) -> float:
        """beta_i of the discrete process with N steps, i = floor(t*(N - 1)/T)."""
        beta = self.beta(_index(t, steps, self.T) / max(steps - 1, 1)) / steps
        if beta > 1:
            raise ValueError(f"steps: expected at least beta_max = {self.beta_max:g}, so that DDPM's beta_i are at most 1, got {steps}")
        return beta


@dataclass(frozen=True)
class SubVPSDE(VPSDE):
    """Sub-variance preserving: f = -beta/2, g^2 = beta*(1 - exp(-2*int beta)), std = 1 - exp(-int beta) (eq. 12)."""

    def sigma(self, t: N) -> N:
        return 2 * mathematics(t).sinh(0.5 * self.integral(t))

    def sigma_deriv(self, t: N) -> N:
        return self.beta(t) * mathematics(t).cosh(0.5 * self.integral(t))

    def time(self, sigma: N) -> N:
        return self.time_of_integral(2 * mathematics(sigma).asinh(sigma / 2))

    def diffusion(self, t: N) -> N:
        return mathematics(t).sqrt(-self.beta(t) * mathematics(t).expm1(-2 * self.integral(t)))

    def discretize(self, t: float, steps: int) -> tuple[float, float]:
        """Euler-Maruyama: the sub-VP SDE has no discrete ancestor."""
        return SDE.discretize(self, t, steps)


@dataclass(frozen=True)
class VESDE(SDE):
    """Variance exploding: sigma(t) = sigma_min*(sigma_max/sigma_min)^t, f = 0 (eq. 9); SMLD's continuous limit."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    eps = 1e-5

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"sigma_min, sigma_max: expected 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")

    @property
    def prior_std(self) -> float:
        return self.sigma_max

    @property
    def _rate(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def sigma(self, t: N) -> N:
        return self.sigma_min * mathematics(t).exp(self._rate * t)

    def sigma_deriv(self, t: N) -> N:
        return self._rate * self.sigma(t)

    def time(self, sigma: N) -> N:
        return mathematics(sigma).log(sigma / self.sigma_min) / self._rate

    def scale(self, t: N) -> N:
        return t * 0 + 1

    def scale_deriv(self, t: N) -> N:
        return t * 0

    def discretize(self, t: float, steps: int) -> tuple[float, float]:
        """SMLD's kernel: m = 1, G = sqrt(sigma_i^2 - sigma_{i-1}^2) on N geometric levels, sigma_{-1} = 0."""
        sigma, below = self.step_sigmas(t, steps)
        return 1.0, math.sqrt(sigma**2 - below**2)

    def step_sigmas(self, t: float, steps: int) -> tuple[float, float]:
        """(sigma_i, sigma_{i-1}) of the discrete process with N steps, i = floor(t*(N - 1)/T)."""
        i = _index(t, steps, self.T)
        return self.sigma(i / max(steps - 1, 1)), self.sigma((i - 1) / max(steps - 1, 1)) if i else 0.0


@dataclass(frozen=True)
class EDMSDE(SDE):
    """EDM's sigma-space: t = sigma from sigma_max down, f = 0, g^2 = 2*sigma (Karras et al. 2022)."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"sigma_min, sigma_max: expected 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")
        object.__setattr__(self, "T", self.sigma_max)
        object.__setattr__(self, "eps", self.sigma_min)

    @property
    def prior_std(self) -> float:
        return self.sigma_max

    def sigma(self, t: N) -> N:
        return t

    def sigma_deriv(self, t: N) -> N:
        return t * 0 + 1

    def time(self, sigma: N) -> N:
        return sigma

    def scale(self, t: N) -> N:
        return t * 0 + 1

    def scale_deriv(self, t: N) -> N:
        return t * 0


def process_of(net: Any) -> SDE:
    """The process that a parametrization suggests: the SDE it was trained with, else EDM's sigma-space within its noise levels."""
    schedule = getattr(net, "schedule", None)
    if isinstance(schedule, SDE):
        return schedule
    return EDMSDE(max(0.002, net.sigma_min), min(80.0, net.sigma_max))


def normal_log_prob(z: Tensor, std: float | Tensor) -> Tensor:
    """[B] log density of N(0, std^2 I) at z [B, ...], in nats, summed in float64."""
    n = z[0].numel() if len(z) else 1
    std = torch.as_tensor(std, dtype=torch.float64, device=z.device)
    return -n * (0.5 * math.log(2 * math.pi) + std.log()) - sum_per_sample(z.double().square()) / (2 * std**2)


def _index(t: float, steps: int, T: float) -> int:
    # The nudge keeps i/(N - 1)*(N - 1) from falling to i - 1.
    return min(int(t * (steps - 1) / T + 1e-6), steps - 1)


def _times(t: Tensor, x: Tensor) -> Tensor:
    if not isinstance(t, Tensor) or t.dim() > 1 or (t.dim() == 1 and t.shape[0] != x.shape[0]):
        got = f"{list(t.shape)}" if isinstance(t, Tensor) else type(t).__name__
        raise ValueError(f"t: expected a tensor [{x.shape[0]}], got {got}")
    return t.to(x.device, torch.float64).expand(x.shape[0])


def _column(v: Tensor, x: Tensor) -> Tensor:
    return v.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))
