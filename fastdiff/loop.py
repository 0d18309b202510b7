"""The one loop: runs any plan with any network, one `sampler_step` launch for each network call, no host-device sync."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .brownian import BrownianPath
from .epsilon_scaling import EpsilonScaling
from .guidance import ClassifierFree, Guidance
from .known import AS_GIVEN, Basis, Blend, Known
from .noise import Stream
from .ops._checks import check_net_dtype
from .ops.langevin_row import OP as LANGEVIN
from .ops.noise import NOISE_OPS, known_stream
from .ops.normal_sum import OP as NORMAL_SUM
from .ops.perturb import OP as PERTURB
from .ops.sampler_step import OP as STEP
from .plan import Plan, Row
from .progress import wanted

NORMAL = NOISE_OPS["normal"]

#: Draws of known data beside steps that draw nothing themselves: out of the way of the others.
_KNOWN_DRAWS = 2**32


class StepInfo(NamedTuple):
    """What a callback sees after each network call; it may keep the tensors."""

    call: int  #: 0 .. calls - 1
    calls: int
    sigma: float  #: noise level of the call, data units
    D: Tensor  #: denoised estimate [B, ...] in the state's dtype
    x: Tensor  #: the next state
    eps_norm: Tensor  #: |eps|_2 of each sample, [B]: the exposure-bias probe
    before: Tensor  #: the state before the step, of which the network saw c_in times


def run(
    plan: Plan,
    net: Callable[..., Tensor],
    latents: Tensor,
    *,
    key: Tensor | None = None,
    noise: Callable[[Tensor], Tensor] | None = None,
    path: BrownianPath | None = None,
    guidance: Guidance | None = None,
    cfg: ClassifierFree | None = None,
    eps_scale: float | EpsilonScaling = 1.0,
    known: Known | None = None,
    condition: Mapping[str, Any] | None = None,
    clip: tuple[float, float] | None = None,
    net_dtype: torch.dtype | None = None,
    callback: Callable[[StepInfo], None] | None = None,
    progress: bool | None = None,
    differentiable: bool = False,
    reuse_outputs: bool = False,
) -> Tensor:
    """Run a plan: x = prior_scale*latents, then one network call and one fused step for each row.

    Args:
        plan: the table, e.g. EDMSampler().plan(parametrization).
        net: called as net(x_in, label, **condition), x_in [B, ...] in the network's dtype and label [B] in that or float32;
            returns the raw output that the plan's parametrization says, and must not change x_in.
        latents: [B, ...] standard normals; their dtype (float32 or float64) is the state's.
        key: [B] int64 noise keys, for a plan that draws noise.
        noise: called instead as noise(like) once for each draw of the original program, in its order (dead draws included).
        path: take the noise of steps from one level down to the next from the Brownian path of the keys, which does not depend on the
            steps; Langevin corrections and churn, which lead nowhere, draw their own.
        guidance, cfg: what to add; see fastdiff.guidance. eps_scale: lambda of epsilon scaling, a number or an EpsilonScaling.
        known: data that a measurement fixes (inpainting, colorization); see fastdiff.known.
        condition: keyword arguments of every network call.
        clip: (lo, hi) bounds of D; where a multistep sampler keeps D, of the scaled and guided one.
        net_dtype: dtype of x_in, written by the step itself; default: the state's.
        callback: called after each step with a StepInfo.
        progress: show a bar; default: only on a terminal.
        differentiable: record gradients through the whole run; costs memory.
        reuse_outputs: where D is the network's output itself, keep that tensor and not a copy; for networks that return a new one at
            every call (a captured CUDA graph does not).

    Returns:
        [B, ...] samples in the state's dtype.

    Raises:
        ValueError: names the argument, what was expected and what came.
    """
    if latents.dim() < 1 or latents.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"latents: expected [B, ...] float32 or float64, got {list(latents.shape)} {latents.dtype}")
    if (plan.stochastic or known is not None) and key is None and noise is None:
        raise ValueError(f"key: expected noise keys or a noise callable for {plan.name}, which draws noise; got neither")
    if known is not None and known.parity and noise is None:
        raise ValueError("noise: expected a callable beside known data with parity, got none")
    if known is not None and known.basis is not None and any(row.learned for row in plan.rows):
        raise ValueError("known: expected no basis beside a learned variance, which has no meaning in it, got one")
    if path is not None and key is None:
        raise ValueError("path: expected noise keys beside it, got none")
    if key is not None and noise is not None:
        raise ValueError("noise: expected none beside key, got both")
    check_net_dtype(net_dtype)
    if clip is not None and not (isinstance(clip, tuple) and len(clip) == 2 and clip[0] <= clip[1]):
        raise ValueError(f"clip: expected (lo, hi) with lo <= hi, got {clip!r}")
    _check_folded(plan, "b_u", "cfg", cfg)
    _check_folded(plan, "c_g", "guidance", guidance)
    blend = None if known is None else known if _fused(plan, noise, path) else AS_GIVEN
    for change in (cfg, EpsilonScaling.of(eps_scale), guidance, None if clip is None else _clip(*clip), blend):
        plan = plan if change is None else plan.derived(change)
    draws = _Draws(noise)
    with torch.set_grad_enabled(differentiable):
        if known is not None and known.basis is not None:
            net, guidance, draws.basis = *_in_basis(net, guidance, known), known.basis
            latents = known.basis.forward(latents) if not known.parity else latents
        nodes = None if path is None else path.table(plan, latents.device)
        x = _loop(
            plan, net, latents, key, draws, nodes, guidance, dict(condition or {}), cfg, known, net_dtype or latents.dtype,
            callback, progress, reuse_outputs,
        )  # fmt: skip
        return x if known is None or known.basis is None else known.basis.inverse(x)


def _loop(plan, net, latents, key, draws, nodes, guidance, condition, cfg, known, net_dtype, callback, progress, reuse) -> Tensor:
    tables = plan.tables(latents.device, net_dtype, latents.dtype, latents.shape[0])
    data, mask = (None, None) if known is None else known.tensors(latents)
    fused = _fused(plan, draws.noise, nodes)
    fixed = _fixed_arguments(plan, key, nodes, latents.dtype, net_dtype, callback is not None, data, mask, fused, reuse)
    uncond = None if cfg is None else {**condition, **cfg.uncond}
    x, net_in = _first_state(plan, tables, latents, key, draws, net_dtype, known, data, mask)
    blends = [] if known is None else known.blends(plan)
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
        if guidance is not None and ("c_g" in row.coef or row.guide):
            state = x if row.scale == 1 else x / row.scale
            operands = operands | _guided(row, operands, guidance.gradient(state, tables.sigmas[i], **condition))
        if key is None:
            operands = operands | draws.of(row, x)
            if data is not None:
                operands["known"] = draws.known(blends[i], data)
        elif not fused:
            operands = dict(operands)
            if nodes is not None and nodes[i] is not None:
                operands["z"] = NORMAL_SUM.overload(x, key, *nodes[i], int(Stream.PATH))
            if data is not None:
                z = NORMAL.overload(x, key, _KNOWN_DRAWS + i, known_stream(int(Stream.STATE)))
                operands["known"] = blends[i].k_x * data + blends[i].k_n * z
        if row.learned is not None:
            F, operands = with_learned_variance(row, x, F, operands)
        exclude(autograd, inside)
        try:
            if row.adaptive:
                coef = LANGEVIN.overload(
                    x, F, coef, shared=row.adaptive == "batch", **{k: v for k, v in operands.items() if k in _LANGEVIN_OPERANDS}
                )  # fmt: skip
            y, scaled, D, eps_norm = step(x, F, coef, **operands)
        finally:
            exclude(autograd, outside)
        D = F if D is None else D  # where it is, or where nobody asks
        for _ in range(row.forget):
            history.pop()
        for name in reversed(row.keep):
            history.appendleft(x if name == "x" else D)
        if callback is not None:
            in_pixels = known.basis.inverse if known is not None and known.basis is not None else _same
            denoised = torch.add(x / row.scale, D, alpha=-row.sigma) if row.keep == "d" else D
            callback(StepInfo(i, len(plan), row.sigma, in_pixels(denoised), in_pixels(y), eps_norm, in_pixels(x)))
        x, net_in = y, y if scaled is None else scaled
    draws.finish(plan.draws + (0 if known is None else known.draws(plan)), x)
    return x


def _fused(plan: Plan, noise: Any, path: Any) -> bool:
    """Whether the step itself makes the noise of known data: not where its own noise comes from elsewhere."""
    return noise is None and path is None and all(row.learned is None for row in plan.rows)


def _same(x: Tensor) -> Tensor:
    return x


_LANGEVIN_OPERANDS = ("F_u", "G", "z", "key", "draw", "stream")


def _guided(row: Row, operands: Mapping[str, Any], G: Tensor) -> dict[str, Tensor]:
    """The operand by which a gradient enters: G, or F_u where D itself must be guided because it is kept."""
    if not row.guide:
        return {"G": G}
    F_u = operands.get("F_u")
    return {"F_u": G if F_u is None else torch.add(F_u, G, alpha=row.guide / row.coef["b_u"])}


def with_learned_variance(row: Row, x: Tensor, F: Tensor, operands: Mapping[str, Any]) -> tuple[Tensor, dict[str, Any]]:
    """The network's output without its variance channels, and the noise with the standard deviation that they say."""
    if F.shape[1] != 2 * x.shape[1]:
        raise ValueError(f"net: expected {2 * x.shape[1]} output channels for a learned variance, got {F.shape[1]}")
    F, v = F.chunk(2, dim=1)
    operands = dict(operands)
    if "F_u" in operands:
        operands["F_u"] = operands["F_u"].chunk(2, dim=1)[0]
    if row.draw >= 0:
        key, z = operands.pop("key", None), operands.get("z")
        if z is None:
            z = NORMAL.overload(x, key, operands.pop("draw"), operands.pop("stream"))
        small, large = row.learned  # type: ignore[misc]
        operands["z"] = z * torch.exp(small + (v.to(x.dtype) + 1) / 2 * (large - small))
    return F, operands


