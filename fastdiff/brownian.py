"""A Brownian path for SDE samplers that is a pure function of (key, noise level): refining the steps keeps the path.

The noise of a step from sigma to sigma' is the increment of a Brownian motion M in the clock q = 1/sigma^2, normalized:

    z = (M(q') - M(q))/sqrt(q' - q)

In that clock the noise of the exact reverse SDE is sigma'^2 (M(q') - M(q)) (what SDE-DPM-Solver++ adds), so runs with more steps
converge to the same sample. M is built by bridges on a dyadic grid of ln sigma: the value in the middle of a cell, given its ends, is
normal, with its own draw of the noise format. An increment is therefore a weighted sum of at most 2*depth + 1 draws, one launch of
`normal_sum`, whatever the number of steps, and never more than one tensor of memory.

Source: Levy's construction; Gaines and Lyons 1997; the virtual Brownian tree of Li et al. 2020 (arXiv:2001.01328).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from .noise import Stream
from .ops import normal_sum
from .plan import Plan


@dataclass(frozen=True)
class BrownianPath:
    """The path of each sample's key, between sigma_min and sigma_max.

    Args:
        sigma_min, sigma_max: the span; steps must lie within it, and two runs share a path if they share the span.
        depth: noise levels are rounded to 2^depth equal cells of ln sigma.
    """

    sigma_min: float = 1e-3
    sigma_max: float = 1e3
    depth: int = 12

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"sigma_min, sigma_max: expected 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")
        if not 1 <= self.depth <= 40:
            raise ValueError(f"depth: expected an integer from 1 to 40, got {self.depth}")

    def noise(self, like: Tensor, key: Tensor, sigma: float, following: float) -> Tensor:
        """[B, ...] standard normals: the path's increment from sigma to a lower level, normalized.

        Args:
            like: [B, ...], gives shape, dtype and device; key: [B] int64.

        Raises:
            ValueError: a level outside the span, or two levels in one cell.
        """
        return normal_sum(like, key, *_on_device(self, like.device, sigma, following), stream=Stream.PATH)

    def increment(self, sigma: float, following: float) -> tuple[list[int], list[float]]:
        """(draws, weights) of the normalized increment."""
        start, end = self._cell(sigma), self._cell(following)
        if not start < end:
            raise ValueError(f"sigma: expected levels more than a cell of the path apart (depth={self.depth}), got {sigma} and {following}")
        weights = self._value(end)
        for draw, weight in self._value(start).items():
            weights[draw] = weights.get(draw, 0.0) - weight
        width = math.sqrt(self._clock(end) - self._clock(start))
        kept = {draw: weight / width for draw, weight in sorted(weights.items()) if abs(weight) > 1e-12 * width}
        return list(kept), list(kept.values())

    def resolving(self, spans: Iterable[tuple[float, float]]) -> BrownianPath:
        """The same path on a grid fine enough for these pairs of levels; grids are nested, so what was drawn stays."""
        gaps = [math.log(high / low) for high, low in spans if 0 < low < high]
        if not gaps:
            return self
        needed = math.ceil(math.log2(math.log(self.sigma_max / self.sigma_min) / min(gaps)))
        return self if needed <= self.depth else replace(self, depth=needed)

    def table(self, plan: Plan, device: torch.device) -> list[tuple[Tensor, Tensor] | None]:
        """What each row of a plan needs, on the device; None where a row draws no noise between two levels."""
        return [_on_device(self, device, *span) if 0 < span[1] < span[0] else None for span in self.spans(plan)]

    @staticmethod
    def spans(plan: Plan) -> list[tuple[float, float]]:
        """The levels between which each row's noise leads; (0, 0) where it draws none."""
        return [(row.noise_from or row.sigma, row.next_sigma) if row.draw >= 0 else (0.0, 0.0) for row in plan.rows]

    def _cell(self, sigma: float) -> int:
        """The grid point nearest to a level, 0 at sigma_max."""
        if not self.sigma_min * (1 - 1e-9) <= sigma <= self.sigma_max * (1 + 1e-9):
            raise ValueError(f"sigma: expected a level within the path's span [{self.sigma_min}, {self.sigma_max}], got {sigma}")
        u = math.log(self.sigma_max / sigma) / math.log(self.sigma_max / self.sigma_min)
        return round(u * 2**self.depth)

    def _clock(self, point: int) -> float:
        """q = 1/sigma^2 at a grid point."""
        return self.sigma_max**-2 * (self.sigma_max / self.sigma_min) ** (2 * point / 2**self.depth)

    def _value(self, point: int) -> dict[int, float]:
        """M at a grid point (0 at the first) as weights of draws: draw 0 for the whole span, then the nodes of the tree in order."""
        low, high = 0, 2**self.depth
        at_low: dict[int, float] = {}
        at_high = {0: math.sqrt(self._clock(high) - self._clock(low))}
        node = 1
        while point not in (low, high):
            middle = (low + high) // 2
            q_low, q, q_high = (self._clock(p) for p in (low, middle, high))
            share = (q - q_low) / (q_high - q_low)
            value = {d: (1 - share) * at_low.get(d, 0.0) + share * at_high.get(d, 0.0) for d in at_low | at_high}
            value[node] = math.sqrt((q - q_low) * (q_high - q) / (q_high - q_low))
            if point <= middle:
                high, at_high, node = middle, value, 2 * node
            else:
                low, at_low, node = middle, value, 2 * node + 1
        return dict(at_low if point == low else at_high)


@lru_cache(maxsize=4096)
def _on_device(path: BrownianPath, device: torch.device, sigma: float, following: float) -> tuple[Tensor, Tensor]:
    """An increment's draws and weights on the device, made once."""
    draws, weights = path.increment(sigma, following)
    return torch.tensor(draws, device=device), torch.tensor(weights, dtype=torch.float64, device=device)
