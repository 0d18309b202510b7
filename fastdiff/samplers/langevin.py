"""Langevin dynamics at one noise level, and annealed through several (Song and Ermon 2019, arXiv:1907.05600, algorithm 1).

x <- x + a/2*score(x; sigma) + sqrt(a)*z
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..discrete import geometric_sigmas
from ..parametrizations import Parametrization
from ..plan import Plan, Row
from ._rows import CLEAN, Level, Sampler, expect, make_row, score_row


@dataclass(frozen=True)
class Langevin(Sampler):
    """Unadjusted Langevin dynamics of the density at one noise level.

    Args:
        sigma: the noise level; steps: how many; step_size: a.
        prior_std: standard deviation of the first state; None for sqrt(1 + sigma^2).
    """

    sigma: float
    step_size: float
    steps: int = 100
    prior_std: float | None = None

    def plan(self, net: Parametrization) -> Plan:
        """The table for a network of the given parametrization."""
        expect("sigma", self.sigma, self.sigma > 0, "a number > 0")
        expect("step_size", self.step_size, self.step_size > 0, "a number > 0")
        expect("steps", self.steps, isinstance(self.steps, int) and self.steps >= 1, "an integer >= 1")
        at = Level(self.sigma)
        prior = math.sqrt(1 + self.sigma**2) if self.prior_std is None else self.prior_std
        half, noise = self.step_size / 2, math.sqrt(self.step_size)
        rows = tuple(score_row(net, at, at, 1.0, half, noise, draw=i, remaining=self.steps - 1 - i) for i in range(self.steps))
        return Plan(f"Langevin {self.steps} steps at sigma {self.sigma:g}", rows, prior, draws=self.steps)


@dataclass(frozen=True)
class AnnealedLangevin(Sampler):
    """NCSN's sampler: at each level a_i = eps*sigma_i^2/sigma_L^2, `steps_each` steps.

    Args:
        sigmas: sigma_1 > ... > sigma_L; default 10 levels from 1 to 0.01 in equal ratios.
        steps_each: T; eps: step size at the last level.
        denoise: end with D of the last state (Jolicoeur-Martineau et al. 2021), one more call.
        prior_std: standard deviation of the first state; None for sigma_1.
    """

    sigmas: Sequence[float] | None = None
    steps_each: int = 100
    eps: float = 2e-5
    denoise: bool = False
    prior_std: float | None = None

    def plan(self, net: Parametrization) -> Plan:
        """The table for a network of the given parametrization."""
        sigmas = [float(s) for s in (geometric_sigmas() if self.sigmas is None else self.sigmas)]
        falling = all(b < a for a, b in itertools.pairwise(sigmas))
        expect("sigmas", sigmas, bool(sigmas) and falling and sigmas[-1] > 0, "levels > 0, from large to small")
        expect("eps", self.eps, self.eps > 0, "a number > 0")
        expect("steps_each", self.steps_each, self.steps_each >= 1, "an integer >= 1")
        rows: list[Row] = []
        for i, sigma in enumerate(sigmas):
            at = Level(sigma)
            size = self.eps * sigma**2 / sigmas[-1] ** 2
            for _ in range(self.steps_each):
                rows.append(score_row(net, at, at, 1.0, size / 2, math.sqrt(size), draw=len(rows), remaining=len(sigmas) - 1 - i))
        draws = len(rows)
        if self.denoise:
            rows.append(make_row(net, Level(sigmas[-1]), CLEAN, 0.0, 1.0))
        prior = sigmas[0] if self.prior_std is None else self.prior_std
        return Plan(f"annealed Langevin {len(sigmas)} levels of {self.steps_each} steps", tuple(rows), prior, draws=draws)
