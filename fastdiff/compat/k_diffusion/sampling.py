"""k_diffusion.sampling: its names, parameters and numbers, on fastdiff's plans and its one loop.

All samplers take model(x, sigma, **extra_args), which returns the denoised estimate, x [B, ...] at the first level (sigma_max*z, not z),
and sigmas [n], in any order where no noise is added and ending at 0 or not. The state keeps x's dtype; half types run in float32 and
are converted back. noise_sampler(sigma, sigma_next), where it is given, is called as upstream calls it; else noise is counter-based, with
keys from torch's global generator, so torch.manual_seed repeats a run.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from ...samplers import (
    DPM2Ancestral,
    DPMSolver2M,
    DPMSolver2S,
    DPMSolver3M,
    EDMSampler,
    EulerAncestral,
    LinearMultistep,
    Sampler,
    SDEDPMSolver2S,
)
from ._running import NoiseSampler, advance, check_call, levels_of, watching
from .dpm_solver import DPMSolver, PIDStepSizeController, sample_dpm_adaptive, sample_dpm_fast
from .likelihood import log_likelihood
from .noise import BatchedBrownianTree, BrownianTreeNoiseSampler, default_noise_sampler
from .schedules import (
    append_zero,
    get_ancestral_step,
    get_sigmas_exponential,
    get_sigmas_karras,
    get_sigmas_polyexponential,
    get_sigmas_vp,
    linear_multistep_coeff,
    to_d,
)

__all__ = [
    "BatchedBrownianTree",
    "BrownianTreeNoiseSampler",
    "DPMSolver",
    "PIDStepSizeController",
    "append_zero",
    "default_noise_sampler",
    "get_ancestral_step",
    "get_sigmas_exponential",
    "get_sigmas_karras",
    "get_sigmas_polyexponential",
    "get_sigmas_vp",
    "linear_multistep_coeff",
    "log_likelihood",
    "sample_dpm_2",
    "sample_dpm_2_ancestral",
    "sample_dpm_adaptive",
    "sample_dpm_fast",
    "sample_dpmpp_2m",
    "sample_dpmpp_2m_sde",
    "sample_dpmpp_2s_ancestral",
    "sample_dpmpp_3m_sde",
    "sample_dpmpp_sde",
    "sample_euler",
    "sample_euler_ancestral",
    "sample_heun",
    "sample_lms",
    "to_d",
]

Extra = Mapping[str, Any] | None
Callback = Callable[[dict[str, Any]], Any] | None


def sample_euler(
    model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback = None,
    disable: bool | None = None, s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = float("inf"), s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:  # fmt: skip
    """Euler steps of Karras et al. 2022, algorithm 2; noise_sampler is called once a step, used or not, as upstream draws."""
    return _churned("euler", model, x, sigmas, extra_args, callback, disable, s_churn, s_tmin, s_tmax, s_noise, noise_sampler)


def sample_heun(
    model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback = None,
    disable: bool | None = None, s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = float("inf"), s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:  # fmt: skip
    """Heun steps of Karras et al. 2022, algorithm 2; noise_sampler is called once a step, used or not, as upstream draws."""
    return _churned("heun", model, x, sigmas, extra_args, callback, disable, s_churn, s_tmin, s_tmax, s_noise, noise_sampler)


def sample_dpm_2(
    model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback = None,
    disable: bool | None = None, s_churn: float = 0.0, s_tmin: float = 0.0, s_tmax: float = float("inf"), s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:  # fmt: skip
    """DPM-Solver-2 with churn; noise_sampler is called once a step, used or not, as upstream draws."""
    return _churned("dpm_2", model, x, sigmas, extra_args, callback, disable, s_churn, s_tmin, s_tmax, s_noise, noise_sampler)


def sample_euler_ancestral(
    model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback = None,
    disable: bool | None = None, eta: float = 1.0, s_noise: float = 1.0, noise_sampler: NoiseSampler | None = None,
) -> Tensor:  # fmt: skip
    """Euler steps and fresh noise."""
    return _stepwise(EulerAncestral, model, x, sigmas, extra_args, callback, disable, noise_sampler, eta=eta, s_noise=s_noise)


def sample_dpm_2_ancestral(
    model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback = None,
    disable: bool | None = None, eta: float = 1.0, s_noise: float = 1.0, noise_sampler: NoiseSampler | None = None,
) -> Tensor:  # fmt: skip
    """DPM-Solver-2 and fresh noise."""
    return _stepwise(DPM2Ancestral, model, x, sigmas, extra_args, callback, disable, noise_sampler, eta=eta, s_noise=s_noise)


def sample_dpmpp_2s_ancestral(
    model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback = None,
    disable: bool | None = None, eta: float = 1.0, s_noise: float = 1.0, noise_sampler: NoiseSampler | None = None,
) -> Tensor:  # fmt: skip
    """DPM-Solver++(2S) and fresh noise."""
    return _stepwise(DPMSolver2S, model, x, sigmas, extra_args, callback, disable, noise_sampler, eta=eta, s_noise=s_noise)


def sample_lms(
    model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback = None,
    disable: bool | None = None, order: int = 4,
) -> Tensor:  # fmt: skip
    """Linear multistep of order 1 to 4."""
    return _stepwise(LinearMultistep, model, x, sigmas, extra_args, callback, disable, None, order=order)


def sample_dpmpp_2m(
    model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback = None,
    disable: bool | None = None,
) -> Tensor:  # fmt: skip
    """DPM-Solver++(2M)."""
    return _stepwise(DPMSolver2M, model, x, sigmas, extra_args, callback, disable, None)


def sample_dpmpp_sde(
    model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback = None,
    disable: bool | None = None, eta: float = 1.0, s_noise: float = 1.0, noise_sampler: NoiseSampler | None = None, r: float = 1 / 2,
) -> Tensor:  # fmt: skip
    """SDE-DPM-Solver++(2S): noise at the second call too. The default noise is a Brownian path's, of extra_args["seed"] if there is one."""
    return _sde(SDEDPMSolver2S, model, x, sigmas, extra_args, callback, disable, noise_sampler, eta=eta, s_noise=s_noise, r=r)


