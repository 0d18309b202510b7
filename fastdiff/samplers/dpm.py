"""Exponential integrators in lambda = -ln sigma: DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095) and Euler-ancestral.

The reverse SDE with noise strength eta (eta = 0: the probability-flow ODE) from sigma to sigma' = sigma*exp(-h) integrates to

    x' = e^(-h(1+eta)) x + (1+eta) int_0^h e^(-(h-u)(1+eta)) D(u) du + sigma' sqrt(1 - e^(-2 eta h)) z

for the unscaled state. The methods differ in how they interpolate D in u from calls already made: a constant (order 1), or the
line or parabola through earlier D (2M, 3M) or through a call half way (2S).
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

from ..parametrizations import Parametrization
from ..plan import Plan, Row
from ..schedules import Linear
from ._rows import Level, SigmaSampler, ancestral_split, expect, make_row


@dataclass(frozen=True)
class _Multistep(SigmaSampler):
    """One call a step; D of up to two earlier calls is kept."""

    eta: float = 0.0
    s_noise: float = 1.0
    _kept = 0

    def __post_init__(self) -> None:
        expect("eta", self.eta, self.eta >= 0, "a number >= 0")

    @abstractmethod
    def weights(self, h: float, past: list[float]) -> list[float]:
        """Weights of D, D_1, ... in the step of length h (inf: to sigma = 0) after steps of lengths past[0], past[1], ..."""

    def row(self, net: Parametrization, at: Level, to: Level, past: list[float], *, draw: int, **extra) -> Row:
        """The step from one level to another after steps of lengths past[0], past[1], ..., whose D are in the history."""
        h = step_length(at, to)
        weights = [to.scale * w for w in self.weights(h, past)]
        noise = to.std * math.sqrt(-math.expm1(-2 * self.eta * h)) * self.s_noise if to.sigma and self.eta else 0.0
        c_x = to.scale / at.scale * math.exp(-h * (1 + self.eta))
        more = {f"c_h{k}": w for k, w in enumerate(weights[1:], 1)} | ({"c_n": noise} if noise else {})
        return make_row(net, at, to, c_x, weights[0], more=more, draw=draw if noise else -1, **extra)

    def plan(self, net: Parametrization) -> Plan:
        """The table for a network of the given parametrization."""
        levels = self.levels(net)
        rows: list[Row] = []
        past: list[float] = []
        for i, (at, to) in enumerate(itertools.pairwise(levels)):
            keeping = {"keep": "D", "forget": i >= self._kept} if self._kept else {}
            rows.append(self.row(net, at, to, past, draw=i, remaining=len(levels) - 2 - i, **keeping))
            past = [step_length(at, to), *past][: self._kept]
        name = f"{type(self).__name__} {len(rows)} steps" + (f", eta {self.eta:g}" if self.eta else "")
        return Plan(name, tuple(rows), levels[0].std, draws=1 + max(row.draw for row in rows))


@dataclass(frozen=True)
class DPMSolver2M(_Multistep):
    """DPM-Solver++(2M), and with eta > 0 its SDE form (SDE-DPM-Solver++(2M), eta = 1).

    Args:
        eta: noise strength; s_noise: factor of the noise.
        solver: "midpoint" takes D at the middle of the step (the paper's), "heun" integrates the line exactly.
    """

    solver: Literal["midpoint", "heun"] = "midpoint"
    _kept = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        expect("solver", self.solver, self.solver in ("midpoint", "heun"), "'midpoint' or 'heun'")

    def weights(self, h: float, past: list[float]) -> list[float]:
        long = h * (1 + self.eta)
        whole = -math.expm1(-long)
        past = distinct(past)
        if not past or h in (0, math.inf):
            return [whole]
        slope = 0.5 * whole if self.solver == "midpoint" else phi_2(long)
        return [whole + slope * h / past[0], -slope * h / past[0]]


@dataclass(frozen=True)
class DPMSolver3M(_Multistep):
    """DPM-Solver++(3M), and with eta > 0 its SDE form.

    Args:
        eta: noise strength; s_noise: factor of the noise.
        variant: "exact" integrates the parabola through three D, order 3; "published" gives its second difference half the weight, as
            the widespread programs do: order 2, and only there for parity with them.
    """

    variant: Literal["exact", "published"] = "exact"
    _kept = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        expect("variant", self.variant, self.variant in ("exact", "published"), "'exact' or 'published'")

    def weights(self, h: float, past: list[float]) -> list[float]:
        long = h * (1 + self.eta)
        whole = -math.expm1(-long)
        past = distinct(past)
        if not past or h in (0, math.inf):
            return [whole]
        r0, p2 = past[0] / h, phi_2(long)
        if len(past) == 1:
            return [whole + p2 / r0, -p2 / r0]
        # Newton's divided differences: d_0 = (D - D_1)/r0, d_1 = (D_1 - D_2)/r1, first and second derivative in u/h.
        r1, p3 = past[1] / h, phi_2(long) / long - 0.5
        first, second = 1 + r0 / (r0 + r1), (2 if self.variant == "exact" else 1) / (r0 + r1)
        on_d0 = p2 * first - p3 * second
        on_d1 = -p2 * r0 / (r0 + r1) + p3 * second
        return [whole + on_d0 / r0, -on_d0 / r0 + on_d1 / r1, -on_d1 / r1]


def step_length(at: Level, to: Level) -> float:
    """h, the length of a step in lambda = -ln sigma; inf where it ends at sigma = 0."""
    return math.log(at.sigma / to.sigma) if to.sigma else math.inf


def distinct(past: list[float]) -> list[float]:
    """Lengths of past steps up to the first of length 0: beyond a repeated noise level there is nothing to interpolate through."""
    return list(itertools.takewhile(bool, past))


def singlestep_weights(h: float, inner: list[float], eta: float = 0.0, solver: str = "midpoint") -> list[float]:
    """Weights of D at inner points, the last first, and of D at the start, in one step of length h: DPM-Solver++(2S) and (3S).

    Args:
        h: length of the whole step; inner: lengths from its start to each of up to two inner points, the last first.
        eta: noise strength; solver: "midpoint" takes the slope to the last inner point, "heun" the line or parabola through all D.
    """
    long = h * (1 + eta)
    whole = -math.expm1(-long)
    if not inner:
        return [whole]
    if h in (0, math.inf) or 0 in inner:
        return [*[0.0] * len(inner), whole]
    ratios = [length / h for length in inner]
    if len(inner) == 1:
        slope = (0.5 * whole if solver == "midpoint" else phi_2(long)) / ratios[0]
        return [slope, whole - slope]
    r0, r1 = ratios
    p2, p3 = phi_2(long), phi_2(long) / long - 0.5
    if solver == "midpoint":
        return [p2 / r0, 0.0, whole - p2 / r0]
    # First and second derivative at the start of the parabola through D at 0, r1 and r0, in units of h.
    on_r0 = (-p2 * r1 - 2 * p3) / (r0 - r1) / r0
    on_r1 = (p2 * r0 + 2 * p3) / (r0 - r1) / r1
    return [on_r0, on_r1, whole - on_r0 - on_r1]


def phi_2(h: float) -> float:
    """(h - 1 + e^-h)/h, by its series where that cancels."""
    return h / 2 - h**2 / 6 + h**3 / 24 - h**4 / 120 if abs(h) < 1e-3 else 1 + math.expm1(-h) / h


@dataclass(frozen=True)
class DPMSolver2S(SigmaSampler):
    """DPM-Solver++(2S): a call half way (in lambda) and then a whole step with that D; eta > 0 adds ancestral noise.

    Args:
        eta: 0 for the ODE, 1 for all of the posterior's noise (k-diffusion's dpmpp_2s_ancestral); s_noise: its factor.
    """

    eta: float = 0.0
    s_noise: float = 1.0

    def plan(self, net: Parametrization) -> Plan:
        """The table for a network of the given parametrization."""
        levels = self.levels(net)
        rows: list[Row] = []
        draws = 0
        for i, (at, to) in enumerate(itertools.pairwise(levels)):
            down, up = ancestral_split(at.sigma, to.sigma, self.eta)
            remaining = len(levels) - 2 - i
            noise = to.scale * up * self.s_noise
            more, draw = ({"c_n": noise}, draws) if noise else ({}, -1)
            if down == 0:
                rows.append(make_row(net, at, to, 0.0, to.scale, more=more, draw=draw, remaining=remaining))
            else:
                half = Level.of(Linear(self.scaling), math.sqrt(at.sigma * down))
                ratio = half.sigma / at.sigma
                rows.append(make_row(net, at, half, half.scale / at.scale * ratio, half.scale * (1 - ratio), remaining=remaining, keep="x"))
                more = more | {"c_h1": to.scale / at.scale * down / at.sigma}
                c_D = to.scale * (1 - down / at.sigma)
                extra = {"forget": True, "noise_from": at.sigma}
                rows.append(make_row(net, half, to, 0.0, c_D, more=more, draw=draw, remaining=remaining, **extra))
            draws += bool(self.eta and to.sigma)  # one for each step, though a repeated level adds nothing
        return Plan(f"DPMSolver2S {len(levels) - 1} steps", tuple(rows), levels[0].std, draws=draws)


@dataclass(frozen=True)
class EulerAncestral(SigmaSampler):
    """Euler steps to sigma_down and fresh noise sigma_up (k-diffusion's euler_ancestral).

    Args:
        eta: 1 for all of the posterior's noise, 0 for Euler; s_noise: its factor.
    """

    eta: float = 1.0
    s_noise: float = 1.0

    def plan(self, net: Parametrization) -> Plan:
        """The table for a network of the given parametrization."""
        levels = self.levels(net)
        rows: list[Row] = []
        for i, (at, to) in enumerate(itertools.pairwise(levels)):
            down, up = ancestral_split(at.sigma, to.sigma, self.eta)
            noise = to.scale * up * self.s_noise
            ratio = down / at.sigma
            more = {"c_n": noise} if noise else {}
            c_x, c_D = to.scale / at.scale * ratio, to.scale * (1 - ratio)
            rows.append(make_row(net, at, to, c_x, c_D, more=more, draw=i if noise else -1, remaining=len(levels) - 2 - i))
        return Plan(
            f"Euler ancestral {len(rows)} steps, eta {self.eta:g}", tuple(rows), levels[0].std, draws=1 + max(row.draw for row in rows)
        )
