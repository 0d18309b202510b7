"""The probability-flow ODE of a network, dx/dt = A*x - B*D (+ guidance), and its divergence, at times that differ by sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from .guidance import ClassifierFree, Guidance
from .noise import Stream
from .ops import normal, probe_dot, rademacher
from .ops._shapes import column, sum_per_sample
from .ops.coef import COLUMNS, DEFAULTS
from .parametrizations import Parametrization
from .schedules import Schedule

_AT = {name: i for i, name in enumerate(COLUMNS)}


@dataclass(frozen=True)
class Stages:
    """The coefficients of several network calls, [S, B, ...]: rows of `ode_stage`, labels, and what the divergence needs."""

    coef: Tensor
    labels: Tensor
    c_in: Tensor
    sigma: Tensor
    scale: Tensor

    def __getitem__(self, name: str) -> Tensor:
        """[S, B] of one column."""
        return self.coef[..., _AT[name]]


@dataclass(frozen=True)
class Trace:
    """How the divergence is found.

    Args:
        probes: how many random probes; 0 for the exact trace, one vector-Jacobian product for each element of a sample.
        kind: "rademacher" or "gaussian".
        key: [B] int64 noise keys of the probes (their draw is the probe's number).
        given: [P, B, ...] probes instead, for parity with other programs.
    """

    probes: int = 1
    kind: Literal["rademacher", "gaussian"] = "rademacher"
    key: Tensor | None = None
    given: Tensor | None = None

    @property
    def channels(self) -> int:
        """How many estimates are integrated beside the state."""
        return max(self.probes, 1)

    def probe(self, like: Tensor, p: int) -> Tensor:
        """Probe p, in the dtype of like."""
        if self.given is not None:
            return self.given[p].to(like.dtype)
        make = rademacher if self.kind == "rademacher" else normal
        return make(like, self.key, p, int(Stream.PROBE))  # type: ignore[arg-type]

    def dot(self, g: Tensor, p: int) -> Tensor:
        """[B] of the inner product of g with probe p, made again."""
        if self.given is not None:
            return sum_per_sample(g.double() * self.given[p].to(g.device))
        return probe_dot(g, self.key, p, int(Stream.PROBE), self.kind == "gaussian")  # type: ignore[arg-type]


@dataclass(frozen=True)
class Flow:
    """The vector field of a network under a schedule.

    Args:
        net: called as net(x_in, label, **condition), as by `fastdiff.run`.
        parametrization: what it returns. schedule: of the state.
        guidance, cfg: what is added to the drift; clip: bounds of D.
        net_dtype: dtype of the network's input; default: the state's.
    """

    net: Callable[..., Tensor]
    parametrization: Parametrization
    schedule: Schedule
    guidance: Guidance | None = None
    cfg: ClassifierFree | None = None
    condition: Mapping[str, Any] = field(default_factory=dict)
    clip: tuple[float, float] | None = None
    net_dtype: torch.dtype | None = None

    def stages(self, t: Tensor) -> Stages:
        """Everything that depends on the times [S, B] alone; the c_in of a row is that of the stage after it."""
        schedule, net = self.schedule, self.parametrization
        sigma, scale = schedule.sigma(t), schedule.scale(t)
        A, B = schedule.slope(t)
        a, b = net.denoiser(sigma)
        c_in = net.c_in(sigma) / scale
        values: dict[str, Tensor | float] = {"a": a / scale, "b": b, "c_x": A, "c_D": -B, "c_in": torch.cat([c_in[1:], c_in[-1:]])}
        if self.cfg is not None:
            values |= {"b": self.cfg.weight * b, "b_u": (1 - self.cfg.weight) * b}
        if self.guidance is not None:
            low, high = self.guidance.window
            weight = self.guidance.weight * ((sigma >= low) & (sigma <= high)) * sigma**2
            values["c_g"] = -B * weight
        if self.clip is not None:
            values |= {"lo": self.clip[0], "hi": self.clip[1]}
        coef = t.new_zeros(*t.shape, len(COLUMNS))
        for name, value in (DEFAULTS | values).items():
            coef[..., _AT[name]] = value
        return Stages(coef, net.label(sigma), c_in, sigma, scale)

    def operands(self, stages: Stages, i: int, x: Tensor, net_in: Tensor) -> dict[str, Tensor]:
        """The raw outputs at stage i as arguments of a step: F, and F_u and G where there is guidance."""
        label = stages.labels[i].to(torch.promote_types(net_in.dtype, torch.float32))
        outputs = {"F": self.net(net_in, label, **self.condition)}
        if self.cfg is not None and self.cfg.weight != 1:
            outputs["F_u"] = self.net(net_in, label, **{**self.condition, **self.cfg.uncond})
        if self.guidance is not None:
            G = self.guidance.gradient(self._unscaled(x, stages, i), stages.sigma[i].to(x.dtype), **self.condition)
            # Times differ by sample, so the gradient is asked for everywhere; outside its window it must not matter, whatever it is.
            outputs["G"] = torch.where(column(stages["c_g"][i] != 0, G, torch.bool), G, torch.zeros_like(G))
        return outputs

    def with_divergence(self, stages: Stages, i: int, x: Tensor, net_in: Tensor, trace: Trace) -> tuple[dict[str, Tensor], Tensor]:
        """The operands, and [P, B] estimates of the drift's divergence: one forward and one vector-Jacobian product for each probe.

        With v^T J_F the product for the network, div = (A - B a) v.v - B b c_in v^T J_F v, and likewise for F_u and G.
        """
        with torch.enable_grad():
            leaf = net_in.detach().requires_grad_()
            state = x.detach().requires_grad_() if self.guidance is not None else x
            outputs = self.operands(stages, i, state, leaf)
        if "G" in outputs and not outputs["G"].requires_grad:
            raise ValueError("guidance.gradient: expected a result that is differentiable in x (create_graph=True), got a detached one")
        through_net = {k: v for k, v in outputs.items() if k != "G"}
        if not all(v.requires_grad for v in through_net.values()):
            raise ValueError("net: expected an output that is differentiable in x_in, got a detached one")
        weights = {"F": stages["b"][i], "F_u": stages["b_u"][i]}
        estimates = []
        count = trace.probes or x[0].numel()
        for p in range(count):
            v = trace.probe(x, p) if trace.probes else _unit(x, p)
            # The weights go into the cotangents, so that one backward serves both calls of the network.
            cotangents = [(column(weights[k], x, x.dtype) * v).to(t.dtype) for k, t in through_net.items()]
            dot = (lambda g, p=p: trace.dot(g, p)) if trace.probes else (lambda g, p=p: g.reshape(len(g), -1)[:, p].double())
            last = p == count - 1
            squared = dot(v)
            divergence = (stages["c_x"][i] + stages["c_D"][i] * stages["a"][i]) * squared
            g = torch.autograd.grad(list(through_net.values()), leaf, cotangents, retain_graph=not last)[0]
            divergence = divergence + stages["c_D"][i] * stages.c_in[i] * dot(g)
            if "G" in outputs:
                g = torch.autograd.grad(outputs["G"], state, v.to(outputs["G"].dtype), retain_graph=not last)[0]
                divergence = divergence + stages["c_g"][i] * dot(g)
            estimates.append(divergence)
        result = torch.stack(estimates)
        return {k: v.detach() for k, v in outputs.items()}, result if trace.probes else result.sum(0, keepdim=True)

    def _unscaled(self, x: Tensor, stages: Stages, i: int) -> Tensor:
        return x / column(stages.scale[i], x, x.dtype)


def _unit(x: Tensor, p: int) -> Tensor:
    """The p-th unit vector of each sample."""
    v = torch.zeros_like(x)
    v.view(len(x), -1)[:, p] = 1
    return v
