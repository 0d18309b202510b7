"""Epsilon scaling: the predicted noise divided by lambda, against exposure bias (Ning et al. 2024, arXiv:2308.15321)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from .plan import Plan, Row


@dataclass(frozen=True)
class EpsilonScaling:
    """The predicted noise is divided by lambda = k*t + b, t = N - 1, ..., 0 being the step counted from the end.

    With eps = (x/s - D)/sigma that is D <- (1 - 1/lambda)*x/s + D/lambda, whatever the sampler.

    Args:
        b: lambda where k = 0, e.g. 1.0004 (SEDM-G++ on CIFAR-10).
        k: slope in t, so that early, noisy steps may be scaled more.
        of_scaled_state: take eps from the scaled state x instead of x/s, as EDM-ES's ablation_sampler does; only
            there for parity with it, and the same wherever s = 1.
    """

    b: float = 1.0
    k: float = 0.0
    of_scaled_state: bool = False

    @classmethod
    def of(cls, given: float | EpsilonScaling) -> EpsilonScaling:
        """A number as the constant lambda: one object for each, since plans remember what was derived by which object."""
        return given if isinstance(given, EpsilonScaling) else _constant(float(given))

    def mix(self, t: int, scale: float) -> tuple[float, float]:
        """(p, q) with D <- p*x + q*D, x the state."""
        lam = self.k * t + self.b
        if not lam > 0:
            raise ValueError(f"EpsilonScaling: expected k*t + b > 0 at every step, got {lam} at t = {t}")
        return (1 - 1 / lam) / (1.0 if self.of_scaled_state else scale), 1 / lam

    def apply(self, plan: Plan) -> Plan:
        """The plan with lambda folded in."""
        if self.k == 0 and self.b == 1:
            return plan

        def scaled(_: int, row: Row) -> Row:
            p, q = self.mix(row.remaining, row.scale)
            coef = dict(row.coef)
            if row.keep in ("D", "xD", "d"):  # later steps must see the scaled estimate, or slope, too
                moved = p if row.keep != "d" else ((1 - q) / row.scale - p) / row.sigma
                coef |= {"a": moved + q * coef["a"], "b": q * coef["b"]} | ({"b_u": q * coef["b_u"]} if "b_u" in coef else {})
            else:
                coef |= {"c_x": coef.get("c_x", 0.0) + p * coef["c_D"], "c_D": q * coef["c_D"]}
            return replace(row, coef=coef)

        return plan.map_rows(scaled)


_constant = lru_cache(EpsilonScaling)
