"""DDPM's ancestral sampling (Ho et al. 2020, arXiv:2006.11239) and DDIM (Song et al. 2021, arXiv:2010.02502).

Both are one step between two points (alpha, std) of a schedule, x = alpha*x0 + std*z, so both take any sub-sequence of its times:

    DDPM   y = m_x*x + m_0*D + s*z                          the posterior q(x_s | x_t, x0), eq. 7
    DDIM   c_x = std_s/std_t*sqrt(1 - eta^2*tau),  c_D = alpha_s - alpha_t*c_x,  c_n = eta*std_s*sqrt(tau)
           tau = 1 - (alpha_t/alpha_s*std_s/std_t)^2        eq. 12 and 16
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ..discrete import Discrete
from ..parametrizations import Parametrization
from ..plan import Plan, Row
from ..schedules import Schedule, posterior
from ..sdes import SDE
from ._rows import CLEAN, Level, Sampler, expect, make_row


@dataclass(frozen=True)
class _TwoPoints(Sampler):
    """Steps between neighbouring times of a schedule; the last leads to clean data.

    Args:
        schedule: a Discrete schedule (DDPM's betas), an SDE, or any other.
        steps: how many of its times, evenly spaced; None for all of a discrete one (50 of any other).
        times: the times themselves instead, from large to small; for a discrete schedule the timesteps.
    """

    schedule: Schedule = field(default_factory=Discrete)
    steps: int | None = None
    times: Sequence[float] | None = None

    def sequence(self) -> list[float]:
        """The times of the calls, from large to small."""
        schedule = self.schedule
        if self.times is not None:
            times = [float(t) for t in self.times]
            if len(times) > 1 and times[-1] == 0 and not isinstance(schedule, Discrete):
                times.pop()  # the last step leads to clean data anyway
            low, high = (0, len(schedule) - 1) if isinstance(schedule, Discrete) else (0, math.inf)
            expect("times", times, all(low <= t <= high for t in times), f"times from {low} to {high}")
            expect("times", times, bool(times) and all(b < a for a, b in itertools.pairwise(times)), "falling times")
            return times
        if isinstance(schedule, Discrete):
            count = len(schedule) if self.steps is None else self.steps
            expect("steps", count, 1 <= count <= len(schedule), f"an integer from 1 to {len(schedule)}")
            return [float(t) for t in np.rint(np.linspace(len(schedule) - 1, 0, count))]
        if not isinstance(schedule, SDE):
            raise ValueError(f"times: expected them, since {type(schedule).__name__} has no end of its own, got none")
        count = 50 if self.steps is None else self.steps
        expect("steps", count, isinstance(count, int) and count >= 1, "an integer >= 1")
        return [float(t) for t in np.linspace(schedule.T, schedule.eps, count)]

    def plan(self, net: Parametrization) -> Plan:
        """The table for a network of the given parametrization."""
        levels = [*(Level.of(self.schedule, t) for t in self.sequence()), CLEAN]
        rows = [self.step(net, at, to, draw=i, remaining=len(levels) - 2 - i) for i, (at, to) in enumerate(itertools.pairwise(levels))]
        prior = self.schedule.prior_std if isinstance(self.schedule, SDE) else math.hypot(levels[0].scale, levels[0].std)
        return Plan(f"{type(self).__name__} {len(rows)} steps", tuple(rows), prior, draws=len(rows))

    @abstractmethod
    def step(self, net: Parametrization, at: Level, to: Level, draw: int, remaining: int) -> Row:
        """One step from a level to the next."""


@dataclass(frozen=True)
class DDPM(_TwoPoints):
    """Ancestral sampling.

    Args:
        variance: "small": that of the posterior given x0; "large": beta; "learned": between the two in the logarithm, as the
            second half of the network's output channels says (Nichol and Dhariwal 2021, eq. 15).
    """

    variance: Literal["small", "large", "learned"] = "small"

    def __post_init__(self) -> None:
        expect("variance", self.variance, self.variance in ("small", "large", "learned"), "'small', 'large' or 'learned'")

    def step(self, net: Parametrization, at: Level, to: Level, draw: int, remaining: int) -> Row:
        m_x, m_0, small = posterior((at.scale, at.std), (to.scale, to.std))
        large = math.sqrt(max(at.std**2 - (at.scale / to.scale * to.std) ** 2, 0.0))
        if to.sigma == 0:  # no noise in the last step
            learned = (0.0, 0.0) if self.variance == "learned" else None
            return make_row(net, at, to, m_x, m_0, remaining=remaining, learned=learned)
        if self.variance == "learned":
            bounds = (math.log(small), math.log(large))
            return make_row(net, at, to, m_x, m_0, more={"c_n": 1.0}, draw=draw, remaining=remaining, learned=bounds)
        noise = small if self.variance == "small" else large
        return make_row(net, at, to, m_x, m_0, more={"c_n": noise}, draw=draw, remaining=remaining)


@dataclass(frozen=True)
class DDIM(_TwoPoints):
    """The non-Markovian family with DDPM's marginals.

    Args:
        eta: 0 is deterministic (a step of the probability-flow ODE), 1 is DDPM with the small variance.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        expect("eta", self.eta, 0 <= self.eta <= 1, "a number in [0, 1]")

    def step(self, net: Parametrization, at: Level, to: Level, draw: int, remaining: int) -> Row:
        tau = 1 - (at.scale / to.scale * to.std / at.std) ** 2
        c_x = to.std / at.std * math.sqrt(max(1 - self.eta**2 * tau, 0.0))
        noise = self.eta * to.std * math.sqrt(max(tau, 0.0))
        more = {"c_n": noise} if noise else {}
        return make_row(net, at, to, c_x, to.scale - at.scale * c_x, more=more, draw=draw if noise else -1, remaining=remaining)
