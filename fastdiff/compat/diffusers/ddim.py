"""DDIMScheduler and DDIMInverseScheduler: the steps of `fastdiff.DDIM`, one back in time and one forth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import diffusers
import torch
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from torch import Tensor

from ...plan import Row
from ...samplers import DDIM
from ._discrete import Discrete, row_to_noise
from ._fused import PREDICTIONS
from ._options import BETAS, CLIP, SPACING, THRESHOLD, THRESHOLDING


class DDIMScheduler(Discrete, diffusers.DDIMScheduler):
    """diffusers.DDIMScheduler, each step one launch (Song et al. 2021, eq. 12 and 16)."""

    options = BETAS | CLIP | SPACING | THRESHOLD | {"prediction_type", "set_alpha_to_one"}
    refusals = (THRESHOLDING,)
    _default = (0.0, False)
    _alpha_bar_before = "final_alpha_cumprod"

    def _row(self, t: int, variant: Any) -> Row:
        eta, clipped_noise = variant
        net, clip = PREDICTIONS[self.config.prediction_type], self._clip()
        at, to = self._level(t), self._level(t - self.config.num_train_timesteps // self.num_inference_steps)
        row = DDIM(eta=eta).step(net, at, to, draw=0, remaining=0)
        if clip and not clipped_noise:
            noise = {name: row.coef[name] for name in ("c_n",) if name in row.coef}
            row = row_to_noise(net, at, to, row.coef["c_x"] * at.std, noise, draw=row.draw)
        return replace(row, coef=row.coef | clip)

    def step(
        self, model_output: Tensor, timestep: int, sample: Tensor, eta: float = 0.0, use_clipped_model_output: bool = False,
        generator: torch.Generator | None = None, variance_noise: Tensor | None = None, return_dict: bool = True,
    ) -> DDIMSchedulerOutput | tuple:  # fmt: skip
        """One step; without a generator the noise is fastdiff's, from keys of torch's global generator."""
        self._refresh()
        if self._refused or self.num_inference_steps is None or not 0 <= eta <= 1:
            return super().step(
                model_output, timestep, sample, eta, use_clipped_model_output, generator, variance_noise, return_dict
            )  # fmt: skip
        if eta > 0 and variance_noise is not None and generator is not None:
            raise ValueError("variance_noise: expected none beside a generator, got both")
        table, t = self._table((float(eta), use_clipped_model_output)), self._positions.value(timestep)
        operands: dict[str, Any] = {"H1": model_output} if "c_h1" in table.row(t).coef else {}
        if eta > 0 and variance_noise is not None:
            operands["z"] = variance_noise
        elif eta > 0:
            operands |= self._run_noise(t, sample, generator, model_output.dtype)
        y, D = self._launch(sample, model_output, table.coef(t, sample.device), **operands)
        return DDIMSchedulerOutput(prev_sample=y, pred_original_sample=D) if return_dict else (y, D)


class DDIMInverseScheduler(Discrete, diffusers.DDIMInverseScheduler):
    """diffusers.DDIMInverseScheduler, each step one launch: DDIM from data to noise."""

    options = BETAS | CLIP | SPACING | {"prediction_type", "set_alpha_to_one"}
    _alpha_bar_before = "initial_alpha_cumprod"

    def _row(self, t: int, variant: Any) -> Row:
        net = PREDICTIONS[self.config.prediction_type]
        earlier = min(t - self.config.num_train_timesteps // self.num_inference_steps, self.config.num_train_timesteps - 1)
        return row_to_noise(net, self._level(earlier), self._level(t), self._level(t).std, self._clip())

    def step(self, model_output: Tensor, timestep: int, sample: Tensor, return_dict: bool = True) -> DDIMSchedulerOutput | tuple:
        """One step."""
        self._refresh()
        if self._refused or self.num_inference_steps is None:
            return super().step(model_output, timestep, sample, return_dict)
        table, t = self._table(), self._positions.value(timestep)
        y, D = self._launch(sample, model_output, table.coef(t, sample.device), H1=model_output)
        return DDIMSchedulerOutput(prev_sample=y, pred_original_sample=D) if return_dict else (y, D)
