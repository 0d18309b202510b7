"""DPM-Solver-fast: singlestep exponential integrators of order 3, and of lower order at the end, so that the calls come out even.

With h = ln(sigma/sigma'), eps = (x - D)/sigma, levels sigma_k = sigma*e^(-r_k h) and x_1 = x + (sigma_1 - sigma) eps,

    order 1: x' = x + (sigma' - sigma) eps
    order 2: x' = x + (sigma' - sigma) (eps + 1/(2 r_1) (eps_1 - eps))
    order 3: x_2 = x + (sigma_2 - sigma) eps + k_2 (eps_1 - eps),  k_2 = sigma_2 r_2/r_1 (1 - (e^(r_2 h) - 1)/(r_2 h))
             x'  = x + (sigma' - sigma) eps + k_3 (eps_2 - eps),   k_3 = sigma'/r_2 (1 - (e^h - 1)/h)

for the unscaled state. The first slope need not be kept: eps = (x_1 - x)/(sigma_1 - sigma), so states are.

Source: Lu et al. 2022 (arXiv:2206.00927), algorithms 1 to 3 and section 3.4; k-diffusion's dpm_fast.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from ..parametrizations import Parametrization
from ..plan import Plan, Row
from ._rows import Level, Sampler, ancestral_split, expect, make_row


def inner_level(sigma: float, to: float, r: float) -> float:
    """The level after a share r of the step in ln sigma."""
    return sigma ** (1 - r) * to**r


def second_weight(sigma: float, to: float, r1: float = 1 / 2) -> float:
    """Weight of eps_1 - eps at the end of a step of order 2."""
    return (to - sigma) / (2 * r1)


def third_weight(sigma: float, to: float, r: float, r_to: float = 1.0) -> float:
    """k of eps_k - eps in a step of order 3 that has come to the level `to`, a share r_to of its way; eps_k is from r of its way."""
    h = math.log(sigma / to)
    return to * r_to / r * (1 - math.expm1(h) / h)


@dataclass(frozen=True)
class DPMSolverFast(Sampler):
    """DPM-Solver-fast from sigma_max to sigma_min, not to 0; the state is x0 + sigma*z.

    Args:
        calls: of the network in all.
        sigma_min, sigma_max: where it ends and begins; the other way round it encodes (eta = 0 only).
        eta: 1 for ancestral noise, 0 for the ODE; s_noise: its factor.
    """

    calls: int = 20
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    eta: float = 0.0
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        expect("calls", self.calls, isinstance(self.calls, int) and self.calls >= 1, "an integer >= 1")
        expect("sigma_min", self.sigma_min, self.sigma_min > 0, "a number > 0")
        expect("sigma_max", self.sigma_max, self.sigma_max > 0 and self.sigma_max != self.sigma_min, "a number > 0, not sigma_min")
        falling = self.sigma_max > self.sigma_min
        expect("eta", self.eta, self.eta >= 0 and (falling or not self.eta), "a number >= 0" if falling else "0 where sigma rises")

    @property
    def orders(self) -> list[int]:
        """The order of each step, which is also its number of calls."""
        whole, rest = divmod(self.calls, 3)
        return [3] * whole + [rest] if rest else [3] * (whole - 1) + [2, 1]

    @property
    def levels(self) -> list[float]:
        """The levels of the states between the steps, even in ln sigma."""
        steps = len(self.orders)
        high, low = math.log(self.sigma_max), math.log(self.sigma_min)
        return [float(self.sigma_max), *(math.exp(high + (low - high) * i / steps) for i in range(1, steps)), float(self.sigma_min)]

    def plan(self, net: Parametrization) -> Plan:
        """The table for a network of the given parametrization."""
        rows: list[Row] = []
        orders = self.orders
        for i, (sigma, following) in enumerate(itertools.pairwise(self.levels)):
            down, up = following, 0.0
            if self.eta:
                down = max(ancestral_split(sigma, following, self.eta)[0], self.sigma_min)
                up = math.sqrt(max(following**2 - down**2, 0.0)) * self.s_noise
            rows += self._step(net, orders[i], sigma, down, following, up, i, len(orders) - 1 - i)
        name = f"DPM-Solver-fast {self.calls} calls" + (f", eta {self.eta:g}" if self.eta else "")
        return Plan(name, tuple(rows), self.sigma_max, draws=1 + max(row.draw for row in rows))

    def _step(
        self, net: Parametrization, order: int, sigma: float, down: float, following: float, up: float, draw: int, remaining: int
    ) -> list[Row]:
        noise, last = {"c_n": up} if up else {}, {"draw": draw if up else -1, "remaining": remaining}
        at, to = Level(sigma), Level(following)
        if order == 1:
            return [make_row(net, at, to, down / sigma, 1 - down / sigma, more=noise, **last)]
        r1 = 1 / order
        first = Level(inner_level(sigma, down, r1))
        ratio = first.sigma / sigma
        rows = [make_row(net, at, first, ratio, 1 - ratio, keep="x", remaining=remaining)]
        travelled = first.sigma - sigma
        if order == 2:
            k = second_weight(sigma, down, r1)
            on_first = (down - sigma - k) / travelled  # of x_1 - x
            c_x, more = on_first + k / first.sigma, {"c_h1": 1 - on_first} | noise
            return [*rows, make_row(net, first, to, c_x, -k / first.sigma, more=more, forget=1, noise_from=sigma, **last)]
        second = Level(inner_level(sigma, down, 2 / 3))
        k = third_weight(sigma, second.sigma, r1, 2 / 3)
        on_first = (second.sigma - sigma - k) / travelled
        more = {"c_h1": 1 - on_first}
        rows.append(make_row(net, first, second, on_first + k / first.sigma, -k / first.sigma, more=more, keep="x", remaining=remaining))
        k = third_weight(sigma, down, 2 / 3)
        on_first = (down - sigma - k) / travelled
        more = {"c_h1": on_first, "c_h2": 1 - on_first} | noise
        return [*rows, make_row(net, second, to, k / second.sigma, -k / second.sigma, more=more, forget=2, noise_from=sigma, **last)]