def _in_basis(net: Callable[..., Tensor], guidance: Guidance | None, known: Known) -> tuple[Callable[..., Tensor], Guidance | None]:
    """The network and the guidance for a state in the basis of the known data."""
    forward, inverse = known.basis  # type: ignore[misc]

    def transformed(x_in: Tensor, label: Tensor, **condition: Any) -> Tensor:
        return forward(net(inverse(x_in), label, **condition))

    if guidance is None:
        return transformed, None
    gradient = guidance.gradient
    return transformed, replace(guidance, gradient=lambda x, sigma, **condition: forward(gradient(inverse(x), sigma, **condition)))


def _fixed_arguments(
    plan: Plan, key: Tensor | None, nodes: list | None, state_dtype: torch.dtype, net_dtype: torch.dtype, watched: bool,
    data: Tensor | None, mask: Tensor | None, fused: bool, reuse: bool,
) -> list[dict[str, Any]]:  # fmt: skip
    """The arguments of each row's step that do not change while the loop runs; defaults are left out."""
    fixed: list[dict[str, Any]] = []
    for i, (row, following) in enumerate(zip(plan.rows, [*plan.rows[1:], None], strict=False)):
        arguments: dict[str, Any] = {}
        if row.draw >= 0 and key is not None and (nodes is None or nodes[i] is None):
            arguments |= {"key": key, "draw": row.draw + 1, "stream": int(Stream.STATE)}
        if data is not None:
            arguments |= {"known": data, "mask": mask}
            if key is not None and row.draw < 0 and fused:
                arguments |= {"key": key, "draw": _KNOWN_DRAWS + i, "stream": int(Stream.STATE)}
        if following is not None and (following.c_in != 1 or net_dtype != state_dtype):
            arguments["net_dtype"] = net_dtype  # else the network's input is the state itself
        if (watched or row.keep in ("D", "xD", "d")) and not (reuse and _returns_D(row)):
            arguments["return_D"] = True
        if watched:
            arguments["return_eps_norm"] = True
        fixed.append(arguments)
    return fixed


