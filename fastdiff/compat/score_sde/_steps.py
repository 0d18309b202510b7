"""Predictors and correctors as classes of update_fn(x, t), for users who write their own; t is [B].

Inside a sampler the original ones do not run: they name the rows of a `fastdiff.PCSampler`. They run where one of them meets a class or
an SDE of the user's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from ...ops._shapes import column
from . import sde_lib
from ._registry import Registry

PREDICTORS, CORRECTORS = Registry("predictor"), Registry("corrector")
register_predictor, register_corrector = PREDICTORS.register, CORRECTORS.register

Score = Callable[[Tensor, Tensor], Tensor]


class _Drawing:
    """What draws noise."""

    def draw_noise(self, like: Tensor) -> Tensor:
        """Standard normals; a sampler gives each step its own source of noise under this name."""
        return torch.randn_like(like)


class Predictor(_Drawing, ABC):
    """One step towards less noise.

    Args:
        sde: the forward SDE; score_fn: called with (x, t); probability_flow: step along the probability-flow ODE.
    """

    def __init__(self, sde: sde_lib.SDE, score_fn: Score, probability_flow: bool = False) -> None:
        super().__init__()
        self.sde = sde
        self.rsde = sde.reverse(score_fn, probability_flow)
        self.score_fn = score_fn

    @abstractmethod
    def update_fn(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(the next state, the same without its noise)."""


class Corrector(_Drawing, ABC):
    """Steps at one noise level.

    Args:
        sde: the forward SDE; score_fn: called with (x, t); snr: signal-to-noise ratio; n_steps: how many steps.
    """

    def __init__(self, sde: sde_lib.SDE, score_fn: Score, snr: float, n_steps: int) -> None:
        super().__init__()
        self.sde, self.score_fn, self.snr, self.n_steps = sde, score_fn, snr, n_steps

    @abstractmethod
    def update_fn(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(the next state, the same without its noise)."""


@register_predictor(name="euler_maruyama")
class EulerMaruyamaPredictor(Predictor):
    """Euler and Maruyama's step of the reverse SDE."""

    def __init__(self, sde: sde_lib.SDE, score_fn: Score, probability_flow: bool = False) -> None:
        super().__init__(sde, score_fn, probability_flow)

    def update_fn(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        z = self.draw_noise(x)
        drift, diffusion = self.rsde.sde(x, t)
        x_mean = x - drift / self.rsde.N
        return x_mean + column(diffusion / self.rsde.N**0.5, x, x.dtype) * z, x_mean


@register_predictor(name="reverse_diffusion")
class ReverseDiffusionPredictor(Predictor):
    """A step of the reverse of the discretized SDE."""

    def __init__(self, sde: sde_lib.SDE, score_fn: Score, probability_flow: bool = False) -> None:
        super().__init__(sde, score_fn, probability_flow)

    def update_fn(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        f, G = self.rsde.discretize(x, t)
        z = self.draw_noise(x)
        x_mean = x - f
        return x_mean + column(G, x, x.dtype) * z, x_mean


@register_predictor(name="ancestral_sampling")
class AncestralSamplingPredictor(Predictor):
    """DDPM's ancestral sampling, and its like for SMLD.

    Raises:
        NotImplementedError: another SDE than VPSDE or VESDE; ValueError: probability_flow.
    """

    def __init__(self, sde: sde_lib.SDE, score_fn: Score, probability_flow: bool = False) -> None:
        super().__init__(sde, score_fn, probability_flow)
        if not isinstance(sde, sde_lib.VPSDE | sde_lib.VESDE):
            raise NotImplementedError(f"sde: expected a VPSDE or VESDE for ancestral sampling, got {type(sde).__name__}")
        if probability_flow:
            raise ValueError("probability_flow: expected False with ancestral sampling, which is a step of the SDE, got True")

    def update_fn(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.vesde_update_fn(x, t) if isinstance(self.sde, sde_lib.VESDE) else self.vpsde_update_fn(x, t)

    def vesde_update_fn(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior of SMLD: x + (sigma_i^2 - sigma_{i-1}^2)*score, and its noise."""
        sigma, below = self.sde.adjacent_sigmas(t)  # type: ignore[attr-defined]
        added = sigma**2 - below**2
        x_mean = x + column(added, x, x.dtype) * self.score_fn(x, t)
        return x_mean + column(below * torch.sqrt(added) / sigma, x, x.dtype) * self.draw_noise(x), x_mean

    def vpsde_update_fn(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """DDPM's step: (x + beta_i*score)/sqrt(1 - beta_i), and sqrt(beta_i)*z."""
        beta = self.sde.discrete_betas.to(t.device)[self.sde.timestep(t)]  # type: ignore[attr-defined]
        x_mean = (x + column(beta, x, x.dtype) * self.score_fn(x, t)) / column(torch.sqrt(1 - beta), x, x.dtype)
        return x_mean + column(torch.sqrt(beta), x, x.dtype) * self.draw_noise(x), x_mean


@register_predictor(name="none")
class NonePredictor(Predictor):
    """Does nothing."""

    def __init__(self, sde: sde_lib.SDE, score_fn: Score, probability_flow: bool = False) -> None:
        pass

    def update_fn(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class _LangevinSteps(Corrector):
    """x + e*score + sqrt(2*e)*z, e = 2*alpha*(...)^2 with alpha = 1 - beta_i, or 1 for VE."""

    def __init__(self, sde: sde_lib.SDE, score_fn: Score, snr: float, n_steps: int) -> None:
        super().__init__(sde, score_fn, snr, n_steps)
        if not isinstance(sde, sde_lib.VPSDE | sde_lib.VESDE | sde_lib.subVPSDE):
            raise NotImplementedError(f"sde: expected a VPSDE, subVPSDE or VESDE, got {type(sde).__name__}")

    def update_fn(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        sde, x_mean = self.sde, x
        alpha = torch.ones_like(t) if isinstance(sde, sde_lib.VESDE) else sde.alphas.to(t.device)[sde.timestep(t)]  # type: ignore[attr-defined]
        for _ in range(self.n_steps):
            score = self.score_fn(x, t)
            z = self.draw_noise(x)
            size = 2 * alpha * self._relative_size(x, t, score, z) ** 2
            x_mean = x + column(size, x, x.dtype) * score
            x = x_mean + column(torch.sqrt(2 * size), x, x.dtype) * z
        return x, x_mean

    @abstractmethod
    def _relative_size(self, x: Tensor, t: Tensor, score: Tensor, z: Tensor) -> Tensor:
        """sqrt(e/(2*alpha)), [B] or a scalar."""


@register_corrector(name="langevin")
class LangevinCorrector(_LangevinSteps):
    """Langevin steps whose size comes from the signal-to-noise ratio: snr*|z|/|score|, norms averaged over the batch."""

    def _relative_size(self, x: Tensor, t: Tensor, score: Tensor, z: Tensor) -> Tensor:
        return self.snr * z.flatten(1).norm(dim=1).mean() / score.flatten(1).norm(dim=1).mean()


@register_corrector(name="ald")
class AnnealedLangevinDynamics(_LangevinSteps):
    """Annealed Langevin dynamics: snr*std(t)."""

    def _relative_size(self, x: Tensor, t: Tensor, score: Tensor, z: Tensor) -> Tensor:
        return self.snr * self.sde.marginal_prob(x, t)[1]


@register_corrector(name="none")
class NoneCorrector(Corrector):
    """Does nothing."""

    def __init__(self, sde: sde_lib.SDE, score_fn: Score, snr: float, n_steps: int) -> None:
        pass

    def update_fn(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return x, x
