"""Discriminators of DG as fastdiff's guidance: score <- score + w*grad ln r, ln r = ln d/(1 - d) (Kim et al. 2023, eq. 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, proxy

import torch
from torch import Tensor

from ...guidance import Guidance
from ...models.discriminator import MARGIN, cosine_time, discriminator_guidance
from ...schedules import VP


class vpsde:
    """The VP SDE with beta from 0.1 to 20, by sigma of the unscaled state x0 + sigma*z."""

    T = 1

    def __init__(self) -> None:
        self._schedule = VP("vp")

    def compute_tau(self, std_wve_t: Tensor) -> Tensor:
        """The time at which the noise level is sigma."""
        return self._schedule.time(std_wve_t)

    def marginal_prob(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(scale, standard deviation of the noise) of the state at time t."""
        return self._schedule.scale(t), self._schedule.std(t)

    def transform_unnormalized_wve_to_normalized_vp(self, t: Tensor, std_out: bool = False) -> tuple[Tensor, ...]:
        """(scale, time) for sigma t, with the standard deviation between them where it is wanted."""
        tau = self.compute_tau(t)
        mean, std = self.marginal_prob(tau)
        return (mean, std, tau) if std_out else (mean, tau)

    def compute_t_cos_from_t_lin(self, t_lin: Tensor) -> Tensor:
        """The time at which the cosine schedule has the noise level of time t_lin."""
        return cosine_time(t_lin)


def get_log_ratio(discriminator: Any, input: Tensor, time: Tensor, class_labels: Tensor | None) -> Tensor:
    """[B] ln d/(1 - d) of states of the VP SDE, d kept within 1e-5 of 0 and 1; 0 without a discriminator."""
    if discriminator is None:
        return input.new_zeros(len(input))
    d = discriminator(input, timesteps=time, condition=class_labels).clip(MARGIN, 1 - MARGIN)
    return d.log() - (1 - d).log()


@dataclass(frozen=True)
class Told:
    """ln r by DG's callable discriminator(x, timesteps=, condition=) of probabilities, which sees states of the VP SDE.

    Args:
        vpsde: that SDE, DG's object or ours; img_resolution: of the network; at 64 the discriminator's times are the cosine schedule's.
    """

    discriminator: Any
    vpsde: Any
    img_resolution: int

    def log_ratio(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """[B] ln r of unscaled samples x = x0 + sigma*z."""
        mean, tau = self.vpsde.transform_unnormalized_wve_to_normalized_vp(sigma)
        if self.img_resolution == 64:
            tau = self.vpsde.compute_t_cos_from_t_lin(tau)
        state = mean.reshape(-1, *[1] * (x.dim() - 1)) * x
        return get_log_ratio(self.discriminator, state.float(), tau.float(), class_labels)


@dataclass(frozen=True)
class RatioGuidance(Guidance):
    """Guidance that also tells the log ratio of which it is the gradient, as boosting asks.

    Args:
        teller: has log_ratio(x, sigma, class_labels).
    """

    teller: Any = None

    def both(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """(grad_x ln r [B, ...], ln r [B])."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            ratio = self.teller.log_ratio(leaf, sigma, class_labels)
            return torch.autograd.grad(ratio.sum(), leaf)[0], ratio.detach()


#: How many of a discriminator are kept.
_KEPT = 8
_OF_DISCRIMINATORS: WeakKeyDictionary[Any, dict[tuple[Any, ...], RatioGuidance]] = WeakKeyDictionary()


def guidance_of(
    discriminator: Any, vpsde_of: Any, img_resolution: int, weight: float, second_order_weight: float, time_min: float, time_max: float
) -> RatioGuidance:
    """The guidance of DG's arguments; one object for equal arguments, since plans remember what was derived by which object.

    It does not keep the discriminator alive: whoever runs it does.

    Raises:
        TypeError: a discriminator of another kind; ValueError: times out of order.
    """
    if not hasattr(discriminator, "log_ratio") and not callable(discriminator):
        got = type(discriminator).__name__
        raise TypeError(f"discriminator: expected a Discriminator or a callable (x, timesteps=, condition=), got {got}")
    arguments = (vpsde_of, img_resolution, weight, second_order_weight, time_min, time_max)
    try:
        kept = _OF_DISCRIMINATORS.setdefault(discriminator, {})
    except TypeError:  # an object that cannot be weakly referenced, or hashed
        return _new_guidance(discriminator, *arguments)
    if arguments not in kept:
        while len(kept) >= _KEPT:
            kept.pop(next(iter(kept)))
        kept[arguments] = _new_guidance(proxy(discriminator), *arguments)
    return kept[arguments]


def _new_guidance(
    discriminator: Any, vpsde_of: Any, img_resolution: int, weight: float, second_order_weight: float, time_min: float, time_max: float
) -> RatioGuidance:
    teller = discriminator
    if not hasattr(discriminator, "log_ratio"):
        teller = Told(discriminator, vpsde() if vpsde_of is None else vpsde_of, img_resolution)
    guidance = discriminator_guidance(teller, weight, second_order_weight, time_min, time_max)
    return RatioGuidance(guidance.gradient, weight, second_order_weight, window=guidance.window, teller=teller)