def _returns_D(row: Row) -> bool:
    """Whether D is the network's output as it is."""
    return row.coef["a"] == 0 and row.coef["b"] == 1 and not row.coef.keys() & {"b_u", "lo", "hi"}


def _first_state(plan, tables, latents, key, draws, net_dtype, known, data, mask) -> tuple[Tensor, Tensor]:
    """The scaled prior with the churn noise of the first step and the known data, and the first network input."""
    if plan.prior_draw >= 0 and key is not None:
        x, _ = PERTURB.overload(latents, tables.prior_scale, tables.prior_noise, key, plan.prior_draw + 1, int(Stream.STATE))
    else:
        x = latents if plan.prior_scale == 1 else latents * plan.prior_scale
        if plan.prior_draw >= 0:
            x = x + plan.prior_noise * draws.take(plan.prior_draw, x)
    if known is not None and plan.rows:
        blend = known.first(plan)
        if blend is not None:
            x = torch.lerp(x, draws.known(blend, data), mask)
        elif not known.parity:
            x = torch.addcmul(x, mask, data, value=plan.rows[0].scale)  # the latents are its noise
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
        self.apart = 0  # of them for known data, which rows do not count
        self.basis: Basis | None = None  # of the state, where the original program draws in another

    def take(self, index: int, like: Tensor) -> Tensor:
        """The noise of draw `index` of the rows; earlier draws that no row uses are drawn and dropped."""
        z = self._draw(like)
        while self.next <= index + self.apart:
            z = self._draw(like)
        return z

    def of(self, row: Row, x: Tensor) -> dict[str, Tensor]:
        """The noise of a row."""
        if row.draw < 0:
            return {}
        z = self.take(row.draw, x)
        return {"z": z if self.basis is None else self.basis.forward(z)}

    def known(self, blend: Blend, data: Tensor) -> Tensor:
        """Known data at the level of a blend; their draw follows the row's own."""
        state = blend.k_x * data
        for _ in range(blend.dead):
            self._draw(data)
        self.apart += blend.dead + bool(blend.k_n)
        return state + blend.k_n * self._draw(data) if blend.k_n else state

    def finish(self, count: int, like: Tensor) -> None:
        """Draw what the original program would still have drawn, so that a shared generator goes on in step."""
        while self.noise is not None and self.next < count:
            self._draw(like)

    def _draw(self, like: Tensor) -> Tensor:
        if self.noise is None:
            raise ValueError("noise: expected a callable or noise keys, got neither")
        self.next += 1
        return self.noise(like)


@dataclass(frozen=True)
class _Clip:
    lo: float
    hi: float

    def apply(self, plan: Plan) -> Plan:
        if any(row.keep == "d" for row in plan.rows):
            raise ValueError(f"clip: expected none for {plan.name}, which keeps slopes and no D, got ({self.lo}, {self.hi})")
        bounds = {"lo": self.lo, "hi": self.hi}
        return plan.map_rows(lambda _, row: replace(row, coef=row.coef | bounds), f", D clipped to [{self.lo}, {self.hi}]")


_clip = lru_cache(_Clip)  # one object for each pair of bounds: plans remember what was derived by which object


def _progress(rows: Iterable, calls: int, progress: bool | None) -> Iterable:
    if not wanted(progress):
        return rows
    from tqdm import tqdm

    return tqdm(rows, total=calls, desc="sampling", unit="call", leave=False)
