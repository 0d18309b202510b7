"""The exact denoiser of a Gaussian mixture: a network whose samples, scores and likelihoods are known."""

from __future__ import annotations

import torch
from torch import Tensor

from fastdiff import SDE, VESDE, Epsilon, Parametrization, Score


class Mixture:
    """sum_k w_k N(mu_k, std^2 I) with its ideal denoiser E[x0 | x] at any noise level.

    Called as a network of EDM's kind: net(x, sigma) with x [B, ...] and sigma [B] or a scalar.
    """

    sigma_min = 0.0
    sigma_max = float("inf")

    def __init__(self, means: Tensor, weights: Tensor, std: float) -> None:
        self.means = means.double()
        self.log_weights = weights.double().log()
        self.std = std
        self.calls = 0

    def round_sigma(self, sigma):
        return torch.as_tensor(sigma)

    def responsibilities(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(p(k | x) [B, K], variance [B, 1])."""
        variance = self.std**2 + torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1) ** 2
        distance = (x.flatten(1)[:, None] - self.means.to(x.dtype)).square().sum(-1)
        return (self.log_weights.to(x.dtype) - distance / (2 * variance)).softmax(1), variance

    def __call__(self, x: Tensor, sigma: Tensor, class_labels=None) -> Tensor:
        self.calls += 1
        r, variance = self.responsibilities(x, sigma)
        mean = r @ self.means.to(x.dtype)
        return (mean + self.std**2 / variance * (x.flatten(1) - mean)).reshape(x.shape)

    def sample(self, count: int, seed: int) -> Tensor:
        """[count, D] exact samples."""
        generator = torch.Generator().manual_seed(seed)
        k = torch.multinomial(self.log_weights.exp(), count, replacement=True, generator=generator)
        return self.means[k] + self.std * torch.randn(count, self.means.shape[1], generator=generator, dtype=torch.float64)


class MixtureScore(Mixture):
    """The exact score of the mixture under an SDE, as score_sde's networks give it.

    Called as net(x, label) with the scaled state x [B, ...] and label [B]: for a VESDE it returns the score and labels are sigma,
    for any other SDE eps and labels are 999*t. Computed in float64, returned in x's dtype.
    """

    def __init__(self, sde: SDE, means: Tensor, weights: Tensor, std: float) -> None:
        super().__init__(means, weights, std)
        self.sde = sde
        self.returns_score = isinstance(sde, VESDE)

    @property
    def parametrization(self) -> Parametrization:
        """What a plan must be made for."""
        return Score(schedule=self.sde, label_is_sigma=True) if self.returns_score else Epsilon(schedule=self.sde)

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """grad_x log p_t(x) of the scaled state, [B, ...] float64, for t [B]."""
        scale, sigma = (v.reshape(-1, 1) for v in (self.sde.scale(t.double()), self.sde.sigma(t.double())))
        unscaled = x.double().flatten(1) / scale
        r, variance = self.responsibilities(unscaled, sigma)
        return ((r @ self.means - unscaled) / (variance * scale)).reshape(x.shape)

    def __call__(self, x: Tensor, label: Tensor, class_labels=None) -> Tensor:
        self.calls += 1
        t = self.sde.time(label.double()) if self.returns_score else label.double() / 999
        std = self.sde.std(t).reshape(-1, *[1] * (x.dim() - 1))
        return (self.score(x, t) * (1 if self.returns_score else -std)).to(x.dtype)
