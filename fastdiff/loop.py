"""The one loop: runs any plan with any network, one `sampler_step` launch for each network call, no host-device sync."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .guidance import ClassifierFree, Guidance
from .noise import Stream
from .ops.perturb import OP as PERTURB
from .ops.sampler_step import OP as STEP
from .plan import Plan, Row


class StepInfo(NamedTuple):
    """What a callback sees after each network call; the tensors are its own to keep, except `x`, which is reused."""

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
        net: called as net(x_in, label, **condition), x_in [B, ...] and label [B] in the network's dtype; returns the raw
            output that the plan's parametrization says.
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
    for change in (cfg, guidance):
        plan = plan if change is None else change.apply(plan)
    if clip is not None:
        lo, hi = clip
        plan = plan.map_rows(lambda _, row: _clipped(row, lo, hi), f" clipped to [{lo}, {hi}]")
    steps = _Steps(plan, latents, key, _Draws(noise), net_dtype or latents.dtype)
    with torch.set_grad_enabled(differentiable):
        return _loop(steps, net, guidance, dict(condition or {}), cfg, callback, progress, differentiable)


def _loop(steps: _Steps, net, guidance, condition, cfg, callback, progress, differentiable) -> Tensor:
    plan, tables = steps.plan, steps.tables
    uncond = None if cfg is None else {**condition, **cfg.uncond}
    x, net_in = steps.first_state(differentiable)
    history: deque[Tensor] = deque()
    for i, row in _progress(plan, progress):
        F = net(net_in, tables.labels[i], **condition)
        F_u = net(net_in, tables.labels[i], **uncond) if row.coef.get("b_u") and uncond is not None else None
        G = None
        if guidance is not None and row.coef.get("c_g"):
            G = guidance.gradient(x if row.scale == 1 else x / row.scale, tables.sigmas[i], **condition)
        last = i + 1 == len(plan)
        x_before, (x, net_in, D, eps_norm) = x, steps.step(
            i, x, F, F_u, G, history, differentiable, want_net_in=not last, watched=callback is not None
        )
        steps.keep(row, x_before, D, history)
        if callback is not None:
            callback(StepInfo(i, len(plan), row.sigma, D, x, eps_norm))
    return x


class _Steps:
    """The fused step of each row, with the buffers that the steps share."""

    def __init__(self, plan: Plan, latents: Tensor, key: Tensor | None, draws: _Draws, net_dtype: torch.dtype) -> None:
        self.plan = plan
        self.latents = latents
        self.key = key
        self.draws = draws
        self.tables = plan.tables(latents.device, net_dtype, latents.shape[0])
        self.net_dtype = net_dtype
        # A separate network input is written only where it differs from the state.
        self.scaled_input = [row.c_in != 1 or net_dtype != latents.dtype for row in plan.rows]
        self.net_in_buffer = torch.empty_like(latents, dtype=net_dtype) if any(self.scaled_input) else None
        self.free: list[Tensor] = []

    def first_state(self, differentiable: bool) -> tuple[Tensor, Tensor]:
        """The scaled prior with the churn noise of the first step, and the first network input."""
        plan, tables = self.plan, self.tables
        if plan.prior_draw >= 0 and self.key is not None:
            x, _ = PERTURB.overload(
                self.latents, tables.prior_scale, tables.prior_noise, self.key, plan.prior_draw + 1, int(Stream.STATE)
            )  # fmt: skip
        else:
            x = self.latents * plan.prior_scale
            if plan.prior_draw >= 0:
                x = x + plan.prior_noise * self.draws.take(plan.prior_draw, x)
        if not plan.rows or not self.scaled_input[0]:
            return x, x
        net_in = (x * plan.rows[0].c_in).to(self.net_dtype)
        if differentiable or self.net_in_buffer is None:
            return x, net_in
        return x, self.net_in_buffer.copy_(net_in)

    def step(self, i, x, F, F_u, G, history, differentiable, *, want_net_in, watched):
        """One launch: (y, network input, D, eps norm)."""
        row = self.plan.rows[i]
        z = key = None
        draw = 0
        if row.draw >= 0:
            if self.key is not None:
                key, draw = self.key, row.draw + 1
            else:
                z = self.draws.take(row.draw, x)
        H1, H2, H3 = [*history, None, None, None][:3]
        operands = (x, F, self.tables.coef[i], F_u, G, H1, H2, H3, z, key, draw, int(Stream.STATE))
        scaled = want_net_in and self.scaled_input[i + 1]
        want_D = watched or row.keep == "D"
        if differentiable:
            y, net_in, D, eps_norm = STEP.overload(*operands, self.net_dtype if scaled else None, want_D, watched)
            return y, net_in if scaled else y, D, eps_norm
        y = self.free.pop() if self.free else torch.empty_like(x)
        D = torch.empty_like(x) if want_D else None
        eps_norm = x.new_empty(x.shape[0]) if watched else None
        STEP.out_overload(*operands, out=y, net_in=self.net_in_buffer if scaled else None, D=D, eps_norm=eps_norm)
        return y, self.net_in_buffer if scaled else y, D, eps_norm

    def keep(self, row: Row, x_before: Tensor, D: Tensor | None, history: deque[Tensor]) -> None:
        """Update the history, newest first, and give back the buffers that nothing reads any more."""
        for _ in range(row.forget):
            self.free.append(history.pop())
        if row.keep == "x":
            history.appendleft(x_before)
        else:
            self.free.append(x_before)
            if row.keep == "D" and D is not None:
                history.appendleft(D)


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


def _clipped(row: Row, lo: float, hi: float) -> Row:
    return replace(row, coef=row.coef | {"lo": lo, "hi": hi})


def _progress(plan: Plan, progress: bool | None) -> Iterator[tuple[int, Row]]:
    rows = enumerate(plan.rows)
    if progress is False or (progress is None and not sys.stderr.isatty()):
        return rows
    from tqdm import tqdm

    return iter(tqdm(rows, total=len(plan), desc="sampling", unit="call", leave=False))
