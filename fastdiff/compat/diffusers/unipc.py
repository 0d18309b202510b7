"""UniPCMultistepScheduler: the steps of `fastdiff.UniPC`, the corrected state kept between them as the original keeps it."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable
from typing import Any

import diffusers
import torch
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from torch import Tensor

from ...parametrizations import Denoiser
from ...plan import Row
from ...samplers import UniPC
from ...samplers._rows import make_row
from ...samplers.dpm import step_length
from ._fused import PREDICTIONS, Refusal
from ._options import BETAS, FLOW, SIGMAS, SPACING, THRESHOLD, THRESHOLDING
from .dpm import FLOW_V, VarianceLevels


class UniPCMultistepScheduler(VarianceLevels, diffusers.UniPCMultistepScheduler):
    """diffusers.UniPCMultistepScheduler (Zhao et al. 2023): one launch corrects the last step, one makes the next.

    They are two since a pipeline may change the sample between steps; `fastdiff.UniPC` does both in one.
    """

    model_outputs: list[Any]
    timestep_list: list[Any]
    last_sample: Tensor | None
    this_order: int
    lower_order_nums: int
    options = BETAS | SPACING | SIGMAS | FLOW | THRESHOLD | {
        "solver_order", "prediction_type", "predict_x0", "solver_type", "lower_order_final", "disable_corrector", "solver_p",
        "final_sigmas_type", "sigma_min", "sigma_max", "shift_terminal",
    }  # fmt: skip
    refusals = (
        THRESHOLDING,
        FLOW_V,
        Refusal("predict_x0", lambda c: not c["predict_x0"], "a solver on noise predictions"),
        Refusal("solver_p", lambda c: c["solver_p"] is not None, "a predictor of its own"),
        Refusal("solver_order", lambda c: c["solver_order"] > 3, "more history than a step holds"),
    )

    def _schedule(self) -> Iterable[Hashable]:
        calls = len(self._levels) - 1
        orders = [min(i + 1, calls - i if self.config.lower_order_final else i + 1, self.config.solver_order) for i in range(calls)]
        rows: list[Hashable] = [("first", 0, orders[0])]
        for i in range(1, calls):
            rows += [("correct", i, orders[i - 1]), ("predict", i, orders[i])]
        return rows

    def _row(self, position: Any, variant: Any) -> Row:
        kind, i, order = position
        solver = UniPC(variant=self.config.solver_type)
        net = Denoiser() if kind == "predict" else PREDICTIONS[self.config.prediction_type]  # what is predicted from is D
        if kind == "correct":
            start, at = self._levels[i - 1], self._levels[i]
            h = step_length(start, at)
            new, *older = (at.scale * w for w in solver.corrector(h, self._past(i - 1, order), order))
            more = {"c_h1": at.std / start.std} | {f"c_h{k}": w for k, w in enumerate(older[:2], 2)}
            return make_row(net, at, at, 0.0, new, more=more, order=2)
        at, to = self._levels[i], self._levels[i + 1]
        first, *older = (to.scale * w for w in solver.predictor(step_length(at, to), self._past(i, order), order))
        more = {f"c_h{k}": w for k, w in enumerate(older, 1)}
        return make_row(net, at, to, to.std / at.std, first, more=more)

    def _past(self, i: int, order: int) -> list[float]:
        """Lengths of the steps before step i, newest first."""
        return [step_length(a, b) for a, b in itertools.pairwise(self._levels[i - order + 1 : i + 1])][::-1]

    def _third(self, i: int, order: int) -> float:
        """The weight of the oldest estimate in a correction of order 3, for which a step has no room."""
        h = step_length(self._levels[i - 1], self._levels[i])
        corrector = UniPC(variant=self.config.solver_type).corrector(h, self._past(i - 1, order), order)
        return self._levels[i].scale * corrector[3] if len(corrector) > 3 else 0.0

    def step(self, model_output: Tensor, timestep: int | Tensor, sample: Tensor, return_dict: bool = True) -> SchedulerOutput | tuple:
        """One step."""
        self._refresh()
        if self._refused or self.num_inference_steps is None:
            return super().step(model_output, timestep, sample, return_dict)
        i, table, device = self._index(timestep), self._table(), sample.device
        kept = self.model_outputs[::-1]
        corrected = i > 0 and i - 1 not in self.disable_corrector and self.last_sample is not None
        if corrected:
            coef = table.coef(("correct", i, self.this_order), device)
            older = {f"H{k}": D for k, D in enumerate(kept[: min(self.this_order, 2)], 2)}
            corrected_sample, D = self._launch(sample, model_output, coef, H1=self.last_sample, **older)
            if self.this_order == 3:
                corrected_sample = torch.add(corrected_sample, kept[2], alpha=self._third(i, 3))
            sample = corrected_sample.to(sample.dtype)  # as the original, whatever the network's type
        left = len(self.timesteps) - i
        order = min(self.config.solver_order, left) if self.config.lower_order_final else self.config.solver_order
        self.this_order = order = min(order, self.lower_order_nums + 1)
        history = {f"H{k}": kept[k - 1] for k in range(1, order)}
        self.last_sample = sample
        if corrected:
            y, _ = self._launch(sample, D, table.coef(("predict", i, order), device), return_D=False, **history)
        else:
            y, D = self._launch(sample, model_output, table.coef(("first", i, order), device), **history)
        y = y.to(sample.dtype)
        self.model_outputs = [*self.model_outputs[1:], D]
        self.timestep_list = [*self.timestep_list[1:], timestep]
        self.lower_order_nums = min(self.lower_order_nums + 1, self.config.solver_order)
        self._step_index = i + 1
        return SchedulerOutput(prev_sample=y) if return_dict else (y,)
