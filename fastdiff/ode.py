"""Adaptive integration of the probability-flow ODE on the device: Dormand-Prince 5(4), fused stages, fused error norm.

The controller is scipy's RK45 (Hairer, Norsett and Wanner, chapter II.4): err = h*sum_m e_m k_m is measured against
atol + rtol*max(|x|, |y|) by its root mean square, a step is accepted where that is below 1, and the next step is
0.9*norm^(-1/5) times as long, between a fifth and ten times. Nothing waits for the device: acceptance and step sizes are tensors, and the
host looks at the flags of the attempt before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from .flow import Flow, Stages, Trace
from .ops._shapes import column, sum_per_sample
from .ops.coef import COLUMNS
from .ops.ode_error import OP as ERROR
from .ops.ode_stage import OP as STAGE
from .ops.sampler_step import OP as STEP
from .tableaus import DORMAND_PRINCE, Tableau

SAFETY, LEAST, MOST = 0.9, 0.2, 10.0


class ODEError(RuntimeError):
    """The integration cannot go on; the message says at which t, and why."""


@dataclass(frozen=True)
class ODESolver:
    """How an ODE is integrated.

    Args:
        rtol, atol: tolerances of each component.
        control: "sample": each sample has its own steps, so that its result does not depend on its batch; "batch": one step for
            all, from the norm of the whole batch, as scipy's RK45 takes it.
        max_steps: attempts after which it gives up.
        first_step: length of the first step; None for scipy's choice (one more call of the network).
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    control: Literal["sample", "batch"] = "sample"
    max_steps: int = 1000
    first_step: float | None = None
    tableau: Tableau = field(default=DORMAND_PRINCE, repr=False)

    def __post_init__(self) -> None:
        if not self.rtol >= 0 or not self.atol > 0:
            raise ValueError(f"rtol, atol: expected rtol >= 0 and atol > 0, got {self.rtol} and {self.atol}")
        if self.control not in ("sample", "batch"):
            raise ValueError(f"control: expected 'sample' or 'batch', got {self.control!r}")
        if not isinstance(self.max_steps, int) or self.max_steps < 1:
            raise ValueError(f"max_steps: expected an integer >= 1, got {self.max_steps!r}")
        if self.first_step is not None and not self.first_step > 0:
            raise ValueError(f"first_step: expected a number > 0, got {self.first_step}")


@dataclass(frozen=True)
class ODEResult:
    """Where an integration ended.

    Attributes:
        x: [B, ...] state at the end.
        divergence: [P, B] float64 integral of the drift's divergence for each probe, or None.
        nfe: [B] int64 network calls that were spent on each sample; accepted, rejected: [B] int64 steps.
    """

    x: Tensor
    divergence: Tensor | None
    nfe: Tensor
    accepted: Tensor
    rejected: Tensor


def integrate(
    flow: Flow, x: Tensor, start: float, end: float, solver: ODESolver | None = None, trace: Trace | None = None, progress: Any = None
) -> ODEResult:
    """Integrate the probability-flow ODE from time `start` to time `end`.

    Args:
        flow: the vector field; x: [B, ...] state at the start, float32 or float64.
        solver: tolerances and step control; default ODESolver().
        trace: also integrate the drift's divergence.
        progress: called with the share of the way, 0 to 1, after each attempt; on a GPU that waits for the device.

    Raises:
        ODEError: not done after max_steps attempts, a step below the resolution of t, or a value that is not finite; says at which t.
        ValueError: names the argument, what was expected and what came.
    """
    if x.dim() < 1 or x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"x: expected [B, ...] float32 or float64, got {list(x.shape)} {x.dtype}")
    if start == end:
        raise ValueError(f"start, end: expected two times, got {start} twice")
    with torch.no_grad():
        run = _Run(flow, x.contiguous(), float(start), float(end), solver or ODESolver(), trace)
        if x.shape[0] == 0:
            return run.result()
        run.first_slope()
        for attempt in range(run.solver.max_steps):
            run.attempt()
            if progress is not None:
                progress(run.share())
            if run.watch.done(run.flags()):
                return run.result()
            if attempt == run.solver.max_steps - 1 and run.watch.finish():
                return run.result()
        raise ODEError(f"max_steps: not done after {run.solver.max_steps} steps, at t = {run.slowest():.6g} on the way to {end:.6g}")


