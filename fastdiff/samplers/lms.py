"""Linear multistep: Adams-Bashforth in sigma on the slopes d = dx/dsigma = (x - D)/sigma of the probability-flow ODE.

    x' = x + sum_j w_j d_{i-j},   w_j = int_{sigma_i}^{sigma_{i+1}} prod_{k != j} (s - sigma_{i-k})/(sigma_{i-j} - sigma_{i-k}) ds

for the unscaled state: the polynomial through the last slopes, integrated exactly. Slopes are kept, not D, so a and b make slopes.

Sources: Hairer, Norsett and Wanner, chapter III.1; k-diffusion's lms.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..parametrizations import Parametrization
from ..plan import Plan, Row
from ._rows import Level, SigmaSampler, expect, make_row


def adams_weights(sigmas: Sequence[float], i: int, order: int) -> list[float]:
    """Weights of the slopes at levels i, i - 1, ..., i - order + 1 in the step from level i to level i + 1.

    Args:
        sigmas: the levels; i: the step; order: how many slopes, at most i + 1.

    Raises:
        ValueError: more slopes than there have been levels, or two equal levels among them.
    """
    expect("order", order, 1 <= order <= i + 1, f"an integer from 1 to {i + 1} at step {i}")
    nodes, start, end = [float(sigmas[i - k]) for k in range(order)], float(sigmas[i]), float(sigmas[i + 1])
    expect("sigmas", list(sigmas), len(set(nodes)) == order, f"levels {i - order + 1} to {i} that differ")
    points, shares = np.polynomial.legendre.leggauss((order + 1) // 2)  # exact for polynomials of degree order - 1
    half = (end - start) / 2
    at = start + half * (points + 1)
    weights = []
    for j, node in enumerate(nodes):
        others = [(at - other) / (node - other) for k, other in enumerate(nodes) if k != j]
        weights.append(float(half * (shares * np.prod(others, axis=0)).sum()))
    return weights


def usable_order(sigmas: Sequence[float], i: int, order: int) -> int:
    """The order at step i: beyond the first level, or a repeated one, there is nothing to interpolate through."""
    order = min(order, i + 1)
    while len(set(sigmas[i + 1 - order : i + 1])) < order:
        order -= 1
    return order


@dataclass(frozen=True)
class LinearMultistep(SigmaSampler):
    """Adams-Bashforth on slopes, one call a step (k-diffusion's lms); the first steps have a lower order.

    Args:
        order: 1 (Euler) to 4.
    """

    order: int = 4

    def __post_init__(self) -> None:
        expect("order", self.order, self.order in (1, 2, 3, 4), "1, 2, 3 or 4")

    def plan(self, net: Parametrization) -> Plan:
        """The table for a network of the given parametrization."""
        levels = self.levels(net)
        sigmas = [level.sigma for level in levels]
        rows: list[Row] = []
        for i, (at, to) in enumerate(itertools.pairwise(levels)):
            weights = adams_weights(sigmas, i, usable_order(sigmas, i, self.order))
            rows.append(self.row(net, at, to, weights, forget=i >= max(self.order - 1, 1), remaining=len(levels) - 2 - i))
        return Plan(f"LinearMultistep {self.order} {len(rows)} steps", tuple(rows), levels[0].std)

    @staticmethod
    def row(net: Parametrization, at: Level, to: Level, weights: Sequence[float], *, forget: int, remaining: int) -> Row:
        """The step with given weights of the slope at this call and of earlier ones, whose slope is kept."""
        p, q = net.noise(at.sigma)  # the slope is eps
        first, *earlier = (to.scale * weight for weight in weights)
        more = {"a": p / at.scale, "b": q} | {f"c_h{k}": w for k, w in enumerate(earlier, 1)}
        row = make_row(net, at, to, to.scale / at.scale, first, more=more, keep="d", forget=forget, remaining=remaining)
        return replace(row, response=-first / at.sigma)
