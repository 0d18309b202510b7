"""The one loop: runs any plan with any network, one `sampler_step` launch for each network call, no host-device sync."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .guidance import ClassifierFree, Guidance
from .noise import Stream
from .ops._checks import check_net_dtype
from .ops.perturb import OP as PERTURB
from .ops.sampler_step import OP as STEP
from .plan import Plan


class StepInfo(NamedTuple):
    """What a callback sees after each network call; it may keep the tensors."""

    call: int  #: 0 .. calls - 1
    calls: int
    sigma: float  #: noise level of the call, data units
    D: Tensor  #: denoised estimate [B, ...] in the state's dtype
    x: Tensor  #: the next state
    eps_norm: Tensor  #: |eps|_2 of each sample, [B]: the exposure-bias probe


def run(
    plan: Plan,
    net: Callable[..., Tensor],
    latents: Tensor,
    *,
    key: Tensor | None = None,
    noise: Callable[[Tensor], Tensor] | None = None,
    guidance: Guidance | None = None,
    cfg: ClassifierFree | None = None,
    condition: Mapping[str, Any] | None = None,
    clip: tuple[float, float] | None = None,
    net_dtype: torch.dtype | None = None,
    callback: Callable[[StepInfo], None] | None = None,
    progress: bool | None = None,
    differentiable: bool = False,
) -> Tensor:
    """Run a plan: x = prior_scale*latents, then one network call and one fused step for each row.

    Args:
        plan: the table, e.g. EDMSampler().plan(parametrization).
        net: called as net(x_in, label, **condition), x_in [B, ...] in the network's dtype and label [B] in that or float32;
            returns the raw output that the plan's parametrization says.
        latents: [B, ...] standard normals; their dtype (float32 or float64) is the state's.
        key: [B] int64 noise keys, for a plan that draws noise.
        noise: called instead as noise(like) once for each draw of the original program, in its order (dead draws included).
        guidance, cfg: what to add; see fastdiff.guidance.
        condition: keyword arguments of every network call.
        clip: (lo, hi) bounds of D.
        net_dtype: dtype of x_in, written by the step itself; default: the state's.
        callback: called after each step with a StepInfo.
        progress: show a bar; default: only on a terminal.
        differentiable: record gradients through the whole run; costs memory.

    Returns:
        [B, ...] samples in the state's dtype.

    Raises:
        ValueError: names the argument, what was expected and what came.
    """
    if latents.dim() < 1 or latents.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"latents: expected [B, ...] float32 or float64, got {list(latents.shape)} {latents.dtype}")
    if plan.stochastic and key is None and noise is None:
        raise ValueError(f"key: expected noise keys or a noise callable for {plan.name}, which draws noise; got neither")
    if key is not None and noise is not None:
        raise ValueError("noise: expected none beside key, got both")
    check_net_dtype(net_dtype)
    if clip is not None and not (isinstance(clip, tuple) and len(clip) == 2 and clip[0] <= clip[1]):
        raise ValueError(f"clip: expected (lo, hi) with lo <= hi, got {clip!r}")
    _check_folded(plan, "b_u", "cfg", cfg)
    _check_folded(plan, "c_g", "guidance", guidance)
    for change in (cfg, guidance, None if clip is None else _clip(*clip)):
        plan = plan if change is None else plan.derived(change)
    with torch.set_grad_enabled(differentiable):
        return _loop(
            plan, net, latents, key, _Draws(noise), guidance, dict(condition or {}), cfg, net_dtype or latents.dtype,
            callback, progress,
        )  # fmt: skip


def _loop(plan, net, latents, key, draws, guidance, condition, cfg, net_dtype, callback, progress) -> Tensor:
    tables = plan.tables(latents.device, net_dtype, latents.dtype, latents.shape[0])
    fixed = _fixed_arguments(plan, key, latents.dtype, net_dtype, watched=callback is not None)
    uncond = None if cfg is None else {**condition, **cfg.uncond}
    x, net_in = _first_state(plan, tables, latents, key, draws, net_dtype)
    step, history = STEP.overload, deque[Tensor]()
    # Below autograd where nothing needs a gradient: its bookkeeping in Python costs 20 us a call. (inference_mode would
    # taint the tensors for guidance that differentiates; a guard object costs 1 us.)
    autograd, exclude = _autograd_key(latents.device), torch._C._dispatch_tls_set_dispatch_key_excluded
    outside = torch._C._dispatch_tls_is_dispatch_key_excluded(autograd)
    inside = outside or not torch.is_grad_enabled()
    rows = zip(plan.rows, tables.labels, tables.coef, fixed, strict=True)
    for i, (row, label, coef, operands) in enumerate(_progress(rows, len(plan), progress)):
        F = net(net_in, label, **condition)
        if history:
            operands = dict(zip(("H1", "H2", "H3"), history, strict=False), **operands)
        if uncond is not None and "b_u" in row.coef:
            operands = operands | {"F_u": net(net_in, label, **uncond)}
        if guidance is not None and "c_g" in row.coef:
            state = x if row.scale == 1 else x / row.scale
            operands = operands | {"G": guidance.gradient(state, tables.sigmas[i], **condition)}
        if key is None and row.draw >= 0:
            operands = operands | {"z": draws.take(row.draw, x)}
        exclude(autograd, inside)
        try:
            y, scaled, D, eps_norm = step(x, F, coef, **operands)
        finally:
            exclude(autograd, outside)
        if row.forget:
            history.pop()
        if row.keep:
            history.appendleft(x if row.keep == "x" else D)
        x, net_in = y, y if scaled is None else scaled
        if callback is not None:
            callback(StepInfo(i, len(plan), row.sigma, D, x, eps_norm))
    draws.finish(plan.draws, x)
    return x


def _fixed_arguments(
    plan: Plan, key: Tensor | None, state_dtype: torch.dtype, net_dtype: torch.dtype, watched: bool
) -> list[dict[str, Any]]:
    """The arguments of each row's step that do not change while the loop runs; defaults are left out."""
    fixed: list[dict[str, Any]] = []
    for row, following in zip(plan.rows, [*plan.rows[1:], None], strict=True):
        arguments: dict[str, Any] = {}
        if row.draw >= 0 and key is not None:
            arguments |= {"key": key, "draw": row.draw + 1, "stream": int(Stream.STATE)}
        if following is not None and (following.c_in != 1 or net_dtype != state_dtype):
            arguments["net_dtype"] = net_dtype  # else the network's input is the state itself
        if watched or row.keep == "D":
            arguments["return_D"] = True
        if watched:
            arguments["return_eps_norm"] = True
        fixed.append(arguments)
    return fixed


