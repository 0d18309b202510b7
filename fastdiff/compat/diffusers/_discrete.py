"""Schedulers on the steps of training (DDPM, DDIM): a row for each timestep, looked up by its number."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ...parametrizations import Parametrization
from ...plan import Row
from ...samplers._rows import CLEAN, Level, make_row
from ._fused import Fused

#: The least signal and noise that a level is made with: neither is divided by.
_LEAST_ALPHA_BAR, _LEAST_SIGMA = 1e-20, 1e-12


class Discrete(Fused):
    """What DDPM, DDIM and its inverse share."""

    _source = "alphas_cumprod"
    #: The attribute with the alpha_bar before the first timestep: that of clean data, or not quite.
    _alpha_bar_before = "one"
    #: The timestep that last drew noise of ours.
    _last = -math.inf

    def _read(self) -> None:
        self._alpha_bar = self.alphas_cumprod.cpu().numpy()  # type: ignore[attr-defined]
        self._before = float(getattr(self, self._alpha_bar_before))

    def _schedule(self) -> Iterable[int]:
        return self._positions.values if self.num_inference_steps else ()  # type: ignore[attr-defined]

    def _level(self, t: int) -> Level:
        """The level of timestep t, or of what lies before the first."""
        alpha_bar = float(self._alpha_bar[t]) if t >= 0 else self._before
        if alpha_bar >= 1:
            return CLEAN
        alpha_bar = max(alpha_bar, _LEAST_ALPHA_BAR)
        return Level(((1 - alpha_bar) / alpha_bar) ** 0.5, alpha_bar**0.5)

    def _run_noise(self, t: float, like: Tensor, generator: Any, dtype: torch.dtype) -> dict[str, Any]:
        """_noise, with new keys where a run begins: schedules fall, and a program may run one again without set_timesteps."""
        if generator is None:
            if t >= self._last:
                self._key, self._draw = None, 0
            self._last = t
        return self._noise(like, generator, dtype)

    def _clip(self) -> dict[str, float]:
        """Bounds of the estimate."""
        config = self.config  # type: ignore[attr-defined]
        return {"lo": -config.clip_sample_range, "hi": config.clip_sample_range} if config.clip_sample else {}


def row_to_noise(net: Parametrization, at: Level, to: Level, direction: float, more: dict[str, float], **extra: Any) -> Row:
    """The row of y = alpha_to*clip(D) + direction*eps, with the noise that the network means and not that of the clipped estimate.

    The network's output is the step's first history tensor too.
    """
    at = at if at.sigma else Level(_LEAST_SIGMA, 1.0)
    p, q = net.noise(at.sigma)
    return make_row(net, at, to, direction * p / at.scale, to.scale, more=more | {"c_h1": direction * q}, **extra)
