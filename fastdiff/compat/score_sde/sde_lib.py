"""sde_lib: the SDEs under their original names, as views of fastdiff.sdes on tensors.

dx = f(x, t) dt + g(t) dw        x_{i+1} = x_i + f_i(x_i) + G_i z_i        t from 0 to T = 1
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ... import sdes
from ...ops._shapes import column
from ._noise import Noise


class SDE(ABC):
    """An SDE as its users extend it; t is [B] in every method.

    Args:
        N: number of discretization steps.
    """

    def __init__(self, N: int) -> None:
        super().__init__()
        self.N = N

    @property
    @abstractmethod
    def T(self) -> float:
        """End time."""

    @abstractmethod
    def sde(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(drift [B, ...], diffusion [B])."""

    @abstractmethod
    def marginal_prob(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(mean [B, ...], std [B]) of x(t) given x(0) = x."""

    @abstractmethod
    def prior_sampling(self, shape: Sequence[int]) -> Tensor:
        """A sample of the prior, on the CPU."""

    @abstractmethod
    def prior_logp(self, z: Tensor) -> Tensor:
        """[B] log density of the prior, nats."""

    def discretize(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(f [B, ...], G [B]) of a step forward of 1/N: Euler-Maruyama."""
        drift, diffusion = self.sde(x, t)
        return drift / self.N, diffusion / self.N**0.5

    def reverse(self, score_fn: Callable[[Tensor, Tensor], Tensor], probability_flow: bool = False) -> ReverseSDE:
        """The SDE, or the probability-flow ODE, that runs back in time; score_fn is called with (x, t)."""
        return ReverseSDE(self, score_fn, probability_flow)


class ReverseSDE(SDE):
    """drift - w g^2 score and f - w G^2 score, with w = 1, or 1/2 and no noise for the probability-flow ODE.

    Args:
        forward: the SDE; score_fn: called with (x, t); probability_flow: the ODE instead of the SDE.
    """

    def __init__(self, forward: SDE, score_fn: Callable[[Tensor, Tensor], Tensor], probability_flow: bool = False) -> None:
        super().__init__(forward.N)
        self.forward, self.score_fn, self.probability_flow = forward, score_fn, probability_flow

    @property
    def T(self) -> float:
        return self.forward.T

    def sde(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self._reversed(*self.forward.sde(x, t), x, t)

    def discretize(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self._reversed(*self.forward.discretize(x, t), x, t)

    def marginal_prob(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward.marginal_prob(x, t)

    def prior_sampling(self, shape: Sequence[int]) -> Tensor:
        return self.forward.prior_sampling(shape)

    def prior_logp(self, z: Tensor) -> Tensor:
        return self.forward.prior_logp(z)

    def _reversed(self, drift: Tensor, diffusion: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        weight = 0.5 if self.probability_flow else 1.0
        drift = drift - column(weight * diffusion**2, x, x.dtype) * self.score_fn(x, t)
        return drift, torch.zeros_like(diffusion) if self.probability_flow else diffusion


class _View(SDE):
    """An SDE of fastdiff.sdes under the original names."""

    def __init__(self, N: int) -> None:
        super().__init__(N)
        self._as_made: dict[str, tuple[object, int]] = {}

    @property
    @abstractmethod
    def process(self) -> sdes.SDE:
        """The fastdiff.sdes object."""

    @property
    def T(self) -> float:
        return 1

    def sde(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        times = t.double()
        return column(self.process.drift(times), x, x.dtype) * x, self.process.diffusion(times).to(x.dtype)

    def marginal_prob(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.process.marginal(x, t)

    def prior_sampling(self, shape: Sequence[int], noise: Noise | None = None) -> Tensor:
        """A sample of the prior, from torch's global generator or from noise(like), on the CPU."""
        z = torch.randn(*shape) if noise is None else noise(torch.empty(*shape))
        return z * self.process.prior_std

    def prior_logp(self, z: Tensor) -> Tensor:
        return self.process.prior_log_prob(z).to(z.dtype)

    def _made(self) -> None:
        """Remember the attributes: a run is fused only while they are what the constructor made of its arguments."""
        self._as_made = {name: (value, _version(value)) for name, value in vars(self).items() if name != "_as_made"}

    @property
    def as_made(self) -> bool:
        """Whether nobody has set an attribute, written to a table or put a method of their own on the object since it was made."""

        def same(name: str, new: object) -> bool:
            if name not in self._as_made:
                return not hasattr(type(self), name)
            old, version = self._as_made[name]
            if isinstance(new, Tensor) or isinstance(old, Tensor):
                return new is old and _version(new) == version
            return new == old

        return bool(self._as_made) and all(same(name, value) for name, value in vars(self).items() if name != "_as_made")

    def __getstate__(self) -> dict[str, object]:
        return vars(self) | {"_as_made": self.as_made}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state | {"_as_made": {}})
        if state["_as_made"]:
            self._made()  # a copy's tables are tensors of their own

    def timestep(self, t: Tensor) -> Tensor:
        """[B] int64 index into the discrete tables."""
        return (t * (self.N - 1) / self.T).long()


def _version(value: object) -> int:
    """How often a tensor was written to, where it counts that."""
    return value._version if isinstance(value, Tensor) and not value.is_inference() else 0


class _LinearBeta(_View):
    """What the VP and sub-VP SDEs share. The tables are float32 as upstream's: networks of discrete time were trained with them."""

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20, N: int = 1000) -> None:
        super().__init__(N)
        self.beta_0, self.beta_1 = beta_min, beta_max
        self.discrete_betas = torch.linspace(beta_min / N, beta_max / N, N)
        self.alphas = 1.0 - self.discrete_betas
        self.alphas_cumprod = torch.cumprod(self.alphas, dim=0)
        self.sqrt_alphas_cumprod = torch.sqrt(self.alphas_cumprod)
        self.sqrt_1m_alphas_cumprod = torch.sqrt(1.0 - self.alphas_cumprod)
        self._made()


class VPSDE(_LinearBeta):
    """The variance-preserving SDE: fastdiff.VPSDE.

    Args:
        beta_min, beta_max: beta(0) and beta(1); N: number of discretization steps.
    """

    @property
    def process(self) -> sdes.VPSDE:
        return sdes.VPSDE(float(self.beta_0), float(self.beta_1))

    def discretize(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(f, G) of DDPM's step: x_{i+1} = sqrt(1 - beta_i)*x_i + sqrt(beta_i)*z."""
        i = self.timestep(t)
        root = torch.sqrt(self.alphas.to(x.device)[i])
        return column(root, x, x.dtype) * x - x, torch.sqrt(self.discrete_betas.to(x.device)[i])


class subVPSDE(_LinearBeta):
    """The sub-variance-preserving SDE: fastdiff.SubVPSDE.

    Args:
        beta_min, beta_max: beta(0) and beta(1); N: number of discretization steps.
    """

    @property
    def process(self) -> sdes.SubVPSDE:
        return sdes.SubVPSDE(float(self.beta_0), float(self.beta_1))


class VESDE(_View):
    """The variance-exploding SDE: fastdiff.VESDE.

    Args:
        sigma_min, sigma_max: the smallest and the largest noise level, data units; N: number of discretization steps.
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50, N: int = 1000) -> None:
        super().__init__(N)
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.discrete_sigmas = torch.exp(torch.linspace(math.log(sigma_min), math.log(sigma_max), N))
        self._made()

    @property
    def process(self) -> sdes.VESDE:
        return sdes.VESDE(float(self.sigma_min), float(self.sigma_max))

    def discretize(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(f, G) of SMLD's step: x_{i+1} = x_i + sqrt(sigma_i^2 - sigma_{i-1}^2)*z, with sigma_{-1} = 0."""
        sigma, below = self.adjacent_sigmas(t)
        return torch.zeros_like(x), torch.sqrt(sigma**2 - below**2)

    def adjacent_sigmas(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(sigma_i, sigma_{i-1}) [B] at times t [B]."""
        i, sigmas = self.timestep(t), self.discrete_sigmas.to(t.device)
        return sigmas[i], torch.where(i == 0, torch.zeros_like(t), sigmas[i - 1])
