"""The front door: fastdiff.sample(net, shape, seeds=0)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .brownian import BrownianPath
from .encoding import ODESampler
from .epsilon_scaling import EpsilonScaling
from .guidance import ClassifierFree, Guidance
from .known import Known
from .loop import StepInfo, run
from .noise import Seeds, keys, randn
from .parametrizations import Parametrization, parametrization_of
from .plan import Plan
from .samplers import EDMSampler, Sampler


def sample(
    net: Callable[..., Tensor],
    shape: Sequence[int] | None = None,
    *,
    seeds: Seeds = 0,
    sampler: Sampler | ODESampler | Plan | None = None,
    parametrization: str | Parametrization = "D",
    latents: Tensor | None = None,
    noise: Callable[[Tensor], Tensor] | None = None,
    state_dtype: torch.dtype = torch.float32,
    net_dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
    path: BrownianPath | None = None,
    guidance: Guidance | None = None,
    cfg: ClassifierFree | None = None,
    eps_scale: float | EpsilonScaling = 1.0,
    known: Known | None = None,
    clip: tuple[float, float] | None = None,
    callback: Callable[[StepInfo], None] | None = None,
    progress: bool | None = None,
    differentiable: bool = False,
    **condition: Any,
) -> Tensor:
    """Draw samples from a diffusion model with any network.

    >>> images = fastdiff.sample(net, (64, 3, 32, 32), seeds=0)  # net(x, sigma) returns D, as in NVlabs/edm
    >>> images = fastdiff.sample(unet, (64, 3, 32, 32), parametrization="eps")  # unet(x, 999*t), VP beta from 0.1 to 20

    Args:
        net: called as net(x_in, label, **condition), x_in [B, ...] and label [B].
        shape: [B, ...] of the samples; not needed with `latents`.
        seeds: an int for the batch, or one for each sample: a sample depends on its seed alone, not on its batch (unless the sampler
            says otherwise: PCSampler's Langevin step size is the batch's by default).
        sampler: any of fastdiff.samplers, an ODESampler or a ready plan; the default is EDM's Heun with 18 steps, 35 calls.
        parametrization: what the network returns: "D" (denoised), "F" (raw EDM network), "eps", "score", "v" or "x0", or a
            Parametrization object that also states sigma_data or the schedule; a ready plan has its own.
        latents: [B, ...] standard normals to start from, instead of those of `seeds`.
        noise: for parity with other programs; see `fastdiff.run`.
        state_dtype: float32, or float64 as NVlabs/edm keeps it.
        net_dtype: dtype of the network's input; default: the state's.
        device: where to sample; default: that of the network's parameters, else of the latents, else the CPU.
        memory_format: of the state, e.g. torch.channels_last, unless latents are given; the samples do not depend on it.
        path, guidance, cfg, eps_scale, known, clip, callback, progress, differentiable: see `fastdiff.run`.
        condition: passed to every network call, e.g. class_labels.

    Returns:
        [B, ...] samples in state_dtype, data units.

    Raises:
        ValueError, TypeError: name the argument, what was expected and what came.
    """
    if not callable(net):
        raise TypeError(f"net: expected a callable, got {type(net).__name__}")
    if latents is None and shape is None:
        raise ValueError("shape: expected the shape of the samples (or latents), got neither")
    if latents is not None and shape is not None and tuple(shape) != tuple(latents.shape):
        raise ValueError(f"shape: expected that of latents, {list(latents.shape)}, got {list(shape)}")
    if state_dtype not in (torch.float32, torch.float64):
        raise ValueError(f"state_dtype: expected torch.float32 or torch.float64, got {state_dtype}")
    device = torch.device(device) if device is not None else _device_of(net, latents)
    if latents is None:
        assert shape is not None
        if len(shape) < 1 or any(not isinstance(n, int) or n < 0 for n in shape):
            raise ValueError(f"shape: expected (B, ...) of integers >= 0, got {tuple(shape)}")
    size = (shape if latents is None else latents.shape)[0]  # type: ignore[index]
    if isinstance(sampler, ODESampler):
        for name, value in (("noise", noise), ("path", path), ("known", known), ("callback", callback)):
            if value is not None:
                raise ValueError(f"{name}: expected none with an ODESampler, whose steps are its own, got one")
        if differentiable or eps_scale != 1:
            raise ValueError("eps_scale, differentiable: expected the defaults with an ODESampler, got others")
        if latents is None:
            latents = randn(shape, seeds, dtype=state_dtype, device=device, memory_format=memory_format)  # type: ignore[arg-type]
        return sampler.solve(
            net, parametrization, latents.to(device, state_dtype), backward=True, guidance=guidance, cfg=cfg, clip=clip,
            condition=condition, net_dtype=net_dtype, progress=progress,
        ).x  # fmt: skip
    plan = sampler if isinstance(sampler, Plan) else (sampler or EDMSampler()).plan(parametrization_of(net, parametrization))
    draws = plan.stochastic or known is not None or path is not None
    key = keys(seeds, size, device=device) if latents is None or (draws and noise is None) else None
    if latents is None:
        latents = randn(shape, key, dtype=state_dtype, device=device, memory_format=memory_format)  # type: ignore[arg-type]
    return run(
        plan, net, latents.to(device, state_dtype), key=key if noise is None else None, noise=noise, path=path, guidance=guidance,
        cfg=cfg, eps_scale=eps_scale, known=known, condition=condition, clip=clip, net_dtype=net_dtype, callback=callback,
        progress=progress, differentiable=differentiable,
    )  # fmt: skip


def _device_of(net: Callable[..., Tensor], latents: Tensor | None) -> torch.device:
    if isinstance(net, torch.nn.Module):
        for parameter in net.parameters():
            return parameter.device
    return torch.device("cpu") if latents is None else latents.device
