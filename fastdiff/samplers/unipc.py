"""UniPC (Zhao et al. 2023, arXiv:2302.04867): a predictor and a corrector that share one network call.

With h the step in lambda = -ln sigma, r = e^-h and D_k the estimates of earlier calls, the predictor and the corrector of the
step to level i are, for the unscaled state,

    x~_i = r x_{i-1} + sum_k P_k D_{i-1-k}
    x_i  = r x_{i-1} + sum_k C_k D_{i-1-k} + C D_i,   D_i = D(x~_i)

so that x_i = x~_i + sum_k (C_k - P_k) D_{i-1-k} + C D_i: the corrected state need not be kept, and correcting step i together with
predicting step i + 1 is one row.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..parametrizations import Parametrization
from ..plan import Plan, Row
from ._rows import SigmaSampler, expect, make_row
from .dpm import distinct


@dataclass(frozen=True)
class UniPC(SigmaSampler):
    """UniPC in multistep form on data predictions.

    Args:
        order: 1, 2 or 3, lower in the first steps and, to end well, in the last ones.
        variant: "bh1" (B = h) or "bh2" (B = e^h - 1) of the paper; correct: whether the corrector is used.
    """

    order: int = 2
    variant: Literal["bh1", "bh2"] = "bh2"
    correct: bool = True

    def __post_init__(self) -> None:
        expect("order", self.order, self.order in (1, 2, 3), "1, 2 or 3")
        expect("variant", self.variant, self.variant in ("bh1", "bh2"), "'bh1' or 'bh2'")

    def plan(self, net: Parametrization) -> Plan:
        """The table for a network of the given parametrization."""
        levels = self.levels(net)
        calls = len(levels) - 1
        rows: list[Row] = []
        past: list[float] = []  # lengths of earlier steps, newest first
        correction = [0.0]  # weights of D_i, D_{i-1}, ... in x_i - x~_i
        for i, (at, to) in enumerate(itertools.pairwise(levels)):
            h = math.log(at.sigma / to.sigma) if to.sigma else math.inf
            order = 1 if math.isinf(h) else min(self.order, i + 1, calls - i)
            predictor = self.predictor(h, past, order)
            ratio = math.exp(-h)
            width = max(len(correction), len(predictor))
            padded = [w + [0.0] * (width - len(w)) for w in (correction, predictor)]
            weights = [ratio * c + p for c, p in zip(*padded, strict=True)]
            more = {f"c_h{k}": to.scale * w for k, w in enumerate(weights[1:], 1)}
            c_x, c_D = to.scale / at.scale * ratio, to.scale * weights[0]
            rows.append(make_row(net, at, to, c_x, c_D, more=more, remaining=calls - 1 - i, keep="D", forget=i >= 3))
            new, *older = self.corrector(h, past, order) if self.correct and not math.isinf(h) else [0.0, *predictor]
            correction = [new, *(c - p for c, p in zip(older, predictor, strict=True))]
            past = [h, *past][:3]
        return Plan(f"UniPC {self.order} {self.variant} {calls} steps", tuple(rows), levels[0].std)

    def _moments(self, h: float, count: int) -> tuple[float, float, list[float]]:
        """(1 - e^-h, B, b): the right-hand sides b_j = j! phi_{j+1}(-h)/B of the order conditions."""
        x = -h
        B = x if self.variant == "bh1" else math.expm1(x)
        phi, factorial, b = math.expm1(x) / x - 1, 1.0, []
        for j in range(1, count + 1):
            b.append(phi * factorial / B)
            factorial *= j + 1
            phi = phi / x - 1 / factorial
        return math.expm1(x), B, b

    def predictor(self, h: float, past: list[float], order: int) -> list[float]:
        """P_0, P_1, ...: weights of D_{i-1}, D_{i-2}, ..."""
        if h in (0, math.inf):
            return [-math.expm1(-h)]
        past = distinct(past)
        order = min(order, len(past) + 1)
        nodes = _nodes(h, past, order - 1)
        first, B, b = self._moments(h, max(order - 1, 1))
        rho = [0.5] if order == 2 else _solve(nodes, b[: len(nodes)])
        return _collect(-first, -B, nodes, rho)

    def corrector(self, h: float, past: list[float], order: int) -> list[float]:
        """C, C_0, C_1, ...: weights of D_i, D_{i-1}, D_{i-2}, ...; for a step of finite length."""
        if h == 0:
            return [0.0, 0.0]
        past = distinct(past)
        order = min(order, len(past) + 1)
        nodes = [*_nodes(h, past, order - 1), 1.0]
        first, B, b = self._moments(h, order)
        rho = [0.5] if order == 1 else _solve(nodes, b)
        older = _collect(-first, -B, nodes[:-1], rho[:-1])
        new = -B * rho[-1]
        return [new, older[0] - new, *older[1:]]


def _nodes(h: float, past: list[float], count: int) -> list[float]:
    """Where D_{i-2}, D_{i-3}, ... lie, in units of h from D_{i-1}."""
    return [-sum(past[: k + 1]) / h for k in range(count)]


def _solve(nodes: list[float], b: list[float]) -> list[float]:
    """rho with sum_k rho_k nodes_k^(j-1) = b_j."""
    if not nodes:
        return []
    matrix = np.vander(np.array(nodes), len(nodes), increasing=True).T
    return [float(v) for v in np.linalg.solve(matrix, np.array(b[: len(nodes)]))]


def _collect(on_first: float, factor: float, nodes: list[float], rho: list[float]) -> list[float]:
    """on_first*D_0 + factor*sum_k rho_k (D_k - D_0)/node_k as weights of D_0, D_1, ..."""
    others = [factor * weight / node for weight, node in zip(rho, nodes, strict=True)]
    return [on_first - sum(others), *others]
