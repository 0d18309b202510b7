"""How a k-diffusion call becomes a run: levels, noise and callbacks translated, the state kept as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...loop import StepInfo, run
from ...parametrizations import Denoiser
from ...plan import Plan
from ...samplers import Sampler
from .._plans import plan_from_state
from .noise import BrownianTreeNoiseSampler, keys_of

DENOISER = Denoiser()
NoiseSampler = Callable[[Tensor, Tensor], Tensor]


def levels_of(sigmas: Tensor) -> tuple[float, ...]:
    """The levels on the host: the one time that a run looks at them.

    Raises:
        TypeError: they are no tensor of one dimension.
    """
    if not isinstance(sigmas, Tensor) or sigmas.dim() != 1 or not sigmas.is_floating_point():
        got = f"{list(sigmas.shape)} {sigmas.dtype}" if isinstance(sigmas, Tensor) else type(sigmas).__name__
        raise TypeError(f"sigmas: expected a floating tensor [n], got {got}")
    return tuple(sigmas.tolist())


def check_call(model: Any, x: Any, extra_args: Any) -> None:
    """Raise TypeError where the arguments that all samplers share are not what they must be."""
    if not callable(model):
        raise TypeError(f"model: expected a callable, got {type(model).__name__}")
    if not isinstance(x, Tensor) or x.dim() < 1 or not x.is_floating_point():
        got = f"{list(x.shape)} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x: expected a floating tensor [B, ...], got {got}")
    if extra_args is not None and not isinstance(extra_args, Mapping):
        raise TypeError(f"extra_args: expected a dictionary, got {type(extra_args).__name__}")


def state_of(x: Tensor) -> Tensor:
    """The state in float32 or float64: half types have no room for a sum of many steps."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def advance(
    sampler: Sampler, model: Callable[..., Tensor], x: Tensor, extra_args: Mapping[str, Any] | None, disable: bool | None, *,
    noise_sampler: NoiseSampler | None = None, spans: Sequence[tuple[float, float]] = (), like: Tensor,
    watch: Callable[[Plan], Callable[[StepInfo], None]] | None = None,
) -> Tensor:  # fmt: skip
    """Run a sampler from the state x.

    Args:
        noise_sampler: called once for each of spans, the levels of upstream's draws in upstream's order.
        like: what the levels are given as: a tensor of their dtype and device.
        watch: makes the loop's callback for a plan.

    Raises:
        TypeError, ValueError: name the argument, what was expected and what came.
    """
    check_call(model, x, extra_args)
    plan = plan_from_state(sampler, DENOISER, len(spans))
    state = state_of(x)
    net = model if state is x else _in_dtype(model, x.dtype)
    y = run(
        plan, net, state, condition=extra_args, net_dtype=x.dtype, callback=None if watch is None else watch(plan),
        progress=None if disable is None else not disable, reuse_outputs=True, **noise_arguments(plan, x, noise_sampler, spans, like),
    )  # fmt: skip
    return y.to(x.dtype)


def noise_arguments(plan: Plan, x: Tensor, noise_sampler: NoiseSampler | None, spans: Sequence[tuple[float, float]], like: Tensor) -> dict:
    """Where the noise of a run comes from, as arguments of the loop."""
    if isinstance(noise_sampler, BrownianTreeNoiseSampler) and noise_sampler.path is not None:
        path = noise_sampler.path
        return {"key": noise_sampler.key, "path": path.resolving(path.spans(plan))} if plan.stochastic else {}
    if noise_sampler is None:
        return {"key": keys_of(None, x)} if plan.stochastic else {}
    levels = iter(like.new_tensor(spans).reshape(-1, 2))
    return {"noise": lambda _: noise_sampler(*next(levels))}


def watching(callback: Callable[[dict[str, Any]], Any] | None, sigmas: Tensor, dtype: torch.dtype) -> Any:
    """What gives upstream's dictionaries to a callback, once a step: (x, i, sigma, sigma_hat, denoised)."""
    if callback is None:
        return None

    def watch(plan: Plan) -> Callable[[StepInfo], None]:
        hats = sigmas.new_tensor([row.sigma for i, row in enumerate(plan.rows) if begins_step(plan, i)])

        def see(info: StepInfo) -> None:
            if begins_step(plan, info.call):
                i = len(hats) - 1 - plan.rows[info.call].remaining
                x, denoised = info.before.to(dtype), info.D.to(dtype)
                show(callback, {"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": hats[i], "denoised": denoised})

        return see

    return watch


def show(callback: Callable[[dict[str, Any]], Any], info: dict[str, Any]) -> None:
    """Give a callback what there is to see of a step that has been made.

    Raises:
        ValueError: it changed x or denoised in place, which upstream's step, made after it, would follow.
    """
    shown = [info[name] for name in ("x", "denoised") if not info[name].is_inference()]
    versions = [tensor._version for tensor in shown]
    callback(info)
    if [tensor._version for tensor in shown] != versions:
        raise ValueError("callback: expected one that leaves x and denoised as they are, got one that changes them in place")


def begins_step(plan: Plan, call: int) -> bool:
    """Whether a call is the first of its step."""
    return call == 0 or plan.rows[call - 1].remaining != plan.rows[call].remaining


def _in_dtype(model: Callable[..., Tensor], dtype: torch.dtype) -> Callable[..., Tensor]:
    return lambda x, sigma, **extra_args: model(x, sigma.to(dtype), **extra_args)
