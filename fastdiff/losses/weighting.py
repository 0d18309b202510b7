"""What an error of the denoised estimate costs: L = E w(sigma)*|D - x0|^2, of which every denoising loss of the literature is a case.

With eps = (x - D)/sigma and score = (D - x)/(s*sigma^2), errors of eps, of the score and of D are the same error in other units:

    |eps - z|^2 = |D - x0|^2/sigma^2 = std^2*|score + z/std|^2

    simple        1/sigma^2                                              DDPM's L_simple (Ho et al. 2020, eq. 14); twice the losses with
                                                                         lambda = std^2 (Song et al. 2021), sigma^2 (Song and Ermon 2019)
    edm           (sigma^2 + sigma_data^2)/(sigma*sigma_data)^2          Karras et al. 2022, table 1
    likelihood    g^2/(2*std^2*sigma^2)                                  lambda = g^2 (Song et al. 2021, arXiv:2101.09258)
    variational   (1/sigma_{t-1}^2 - 1/sigma_t^2)/2, first 1/(2*std^2)   DDPM's bound (Ho et al. 2020, eq. 12; Kingma et al. 2021)
    x0            1
    min-snr       min(1/sigma^2, 5)                                      Hang et al. 2023
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..discrete import Discrete
from ..schedules import Schedule
from ..sdes import SDE
from .levels import on_device

#: w(sigma): [B] float64 to [B] float64.
Weighting = Callable[[Tensor], Tensor]

WEIGHTINGS = ("simple", "edm", "likelihood", "variational", "x0", "min-snr")
_GAMMA = 5.0


def weighting(name: str, *, process: Schedule | None = None, sigma_data: float = 0.5) -> Weighting:
    """A weighting by name.

    Args:
        name: one of WEIGHTINGS.
        process: the SDE of "likelihood", the Discrete schedule of "variational".
        sigma_data: standard deviation of the data, for "edm".

    Raises:
        ValueError: an unknown name; a process that does not fit.
    """
    if name not in WEIGHTINGS:
        raise ValueError(f"weighting: expected one of {', '.join(WEIGHTINGS)}, got {name!r}")
    if name == "likelihood" and not isinstance(process, SDE):
        raise ValueError(f"process: expected an SDE for the likelihood weighting, got {type(process).__name__}")
    if name == "variational" and not isinstance(process, Discrete):
        raise ValueError(f"process: expected a Discrete schedule for the variational weighting, got {type(process).__name__}")
    return {
        "simple": lambda sigma: sigma**-2,
        "edm": lambda sigma: sigma**-2 + sigma_data**-2,
        "likelihood": lambda sigma: _likelihood(sigma, process),  # type: ignore[arg-type]
        "variational": lambda sigma: _variational(sigma, process),  # type: ignore[arg-type]
        "x0": torch.ones_like,
        "min-snr": lambda sigma: (sigma**-2).clamp(max=_GAMMA),
    }[name]


def _likelihood(sigma: Tensor, process: SDE) -> Tensor:
    t = process.time(sigma)
    return (process.diffusion(t) / process.std(t)) ** 2 / (2 * sigma**2)


def _variational(sigma: Tensor, schedule: Discrete) -> Tensor:
    levels = on_device(tuple(schedule.sigmas), sigma.device)
    step = (sigma[:, None] - levels).abs().argmin(1)
    before = levels[(step - 1).clamp(min=0)] ** -2
    before = torch.where(step == 0, 1 + 2 * levels[0] ** -2, before)  # 1/std^2 = 1 + 1/sigma^2 instead of the difference
    return (before - levels[step] ** -2) / 2
