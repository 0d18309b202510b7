"""Two calls a step with noise: DPM-Solver-2 in ancestral form, and SDE-DPM-Solver++(2S).

With (down, up) the ancestral split of the step from sigma to sigma' (deterministic to `down`, then noise `up`):

    DPM-2:   x_m = m/sigma x + (1 - m/sigma) D,  m = sqrt(sigma*down)
             x'  = x + (down - sigma) (x_m - D_m)/m + up z
    SDE-2S:  x_m = down_m/sigma x + (1 - down_m/sigma) D + up_m z_m,  m = sigma^(1-r) sigma'^r
             x'  = down/sigma x + (1 - down/sigma) ((1 - 1/(2r)) D + 1/(2r) D_m) + up z

for the unscaled state, with D_m = D(x_m; m). (The deterministic DPM-2 with churn is EDMSampler's solver "dpm_2".)

Sources: Lu et al. 2022, arXiv:2206.00927 (DPM-Solver-2), and arXiv:2211.01095 (DPM-Solver++); k-diffusion for both ancestral forms.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from dataclasses import dataclass

from ..parametrizations import Parametrization
from ..plan import Plan, Row
from ..schedules import Linear
from ._rows import Level, SigmaSampler, ancestral_split, expect, make_row


@dataclass(frozen=True)
class _TwoCalls(SigmaSampler):
    """Steps of two calls, and one to sigma = 0."""

    eta: float = 1.0
    s_noise: float = 1.0
    _draws = 1  # in each step

    def __post_init__(self) -> None:
        expect("eta", self.eta, self.eta >= 0, "a number >= 0")

    def plan(self, net: Parametrization) -> Plan:
        """The table for a network of the given parametrization."""
        levels = self.levels(net)
        rows: list[Row] = []
        for i, (at, to) in enumerate(itertools.pairwise(levels)):
            rows += self.step(net, at, to, i * self._draws, len(levels) - 2 - i)
        name = f"{type(self).__name__} {len(levels) - 1} steps, eta {self.eta:g}"
        return Plan(name, tuple(rows), levels[0].std, draws=1 + max(row.draw for row in rows))

    @abstractmethod
    def step(self, net: Parametrization, at: Level, to: Level, draw: int, remaining: int) -> list[Row]:
        """The rows of one step; its first noise is drawn at `draw`."""

    def middle(self, sigma: float) -> Level:
        """The level of the second call."""
        return Level.of(Linear(self.scaling), sigma)

    def noise(self, to: Level, up: float, draw: int) -> tuple[dict[str, float], int]:
        """(coefficients, draw) of noise `up` at a level."""
        c_n = to.scale * up * self.s_noise
        return ({"c_n": c_n}, draw) if c_n else ({}, -1)


@dataclass(frozen=True)
class DPM2Ancestral(_TwoCalls):
    """DPM-Solver-2 to sigma_down and fresh noise sigma_up (k-diffusion's dpm_2_ancestral).

    Args:
        eta: 1 for all of the posterior's noise, 0 for the ODE; s_noise: its factor.
    """

    def step(self, net: Parametrization, at: Level, to: Level, draw: int, remaining: int) -> list[Row]:
        down, up = ancestral_split(at.sigma, to.sigma, self.eta)
        more, draw = self.noise(to, up, draw)
        if down == 0:
            return [make_row(net, at, to, 0.0, to.scale, more=more, draw=draw, remaining=remaining)]
        half = self.middle(math.sqrt(at.sigma * down))
        ratio, slope = half.sigma / at.sigma, (down - at.sigma) / half.sigma
        more = more | {"c_h1": to.scale / at.scale}
        c_x, c_D = to.scale / half.scale * slope, -to.scale * slope
        return [
            make_row(net, at, half, half.scale / at.scale * ratio, half.scale * (1 - ratio), keep="x", remaining=remaining),
            make_row(net, half, to, c_x, c_D, more=more, draw=draw, forget=1, remaining=remaining, noise_from=at.sigma),
        ]


@dataclass(frozen=True)
class SDEDPMSolver2S(_TwoCalls):
    """SDE-DPM-Solver++(2S) (k-diffusion's dpmpp_sde): noise at the second call too.

    Args:
        eta: 1 for the reverse SDE, 0 for the ODE; s_noise: factor of the noise.
        r: where the second call is, as a share of the step in ln sigma.
    """

    r: float = 0.5
    _draws = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        expect("r", self.r, 0 < self.r <= 1, "0 < r <= 1")

    def step(self, net: Parametrization, at: Level, to: Level, draw: int, remaining: int) -> list[Row]:
        if to.sigma == 0:
            return [make_row(net, at, to, 0.0, to.scale, remaining=remaining)]
        middle = self.middle(at.sigma ** (1 - self.r) * to.sigma**self.r)
        down, up = ancestral_split(at.sigma, middle.sigma, self.eta)
        more, first = self.noise(middle, up, draw)
        ratio, share = down / at.sigma, 1 / (2 * self.r)
        keep = "x" if share == 1 else "xD"
        c_x, c_D = middle.scale / at.scale * ratio, middle.scale * (1 - ratio)
        rows = [make_row(net, at, middle, c_x, c_D, more=more, draw=first, keep=keep, remaining=remaining)]
        down, up = ancestral_split(at.sigma, to.sigma, self.eta)
        more, draw = self.noise(to, up, draw + 1)
        ratio = down / at.sigma
        more = more | {"c_h1": to.scale / at.scale * ratio} | ({"c_h2": to.scale * (1 - ratio) * (1 - share)} if share != 1 else {})
        c_D, extra = to.scale * (1 - ratio) * share, {"forget": len(keep), "noise_from": at.sigma}
        return [*rows, make_row(net, middle, to, 0.0, c_D, more=more, draw=draw, remaining=remaining, **extra)]
