"""Noise samplers under k-diffusion's interface: noise_sampler(sigma, sigma_next) returns standard normals like x."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...brownian import BrownianPath
from ...noise import keys

#: Levels that a caller has rounded to float32 still lie within the span.
_SLACK = 1e-6


def default_noise_sampler(x: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """torch.randn_like(x) at every call, whatever the levels: given to a sampler, it repeats upstream's numbers."""
    return lambda sigma, sigma_next: torch.randn_like(x)


def keys_of(seed: int | Sequence[int] | None, x: Tensor) -> Tensor:
    """[B] noise keys: of a seed, of one seed for each sample, or drawn from torch's global generator."""
    if isinstance(seed, Tensor) and seed.dim() == 0:
        seed = int(seed)
    return keys(torch.default_generator if seed is None else seed, x.shape[0], device=x.device)


class BatchedBrownianTree:
    """A Brownian motion W between t0 and t1 whose increments W(b) - W(a) are a function of (seed, a, b): nothing is stored.

    Args:
        x: [B, ...], gives shape, dtype and device.
        t0, t1: the span.
        seed: an int, one for each sample, or None for torch's global generator.
        kwargs: torchsde's settings of storage and tolerance, which have no meaning here.
    """

    def __init__(self, x: Tensor, t0: Any, t1: Any, seed: int | Sequence[int] | None = None, **kwargs: Any) -> None:
        low, high, self.sign = self.sort(float(t0), float(t1))
        if not low < high:
            raise ValueError(f"t0, t1: expected two different times, got {low} and {high}")
        self.like, self.key, self.low, self.width = x, keys_of(seed, x), low, high - low
        # In the path's clock q = 1/sigma^2 time runs from width to twice that: its grid is then almost even in t.
        self.path = BrownianPath(self._level(high) * (1 - _SLACK), self._level(low) * (1 + _SLACK), depth=20)

    @staticmethod
    def sort(a: Any, b: Any) -> tuple[Any, Any, int]:
        """(smaller, larger, 1), or -1 where they have changed places."""
        return (a, b, 1) if a < b else (b, a, -1)

    def __call__(self, t0: Any, t1: Any) -> Tensor:
        low, high, sign = self.sort(float(t0), float(t1))
        slack = _SLACK * self.width
        if low == high:
            return torch.zeros_like(self.like)
        if not (self.low - slack <= low and high <= self.low + self.width + slack):
            raise ValueError(f"t0, t1: expected times within [{self.low}, {self.low + self.width}], got {low} and {high}")
        span = self._level(low), self._level(high)
        z = self.path.resolving([span]).noise(self.like, self.key, *span)
        return z * (math.sqrt(high - low) * sign * self.sign)

    def _level(self, t: float) -> float:
        return 1 / math.sqrt(t - self.low + self.width)


class BrownianTreeNoiseSampler:
    """Normalized increments of a Brownian motion: steps in between do not change it, so that finer runs converge to the same sample.

    Args:
        x: [B, ...], gives shape, dtype and device.
        sigma_min, sigma_max: the span of the levels.
        seed: an int, one for each sample, or None for torch's global generator.
        transform: the motion's clock as a function of sigma. None is 1/sigma^2, the clock of the reverse SDE, which the samplers run
            inside their own steps; upstream's default is sigma itself.
    """

    def __init__(
        self, x: Tensor, sigma_min: Any, sigma_max: Any, seed: int | Sequence[int] | None = None,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:  # fmt: skip
        self.transform = transform
        self.path: BrownianPath | None = None
        if transform is None:
            self.like, self.key = x, keys_of(seed, x)
            low, high = sorted((float(sigma_min), float(sigma_max)))
            self.path = BrownianPath(low * (1 - _SLACK), high * (1 + _SLACK))
        else:
            t0, t1 = (transform(torch.as_tensor(sigma)) for sigma in (sigma_min, sigma_max))
            self.tree = BatchedBrownianTree(x, t0, t1, seed)

    def __call__(self, sigma: Any, sigma_next: Any) -> Tensor:
        if self.path is None:
            t0, t1 = (self.transform(torch.as_tensor(level)) for level in (sigma, sigma_next))  # type: ignore[misc]
            return self.tree(t0, t1) / math.sqrt(abs(float(t1 - t0)))
        low, high = sorted((float(sigma), float(sigma_next)))
        z = self.path.resolving([(high, low)]).noise(self.like, self.key, high, low)
        return z if float(sigma_next) < float(sigma) else -z
