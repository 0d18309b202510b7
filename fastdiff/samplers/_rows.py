"""How samplers make rows: one step between two noise levels, for a network of any parametrization."""

from __future__ import annotations

import itertools
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ..parametrizations import Parametrization
from ..plan import Plan, Row
from ..schedules import Linear, Schedule, edm_sigmas


class Level(NamedTuple):
    """A noise level: the state is x = scale*(x0 + sigma*z)."""

    sigma: float
    scale: float = 1.0

    @property
    def std(self) -> float:
        """scale*sigma."""
        return self.scale * self.sigma

    @classmethod
    def of(cls, schedule: Schedule, t: float) -> Level:
        """The level of a schedule at time t."""
        return cls(float(schedule.sigma(t)), float(schedule.scale(t)))


#: Where sampling ends.
CLEAN = Level(0.0, 1.0)


class Sampler(ABC):
    """Makes the plan for a network of a given parametrization."""

    @abstractmethod
    def plan(self, net: Parametrization) -> Plan:
        """The table for a network of the given parametrization."""


def make_row(net: Parametrization, at: Level, to: Level, c_x: float, c_D: float, *, more: dict[str, float] | None = None, **extra) -> Row:
    """The row of y = c_x*x + c_D*D + ..., called at one level and leading to another, with the network's (a, b) folded in."""
    a, b = net.denoiser(at.sigma)
    coef = {"a": a / at.scale, "b": b, "c_x": c_x, "c_D": c_D} | (more or {})
    return Row(
        at.sigma, at.scale, net.label(at.sigma), net.c_in(at.sigma) / at.scale, coef,
        response=c_D, next_sigma=to.sigma, next_scale=to.scale, **extra,
    )  # fmt: skip


def score_row(
    net: Parametrization, at: Level, to: Level, m: float, c_score: float, G: float = 0.0, *, draw: int = -1, **extra
) -> Row:  # fmt: skip
    """The row of y = m*x + c*score + G*z, by score = (s*D - x)/(s*sigma)^2."""
    variance = at.std**2
    noise = {"c_n": G} if G else {}
    return make_row(net, at, to, m - c_score / variance, c_score * at.scale / variance, more=noise, draw=draw if G else -1, **extra)


@dataclass(frozen=True)
class SigmaSampler(Sampler):
    """What samplers in sigma-space share: their noise levels, from sigma_max down to sigma_min and then 0.

    Args:
        steps: noise levels above 0.
        sigma_min, sigma_max, rho: EDM's discretization (Karras et al. 2022, eq. 5), clamped to what the network supports.
        sigmas: the levels themselves instead, from large to small; a last 0 is added where it is missing and `to_zero`.
        to_zero: end at 0; else at the last of the given sigmas.
        falling: False lets given sigmas stay where they are and, without noise, rise: encoding, restarts.
        scaling: "none" for a state x0 + sigma*z, "vp" for (x0 + sigma*z)/sqrt(1 + sigma^2).
    """

    steps: int = 18
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    sigmas: Sequence[float] | None = None
    to_zero: bool = True
    scaling: Literal["none", "vp"] = "none"
    falling: bool = True

    def levels(self, net: Parametrization) -> list[Level]:
        """The levels of the states, calls happen at all but the last."""
        schedule = Linear(self.scaling)
        if self.sigmas is None:
            expect("steps", self.steps, isinstance(self.steps, int) and self.steps >= 1, "an integer >= 1")
            expect("rho", self.rho, self.rho > 0, "a number > 0")
            low, high = max(self.sigma_min, net.sigma_min), min(self.sigma_max, net.sigma_max)
            if not 0 < low <= high:
                raise ValueError(f"sigma_min, sigma_max: expected 0 < sigma_min <= sigma_max, got {low} and {high}")
            sigmas = [net.round_sigma(float(s)) for s in edm_sigmas(self.steps, low, high, self.rho)]
        else:
            sigmas = [float(s) for s in self.sigmas]
        if self.to_zero and (not sigmas or sigmas[-1] != 0):
            sigmas.append(0.0)
        check_levels(sigmas, "strictly" if self.falling else "weakly" if getattr(self, "eta", 0) else "")
        return [Level(s, float(schedule.scale(s))) for s in sigmas]


def check_levels(sigmas: Sequence[float], falling: Literal["strictly", "weakly", ""]) -> None:
    """Raise ValueError where these are no noise levels to go through: at least two, > 0 but for a last 0, falling or in any order."""
    in_order = {"strictly": operator.lt, "weakly": operator.le, "": lambda b, a: True}[falling]
    if len(sigmas) < 2 or not all(0 < a < math.inf and 0 <= b < math.inf and in_order(b, a) for a, b in itertools.pairwise(sigmas)):
        order = {"strictly": "that fall and stay >= 0", "weakly": "that never rise and stay >= 0", "": "> 0 (the last may be 0)"}[falling]
        raise ValueError(f"sigmas: expected at least two levels {order}, got {list(sigmas)}")


def expect(name: str, value, valid: bool, expected: str) -> None:
    """Raise ValueError where a sampler's argument is not valid."""
    if not valid:
        raise ValueError(f"{name}: expected {expected}, got {value!r}")


def ancestral_split(sigma: float, following: float, eta: float) -> tuple[float, float]:
    """(sigma_down, sigma_up): go down further than to `following`, then add noise, eta = 1 for all of the posterior's."""
    up = min(following, eta * math.sqrt(max(following**2 * (sigma**2 - following**2) / sigma**2, 0.0)))
    return math.sqrt(max(following**2 - up**2, 0.0)), up
