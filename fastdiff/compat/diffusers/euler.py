"""Schedulers whose step is Euler's: deterministic, ancestral, with EDM's preconditioning, and for rectified flows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.schedulers.scheduling_edm_euler import EDMEulerSchedulerOutput
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteSchedulerOutput
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteSchedulerOutput
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteSchedulerOutput
from torch import Tensor

from ...parametrizations import Parametrization
from ...plan import Row
from ...samplers._rows import Level, ancestral_split, make_row
from ._fused import PREDICTIONS
from ._options import BETAS, SIGMAS, SPACING
from ._sigmas import EDMScaled, Scaled, Sigmas, in_float32


class _Churned(Scaled):
    """Euler steps that may begin with added noise."""

    _default = (0.0, 1.0)

    def _net(self) -> Parametrization:
        return PREDICTIONS[self.config.prediction_type]  # type: ignore[attr-defined]

    def _row(self, position: Any, variant: Any) -> Row:
        net, (gamma, s_noise) = self._net(), variant
        if isinstance(position, tuple):  # the noise before a step
            sigma = self._levels[position[1]].sigma
            return Row(sigma, 1.0, sigma, 1.0, {"c_x": 1.0, "c_n": s_noise * sigma * math.sqrt((1 + gamma) ** 2 - 1)}, draw=0)
        sigma = self._levels[position].sigma
        at, to = Level(sigma * (1 + gamma)), self._levels[position + 1]
        ratio = to.sigma / at.sigma
        row = make_row(net, at, to, ratio, 1 - ratio)
        return self._estimate(row, sigma)

    def _estimate(self, row: Row, sigma: float) -> Row:
        """The row with the original's estimate, sigma being the level before noise was added."""
        return row

    def _euler(
        self, model_output: Tensor, timestep: Any, sample: Tensor, churn: tuple[float, float, float, float], generator: Any
    ) -> tuple[Tensor, Tensor]:
        s_churn, s_tmin, s_tmax, s_noise = churn
        self._check_timestep(timestep)
        i = self._index(timestep)
        sample = in_float32(sample)
        table = self._table(self._default)
        if s_churn > 0 and np.float32(s_tmin) <= np.float32(self._levels[i].sigma) <= np.float32(s_tmax):  # as the original compares
            table = self._table((float(min(s_churn / (len(self._levels) - 1), math.sqrt(2) - 1)), float(s_noise)))
            noise = self._noise(sample, generator, model_output.dtype)
            sample, _ = self._launch(sample, sample, table.coef(("noise", i), sample.device), return_D=False, **noise)
        y, D = self._launch(sample, model_output, table.coef(i, sample.device))
        self._step_index = i + 1
        return y if y.dtype == model_output.dtype else y.to(model_output.dtype), D


class EulerDiscreteScheduler(_Churned, diffusers.EulerDiscreteScheduler):
    """diffusers.EulerDiscreteScheduler, each step one launch (Karras et al. 2022, algorithm 2 without its corrector)."""

    options = BETAS | SPACING | SIGMAS | {
        "prediction_type", "interpolation_type", "sigma_min", "sigma_max", "timestep_type", "final_sigmas_type",
    }  # fmt: skip

    predictions = Scaled.predictions | {"original_sample"}

    def _estimate(self, row: Row, sigma: float) -> Row:
        if self.config.prediction_type != "v_prediction":
            return row
        a, b = self._net().denoiser(sigma)  # the original's estimate from v knows of no added noise
        return replace(row, coef=row.coef | {"a": a, "b": b})

    def step(
        self, model_output: Tensor, timestep: float | Tensor, sample: Tensor, s_churn: float = 0.0, s_tmin: float = 0.0,
        s_tmax: float = float("inf"), s_noise: float = 1.0, generator: torch.Generator | None = None, return_dict: bool = True,
    ) -> EulerDiscreteSchedulerOutput | tuple:  # fmt: skip
        """One step; without a generator the noise of s_churn is fastdiff's, from keys of torch's global generator."""
        self._refresh()
        if self._refused:
            return super().step(model_output, timestep, sample, s_churn, s_tmin, s_tmax, s_noise, generator, return_dict)
        y, D = self._euler(model_output, timestep, sample, (s_churn, s_tmin, s_tmax, s_noise), generator)
        return EulerDiscreteSchedulerOutput(prev_sample=y, pred_original_sample=D) if return_dict else (y, D)