class _Run:
    """The state of an integration; every number that a decision depends on is a tensor [B]."""

    def __init__(self, flow: Flow, x: Tensor, start: float, end: float, solver: ODESolver, trace: Trace | None) -> None:
        self.flow, self.x, self.start, self.end, self.solver, self.trace = flow, x, start, end, solver, trace
        self.direction = 1.0 if end > start else -1.0
        size = x.shape[0]
        self.device = x.device
        self.t = torch.full((size,), start, dtype=torch.float64, device=x.device)
        self.h = torch.zeros_like(self.t)  # lengths, > 0
        self.K = x.new_empty(len(solver.tableau.error), *x.shape)
        self.slots = list(self.K.unbind(0))
        self.A = [torch.tensor(row, dtype=torch.float64, device=x.device) for row in solver.tableau.A]
        self.c = torch.tensor(solver.tableau.c, dtype=torch.float64, device=x.device)[:, None]
        self.e = torch.tensor(solver.tableau.error, dtype=torch.float64, device=x.device)
        channels = 0 if trace is None else trace.channels
        self.l = torch.zeros(channels, size, dtype=torch.float64, device=x.device)
        self.Kl = torch.zeros(len(solver.tableau.error), channels, size, dtype=torch.float64, device=x.device)
        self.net_dtype = flow.net_dtype or x.dtype
        counts = torch.zeros(3, size, dtype=torch.int64, device=x.device)
        self.nfe, self.accepted, self.rejected = counts.unbind(0)
        self.retrying = torch.zeros(size, dtype=torch.bool, device=x.device)
        self.bad = torch.zeros(size, dtype=torch.bool, device=x.device)
        self.watch = _Watch(x.device, end)
        self.beyond = torch.full((), self.direction * torch.inf, dtype=torch.float64, device=x.device)

    # ---- the vector field ----

    def _slope(self, stages: Stages, i: int, x: Tensor, net_in: Tensor, slot: int) -> dict[str, Tensor]:
        """The network's outputs at stage i; the divergence goes to its slot."""
        if self.trace is None:
            return self.flow.operands(stages, i, x, net_in)
        outputs, self.Kl[slot] = self.flow.with_divergence(stages, i, x, net_in, self.trace)
        return outputs

    def _field(self, t: Tensor, x: Tensor, slot: int) -> None:
        """k at (t, x), into a slot of K."""
        stages = self.flow.stages(t[None])
        net_in = (column(stages.c_in[0], x, x.dtype) * x).to(self.net_dtype)
        outputs = self._slope(stages, 0, x, net_in, slot)
        STEP.out_overload(x, outputs.pop("F"), stages.coef[0], **outputs, out=self.slots[slot])

    def first_slope(self) -> None:
        """The first slope, and the first step: scipy's choice (Hairer, Norsett and Wanner, chapter II.4, eq. 4.14)."""
        self._field(self.t, self.x, 0)
        self.nfe += 1
        span = abs(self.end - self.start)
        if self.solver.first_step is not None:
            self.h = torch.full_like(self.t, min(self.solver.first_step, span))
            return
        scale = self.solver.atol + self.x.abs() * self.solver.rtol
        scale_l = self.solver.atol + self.l.abs() * self.solver.rtol
        d0 = self._norm(self.x / scale, self.l / scale_l)
        d1 = self._norm(self.slots[0] / scale, self.Kl[0] / scale_l)
        h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1).clamp(max=span)
        euler = self.x + column(self.direction * h0, self.x, self.x.dtype) * self.slots[0]
        self._field(self.t + self.direction * h0, euler, 1)
        self.nfe += 1
        d2 = self._norm((self.slots[1] - self.slots[0]) / scale, (self.Kl[1] - self.Kl[0]) / scale_l) / h0
        steepest = torch.maximum(d1, d2)
        exponent = 1 / (self.solver.tableau.error_order + 1)
        h1 = torch.where(steepest <= 1e-15, (h0 * 1e-3).clamp(min=1e-6), (0.01 / steepest.clamp(min=1e-300)) ** exponent)
        self.h = torch.minimum(100 * h0, h1).clamp(max=span)

    # ---- one attempt ----

    def attempt(self) -> None:
        """Try a step of every sample, and accept it where its error is small."""
        remaining = (self.end - self.t).abs()
        active = remaining > 0
        least = 10 * (torch.nextafter(self.t, self.beyond) - self.t).abs()
        too_small = active & self.retrying & (self.h < least)
        h = torch.minimum(torch.maximum(self.h, least), remaining)
        signed = self.direction * h
        reached = h >= remaining
        new_t = torch.where(reached, torch.full_like(self.t, self.end), self.t + signed)

        y = self._stages(signed, new_t)
        signed_error = signed[:, None] * self.e
        squares = ERROR.overload(self.x, y, self.K, signed_error, self.solver.rtol, self.solver.atol)
        new_l = self.l
        if self.trace is not None:
            new_l = self.l + torch.einsum("m,mpb->pb", self.A[-1], self.Kl[:-1]) * signed
            error_l = (torch.einsum("m,mpb->pb", self.e, self.Kl) * signed).mean(0)
            tolerance = self.solver.atol + self.solver.rtol * torch.maximum(self.l.mean(0).abs(), new_l.mean(0).abs())
            squares = squares + (error_l / tolerance) ** 2
        norm = self._root(squares)
        self.bad = self.bad | (active & ~torch.isfinite(norm)) | too_small
        factor = SAFETY * norm ** (-1 / (self.solver.tableau.error_order + 1))
        accept = (norm < 1) & active
        grown = torch.where(norm == 0, torch.full_like(factor, MOST), factor).clamp(max=MOST)
        grown = torch.where(self.retrying, grown.clamp(max=1.0), grown)
        self.h = h * torch.where(norm < 1, grown, factor.clamp(min=LEAST))
        self.nfe += len(self.A) * active
        self.accepted += accept
        self.rejected += active & ~accept
        self.retrying = active & ~accept
        self._take(accept, y, new_t, new_l)

    def _stages(self, signed: Tensor, new_t: Tensor) -> Tensor:
        """Run the stages after the first, and return the new state; slopes go to K."""
        times = self.t + self.c * signed
        times[-1] = times[-2] = new_t  # c = 1, without rounding past the end
        stages = self.flow.stages(times)
        first = torch.zeros(len(signed), len(COLUMNS), dtype=torch.float64, device=self.device)
        first[:, COLUMNS.index("c_x")] = 1
        first[:, COLUMNS.index("c_h1")] = self.A[0][0] * signed
        first[:, COLUMNS.index("c_in")] = stages.c_in[0]
        y, net_in, _, _ = STEP.overload(self.x, self.x, first, H1=self.slots[0], net_dtype=self.net_dtype)
        for i in range(len(self.A) - 1):
            outputs = self._slope(stages, i, y, net_in, i + 1)
            weights = signed[:, None] * self.A[i + 1]
            k, y, net_in = STAGE.overload(
                y, outputs.pop("F"), stages.coef[i], self.x, self.K[: i + 1], weights, **outputs, net_dtype=self.net_dtype
            )  # fmt: skip
            self.slots[i + 1].copy_(k)
        last = len(self.A) - 1
        outputs = self._slope(stages, last, y, net_in, last + 1)
        STEP.out_overload(y, outputs.pop("F"), stages.coef[last], **outputs, out=self.slots[last + 1])
        return y

    def _take(self, accept: Tensor, y: Tensor, new_t: Tensor, new_l: Tensor) -> None:
        """Move on where the step was accepted."""
        self.t = torch.where(accept, new_t, self.t)
        self.l = torch.where(accept, new_l, self.l)
        self.Kl[0] = torch.where(accept, self.Kl[-1], self.Kl[0])
        if self.device.type == "cpu" and bool(accept.all()):  # nothing waits here, and nothing need be chosen
            self.x = y
            self.slots[0].copy_(self.slots[-1])
            return
        chosen = column(accept, y, torch.bool)
        self.x = torch.where(chosen, y, self.x)
        self.slots[0].copy_(torch.where(chosen, self.slots[-1], self.slots[0]))

    # ---- norms and flags ----

    def _norm(self, v: Tensor, extra: Tensor) -> Tensor:
        """[B] root mean square over a sample, or over the batch; extra: [P, B] further components, their mean counted once."""
        squares = sum_per_sample(v.double().square())
        return self._root(squares + extra.mean(0) ** 2 if self.trace is not None else squares)

    def _root(self, squares: Tensor) -> Tensor:
        count = self.x[0].numel() + (self.trace is not None)
        if self.solver.control == "batch":
            return (squares.sum() / (count * len(squares))).sqrt().expand(len(squares))
        return (squares / count).sqrt()

    def flags(self) -> Tensor:
        """[3] float64: whether all samples are there, whether one cannot go on, and its time."""
        there = (self.t == self.end).all()
        where_bad = torch.where(self.bad, self.t, self.beyond)
        at = where_bad.min() if self.direction > 0 else where_bad.max()
        return torch.stack([there.double(), self.bad.any().double(), at])

    def share(self) -> float:
        """Share of the way that the slowest sample has gone."""
        return float(1 - (self.end - self.t).abs().max() / abs(self.end - self.start))

    def slowest(self) -> float:
        """The time of the sample that is furthest behind."""
        return float(self.t.max() if self.direction < 0 else self.t.min())

    def result(self) -> ODEResult:
        """Everything, at the end."""
        divergence = None if self.trace is None else self.l
        return ODEResult(self.x, divergence, self.nfe, self.accepted, self.rejected)


class _Watch:
    """Reads flags: at once on the CPU; on a GPU those of the attempt before, so that the device never runs dry."""

    def __init__(self, device: torch.device, end: float) -> None:
        self.device, self.end = device, end
        self.pending: tuple[Tensor, Any] | None = None

    def done(self, flags: Tensor) -> bool:
        """Whether the integration is known to be over.

        Raises:
            ODEError: a sample cannot go on.
        """
        if self.device.type != "cuda":
            return self._read(flags)
        before = self.finish()
        copy = torch.empty(3, dtype=torch.float64, pin_memory=True).copy_(flags, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self.pending = (copy, event)
        return before

    def finish(self) -> bool:
        """Read what is pending."""
        if self.pending is None:
            return False
        copy, event = self.pending
        self.pending = None
        event.synchronize()
        return self._read(copy)

    def _read(self, flags: Tensor) -> bool:
        there, bad, t = flags.tolist()
        if bad:
            raise ODEError(
                f"t: the integration to {self.end:.6g} cannot go on at t = {t:.6g}: a value is not finite, or the step is too small"
            )
        return bool(there)
