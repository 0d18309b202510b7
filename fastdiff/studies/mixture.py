"""Gaussian mixtures: noising keeps them Gaussian mixtures, so density, score, denoiser and every network are exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..noise import Seeds, Stream, keys
from ..ops import normal, uniform
from ..parametrizations import EDM, Denoiser, Parametrization
from ..schedules import Schedule


class Mixture:
    """sum_k w_k N(mu_k, C_k); with noise sigma on it, sum_k w_k N(mu_k, C_k + sigma^2 I).

    Everything is computed in float64, in the eigenbasis of each C_k, where C_k + sigma^2 I is diagonal for every sigma.

    Args:
        weights: [K] positive, divided by their sum.
        means: [K, D].
        covariances: [K, D, D], a number of each component (its variance in every direction), or one number for all.

    Raises:
        ValueError: the shapes do not fit, or a weight or a variance is not positive.
    """

    def __init__(
        self, weights: Sequence[float] | Tensor, means: Sequence[Sequence[float]] | Tensor, covariances: Sequence | Tensor | float
    ):
        w = torch.as_tensor(weights, dtype=torch.float64)
        self.means = torch.as_tensor(means, dtype=torch.float64)
        if w.dim() != 1 or self.means.dim() != 2 or len(w) != len(self.means) or not (w > 0).all():
            raise ValueError(f"weights, means: expected [K] positive and [K, D], got {list(w.shape)} and {list(self.means.shape)}")
        self.weights = w / w.sum()
        count, self.dim = self.means.shape
        c = torch.as_tensor(covariances, dtype=torch.float64)
        if c.dim() < 2:
            c = c.expand(count)[:, None, None] * torch.eye(self.dim, dtype=torch.float64)
        if c.shape != (count, self.dim, self.dim):
            raise ValueError(f"covariances: expected {[count, self.dim, self.dim]}, [{count}] or a number, got {list(c.shape)}")
        self.covariances = c
        self._variances, self._axes = torch.linalg.eigh(c)  # [K, D] and [K, D, D], an axis in each column
        if not (self._variances > 0).all():
            raise ValueError(f"covariances: expected positive definite ones, got variances down to {self._variances.min():g}")

    def _parts(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(x - mu_k in the axes of k, variances there, log of w_k N(x; k)): [K, D, B], [K, D, B or 1], [K, B]; long rows are fast."""
        along = self._axes.mT @ (x.double().T - self.means[:, :, None])
        variances = self._variances[:, :, None] + torch.as_tensor(sigma, dtype=torch.float64).reshape(1, 1, -1) ** 2
        log = self.weights.log()[:, None] - 0.5 * (along.square() / variances + (2 * math.pi * variances).log()).sum(1)
        return along, variances, log

    def log_density(self, x: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """[B] log p(x; sigma) in nats, for x [B, D] and sigma a number or [B]."""
        return self._parts(x, sigma)[2].logsumexp(0)

    def responsibilities(self, x: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """[B, K] probability that x came from each component."""
        return self._parts(x, sigma)[2].softmax(0).T

    def score(self, x: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """[B, D] grad_x log p(x; sigma) = -sum_k p(k | x) (C_k + sigma^2 I)^-1 (x - mu_k)."""
        along, variances, log = self._parts(x, sigma)
        return -(self._axes @ (log.softmax(0)[:, None] * along / variances)).sum(0).T.contiguous()

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """[B, D] D(x; sigma) = E[x0 | x] = x + sigma^2 score (Tweedie's formula; Efron 2011)."""
        return x + torch.as_tensor(sigma, dtype=torch.float64).reshape(-1, 1) ** 2 * self.score(x, sigma)

    def sample(self, count: int, seeds: Seeds) -> Tensor:
        """[count, D] exact samples, float64; sample i depends on its key alone."""
        key = keys(seeds, count)
        u = uniform(torch.empty(count, 1, dtype=torch.float64), key, 0, int(Stream.DATA))[:, 0]
        k = torch.searchsorted(self.weights.cumsum(0)[:-1].contiguous(), u.contiguous(), right=True)
        z = normal(torch.empty(count, self.dim, dtype=torch.float64), key, 1, int(Stream.DATA))
        return self.means[k] + torch.einsum("bde,be->bd", self._axes[k], self._variances[k].sqrt() * z)

    def network(self, net: Parametrization) -> Callable[[Tensor, Tensor], Tensor]:
        """The perfectly trained network of a parametrization, called as network(x_in [B, D], label [B]).

        F = (D - a*x)/b, with x = x_in/c_in and sigma read back from the label: the denoiser, eps, the score, v, ... alike.
        """

        def network(x_in: Tensor, label: Tensor) -> Tensor:
            one_level = label[:1] if (label == label[:1]).all() else label  # as a sampler calls it: one for all is less to compute
            sigma = _level(net, one_level.double())
            a, b = net.denoiser(sigma)
            x = x_in.double() / net.c_in(sigma)[:, None]
            return ((self.denoise(x, sigma) - a[:, None] * x) / b[:, None]).to(x_in.dtype)

        return network


def _level(net: Parametrization, label: Tensor) -> Tensor:
    """sigma [B] of a network's noise label."""
    if isinstance(net, Denoiser):
        return label
    if isinstance(net, EDM):
        return (4 * label).exp()
    schedule: Schedule = net.schedule  # type: ignore[attr-defined]
    return label if net.label_is_sigma else schedule.sigma(label / net.labels_per_time)  # type: ignore[attr-defined]
