"""DG's boosting: samples whose log ratio is negative are guided twice as much at even steps and get noise before every fifth one.

Which samples these are is known only while the run goes, so there are two plans of the same rows, with the noise and without it, and a
table of them in which each sample has its own row. The log ratio of a predictor chooses it before anything reads it, on the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from ...guidance import Guidance
from ...parametrizations import Parametrization
from ...plan import Plan, Row, Tables
from ...samplers import EDMSampler, Sampler
from .._plans import plan_of_network
from .guided import RatioGuidance

#: DG's constants.
CHURN_PERIOD, GUIDANCE_PERIOD = 5, 2
CHURN = {"S_churn": 4.0, "S_noise": 1.0}
FACTOR = 2.0


@dataclass(frozen=True)
class BoostedSampler(Sampler):
    """Algorithm 2 with DG's churn before every fifth step but the first.

    Args:
        base: the sampler of the other steps; churned: whether the noise is added, or only its place kept.
    """

    base: EDMSampler
    churned: bool = True

    def plan(self, net: Parametrization) -> Plan:
        plain, other = self.base.plan(net), replace(self.base, **CHURN).plan(net)  # type: ignore[arg-type]
        rows = []
        for i, row in enumerate(plain.rows):
            step, last = _step(plain, i), i + 1 == len(plain) or _step(plain, i + 1) != _step(plain, i)
            chosen = other.rows[i] if self.churned and _is_churned(step) else row
            following = other.rows[i] if last and _is_churned(step + 1) else row
            churn = following.coef.get("c_n", 0.0) if self.churned else row.coef.get("c_n", 0.0)
            rows.append(replace(chosen, coef=chosen.coef | {"c_n": churn}, draw=following.draw))
        return replace(plain, name=f"{plain.name} + boosting", rows=tuple(rows), _tables={}, _derived={})


def boosted_plans(sampler: EDMSampler, net: Any) -> tuple[Plan, Plan]:
    """(the plan of samples that are not boosted, that of those that always are)."""
    return plan_of_network(BoostedSampler(sampler, churned=False), net), plan_of_network(BoostedSampler(sampler), net)


class Boosting:
    """One run with boosting.

    Args:
        plain, boosted: the two plans; guidance: whose weights they get.
    """

    def __init__(self, plain: Plan, boosted: Plan, guidance: RatioGuidance) -> None:
        self.weights = guidance
        self.guidance = replace(guidance, gradient=self.gradient)
        self.plan = _Choice.of(plain, boosted, self)
        self.calls: Iterator[int] = iter(())

    def begin(self, plan: _Choice, tables: Tables, plain: Tables, boosted: Tables) -> None:
        """Before the loop: its table, which `gradient` writes to."""
        self.rows, self.tables, self.sources = plan, tables, (plain, boosted)
        self.calls = iter([i for i, row in enumerate(plan.rows) if "c_g" in row.coef])

    def gradient(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None, **_: Any) -> Tensor:
        """grad ln r of the next guided call, and what follows from ln r."""
        i = next(self.calls)
        if self.rows.rows[i].order != 1:
            return self.weights.gradient(x, sigma, class_labels=class_labels)
        G, log_ratio = self.weights.both(x, sigma, class_labels)
        low, step = log_ratio < 0, _step(self.rows, i)
        if _is_churned(step + 1):
            self._choose(low, [k for k in _touched(self.rows) if _step(self.rows, k) in (step, step + 1)])
        if step % GUIDANCE_PERIOD == 0:
            G = torch.where(low.reshape(-1, *[1] * (G.dim() - 1)), FACTOR * G, G)
        return G

    def _choose(self, low: Tensor, rows: list[int]) -> None:
        plain, boosted = self.sources
        for k in rows:
            self.tables.coef[k].copy_(torch.where(low[:, None], boosted.coef[k], plain.coef[k]))
            self.tables.labels[k].copy_(torch.where(low, boosted.labels[k], plain.labels[k]))
            self.tables.sigmas[k].copy_(torch.where(low, boosted.sigmas[k], plain.sigmas[k]))


@dataclass(frozen=True)
class _Choice(Plan):
    """The plain plan, with tables in which each sample may follow the boosted one."""

    boosted: Plan | None = field(default=None, compare=False, repr=False)
    plain: Plan | None = field(default=None, compare=False, repr=False)
    chooser: Any = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, plain: Plan, boosted: Plan, chooser: Boosting) -> _Choice:
        own = {f.name: getattr(plain, f.name) for f in fields(Plan) if not f.name.startswith("_")}
        return cls(**own, boosted=boosted, plain=plain, chooser=chooser)

    def derived(self, change: Any) -> Plan:
        """Both plans changed; guidance by the object of which the plans have kept what it makes of them."""
        assert self.plain is not None
        assert self.boosted is not None
        change = self.chooser.weights if isinstance(change, Guidance) else change
        return _Choice.of(self.plain.derived(change), self.boosted.derived(change), self.chooser)

    def tables(self, device: torch.device, net_dtype: torch.dtype, state_dtype: torch.dtype, batch: int) -> Tables:
        """Tables of this run alone: rows that depend on the choice are written while it goes."""
        assert self.plain is not None
        assert self.boosted is not None
        plain, boosted = (plan.tables(device, net_dtype, state_dtype, batch) for plan in (self.plain, self.boosted))
        coef, labels, sigmas = list(plain.coef), list(plain.labels), list(plain.sigmas)
        for k in _touched(self):
            coef[k] = coef[k].repeat(batch, 1)
            labels[k], sigmas[k] = labels[k].clone(), sigmas[k].clone()
        own = Tables(coef, labels, sigmas, plain.prior_scale, plain.prior_noise)
        self.chooser.begin(self, own, plain, boosted)
        return own


def _step(plan: Plan, i: int) -> int:
    """The step that a row belongs to, counted from 0."""
    return plan.rows[0].remaining - plan.rows[i].remaining


def _is_churned(step: int) -> bool:
    return step > 0 and step % CHURN_PERIOD == 0


def _touched(plan: Plan) -> list[int]:
    """Rows that the churn before a step changes: those of the step and the last one before it."""
    rows: tuple[Row, ...] = plan.rows
    return [
        i
        for i in range(len(rows))
        if _is_churned(_step(plan, i)) or (i + 1 < len(rows) and _step(plan, i + 1) != _step(plan, i) and _is_churned(_step(plan, i + 1)))
    ]
