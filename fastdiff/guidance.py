"""Guidance: what is added to a plan so that samples follow a classifier, a discriminator or a condition.

A guidance object changes a plan once, before the loop (its weights become coefficients), and hands the loop one tensor a call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .plan import Plan, Row
from .schedules import VP


@dataclass(frozen=True)
class Guidance:
    """score <- score + w*grad log r(x; sigma): classifier guidance, and discriminator guidance (Kim et al. 2023, EDM-G++).

    In the step, D <- D + w*sigma^2*G, so G enters y with the coefficient c_g = (dy/dD)*w*sigma^2, and D itself where a multistep
    sampler keeps it. Epsilon scaling does not touch it.

    Args:
        gradient: called with (x, sigma, **condition), x [B, ...] the unscaled noisy sample in data units and sigma [B];
            returns G = grad_x log r [B, ...]. Enable gradients inside where it needs them: the loop runs without, unless differentiable.
        weight: w at first-order calls (predictors); second_order_weight: w at correctors.
        window: (lowest, highest) sigma at which it acts; elsewhere `gradient` is not called (an ODESampler calls it everywhere, since
            its samples are at times of their own, and drops what lies outside; it takes `weight` for all its calls).
    """

    gradient: Callable[..., Tensor]
    weight: float = 1.0
    second_order_weight: float = 0.0
    window: tuple[float, float] = (0.0, math.inf)

    def apply(self, plan: Plan) -> Plan:
        """The plan with the weights folded in."""

        def guided(_: int, row: Row) -> Row:
            w = self.weight if row.order == 1 else self.second_order_weight
            if not w or not self.window[0] <= row.sigma <= self.window[1]:
                return row
            added = w * row.sigma**2
            if row.keep in ("D", "xD", "d"):  # G takes the place of F_u, or is added to it where classifier-free guidance has it
                on_kept = added if row.keep != "d" else -w * row.sigma
                return replace(row, guide=on_kept, coef={"b_u": on_kept} | row.coef)
            return replace(row, coef=row.coef | {"c_g": row.response * added})

        return plan.map_rows(guided, " + guidance")


def classifier_guidance(
    classifier: Callable[[Tensor, Tensor], Tensor], labels: Tensor, weight: float = 1.0, window: tuple[float, float] = (0.0, math.inf)
) -> Guidance:
    """Towards a class: score <- score + w*grad log p(y | x; sigma) (Song et al. 2021, eq. 14; Dhariwal and Nichol 2021).

    With an unconditional network and w = 1 this is the conditional reverse SDE; it works in every sampler, and differentiably in x, so
    that likelihoods take it too.

    Args:
        classifier: called as classifier(x, sigma), x [B, ...] unscaled noisy data and sigma [B]; returns logits [B, classes].
        labels: [B] int64 classes.
        weight: w, at predictors and at correctors; window: (lowest, highest) sigma at which it acts.
    """

    kept = {labels.device: labels}  # by device: a copy at every call would wait for it

    def gradient(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
        if x.device not in kept:
            kept[x.device] = labels.to(x.device)
        if x.shape[:1] != labels.shape:
            raise ValueError(f"labels: expected [{x.shape[0]}], got {list(labels.shape)}")
        with torch.enable_grad():
            twice = x.requires_grad  # someone differentiates through the guidance
            leaf = x if twice else x.detach().requires_grad_()
            log_p = classifier(leaf, sigma).log_softmax(1).gather(1, kept[x.device][:, None]).sum()
            return torch.autograd.grad(log_p, leaf, create_graph=twice)[0]

    return Guidance(gradient, weight, weight, window)


def vp_time_window(time_min: float, time_max: float) -> tuple[float, float]:
    """The sigmas at which the VP SDE (beta from 0.1 to 20) has times time_min and time_max: the window of EDM-G++."""
    if not 0 <= time_min <= time_max:
        raise ValueError(f"time_min, time_max: expected 0 <= time_min <= time_max, got {time_min} and {time_max}")
    vp = VP()
    return vp.sigma(time_min), vp.sigma(time_max)


@dataclass(frozen=True)
class ClassifierFree:
    """D <- D_uncond + w*(D_cond - D_uncond) (Ho and Salimans 2022), before the clip: b <- w*b, b_u = (1 - w)*b.

    Args:
        weight: w; 1 is the conditional network alone and makes no second call, 0 the unconditional one.
        uncond: the keyword arguments of the unconditional call that differ, e.g. {"class_labels": None}.
    """

    weight: float
    uncond: Mapping[str, Any] = field(default_factory=lambda: {"class_labels": None})

    def apply(self, plan: Plan) -> Plan:
        """The plan with the weight folded in."""
        if self.weight == 1:
            return plan
        w = self.weight

        def guided(_: int, row: Row) -> Row:
            return replace(row, coef=row.coef | {"b": w * row.coef["b"], "b_u": (1 - w) * row.coef["b"]})

        return plan.map_rows(guided, " + classifier-free guidance")
