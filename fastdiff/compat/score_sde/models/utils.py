"""models.utils: score functions of models, the registry of models, NumPy helpers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....discrete import Discrete, geometric_sigmas, linear_betas
from ....ops._shapes import column
from .. import sde_lib
from .._registry import Registry

_MODELS = Registry("model")
register_model = _MODELS.register


def get_model(name: str) -> Any:
    """The class that was registered under a name.

    Raises:
        ValueError: there is none.
    """
    return _MODELS[name]


def create_model(config: Any) -> torch.nn.DataParallel:
    """The registered class config.model.name, made from the config, on config.device and in DataParallel."""
    return torch.nn.DataParallel(get_model(config.model.name)(config).to(config.device))


def get_sigmas(config: Any) -> np.ndarray:
    """[num_scales] SMLD's noise levels from the largest down, of config.model."""
    return geometric_sigmas(config.model.num_scales, config.model.sigma_max, config.model.sigma_min)


def get_ddpm_params(config: Any) -> dict[str, Any]:
    """The tables of DDPM's discrete process of 1000 steps, float64, of config.model."""
    steps = 1000
    start, end = config.model.beta_min / config.model.num_scales, config.model.beta_max / config.model.num_scales
    betas = linear_betas(steps, start, end)
    alphas_cumprod = Discrete(betas).alpha_bar
    return {
        "betas": betas,
        "alphas": 1 - betas,
        "alphas_cumprod": alphas_cumprod,
        "sqrt_alphas_cumprod": np.sqrt(alphas_cumprod),
        "sqrt_1m_alphas_cumprod": np.sqrt(1 - alphas_cumprod),
        "beta_min": start * (steps - 1),
        "beta_max": end * (steps - 1),
        "num_diffusion_timesteps": steps,
    }


def get_model_fn(model: Callable[[Tensor, Tensor], Tensor], train: bool = False) -> Callable[[Tensor, Tensor], Tensor]:
    """model(x, labels), in training or in evaluation mode at each call."""

    def model_fn(x: Tensor, labels: Tensor) -> Tensor:
        if isinstance(model, torch.nn.Module):
            model.train(train)
        return model(x, labels)

    return model_fn


def get_score_fn(
    sde: sde_lib.SDE, model: Callable[[Tensor, Tensor], Tensor], train: bool = False, continuous: bool = False
) -> Callable[[Tensor, Tensor], Tensor]:
    """score(x, t) for x [B, ...] and t [B], from a network that was trained in continuous or in discrete time.

    Args:
        sde: a VPSDE, subVPSDE or VESDE, or a subclass; model: called as model(x, labels); train: in training mode.
        continuous: labels are 999*t, or sigma for VE; else t*(N - 1), or for VE the number of the level from the largest down.

    Raises:
        NotImplementedError: another SDE.
    """
    model_fn = get_model_fn(model, train=train)
    if isinstance(sde, sde_lib.VESDE):

        def score_fn(x: Tensor, t: Tensor) -> Tensor:
            return model_fn(x, sde.marginal_prob(x, t)[1] if continuous else torch.round((sde.T - t) * (sde.N - 1)).long())

    elif isinstance(sde, sde_lib.subVPSDE) or (isinstance(sde, sde_lib.VPSDE) and continuous):

        def score_fn(x: Tensor, t: Tensor) -> Tensor:
            return -model_fn(x, t * 999) / column(sde.marginal_prob(x, t)[1], x, x.dtype)

    elif isinstance(sde, sde_lib.VPSDE):

        def score_fn(x: Tensor, t: Tensor) -> Tensor:
            labels = t * (sde.N - 1)
            return -model_fn(x, labels) / column(sde.sqrt_1m_alphas_cumprod.to(x.device)[labels.long()], x, x.dtype)

    else:
        raise NotImplementedError(f"sde: expected a VPSDE, subVPSDE or VESDE of {sde_lib.__name__}, got {_name(sde)}")
    return score_fn


def _name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def to_flattened_numpy(x: Tensor) -> np.ndarray:
    """A tensor's elements in a row."""
    return x.detach().cpu().numpy().reshape(-1)


def from_flattened_numpy(x: np.ndarray, shape: Any) -> Tensor:
    """The tensor of a shape from its elements in a row."""
    return torch.from_numpy(x.reshape(shape))
