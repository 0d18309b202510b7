"""LMSDiscreteScheduler: the steps of `fastdiff.LinearMultistep`."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteSchedulerOutput
from torch import Tensor

from ...plan import Row
from ...samplers.lms import adams_weights, usable_order
from ._fused import PREDICTIONS
from ._options import BETAS, SIGMAS, SPACING
from ._sigmas import Scaled


class LMSDiscreteScheduler(Scaled, diffusers.LMSDiscreteScheduler):
    """diffusers.LMSDiscreteScheduler, each step one launch: Adams-Bashforth of up to order 4 on the slopes (x - D)/sigma."""

    options = BETAS | SPACING | SIGMAS | {"prediction_type"}
    _default = 4

    def _row(self, position: int, variant: Any) -> Row:
        sigma = self._levels[position].sigma
        p, q = PREDICTIONS[self.config.prediction_type].noise(sigma)  # the slope takes the estimate's place
        sigmas = [level.sigma for level in self._levels]
        weights = adams_weights(sigmas, position, usable_order(sigmas, position, variant))
        coef = {"a": p, "b": q, "c_x": 1.0, "c_D": weights[0]} | {f"c_h{k}": w for k, w in enumerate(weights[1:], 1)}
        return Row(sigma, 1.0, sigma, 1.0, coef, next_sigma=self._levels[position + 1].sigma)

    def step(
        self, model_output: Tensor, timestep: float | Tensor, sample: Tensor, order: int = 4, return_dict: bool = True
    ) -> LMSDiscreteSchedulerOutput | tuple:
        """One step; orders above 4 are handed over to the original."""
        self._refresh()
        if self._refused or order > 4:
            return super().step(model_output, timestep, sample, order, return_dict)
        i = self._index(timestep)
        history = {f"H{k}": slope for k, slope in enumerate(self.derivatives[::-1][: order - 1], 1)}
        y, slope = self._launch(sample, model_output, self._table(order).coef(i, sample.device), **history)
        self.derivatives.append(slope)
        if len(self.derivatives) > order:
            self.derivatives.pop(0)
        self._step_index = i + 1
        D = torch.add(sample, slope, alpha=-self._levels[i].sigma)
        return LMSDiscreteSchedulerOutput(prev_sample=y, pred_original_sample=D) if return_dict else (y, D)
