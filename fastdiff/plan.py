"""A plan: the float64 table that a sampler is. One row for each network call, made before the loop, then only read."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from .ops.coef import COLUMNS, DEFAULTS

#: How many derived plans, and tables on devices, a plan remembers.
_DERIVED_KEPT = 8


@dataclass(frozen=True)
class Row:
    """What happens around one network call.

    The network is called with c_in*x at noise `label`; then one `sampler_step` with `coef` makes the next state.

    Attributes:
        sigma: noise level of the call, data units; scale: s, the state is x = s*(x0 + sigma*z).
        label: the network's noise label; c_in: its input is c_in times the state.
        coef: named coefficients of the step; a name that is absent is 0.
        response: dy/dD before epsilon scaling, which guidance enters with.
        order: 1 for a predictor, 2 for a corrector: guidance may weight them differently.
        draw: index of the noise drawn in this step, where coef has a c_n; -1 for none.
        keep: what joins the history after the step: "x" the state before it, "D" the denoised estimate, "xD" both (the state as H_1),
            "d" the slope (x/s - D)/sigma, "" nothing. With "d" the coefficients a and b make the slope, and c_D is its weight.
        forget: how many of the oldest history tensors are dropped after the step.
        next_sigma, next_scale: the noise level of the state after the step.
        remaining: steps that follow this one, counted as the sampler counts them: t of epsilon scaling.
        adaptive: "batch" or "sample" for a Langevin step whose size `langevin_row` finds, for the batch or for each sample.
        learned: (ln std, ln std) between which the second half of the network's channels chooses the noise; None for none.
        guide: weight of a guidance gradient that enters D (or the slope) itself, since that is kept.
        noise_from: noise level at which the step of this row's noise begins, where that is not sigma (a step of two calls).
    """

    sigma: float
    scale: float
    label: float
    c_in: float
    coef: dict[str, float]
    response: float = 0.0
    order: int = 1
    draw: int = -1
    keep: str = ""
    forget: int = 0
    next_sigma: float = 0.0
    next_scale: float = 1.0
    remaining: int = 0
    adaptive: Literal["", "batch", "sample"] = ""
    learned: tuple[float, float] | None = None
    guide: float = 0.0
    noise_from: float = 0.0


@dataclass(frozen=True)
class Plan:
    """The table of a whole sampling run: `print(plan)` shows it, `==` compares it.

    Attributes:
        name: of the sampler, for people.
        rows: one for each network call, in order.
        prior_scale, prior_noise: the first state is prior_scale*z_prior + prior_noise*z, with z drawn at prior_draw.
        draws: how many noise tensors the original program draws, used or not: how often a `noise=` callable is called.
    """

    name: str
    rows: tuple[Row, ...]
    prior_scale: float
    prior_noise: float = 0.0
    prior_draw: int = -1
    draws: int = 0
    _tables: dict[Any, Tables] = field(default_factory=dict, compare=False, repr=False)
    _derived: dict[int, tuple[Callable[[], Any], Plan]] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        for i, row in enumerate(self.rows):
            unknown = set(row.coef) - set(COLUMNS)
            if unknown:
                raise ValueError(f"rows[{i}].coef: expected names among {', '.join(COLUMNS)}, got {', '.join(sorted(unknown))}")
            if not all(math.isfinite(v) for name, v in row.coef.items() if name not in DEFAULTS):
                raise ValueError(f"rows[{i}].coef: expected finite numbers, got {row.coef}")

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles keep: tables and derived plans are made again."""
        return vars(self) | {"_tables": {}, "_derived": {}}

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def stochastic(self) -> bool:
        """Whether noise is drawn after the prior."""
        return self.prior_draw >= 0 or any(row.draw >= 0 or row.adaptive for row in self.rows)

    def matrix(self) -> Tensor:
        """[calls, 18] float64 coefficients, columns as in `fastdiff.ops.COLUMNS`, c_in that of the next call."""
        table = []
        for row, following in zip(self.rows, [*self.rows[1:], None], strict=False):
            values = DEFAULTS | row.coef
            values["c_in"] = 0.0 if following is None else following.c_in
            values["e_x"], values["e_D"] = (0.0, 1.0) if row.keep == "d" else (1 / (row.scale * row.sigma), -1 / row.sigma)
            table.append([values.get(name, 0.0) for name in COLUMNS])
        return torch.tensor(table, dtype=torch.float64, device="cpu").reshape(-1, len(COLUMNS))

    @torch.inference_mode(False)  # else a first run in that mode would taint the cached tables
    def tables(self, device: torch.device, net_dtype: torch.dtype, state_dtype: torch.dtype, batch: int) -> Tables:
        """The table on a device, cached: a second run, or the capture of a CUDA graph, copies nothing.

        A network may have changed its labels in place (`sigma.log_()`): then the table is made again.
        Labels keep float32 where the network computes in less: 999*t has no room in eight bits of mantissa.
        """
        key = (device, net_dtype, state_dtype, batch)
        if key not in self._tables or self._tables[key].changed:
            if len(self._tables) >= _DERIVED_KEPT:
                self._tables.pop(next(iter(self._tables)))
            label_dtype = torch.promote_types(net_dtype, torch.float32)
            labels = torch.tensor([row.label for row in self.rows], dtype=torch.float64, device="cpu")
            sigmas = torch.tensor([row.sigma for row in self.rows], dtype=torch.float64, device="cpu")
            self._tables[key] = Tables(
                self.matrix().to(device).unbind(0),
                labels[:, None].repeat(1, batch).to(device, label_dtype).unbind(0),
                sigmas[:, None].repeat(1, batch).to(device, state_dtype).unbind(0),
                torch.full((batch,), self.prior_scale, dtype=torch.float64, device=device),
                torch.full((batch,), self.prior_noise, dtype=torch.float64, device=device),
            )
        return self._tables[key]

    def derived(self, change: Any) -> Plan:
        """change.apply(self), made once for each object, so that its tables stay cached too.

        The object is not kept alive: a cached plan would hold the networks of guidance and the tensors of known data.
        """
        known, key = self._derived, id(change)
        if key not in known or known[key][0]() is not change:
            if len(known) >= _DERIVED_KEPT:
                known.pop(next(iter(known)))
            known[key] = (weakref.ref(change, lambda _: known.pop(key, None)), change.apply(self))
        return known[key][1]

    def map_rows(self, change: Callable[[int, Row], Row], suffix: str = "") -> Plan:
        """The plan with every row changed."""
        return replace(
            self, name=self.name + suffix, rows=tuple(change(i, row) for i, row in enumerate(self.rows)), _tables={}, _derived={}
        )

    def difference(self, other: Plan) -> float:
        """The largest absolute difference of two plans' coefficients, inf where their shapes differ."""
        if len(self) != len(other) or [r.keep for r in self.rows] != [r.keep for r in other.rows]:
            return math.inf
        numbers = [torch.nan_to_num(plan.matrix(), posinf=0.0, neginf=0.0) for plan in (self, other)]
        return float((numbers[0] - numbers[1]).abs().max()) if self.rows else 0.0

    def __str__(self) -> str:
        shown = ("a", "b", "b_u", "c_x", "c_D", "c_g", "c_h1", "c_h2", "c_h3", "c_n", "c_l", "k_x", "k_n", "c_in")
        matrix = self.matrix()
        used = [name for name in shown if matrix[:, COLUMNS.index(name)].any()]
        noise = f" + {self.prior_noise:.5g}*z" if self.prior_noise else ""
        lines = [f"{self.name}: {len(self)} network calls; x = {self.prior_scale:.6g}*z_prior{noise}"]
        lines.append(f"{'call':>4} {'sigma':>11} {'label':>11} " + " ".join(f"{name:>11}" for name in used) + "  keep draw")
        for i, row in enumerate(self.rows):
            values = " ".join(f"{matrix[i, COLUMNS.index(name)].item():11.5g}" for name in used)
            lines.append(f"{i:4d} {row.sigma:11.5g} {row.label:11.5g} {values}  {row.keep or '-':4} {row.draw if row.draw >= 0 else '-'}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Tables:
    """A plan on a device: what the loop indexes, row by row."""

    coef: Sequence[Tensor]
    labels: Sequence[Tensor]
    sigmas: Sequence[Tensor]
    prior_scale: Tensor
    prior_noise: Tensor

    @property
    def changed(self) -> bool:
        """Whether somebody wrote into what networks and guidance are given; rows share the counter of their table."""
        return any(rows[0]._version for rows in (self.labels, self.sigmas) if rows)
