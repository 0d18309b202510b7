"""losses: training of networks as the original trains them; without given noise in two fused kernels around the network.

    continuous   E_t lambda(t) |score(x(t), t) + z/std(t)|^2,  lambda = std^2 or g^2
    SMLD         E_i sigma_i^2 |score(x_0 + sigma_i z, i) + z/sigma_i|^2
    DDPM         E_i |eps(x_i, i) - z|^2

each the mean over a sample's elements, or half their sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ...discrete import Discrete, linear_betas
from ...losses import diffusion_loss, score_matching_loss, weighting
from ...ops._shapes import column, sum_per_sample
from ...parametrizations import Epsilon
from . import _networks, sde_lib
from ._noise import Noise, new_keys
from .models import utils as mutils

Loss = Callable[..., Tensor]


def get_optimizer(config: Any, params: Iterable[Tensor]) -> torch.optim.Optimizer:
    """Adam with config.optim's lr, beta1, eps and weight_decay; beta2 is 0.999.

    Raises:
        ValueError: another config.optim.optimizer.
    """
    optim = config.optim
    if optim.optimizer != "Adam":
        raise ValueError(f"config.optim.optimizer: expected 'Adam', got {optim.optimizer!r}")
    return torch.optim.Adam(params, lr=optim.lr, betas=(optim.beta1, 0.999), eps=optim.eps, weight_decay=optim.weight_decay)


def optimization_manager(config: Any) -> Callable[..., None]:
    """optimize_fn(optimizer, params, step, lr, warmup, grad_clip), defaults from config.optim: one step with a linear warmup of the
    learning rate where warmup > 0, and gradients clipped to a norm where grad_clip >= 0."""

    def optimize_fn(
        optimizer: torch.optim.Optimizer, params: Iterable[Tensor], step: int, lr: float = config.optim.lr,
        warmup: int = config.optim.warmup, grad_clip: float = config.optim.grad_clip,
    ) -> None:  # fmt: skip
        if warmup > 0:
            for group in optimizer.param_groups:
                group["lr"] = lr * min(step / warmup, 1.0)
        if grad_clip >= 0:
            torch.nn.utils.clip_grad_norm_(params, max_norm=grad_clip)
        optimizer.step()

    return optimize_fn


def get_sde_loss_fn(
    sde: sde_lib.SDE, train: bool, reduce_mean: bool = True, continuous: bool = True, likelihood_weighting: bool = True, eps: float = 1e-5
) -> Loss:
    """loss_fn(model, batch, *, t=None, noise=None) -> the batch's mean loss of continuous time.

    Args:
        sde: the forward SDE; train: the model's mode; eps: the least time.
        reduce_mean: the mean over a sample's elements instead of half their sum.
        continuous: see `models.utils.get_score_fn`.
        likelihood_weighting: lambda = g^2 instead of std^2.

    loss_fn takes t [B], else uniform in (eps, T]; and noise, a tensor like batch or noise(like), else fastdiff's of new keys.
    """

    def loss_fn(model: Any, batch: Tensor, *, t: Tensor | None = None, noise: Tensor | Noise | None = None) -> Tensor:
        if t is None:
            t = torch.rand(len(batch), device=batch.device) * (sde.T - eps) + eps
        elif not isinstance(t, Tensor) or t.shape != (len(batch),):
            raise ValueError(f"t: expected a tensor [{len(batch)}] of times, got {_shown(t)}")
        if not _networks.fusible(sde):
            return _of_any_sde(sde, model, batch, t, noise, train, reduce_mean, continuous, likelihood_weighting).mean()
        net = _networks.network_of(model, sde, continuous, train)
        meaning, process = _networks.parametrization_of(sde, continuous), sde.process  # type: ignore[attr-defined]
        return _loss(net, batch, t.to(batch.device), meaning, process, noise, reduce_mean, likelihood_weighting).mean()

    return loss_fn


def get_smld_loss_fn(vesde: sde_lib.VESDE, train: bool, reduce_mean: bool = False) -> Loss:
    """loss_fn(model, batch, *, t=None, noise=None) -> the batch's mean loss of SMLD (NCSN).

    Args:
        vesde: its N levels; train, reduce_mean: as for `get_sde_loss_fn`.

    loss_fn takes t [B] int64, the numbers of the levels from the largest down, which are the model's labels; noise as there.

    Raises:
        TypeError: not a VESDE; ValueError: one whose attributes were changed.
    """
    if not isinstance(vesde, sde_lib.VESDE):
        raise TypeError(f"vesde: expected a VESDE, got {type(vesde).__name__}")
    if not vesde.as_made:
        raise ValueError("vesde: expected one whose levels are those of its arguments, got one that was changed")

    def loss_fn(model: Any, batch: Tensor, *, t: Tensor | None = None, noise: Tensor | Noise | None = None) -> Tensor:
        labels = _labels(t, vesde.N, batch)
        times = (vesde.N - 1 - labels) / max(vesde.N - 1, 1)
        net, meaning = _with_labels(model, labels, train), _networks.parametrization_of(vesde, True)
        return _loss(net, batch, times.double(), meaning, vesde.process, noise, reduce_mean).mean()

    return loss_fn


def get_ddpm_loss_fn(vpsde: sde_lib.VPSDE, train: bool, reduce_mean: bool = True) -> Loss:
    """loss_fn(model, batch, *, t=None, noise=None) -> the batch's mean loss of DDPM.

    Args:
        vpsde: its N steps; train, reduce_mean: as for `get_sde_loss_fn`.

    loss_fn takes t [B] int64, the steps 0 .. N - 1, which are the model's labels; noise as there.

    Raises:
        TypeError: not a VPSDE.
    """
    if not isinstance(vpsde, sde_lib.VPSDE):
        raise TypeError(f"vpsde: expected a VPSDE, got {type(vpsde).__name__}")

    def loss_fn(model: Any, batch: Tensor, *, t: Tensor | None = None, noise: Tensor | Noise | None = None) -> Tensor:
        labels = _labels(t, vpsde.N, batch)
        made = (float(vpsde.beta_0), float(vpsde.beta_1), vpsde.N)
        schedule = _ddpm_schedule(*made) if vpsde.as_made else Discrete(vpsde.discrete_betas.tolist())
        return _loss(_with_labels(model, labels, train), batch, labels, Epsilon(schedule=schedule), schedule, noise, reduce_mean).mean()

    return loss_fn


def get_step_fn(
    sde: sde_lib.SDE, train: bool, optimize_fn: Callable[..., None] | None = None, reduce_mean: bool = False, continuous: bool = True,
    likelihood_weighting: bool = False,
) -> Callable[..., Tensor]:  # fmt: skip
    """step_fn(state, batch, *, t=None, noise=None) -> loss: a step of training, or of evaluation with the averaged parameters.

    Args:
        sde, train, reduce_mean, likelihood_weighting: as for `get_sde_loss_fn`.
        optimize_fn: of `optimization_manager`, for training.
        continuous: else the losses of SMLD and DDPM.

    The state is a dict of model, optimizer, ema (e.g. `models.ema.ExponentialMovingAverage`) and step.

    Raises:
        ValueError: likelihood_weighting, or a subVPSDE, in discrete time; training without optimize_fn.
    """
    if train and optimize_fn is None:
        raise ValueError("optimize_fn: expected one for training, got None")
    if continuous:
        loss_fn = get_sde_loss_fn(sde, train, reduce_mean=reduce_mean, continuous=True, likelihood_weighting=likelihood_weighting)
    elif likelihood_weighting:
        raise ValueError("likelihood_weighting: expected False for the losses of SMLD and DDPM, got True")
    elif isinstance(sde, sde_lib.VESDE):
        loss_fn = get_smld_loss_fn(sde, train, reduce_mean=reduce_mean)
    elif isinstance(sde, sde_lib.VPSDE):
        loss_fn = get_ddpm_loss_fn(sde, train, reduce_mean=reduce_mean)
    else:
        raise ValueError(f"sde: expected a VESDE or VPSDE for training in discrete time, got {type(sde).__name__}")

    def step_fn(state: dict[str, Any], batch: Tensor, *, t: Tensor | None = None, noise: Tensor | Noise | None = None) -> Tensor:
        model, ema = state["model"], state["ema"]
        if train:
            assert optimize_fn is not None
            state["optimizer"].zero_grad()
            loss = loss_fn(model, batch, t=t, noise=noise)
            loss.backward()
            optimize_fn(state["optimizer"], model.parameters(), step=state["step"])
            state["step"] += 1
            ema.update(model.parameters())
            return loss
        with torch.no_grad():
            ema.store(model.parameters())
            ema.copy_to(model.parameters())
            try:
                return loss_fn(model, batch, t=t, noise=noise)
            finally:
                ema.restore(model.parameters())

    return step_fn


def _loss(net, batch, t, meaning, process, noise, reduce_mean, likelihood_weighting=False) -> Tensor:
    """[B]: fused, or on given noise."""
    if noise is not None:
        z = noise(batch) if callable(noise) else noise
        return score_matching_loss(
            net, batch, t, parametrization=meaning, process=process, noise=z, likelihood_weighting=likelihood_weighting,
            reduce_mean=reduce_mean,
        )  # fmt: skip
    sigma = process.sigma(t.double())
    # The likelihood's weight holds the half already.
    weight = 2 * weighting("likelihood", process=process)(sigma) if likelihood_weighting else weighting("simple")(sigma)
    share = 1 / batch[0].numel() if reduce_mean else 0.5
    key = new_keys(len(batch), batch.device)
    return diffusion_loss(net, batch, sigma, key, parametrization=meaning, weight=share * weight)


def _of_any_sde(sde, model, batch, t, noise, train, reduce_mean, continuous, likelihood_weighting) -> Tensor:
    """[B] for an SDE of the user's own."""
    z = torch.randn_like(batch) if noise is None else noise(batch) if callable(noise) else noise
    mean, std = sde.marginal_prob(batch, t)
    score = mutils.get_score_fn(sde, model, train=train, continuous=continuous)(mean + column(std, batch, batch.dtype) * z, t)
    total = sum_per_sample((score * column(std, batch, batch.dtype) + z).square())
    loss = total / batch[0].numel() if reduce_mean else 0.5 * total
    return loss * (sde.sde(torch.zeros_like(batch), t)[1] / std) ** 2 if likelihood_weighting else loss


def _labels(t: Tensor | None, N: int, batch: Tensor) -> Tensor:
    if t is None:
        return torch.randint(0, N, (len(batch),), device=batch.device)
    expected = f"t: expected a tensor [{len(batch)}] of integers from 0 to {N - 1}"
    if not isinstance(t, Tensor) or t.is_floating_point() or t.shape != (len(batch),):
        raise ValueError(f"{expected}, got {_shown(t)}")
    if t.device.type == "cpu" and not bool(((t >= 0) & (t < N)).all()):  # elsewhere the question would wait for the device
        raise ValueError(f"{expected}, got {t.min()} to {t.max()}")
    return t.to(batch.device)


def _shown(t: Any) -> str:
    return f"{list(t.shape)} {t.dtype}" if isinstance(t, Tensor) else type(t).__name__


def _with_labels(model: Any, labels: Tensor, train: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """The model in its mode, called with the labels themselves."""
    model_fn = mutils.get_model_fn(model, train=train)
    return lambda x, _: model_fn(x, labels)


@lru_cache(maxsize=16)
def _ddpm_schedule(beta_min: float, beta_max: float, N: int) -> Discrete:
    return Discrete(linear_betas(N, beta_min / N, beta_max / N))