def _first_state(plan, tables, latents, key, draws, net_dtype) -> tuple[Tensor, Tensor]:
    """The scaled prior with the churn noise of the first step, and the first network input."""
    if plan.prior_draw >= 0 and key is not None:
        x, _ = PERTURB.overload(latents, tables.prior_scale, tables.prior_noise, key, plan.prior_draw + 1, int(Stream.STATE))
    else:
        x = latents * plan.prior_scale
        if plan.prior_draw >= 0:
            x = x + plan.prior_noise * draws.take(plan.prior_draw, x)
    c_in = plan.rows[0].c_in if plan.rows else 1
    return x, x if c_in == 1 and net_dtype == x.dtype else (x * c_in).to(net_dtype)


def _autograd_key(device: torch.device) -> Any:
    return getattr(torch._C.DispatchKey, f"Autograd{device.type.upper()}", torch._C.DispatchKey.AutogradOther)


def _check_folded(plan: Plan, column: str, name: str, given: object) -> None:
    """A plan that already holds a guidance object's weights would lose its tensor, or have them folded in twice."""
    if any(column in row.coef for row in plan.rows):
        got = "none" if given is None else "an object that would be folded in twice"
        raise ValueError(f"{name}: expected a plan without {name} ({column}) and the object beside it, got {plan.name} and {got}")


class _Draws:
    """A `noise=` callable, called once for each draw of the original program."""

    def __init__(self, noise: Callable[[Tensor], Tensor] | None) -> None:
        self.noise = noise
        self.next = 0

    def take(self, index: int, like: Tensor) -> Tensor:
        """The noise of draw `index`; earlier draws that no row uses are drawn and dropped."""
        if self.noise is None:
            raise ValueError("noise: expected a callable or noise keys, got neither")
        while True:
            z = self.noise(like)
            self.next += 1
            if self.next > index:
                return z

    def finish(self, count: int, like: Tensor) -> None:
        """Draw what the original program would still have drawn, so that a shared generator goes on in step."""
        if self.noise is not None and self.next < count:
            self.take(count - 1, like)


@dataclass(frozen=True)
class _Clip:
    lo: float
    hi: float

    def apply(self, plan: Plan) -> Plan:
        bounds = {"lo": self.lo, "hi": self.hi}
        return plan.map_rows(lambda _, row: replace(row, coef=row.coef | bounds), f", D clipped to [{self.lo}, {self.hi}]")


_clip = lru_cache(_Clip)  # one object for each pair of bounds: plans remember what was derived by which object


def _progress(rows: Iterable, calls: int, progress: bool | None) -> Iterable:
    if progress is False or (progress is None and not sys.stderr.isatty()):
        return rows
    from tqdm import tqdm

    return tqdm(rows, total=calls, desc="sampling", unit="call", leave=False)
