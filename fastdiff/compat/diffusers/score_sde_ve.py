"""ScoreSdeVeScheduler: reverse diffusion of the VE SDE and Langevin corrections, the steps of `fastdiff.PCSampler`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.schedulers.scheduling_sde_ve import SdeVeOutput
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from torch import Tensor

from ...ops.langevin_row import OP as LANGEVIN
from ...plan import Row
from ._fused import Fused


class ScoreSdeVeScheduler(Fused, diffusers.ScoreSdeVeScheduler):
    """diffusers.ScoreSdeVeScheduler: a prediction is one launch, a correction two (Song et al. 2021, algorithms 2 and 4)."""

    options = frozenset({"num_train_timesteps", "snr", "sigma_min", "sigma_max", "sampling_eps", "correct_steps"})

    _source = "discrete_sigmas"
    discrete_sigmas: Tensor | None = None  # set_sigmas sets timesteps before it has them

    def _read(self) -> None:
        self._sigmas = [] if self.discrete_sigmas is None else self.discrete_sigmas.tolist()

    def _schedule(self) -> Iterable[float]:
        return dict.fromkeys(self._positions.values)

    def _row(self, position: Any, variant: Any) -> Row:
        if position == "correct":  # a network that returns the score, at sigma = 1: D = x + F, so that eps = -F
            return Row(1.0, 1.0, 1.0, 1.0, {"a": 1.0, "b": 1.0, "c_D": 1.0, "c_l": 2 * self.config.snr**2}, draw=0, adaptive="batch")
        i = int(np.float32(position) * np.float32(len(self._positions.values) - 1))  # in float32, as the original
        variance = self._sigmas[i] ** 2 - (self._sigmas[i - 1] ** 2 if i else 0.0)
        # D stands for the mean of the next state.
        return Row(self._sigmas[i], 1.0, position, 1.0, {"a": 1.0, "b": variance, "c_D": 1.0, "c_n": variance**0.5}, draw=0)

    def step_pred(
        self, model_output: Tensor, timestep: int, sample: Tensor, generator: torch.Generator | None = None, return_dict: bool = True
    ) -> SdeVeOutput | tuple:
        """One prediction; without a generator the noise is fastdiff's, from keys of torch's global generator."""
        if self.timesteps is None:
            return super().step_pred(model_output, timestep, sample, generator, return_dict)
        self._refresh()
        if self._refused:
            return super().step_pred(model_output, timestep, sample, generator, return_dict)
        sample = sample.to(torch.promote_types(sample.dtype, torch.float32))  # as the original's coefficients make it
        coef = self._table().coef(self._positions.value(timestep), sample.device)
        y, mean = self._launch(sample, model_output, coef, **self._noise(sample, generator, sample.dtype))
        return SdeVeOutput(prev_sample=y, prev_sample_mean=mean) if return_dict else (y, mean)

    def step_correct(
        self, model_output: Tensor, sample: Tensor, generator: torch.Generator | None = None, return_dict: bool = True
    ) -> SchedulerOutput | tuple:
        """One correction, its step size from the mean norms of the batch; it never leaves the device."""
        if self.timesteps is None:
            return super().step_correct(model_output, sample, generator, return_dict)
        self._refresh()
        if self._refused:
            return super().step_correct(model_output, sample, generator, return_dict)
        sample = sample.to(torch.promote_types(sample.dtype, torch.float32))  # as the original's coefficients make it
        noise = self._noise(sample, generator, torch.get_default_dtype())
        row = LANGEVIN.overload(sample, model_output, self._table().coef("correct", sample.device), shared=True, **noise)
        y, _ = self._launch(sample, model_output, row, return_D=False, **noise)
        return SchedulerOutput(prev_sample=y) if return_dict else (y,)
