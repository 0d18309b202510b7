"""HeunDiscreteScheduler: Euler's step and its corrector as two calls of `step`."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import diffusers
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteSchedulerOutput
from torch import Tensor

from ...plan import Row
from ...samplers._rows import Level, make_row
from ._fused import PREDICTIONS
from ._options import BETAS, CLIP, SIGMAS, SPACING
from ._sigmas import Scaled


class HeunDiscreteScheduler(Scaled, diffusers.HeunDiscreteScheduler):
    """diffusers.HeunDiscreteScheduler, each step one launch (Karras et al. 2022, algorithm 1).

    The first slope is not kept, but what it is made of: x_hat and D. A pipeline may change the sample between the two steps.
    """

    options = BETAS | SPACING | SIGMAS | CLIP | {"prediction_type"}

    dt: float | None
    sample: Tensor | None
    _first_D: Tensor | None = None

    def _schedule(self) -> Iterable[Hashable]:
        n = len(self._levels)
        pairs = ((i, order) for i in range(n) for order in (1, 2) if order <= i + 1 and i + 2 - order < n)
        return [(i, order) for i, order in pairs if self._levels[i].sigma > 0 and (order == 1 or self._levels[i - 1].sigma > 0)]

    def _row(self, position: Any, variant: Any) -> Row:
        i, order = position
        net, clip = PREDICTIONS[self.config.prediction_type], {}
        if self.config.clip_sample:
            clip = {"lo": -self.config.clip_sample_range, "hi": self.config.clip_sample_range}
        if order == 1:
            at, to = self._levels[i], self._levels[i + 1]
            ratio = to.sigma / at.sigma
            return make_row(net, at, to, ratio, 1 - ratio, more=clip)
        # y = x_hat + h/2*((x_hat - D_1)/sigma + (x - D)/sigma')
        start, at = self._levels[i - 1], self._levels[i]
        old, new = ((at.sigma - start.sigma) / (2 * level.sigma) for level in (start, at))
        return make_row(net, at, Level(at.sigma), new, -new, more=clip | {"c_h1": 1 + old, "c_h2": -old}, order=2)

    def step(
        self, model_output: Tensor, timestep: float | Tensor, sample: Tensor, return_dict: bool = True
    ) -> HeunDiscreteSchedulerOutput | tuple:
        """One of the two steps."""
        self._refresh()
        if self._refused or (self.dt is not None and self._first_D is None):  # the first half was the original's
            return super().step(model_output, timestep, sample, return_dict)
        i = self._index(timestep)
        if self.dt is None:
            y, D = self._launch(sample, model_output, self._table().coef((i, 1), sample.device))
            self._first_D, self.dt, self.sample = D, self._levels[i + 1].sigma - self._levels[i].sigma, sample
        else:
            y, D = self._launch(sample, model_output, self._table().coef((i, 2), sample.device), H1=self.sample, H2=self._first_D)
            self._first_D = self.dt = self.sample = None
        self._step_index = i + 1
        return HeunDiscreteSchedulerOutput(prev_sample=y, pred_original_sample=D) if return_dict else (y, D)
