"""edm_sampler and ablation_sampler: the signatures of NVlabs/edm and of EDM-ES, with DG's arguments as keywords after them."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from ...epsilon_scaling import EpsilonScaling
from ...loop import run
from ...noise import Seeds, keys
from ...plan import Plan
from ...samplers import EDMSampler
from .._plans import plan_of_network
from .boosting import Boosting, boosted_plans
from .generators import PhiloxGenerator
from .guided import RatioGuidance, guidance_of

#: What makes noise: as upstream's callable, or a generator whose noise the steps make themselves.
RandnLike = Callable[[Tensor], Tensor] | PhiloxGenerator


def edm_sampler(
    net: Any, latents: Tensor, class_labels: Tensor | None = None, randn_like: RandnLike | None = None, num_steps: int = 18,
    sigma_min: float = 0.002, sigma_max: float = 80, rho: float = 7, S_churn: float = 0, S_min: float = 0, S_max: float = math.inf,
    S_noise: float = 1, eps_scaler: float | EpsilonScaling = 1.0, *, boosting: bool = False, time_min: float = 0.01,
    time_max: float = 1.0, vpsde: Any = None, dg_weight_1st_order: float = 2.0, dg_weight_2nd_order: float = 0.0,
    discriminator: Any = None, seeds: Seeds | None = None, state_dtype: torch.dtype = torch.float64,
    differentiable: bool | None = None,
) -> Tensor:  # fmt: skip
    """EDM's stochastic Heun sampler (Karras et al. 2022, algorithm 2), with epsilon scaling and discriminator guidance.

    Args:
        net: called as net(x, sigma, class_labels), x [B, C, H, W] in state_dtype and sigma a scalar, or [B] with boosting; its sigma_min,
            sigma_max and round_sigma are respected.
        latents: [B, C, H, W] standard normals; class_labels: passed to net as they are.
        randn_like: called once for each of upstream's draws, in its order and in float64, used or not: torch.randn_like, or that of a
            StackedRandomGenerator, give upstream's noise. A PhiloxGenerator, or its randn_like, is not called: the steps make the
            same noise themselves. None: noise of keys from torch's global generator, drawn only where noise is used.
        num_steps, sigma_min, sigma_max, rho: the noise levels; S_churn, S_min, S_max, S_noise: see `fastdiff.EDMSampler`.
        eps_scaler: EDM-ES's constant lambda, or an EpsilonScaling.
        discriminator: for EDM-G++: a fastdiff Discriminator, or DG's callable discriminator(x, timesteps=, condition=) of probabilities.
        dg_weight_1st_order, dg_weight_2nd_order: its weights at predictors and at correctors; time_min, time_max: the times of the VP SDE
            within which it acts; vpsde: DG's object of that SDE, or one like it; None for ours.
        boosting: DG's: where the log ratio is negative, guidance counts twice at even steps and every fifth step adds noise.
        seeds: instead of randn_like, seeds of the steps' noise; see `fastdiff.keys`.
        state_dtype: float64 as upstream keeps it, or float32, which is faster.
        differentiable: record gradients through the run; default: where latents require them.

    Returns:
        [B, C, H, W] samples in state_dtype.

    Raises:
        ValueError, TypeError: name the argument, what was expected and what came.
    """
    sampler = EDMSampler(
        _count("num_steps", num_steps), eps_scale=eps_scaler if isinstance(eps_scaler, EpsilonScaling) else float(eps_scaler),
        **_numbers(sigma_min=sigma_min, sigma_max=sigma_max, rho=rho, S_churn=S_churn, S_min=S_min, S_max=S_max, S_noise=S_noise),
    )  # fmt: skip
    request = _Request(net, latents, class_labels, randn_like, seeds, state_dtype, differentiable)
    guidance = _guidance(net, discriminator, vpsde, dg_weight_1st_order, dg_weight_2nd_order, time_min, time_max)
    if not boosting or guidance is None or not dg_weight_1st_order:
        return request.run(plan_of_network(sampler, net), guidance)
    plain, boosted = boosted_plans(sampler, net)
    return request.run(plain, guidance, boosted=boosted)


def ablation_sampler(
    net: Any, latents: Tensor, class_labels: Tensor | None = None, randn_like: RandnLike | None = None, num_steps: int = 18,
    sigma_min: float | None = None, sigma_max: float | None = None, rho: float = 7, solver: Literal["euler", "heun"] = "heun",
    discretization: Literal["vp", "ve", "iddpm", "edm"] = "edm", schedule: Literal["vp", "ve", "linear"] = "linear",
    scaling: Literal["vp", "none"] = "none", epsilon_s: float = 1e-3, C_1: float = 0.001, C_2: float = 0.008, M: int = 1000,
    alpha: float = 1, S_churn: float = 0, S_min: float = 0, S_max: float = math.inf, S_noise: float = 1,
    eps_scaler: float | EpsilonScaling = 1.0, *, time_min: float = 0.01, time_max: float = 1.0, vpsde: Any = None,
    dg_weight_1st_order: float = 2.0, dg_weight_2nd_order: float = 0.0, discriminator: Any = None, seeds: Seeds | None = None,
    state_dtype: torch.dtype = torch.float64, differentiable: bool | None = None,
) -> Tensor:  # fmt: skip
    """The superset of samplers of Karras et al. 2022, table 1: solver, noise levels, schedule sigma(t) and scaling s(t).

    Args:
        solver, discretization, schedule, scaling, epsilon_s, C_1, C_2, M, alpha: see `fastdiff.EDMSampler`.
        eps_scaler: as EDM-ES applies it, to the scaled state and at predictors alone; an EpsilonScaling says it otherwise.
        All others: see `edm_sampler`.

    Returns, raises:
        As `edm_sampler`.
    """
    sampler = EDMSampler(
        _count("num_steps", num_steps), solver=solver, discretization=discretization, schedule=schedule, scaling=scaling,
        eps_scale=eps_scaler if isinstance(eps_scaler, EpsilonScaling) else _OfPredictors(float(eps_scaler)), M=_count("M", M),
        **_numbers(
            sigma_min=sigma_min, sigma_max=sigma_max, rho=rho, alpha=alpha, epsilon_s=epsilon_s, C_1=C_1, C_2=C_2, S_churn=S_churn,
            S_min=S_min, S_max=S_max, S_noise=S_noise,
        ),
    )  # fmt: skip
    request = _Request(net, latents, class_labels, randn_like, seeds, state_dtype, differentiable)
    guidance = _guidance(net, discriminator, vpsde, dg_weight_1st_order, dg_weight_2nd_order, time_min, time_max)
    return request.run(plan_of_network(sampler, net), guidance)


@dataclass(frozen=True)
class _Request:
    """What both samplers ask of the loop."""

    net: Any
    latents: Tensor
    class_labels: Tensor | None
    randn_like: RandnLike | None
    seeds: Seeds | None
    state_dtype: torch.dtype
    differentiable: bool | None

    def __post_init__(self) -> None:
        if not callable(self.net):
            raise TypeError(f"net: expected a callable (x, sigma, class_labels), got {type(self.net).__name__}")
        if not isinstance(self.latents, Tensor):
            raise TypeError(f"latents: expected a tensor [B, ...], got {type(self.latents).__name__}")
        if not self.latents.dim():
            raise ValueError("latents: expected [B, ...], got []")
        if self.state_dtype not in (torch.float32, torch.float64):
            raise ValueError(f"state_dtype: expected torch.float32 or torch.float64, got {self.state_dtype}")
        if self.randn_like is not None and self.seeds is not None:
            raise ValueError("seeds: expected none beside randn_like, got both")
        if self.randn_like is not None and not callable(self.randn_like) and not isinstance(self.randn_like, PhiloxGenerator):
            raise TypeError(f"randn_like: expected a callable or a PhiloxGenerator, got {type(self.randn_like).__name__}")

    def run(self, plan: Plan, guidance: RatioGuidance | None = None, *, boosted: Plan | None = None) -> Tensor:
        """The samples of a plan, with boosting where there is a boosted one."""
        generator = philox_of(self.randn_like)
        if generator is not None:
            later = _later(generator.reserve(plan.draws) - 1)
            plan, boosted = plan.derived(later), None if boosted is None else boosted.derived(later)
        key, noise = self._key(generator, plan), self._noise(generator)
        if boosted is not None and guidance is not None:
            choice = Boosting(plan, boosted, guidance)
            plan, guidance = choice.plan, choice.guidance
        wanted = self.latents.requires_grad if self.differentiable is None else self.differentiable
        return run(
            plan, self._call_each if boosted else self._call, self.latents.to(self.state_dtype), key=key, noise=noise, guidance=guidance,
            condition={"class_labels": self.class_labels}, progress=False, differentiable=wanted and torch.is_grad_enabled(),
        )  # fmt: skip

    def _call(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None) -> Tensor:
        """As upstream calls it: by position, since users may call their labels otherwise, and with one sigma for all."""
        return self.net(x, sigma[0] if len(sigma) else sigma, class_labels)

    def _call_each(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None) -> Tensor:
        return self.net(x, sigma, class_labels)

    def _key(self, generator: PhiloxGenerator | None, plan: Plan) -> Tensor | None:
        batch, device = len(self.latents), self.latents.device
        if generator is not None:
            if len(generator.key) != batch:
                raise ValueError(f"randn_like: expected a generator of {batch} seeds, got {len(generator.key)}")
            return generator.key.to(device)
        if self.randn_like is not None or not plan.stochastic:
            return None
        return keys(torch.default_generator if self.seeds is None else self.seeds, batch, device=device)

    def _noise(self, generator: PhiloxGenerator | None) -> Callable[[Tensor], Tensor] | None:
        if self.randn_like is None or generator is not None:
            return None
        randn_like: Any = self.randn_like
        if self.state_dtype == torch.float64:
            return randn_like
        # In upstream's dtype: torch draws other numbers in float32.
        return lambda like: randn_like(torch.empty_like(like, dtype=torch.float64)).to(like.dtype)


def philox_of(randn_like: Any) -> PhiloxGenerator | None:
    """The generator behind a `randn_like` whose noise the steps can make themselves."""
    if isinstance(randn_like, PhiloxGenerator):
        return randn_like
    owner = getattr(randn_like, "__self__", None)
    found = isinstance(owner, PhiloxGenerator) and getattr(randn_like, "__func__", None) is PhiloxGenerator.randn_like
    return owner if found else None


@dataclass(frozen=True)
class _Later:
    """Draws counted from a later one: a generator of which some were taken."""

    by: int

    def apply(self, plan: Plan) -> Plan:
        if not self.by:
            return plan
        moved = plan.map_rows(lambda _, row: replace(row, draw=row.draw + self.by if row.draw >= 0 else -1))
        return replace(moved, prior_draw=plan.prior_draw + self.by if plan.prior_draw >= 0 else -1)


_later = lru_cache(_Later)  # one object for each number: plans remember what was derived by which object


def _guidance(
    net: Any, discriminator: Any, vpsde: Any, weight: float, second_order_weight: float, time_min: float, time_max: float
) -> RatioGuidance | None:
    if discriminator is None or (not weight and not second_order_weight):
        return None
    resolution = getattr(net, "img_resolution", 0)
    return guidance_of(discriminator, vpsde, resolution, float(weight), float(second_order_weight), float(time_min), float(time_max))


def _count(name: str, value: Any) -> int:
    """A number of steps, as NumPy and torch have integers too."""
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer >= 1, got {value!r}") from None
    if count < 1:
        raise ValueError(f"{name}: expected an integer >= 1, got {count}")
    return count


def _numbers(**given: Any) -> dict[str, Any]:
    """Numbers as plain floats, of which plans are made and found again; those that are None are left out."""
    for name, value in given.items():
        if not isinstance(value, float | None):
            try:
                given[name] = float(value)
            except (TypeError, ValueError, RuntimeError):
                raise TypeError(f"{name}: expected a number, got {value!r}") from None
    return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class _OfPredictors(EpsilonScaling):
    """EDM-ES's ablation_sampler: eps of the scaled state, and Heun's second slope as it is."""

    of_scaled_state: bool = True

    def apply(self, plan: Plan) -> Plan:
        scaled = super().apply(plan)
        return scaled.map_rows(lambda i, row: row if row.order == 1 else plan.rows[i])