def sample_dpmpp_2m_sde(
    model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback = None,
    disable: bool | None = None, eta: float = 1.0, s_noise: float = 1.0, noise_sampler: NoiseSampler | None = None,
    solver_type: Literal["midpoint", "heun"] = "midpoint",
) -> Tensor:  # fmt: skip
    """SDE-DPM-Solver++(2M). The default noise is a Brownian path's, of extra_args["seed"] if there is one."""
    if solver_type not in ("midpoint", "heun"):
        raise ValueError(f"solver_type: expected 'midpoint' or 'heun', got {solver_type!r}")
    return _sde(DPMSolver2M, model, x, sigmas, extra_args, callback, disable, noise_sampler, eta=eta, s_noise=s_noise, solver=solver_type)


def sample_dpmpp_3m_sde(
    model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, extra_args: Extra = None, callback: Callback = None,
    disable: bool | None = None, eta: float = 1.0, s_noise: float = 1.0, noise_sampler: NoiseSampler | None = None,
) -> Tensor:  # fmt: skip
    """SDE-DPM-Solver++(3M) as published. The default noise is a Brownian path's, of extra_args["seed"] if there is one."""
    make = functools.partial(DPMSolver3M, variant="published")
    return _sde(make, model, x, sigmas, extra_args, callback, disable, noise_sampler, eta=eta, s_noise=s_noise)


