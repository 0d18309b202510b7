"""DPM-Solver++ in multistep and singlestep form, also with EDM's preconditioning: the steps of `fastdiff.DPMSolver2M` and `3M`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable
from typing import Any

import diffusers
import torch
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from torch import Tensor

from ...parametrizations import Parametrization
from ...plan import Row
from ...samplers import DPMSolver2M, DPMSolver3M
from ...samplers._rows import Level, make_row
from ...samplers.dpm import singlestep_weights, step_length
from ._fused import PREDICTIONS, Refusal
from ._options import BETAS, FLOW, SIGMAS, SPACING, THRESHOLD, THRESHOLDING
from ._sigmas import EDMScaled, Sigmas

_PLAIN = Refusal("algorithm_type", lambda c: not c["algorithm_type"].endswith("++"), "a solver on noise predictions")
FLOW_V = Refusal(
    "prediction_type",
    lambda c: (
        (c["prediction_type"] == "flow_prediction") != bool(c["use_flow_sigmas"]) and c["prediction_type"] not in ("epsilon", "sample")
    ),
    "flow_prediction and use_flow_sigmas are served together, v_prediction without",
)


def _third_order_sde(config: Any) -> bool:
    return config["solver_order"] == 3 and config["algorithm_type"].startswith("sde")


class VarianceLevels(Sigmas):
    """Levels of a state alpha*(x0 + sigma*z): variance-preserving, or that of a rectified flow."""

    predictions = Sigmas.predictions | {"flow_prediction"}

    def _without_variance(self, model_output: Tensor, sample: Tensor) -> Tensor:
        """The channels of the estimate, where a network predicts its variance too."""
        config = self.config  # type: ignore[attr-defined]
        learned = config.variance_type in ("learned", "learned_range") and config.prediction_type == "epsilon"
        return model_output[:, : sample.shape[1]] if learned else model_output

    def _level(self, sigma: float) -> Level:
        if self.config.get("use_flow_sigmas", False):  # type: ignore[attr-defined]
            return Level(sigma / (1 - sigma), 1 - sigma)
        return Level(sigma, 1 / math.sqrt(sigma**2 + 1))


class _Multistep(Sigmas):
    """The steps of DPM-Solver++ that use earlier estimates."""

    model_outputs: list[Any]
    lower_order_nums: int

    def _net(self) -> Parametrization:
        return PREDICTIONS[self.config.prediction_type]  # type: ignore[attr-defined]

    def _schedule(self) -> Iterable[Hashable]:
        orders = range(1, self.config.solver_order + 1)  # type: ignore[attr-defined]
        return [(i, order) for i in range(len(self._levels) - 1) for order in orders if order <= i + 1]

    def _row(self, position: Any, variant: Any) -> Row:
        i, order = position
        config = self.config  # type: ignore[attr-defined]
        eta = 1.0 if config.algorithm_type.startswith("sde") else 0.0
        solver = DPMSolver3M(eta=eta, variant="published") if order == 3 else DPMSolver2M(eta=eta, solver=config.solver_type)
        past = [step_length(a, b) for a, b in itertools.pairwise(self._levels[i - order + 1 : i + 1])]
        return solver.row(self._net(), self._levels[i], self._levels[i + 1], past[::-1], draw=0)

    def _order(self, i: int) -> int:
        """The order of step i: lower at the start, and where the original wants it so at the end."""
        config, left = self.config, len(self.timesteps) - 1 - i  # type: ignore[attr-defined]
        short = config.lower_order_final and len(self.timesteps) < 15  # type: ignore[attr-defined]
        if left == 0 and (config.euler_at_final or short or config.final_sigmas_type == "zero"):
            return 1
        order = min(config.solver_order, self.lower_order_nums + 1)
        return min(order, 2) if left == 1 and short else order

    def _multistep(
        self, model_output: Tensor, timestep: Any, sample: Tensor, z: Tensor | None, generator: Any, dtype: torch.dtype
    ) -> Tensor:
        i = self._index(timestep)
        order, kept = self._order(i), self.model_outputs
        operands = {f"H{k}": kept[-k] for k in range(1, order)}
        if self.config.algorithm_type.startswith("sde"):  # type: ignore[attr-defined]
            operands |= self._noise(sample, generator, dtype) if z is None else {"z": z}
        y, D = self._launch(sample, model_output, self._table().coef((i, order), sample.device), **operands)
        self.model_outputs = [*kept[1:], D]
        self.lower_order_nums = min(self.lower_order_nums + 1, self.config.solver_order)  # type: ignore[attr-defined]
        self._step_index = i + 1
        return y


class DPMSolverMultistepScheduler(_Multistep, VarianceLevels, diffusers.DPMSolverMultistepScheduler):
    """diffusers.DPMSolverMultistepScheduler, each step one launch (Lu et al. 2022, arXiv:2211.01095)."""

    options = BETAS | SPACING | SIGMAS | FLOW | THRESHOLD | {
        "solver_order", "prediction_type", "algorithm_type", "solver_type", "lower_order_final", "euler_at_final", "use_lu_lambdas",
        "final_sigmas_type", "lambda_min_clipped", "variance_type",
    }  # fmt: skip
    refusals = (
        THRESHOLDING,
        _PLAIN,
        FLOW_V,
        Refusal("solver_order", _third_order_sde, "the original's third-order SDE step has a sign of its own"),
    )

    def step(
        self, model_output: Tensor, timestep: int | Tensor, sample: Tensor, generator: torch.Generator | None = None,
        variance_noise: Tensor | None = None, return_dict: bool = True,
    ) -> SchedulerOutput | tuple:  # fmt: skip
        """One step; without a generator or variance_noise the noise is fastdiff's, from keys of torch's global generator."""
        self._refresh()
        if self._refused or self.num_inference_steps is None:
            return super().step(model_output, timestep, sample, generator, variance_noise, return_dict)
        model_output = self._without_variance(model_output, sample)
        y = self._multistep(model_output, timestep, sample, variance_noise, generator, torch.float32)
        return SchedulerOutput(prev_sample=y) if return_dict else (y,)


class EDMDPMSolverMultistepScheduler(EDMScaled, _Multistep, diffusers.EDMDPMSolverMultistepScheduler):
    """diffusers.EDMDPMSolverMultistepScheduler, each step one launch (Lu et al. 2022, with EDM's preconditioning)."""

    options = THRESHOLD | {
        "sigma_min", "sigma_max", "sigma_data", "sigma_schedule", "num_train_timesteps", "prediction_type", "rho", "solver_order",
        "algorithm_type", "solver_type", "lower_order_final", "euler_at_final", "final_sigmas_type",
    }  # fmt: skip
    refusals = (
        THRESHOLDING,
        Refusal("solver_order", _third_order_sde, "the original has no such step"),
    )

    def _row(self, position: Any, variant: Any) -> Row:
        return self._signed(super()._row(position, variant))

    def step(
        self, model_output: Tensor, timestep: int | Tensor, sample: Tensor, generator: torch.Generator | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple:  # fmt: skip
        """One step; without a generator the noise is fastdiff's, from keys of torch's global generator."""
        self._refresh()
        if self._refused or self.num_inference_steps is None:
            return super().step(model_output, timestep, sample, generator, return_dict)
        y = self._multistep(model_output, timestep, sample, None, generator, torch.promote_types(sample.dtype, model_output.dtype))
        return SchedulerOutput(prev_sample=y) if return_dict else (y,)


class DPMSolverSinglestepScheduler(VarianceLevels, diffusers.DPMSolverSinglestepScheduler):
    """diffusers.DPMSolverSinglestepScheduler, each step one launch (Lu et al. 2022): the last of a block starts where its first did."""

    model_outputs: list[Any]
    options = BETAS | SIGMAS | FLOW | THRESHOLD | {
        "solver_order", "prediction_type", "algorithm_type", "solver_type", "lower_order_final", "final_sigmas_type",
        "lambda_min_clipped", "variance_type",
    }  # fmt: skip
    refusals = (
        THRESHOLDING,
        _PLAIN,
        FLOW_V,
        Refusal(
            "solver_order",
            lambda c: _third_order_sde(c) and c["solver_type"] == "heun",
            "the original's third-order SDE step has a sign of its own",
        ),
    )

    def _schedule(self) -> Iterable[Hashable]:
        return [(i, min(order, i + 1)) for i, order in enumerate(self.order_list[: len(self._levels) - 1])]

    def _row(self, position: Any, variant: Any) -> Row:
        i, order = position
        eta = 1.0 if self.config.algorithm_type.startswith("sde") else 0.0
        net, start, at, to = PREDICTIONS[self.config.prediction_type], self._levels[i - order + 1], self._levels[i], self._levels[i + 1]
        whole = DPMSolver2M(eta=eta).row(net, start, to, [], draw=0)  # of order 1, from the start of the block
        if order == 1:
            return whole
        inner = [step_length(start, self._levels[i - k]) for k in range(order - 1)]
        last, *older = (to.scale * w for w in singlestep_weights(step_length(start, to), inner, eta, self.config.solver_type))
        more = {"c_h1": whole.coef["c_x"], "c_n": whole.coef.get("c_n", 0.0)} | {f"c_h{k}": w for k, w in enumerate(older, 2)}
        return make_row(net, at, to, 0.0, last, more=more, draw=whole.draw)

    def step(
        self, model_output: Tensor, timestep: int | Tensor, sample: Tensor, generator: torch.Generator | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple:  # fmt: skip
        """One step; without a generator the noise is fastdiff's, from keys of torch's global generator."""
        self._refresh()
        if self._refused or self.num_inference_steps is None:
            return super().step(model_output, timestep, sample, generator, return_dict)
        model_output = self._without_variance(model_output, sample)
        i = self._index(timestep)
        kept = [D for D in self.model_outputs if D is not None]
        order = min(self.order_list[i], len(kept) + 1)
        if order == 1:
            self.sample = sample
        operands = {f"H{k}": D for k, D in enumerate([self.sample, *kept[::-1]][:order], 1)} if order > 1 else {}
        if self.config.algorithm_type.startswith("sde"):
            operands |= self._noise(sample, generator, torch.promote_types(sample.dtype, model_output.dtype))
        y, D = self._launch(sample, model_output, self._table().coef((i, order), sample.device), **operands)
        self.model_outputs = [*self.model_outputs[1:], D]
        self._step_index = i + 1
        return SchedulerOutput(prev_sample=y) if return_dict else (y,)
