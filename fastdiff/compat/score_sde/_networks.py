"""What the networks of score_sde return, as parametrizations of fastdiff.

    continuous   VP, sub-VP: -score*std(t), label 999*t          VE: score, label sigma(t)
    discrete     VP: -score*std_i, label t*(N - 1), i its floor   VE: score, label round((T - t)*(N - 1)), an integer

std_i is the table of the discrete process, which differs from std(t) by up to its distance from the next step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ...losses.levels import on_device
from ...parametrizations import Epsilon, Parametrization, Score
from ...schedules import N
from . import sde_lib

#: As in fastdiff.sdes: keeps i/(N - 1)*(N - 1) from falling to i - 1.
_NUDGE = 1e-6


@dataclass(frozen=True)
class DiscreteEpsilon(Epsilon):
    """The network of a discrete VP process returns -score*std_i: D = x - s*sigma^2/std_i*F.

    Args:
        steps: N of the process; its betas are the schedule's.
    """

    steps: int = 1000

    def label(self, sigma: N) -> N:
        return (self.steps - 1) * self.schedule.time(sigma)

    def denoiser(self, sigma: N) -> tuple[N, N]:
        table, label = _discrete_stds(self.schedule.beta_min, self.schedule.beta_max, self.steps), self.label(sigma) + _NUDGE  # type: ignore[attr-defined]
        last = self.steps - 1
        if isinstance(label, Tensor):
            std: Any = on_device(table, label.device)[label.long().clamp(max=last)]
        else:
            std = table[min(int(label), last)]
        return sigma * 0 + 1, -self.c_in(sigma) * sigma**2 / std


@dataclass(frozen=True)
class DiscreteScore(Score):
    """The network of SMLD returns the score; its labels number the levels from the largest down.

    Args:
        steps: N of the process.
    """

    steps: int = 1000

    def label(self, sigma: N) -> N:
        label = (1 - self.schedule.time(sigma)) * (self.steps - 1)
        return label.round() if isinstance(label, Tensor) else float(round(label))


@lru_cache(maxsize=16)
def _discrete_stds(beta_min: float, beta_max: float, steps: int) -> tuple[float, ...]:
    return tuple(sde_lib.VPSDE(beta_min, beta_max, steps).sqrt_1m_alphas_cumprod.tolist())


def fusible(sde: object) -> bool:
    """Whether an SDE is one of ours, as it was made: only then do fastdiff.sdes say all of it."""
    return type(sde) in (sde_lib.VPSDE, sde_lib.subVPSDE, sde_lib.VESDE) and sde.as_made  # type: ignore[attr-defined]


def parametrization_of(sde: Any, continuous: bool) -> Parametrization:
    """The meaning of a network's output for a fusible SDE."""
    if isinstance(sde, sde_lib.VESDE):
        return Score(schedule=sde.process, label_is_sigma=True) if continuous else DiscreteScore(schedule=sde.process, steps=sde.N)
    if continuous or isinstance(sde, sde_lib.subVPSDE):
        return Epsilon(schedule=sde.process)
    return DiscreteEpsilon(schedule=sde.process, steps=sde.N)


def network_of(model: Any, sde: Any, continuous: bool, train: bool = False) -> Callable[[Tensor, Tensor], Tensor]:
    """The model in its mode, with integer labels where SMLD's are."""
    if isinstance(model, torch.nn.Module):
        model.train(train)
    if continuous or not isinstance(sde, sde_lib.VESDE):
        return model
    return lambda x, labels: model(x, labels.long())


def device_of(model: Any, given: torch.device | str) -> torch.device:
    """Where the model's parameters are; without any, the given device, or the CPU where a GPU is named and none is there."""
    if isinstance(model, torch.nn.Module):
        for parameter in model.parameters():
            return parameter.device
    device = torch.device(given)
    return torch.device("cpu") if device.type == "cuda" and not torch.cuda.is_available() else device