class EDMEulerScheduler(EDMScaled, _Churned, diffusers.EDMEulerScheduler):
    """diffusers.EDMEulerScheduler, each step one launch (Karras et al. 2022, algorithm 2 without its corrector)."""

    options = frozenset({
        "sigma_min", "sigma_max", "sigma_data", "sigma_schedule", "num_train_timesteps", "prediction_type", "rho", "final_sigmas_type",
    })  # fmt: skip

    def _estimate(self, row: Row, sigma: float) -> Row:
        return self._signed(row)

    def step(
        self, model_output: Tensor, timestep: float | Tensor, sample: Tensor, s_churn: float = 0.0, s_tmin: float = 0.0,
        s_tmax: float = float("inf"), s_noise: float = 1.0, generator: torch.Generator | None = None, return_dict: bool = True,
        pred_original_sample: Tensor | None = None,
    ) -> EDMEulerSchedulerOutput | tuple:  # fmt: skip
        """One step; a given pred_original_sample is handed over to the original."""
        self._refresh()
        if self._refused or pred_original_sample is not None:
            return super().step(
                model_output, timestep, sample, s_churn, s_tmin, s_tmax, s_noise, generator, return_dict, pred_original_sample
            )  # fmt: skip
        y, D = self._euler(model_output, timestep, sample, (s_churn, s_tmin, s_tmax, s_noise), generator)
        return EDMEulerSchedulerOutput(prev_sample=y, pred_original_sample=D) if return_dict else (y, D)


class EulerAncestralDiscreteScheduler(Scaled, diffusers.EulerAncestralDiscreteScheduler):
    """diffusers.EulerAncestralDiscreteScheduler, each step one launch; the steps of `fastdiff.EulerAncestral`."""

    options = BETAS | SPACING | {"prediction_type"}
    predictions = frozenset({"epsilon", "v_prediction"})

    def _row(self, position: int, variant: Any) -> Row:
        at, to = self._levels[position], self._levels[position + 1]
        down, up = ancestral_split(at.sigma, to.sigma, 1.0)
        ratio = down / at.sigma
        return make_row(PREDICTIONS[self.config.prediction_type], at, to, ratio, 1 - ratio, more={"c_n": up} if up else {}, draw=0)

    def step(
        self, model_output: Tensor, timestep: float | Tensor, sample: Tensor, generator: torch.Generator | None = None,
        return_dict: bool = True,
    ) -> EulerAncestralDiscreteSchedulerOutput | tuple:  # fmt: skip
        """One step; without a generator the noise is fastdiff's, from keys of torch's global generator."""
        self._refresh()
        if self._refused:
            return super().step(model_output, timestep, sample, generator, return_dict)
        self._check_timestep(timestep)
        i = self._index(timestep)
        sample = in_float32(sample)
        noise = self._noise(sample, generator, model_output.dtype)
        y, D = self._launch(sample, model_output, self._table().coef(i, sample.device), **noise)
        self._step_index = i + 1
        y = y if y.dtype == model_output.dtype else y.to(model_output.dtype)
        return EulerAncestralDiscreteSchedulerOutput(prev_sample=y, pred_original_sample=D) if return_dict else (y, D)


class FlowMatchEulerDiscreteScheduler(Sigmas, diffusers.FlowMatchEulerDiscreteScheduler):
    """diffusers.FlowMatchEulerDiscreteScheduler, each step one launch: y = x + (sigma' - sigma)*u of a rectified flow."""

    options = SIGMAS | {
        "num_train_timesteps", "shift", "use_dynamic_shifting", "base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len",
        "invert_sigmas", "shift_terminal", "time_shift_type", "stochastic_sampling",
    }  # fmt: skip

    def _schedule(self) -> Iterable[int]:
        return range(len(self._levels) - 1)

    def _row(self, position: int, variant: Any) -> Row:
        t, following = self._levels[position].sigma, self._levels[position + 1].sigma  # of x_t = (1 - t)*x0 + t*z
        if self.config.stochastic_sampling:
            coef = {"a": 1.0, "b": -t, "c_D": 1 - following, "c_n": following}
        else:
            coef = {"b": 1.0, "c_x": 1.0, "c_D": following - t}
        return Row(max(t, 1e-12), 1.0, t, 1.0, coef, draw=0 if self.config.stochastic_sampling else -1)

    def step(
        self, model_output: Tensor, timestep: float | Tensor, sample: Tensor, s_churn: float = 0.0, s_tmin: float = 0.0,
        s_tmax: float = float("inf"), s_noise: float = 1.0, generator: torch.Generator | None = None,
        per_token_timesteps: Tensor | None = None, return_dict: bool = True,
    ) -> FlowMatchEulerDiscreteSchedulerOutput | tuple:  # fmt: skip
        """One step; per_token_timesteps are handed over to the original. (It does not use s_churn and its like either.)"""
        self._refresh()
        if self._refused or per_token_timesteps is not None:
            return super().step(
                model_output, timestep, sample, s_churn, s_tmin, s_tmax, s_noise, generator, per_token_timesteps, return_dict
            )  # fmt: skip
        self.is_scale_input_called = True
        self._check_timestep(timestep)
        i = self._index(timestep)
        sample = in_float32(sample)
        noise = self._noise(sample, generator, sample.dtype) if self.config.stochastic_sampling else {}
        y, _ = self._launch(sample, model_output, self._table().coef(i, sample.device), return_D=False, **noise)
        self._step_index = i + 1
        y = y if y.dtype == model_output.dtype else y.to(model_output.dtype)
        return FlowMatchEulerDiscreteSchedulerOutput(prev_sample=y) if return_dict else (y,)
