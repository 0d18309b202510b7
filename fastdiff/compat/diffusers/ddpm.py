"""DDPMScheduler: the steps of `fastdiff.DDPM`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMSchedulerOutput
from torch import Tensor

from ...loop import with_learned_variance
from ...plan import Row
from ...samplers import DDPM
from ._discrete import Discrete
from ._fused import PREDICTIONS, Refusal
from ._options import BETAS, CLIP, SPACING, THRESHOLD, THRESHOLDING

_VARIANCES = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large", "learned_range": "learned"}
#: ln of the least standard deviation that the original takes the logarithm of.
_LEAST = 0.5 * math.log(1e-20)


class DDPMScheduler(Discrete, diffusers.DDPMScheduler):
    """diffusers.DDPMScheduler, each step one launch (Ho et al. 2020, eq. 7)."""

    options = BETAS | CLIP | SPACING | THRESHOLD | {"prediction_type", "variance_type"}
    refusals = (
        THRESHOLDING,
        Refusal("variance_type", lambda c: c["variance_type"] not in _VARIANCES, "neither fixed nor between two known variances"),
    )

    def _row(self, t: int, variant: Any) -> Row:
        at, to = self._level(t), self._level(self._previous(t))
        sampler = DDPM(variance=_VARIANCES[self.config.variance_type])  # type: ignore[arg-type]
        row = sampler.step(PREDICTIONS[self.config.prediction_type], at, to, draw=0, remaining=0)
        row = _with_beta(row, self._rounding(t), sampler.variance)
        if t > 0 and to.sigma == 0:  # a schedule that ends before t = 0: the original adds noise to clean data too
            row = _with_last_noise(row, at.std, sampler.variance)
        return replace(row, coef=row.coef | self._clip(), draw=0 if t > 0 else -1)

    def _rounding(self, t: int) -> float:
        """The original's beta, in float32, over the exact one: where beta is small they differ by 1e-3."""
        now, previous = self._alpha_bar[t], self._previous(t)
        before = self._alpha_bar[previous] if previous >= 0 else np.float32(1)
        exact = 1 - float(now) / float(before) if before > 0 else 0.0
        rounded = float(1 - now / before) if exact > 0 else 0.0
        return rounded / exact if rounded > 0 else 1.0

    def _previous(self, t: int) -> int:
        """The timestep after t, -1 for clean data."""
        if not (self.custom_timesteps or self.num_inference_steps):
            return t - 1
        times = self._positions.values
        if t not in times:
            raise ValueError(f"timestep: expected one of scheduler.timesteps, got {t}")
        return [*times, -1][times.index(t) + 1]

    def step(
        self, model_output: Tensor, timestep: int, sample: Tensor, generator: torch.Generator | None = None, return_dict: bool = True
    ) -> DDPMSchedulerOutput | tuple:
        """One step; without a generator the noise is fastdiff's, from keys of torch's global generator."""
        self._refresh()
        if self._refused:
            return super().step(model_output, timestep, sample, generator, return_dict)
        table, t = self._table(), self._positions.value(timestep)
        row, operands = table.row(t), {}
        if row.draw >= 0 and (generator is not None or "c_n" in row.coef):
            operands = self._run_noise(t, sample, generator, model_output.dtype)
        if row.learned is not None:
            model_output, operands = with_learned_variance(row, sample, model_output, operands)
        y, D = self._launch(sample, model_output, table.coef(t, sample.device), **operands)
        return DDPMSchedulerOutput(prev_sample=y, pred_original_sample=D) if return_dict else (y, D)


def _with_beta(row: Row, ratio: float, variance: str) -> Row:
    """The row with beta `ratio` times as large: it enters the estimate's weight and the variance."""
    coef = row.coef | {"c_D": row.coef["c_D"] * ratio}
    if variance == "learned":
        return replace(row, coef=coef, learned=tuple(v + 0.5 * math.log(ratio) for v in row.learned or ()) or None)  # type: ignore[arg-type]
    return replace(row, coef=coef | ({"c_n": row.coef["c_n"] * math.sqrt(ratio)} if "c_n" in row.coef else {}))


def _with_last_noise(row: Row, std: float, variance: str) -> Row:
    if variance == "small":
        return row
    if variance == "large":
        return replace(row, coef=row.coef | {"c_n": std})
    return replace(row, coef=row.coef | {"c_n": 1.0}, learned=(_LEAST, math.log(std)))