def _churned(
    solver: Literal["euler", "heun", "dpm_2"], model: Any, x: Any, sigmas: Any, extra_args: Any, callback: Any, disable: bool | None,
    s_churn: float, s_tmin: float, s_tmax: float, s_noise: float, noise_sampler: NoiseSampler | None,
) -> Tensor:  # fmt: skip
    """One of the samplers that may raise the level before a step."""
    if not s_churn >= 0:
        raise ValueError(f"s_churn: expected a number >= 0, got {s_churn}")

    def make(**levels: Any) -> Sampler:
        if not s_churn:
            return EDMSampler(solver=solver, **levels)
        low, high = (_rounded(bound, sigmas.dtype) for bound in (s_tmin, s_tmax))  # upstream compares in the levels' dtype
        return EDMSampler(solver=solver, S_churn=float(s_churn), S_min=low, S_max=high, S_noise=float(s_noise), **levels)

    return _run(make, model, x, sigmas, extra_args, callback, disable, noise_sampler, lambda levels: list(itertools.pairwise(levels)))


def _stepwise(
    make: Callable[..., Sampler], model: Any, x: Any, sigmas: Any, extra_args: Any, callback: Any, disable: bool | None,
    noise_sampler: NoiseSampler | None, **arguments: Any,
) -> Tensor:  # fmt: skip
    """One of the samplers whose draws, if it has any, follow each step that does not end at 0."""
    make = functools.partial(make, falling=False, **_numbers(arguments))
    return _run(make, model, x, sigmas, extra_args, callback, disable, noise_sampler, _above_zero if "eta" in arguments else lambda _: [])


def _sde(
    make: Callable[..., Sampler], model: Any, x: Any, sigmas: Any, extra_args: Any, callback: Any, disable: bool | None,
    noise_sampler: NoiseSampler | None, *, eta: float, **arguments: Any,
) -> Tensor:  # fmt: skip
    """One of the samplers whose noise is a Brownian path's unless a noise_sampler is given."""
    check_call(model, x, extra_args)
    above = [sigma for sigma in levels_of(sigmas) if sigma > 0]
    if noise_sampler is None and eta and len(set(above)) > 1:
        noise_sampler = BrownianTreeNoiseSampler(x, min(above), max(above), seed=(extra_args or {}).get("seed"))
    draws = _above_zero if eta else lambda _: []
    if "r" in arguments:  # upstream draws for both calls, whatever eta is

        def draws(levels: tuple[float, ...]) -> list[tuple[float, float]]:
            r = arguments["r"]
            return [span for a, b in _above_zero(levels) for span in ((a, a ** (1 - r) * b**r), (a, b))]

    make = functools.partial(make, falling=False, **_numbers({"eta": eta, **arguments}))
    return _run(make, model, x, sigmas, extra_args, callback, disable, noise_sampler, draws)


def _rounded(number: Any, dtype: torch.dtype) -> float:
    return torch.tensor(float(number), dtype=dtype, device="cpu").item()


def _numbers(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with 0-dim tensors read: plans are kept by what they are made from, and tensors are equal to themselves alone."""
    return {name: value.item() if isinstance(value, Tensor) else value for name, value in arguments.items()}


def _above_zero(levels: tuple[float, ...]) -> list[tuple[float, float]]:
    """The steps that do not end at 0."""
    return [(a, b) for a, b in itertools.pairwise(levels) if b > 0]


def _run(
    make: Callable[..., Sampler], model: Any, x: Any, sigmas: Any, extra_args: Any, callback: Any, disable: bool | None,
    noise_sampler: NoiseSampler | None, draws: Callable[[tuple[float, ...]], list[tuple[float, float]]],
) -> Tensor:  # fmt: skip
    """Run a sampler on upstream's arguments; fewer than two levels leave x as it is."""
    check_call(model, x, extra_args)
    levels = levels_of(sigmas)
    sampler = make(sigmas=levels, to_zero=False)
    if len(levels) < 2:
        return x
    return advance(
        sampler, model, x, extra_args, disable, noise_sampler=noise_sampler, spans=draws(levels), like=sigmas,
        watch=watching(callback, sigmas, x.dtype),
    )  # fmt: skip
