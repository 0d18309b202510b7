"""The samplers of Karras et al. 2022: stochastic Heun (algorithm 2) and the ablation family around it (table 1).

Between two noise levels the probability-flow ODE of x(t) = s(t)*(x0 + sigma(t)*z) reads

    dx/dt = A*x - B*D(x/s; sigma),   A = sigma'/sigma + s'/s,   B = s*sigma'/sigma

An Euler step of length alpha*h from x_hat gives x', Heun's corrector averages the slopes with weights 1 - 1/(2 alpha) and
1/(2 alpha). Since the first slope is (x' - x_hat)/(alpha*h), it need not be kept:

    x'     = (1 + alpha*h*A) x_hat - alpha*h*B D
    x_next = (1 - kappa) x_hat + (kappa + h*A'/(2 alpha)) x' - h*B'/(2 alpha) D',   kappa = (1 - 1/(2 alpha))/alpha

Churn adds noise before a step: x_hat = s_hat/s*x + s_hat*sqrt(sigma_hat^2 - sigma^2)*S_noise*z; that factor and that noise
belong to the last row of the step before. Epsilon scaling (Ning et al. 2024, arXiv:2308.15321) replaces D by
x/s - (x/s - D)/lambda.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..parametrizations import Parametrization
from ..plan import Plan, Row
from ..schedules import VE, VP, Float, Linear, Schedule, edm_sigmas, iddpm_sigmas, ve_sigmas, vp_sigmas


@dataclass(frozen=True)
class EpsilonScaling:
    """The predicted noise is divided by lambda = k*t + b, t = N - 1, ..., 0 being the step counted from the end.

    Args:
        b: lambda where k = 0, e.g. 1.0004 (SEDM-G++ on CIFAR-10).
        k: slope in t, so that early, noisy steps may be scaled more.
        of_scaled_state: take eps from the scaled state x instead of x/s, as EDM-ES's ablation_sampler does; only
            there for parity with it, and the same wherever s = 1.
    """

    b: float = 1.0
    k: float = 0.0
    of_scaled_state: bool = False

    def mix(self, t: int, scale: float) -> tuple[float, float]:
        """(p, q) with D <- p*x + q*D, x the state."""
        lam = self.k * t + self.b
        if not lam > 0:
            raise ValueError(f"EpsilonScaling: expected k*t + b > 0 at every step, got {lam} at t = {t}")
        return (1 - 1 / lam) / (1.0 if self.of_scaled_state else scale), 1 / lam


@dataclass(frozen=True)
class EDMSampler:
    """Stochastic Heun or Euler with every choice of Karras et al. 2022; the defaults are EDM's own (35 network calls).

    Args:
        steps: N, noise levels above 0.
        sigma_min, sigma_max: the lowest and highest of them; None for the discretization's default. Clamped to what
            the network supports.
        rho: exponent of EDM's discretization.
        solver: "heun" (2N - 1 calls) or "euler" (N calls); alpha: where Heun's second slope is taken (1: at the next level).
        discretization: "edm", "vp", "ve" or "iddpm": how the noise levels are chosen.
        schedule: "linear", "vp" or "ve": sigma(t), along which the ODE is straightened; scaling: "none" or "vp": s(t).
        S_churn, S_min, S_max, S_noise: noise added before each step whose sigma lies in [S_min, S_max].
        eps_scale: lambda, a number or an EpsilonScaling.
        epsilon_s, C_1, C_2, M: constants of the VP and iDDPM discretizations.
    """

    steps: int = 18
    sigma_min: float | None = None
    sigma_max: float | None = None
    rho: float = 7.0
    solver: Literal["heun", "euler"] = "heun"
    alpha: float = 1.0
    discretization: Literal["edm", "vp", "ve", "iddpm"] = "edm"
    schedule: Literal["linear", "vp", "ve"] = "linear"
    scaling: Literal["none", "vp"] = "none"
    S_churn: float = 0.0
    S_min: float = 0.0
    S_max: float = math.inf
    S_noise: float = 1.0
    eps_scale: float | EpsilonScaling = 1.0
    epsilon_s: float = 1e-3
    C_1: float = 0.001
    C_2: float = 0.008
    M: int = 1000

    def __post_init__(self) -> None:
        _expect("steps", self.steps, isinstance(self.steps, int) and self.steps >= 1, "an integer >= 1")
        _expect("solver", self.solver, self.solver in ("heun", "euler"), "'heun' or 'euler'")
        known = self.discretization in ("edm", "vp", "ve", "iddpm")
        _expect("discretization", self.discretization, known, "'edm', 'vp', 've' or 'iddpm'")
        _expect("schedule", self.schedule, self.schedule in ("linear", "vp", "ve"), "'linear', 'vp' or 've'")
        _expect("scaling", self.scaling, self.scaling in ("none", "vp"), "'none' or 'vp'")
        _expect("alpha", self.alpha, 0 < self.alpha <= 1, "0 < alpha <= 1")
        _expect("rho", self.rho, self.rho > 0, "a number > 0")
        _expect("S_churn", self.S_churn, self.S_churn >= 0, "a number >= 0")

    def plan(self, net: Parametrization) -> Plan:
        """The table for a network of the given parametrization."""
        schedule, sigmas = self._levels(net)
        times = [schedule.time(net.round_sigma(float(sigma))) for sigma in sigmas]
        starts = [self._churned(schedule, net, t) for t in times]
        rows: list[Row] = []
        for i, (t_hat, following) in enumerate(zip([s[0] for s in starts], [*times[1:], 0.0], strict=True)):
            # The state after this step is rescaled and gets the churn noise of the next.
            factor, noise = starts[i + 1][1:] if i + 1 < self.steps else (1.0, 0.0)
            rows += self._step(schedule, net, i, t_hat, following, factor, noise)
        t_0 = times[0]
        return Plan(
            name=f"EDM {self.solver} {self.steps} steps ({self.discretization}/{self.schedule}/{self.scaling})",
            rows=tuple(rows),
            prior_scale=schedule.sigma(t_0) * schedule.scale(t_0) * starts[0][1],
            prior_noise=starts[0][2],
            prior_draw=0 if starts[0][2] else -1,
            draws=self.steps,
        )

    def _levels(self, net: Parametrization) -> tuple[Schedule, Float]:
        """sigma(t), s(t) and the noise levels, within what the network supports."""
        vp_default = VP()
        defaults = {
            "vp": (vp_default.sigma(self.epsilon_s), vp_default.sigma(1.0)),
            "ve": (0.02, 100.0),
            "iddpm": (0.002, 81.0),
            "edm": (0.002, 80.0),
        }[self.discretization]
        sigma_min = max(defaults[0] if self.sigma_min is None else self.sigma_min, net.sigma_min)
        sigma_max = min(defaults[1] if self.sigma_max is None else self.sigma_max, net.sigma_max)
        if not 0 < sigma_min <= sigma_max:
            raise ValueError(f"sigma_min, sigma_max: expected 0 < sigma_min <= sigma_max, got {sigma_min} and {sigma_max}")
        vp = VP.between(sigma_min, sigma_max, self.epsilon_s, self.scaling)
        schedule = {"vp": vp, "ve": VE(self.scaling), "linear": Linear(self.scaling)}[self.schedule]
        if self.discretization == "vp":
            return schedule, vp_sigmas(self.steps, vp, self.epsilon_s)
        if self.discretization == "ve":
            return schedule, ve_sigmas(self.steps, sigma_min, sigma_max)
        if self.discretization == "iddpm":
            return schedule, iddpm_sigmas(self.steps, sigma_min, sigma_max, self.C_1, self.C_2, self.M)
        return schedule, edm_sigmas(self.steps, sigma_min, sigma_max, self.rho)

    def _churned(self, schedule: Schedule, net: Parametrization, t: float) -> tuple[float, float, float]:
        """(t_hat, factor, noise): the state at t becomes factor*x + noise*z at t_hat."""
        sigma = schedule.sigma(t)
        gamma = min(self.S_churn / self.steps, math.sqrt(2) - 1) if self.S_min <= sigma <= self.S_max else 0.0
        if gamma == 0:
            return t, 1.0, 0.0
        t_hat = schedule.time(net.round_sigma(sigma + gamma * sigma))
        added = math.sqrt(max(schedule.sigma(t_hat) ** 2 - sigma**2, 0.0))
        return t_hat, schedule.scale(t_hat) / schedule.scale(t), added * schedule.scale(t_hat) * self.S_noise

    def _step(self, schedule: Schedule, net: Parametrization, i: int, t: float, t_next: float, factor: float, noise: float) -> list[Row]:
        """The rows of step i: one of Euler, or Heun's predictor and corrector."""
        h = t_next - t
        last = i == self.steps - 1
        churn = {"c_n": noise} if noise else {}
        draw = i + 1 if noise else -1
        A, B = _slope(schedule, t)
        if self.solver == "euler" or last:
            c_x, c_D = factor * (1 + h * A), factor * -h * B
            return [self._row(schedule, net, i, t, {"c_x": c_x} | churn, c_D, draw=draw)]

        length = self.alpha * h
        t_prime = t + length
        A_prime, B_prime = _slope(schedule, t_prime)
        weight = 1 / (2 * self.alpha)
        kappa = (1 - weight) / self.alpha
        predictor = self._row(schedule, net, i, t, {"c_x": 1 + length * A}, -length * B, keep="x")
        corrected = {"c_x": factor * (kappa + h * weight * A_prime), "c_h1": factor * (1 - kappa)}
        c_D = factor * -h * weight * B_prime
        return [predictor, self._row(schedule, net, i, t_prime, corrected | churn, c_D, order=2, draw=draw, forget=True)]

    def _row(self, schedule: Schedule, net: Parametrization, i: int, t: float, coef: dict[str, float], c_D: float, **extra) -> Row:
        """A row with the network's (a, b) and epsilon scaling folded in."""
        sigma, s = schedule.sigma(t), schedule.scale(t)
        a, b = net.denoiser(sigma)
        scaling = self.eps_scale if isinstance(self.eps_scale, EpsilonScaling) else EpsilonScaling(float(self.eps_scale))
        p, q = scaling.mix(self.steps - 1 - i, s)
        folded = {"a": a / s, "b": b, "c_x": coef["c_x"] + p * c_D, "c_D": q * c_D}
        return Row(sigma, s, net.label(sigma), net.c_in(sigma) / s, coef | folded, response=c_D, **extra)


def _slope(schedule: Schedule, t: float) -> tuple[float, float]:
    """(A, B) of dx/dt = A*x - B*D."""
    relative = schedule.sigma_deriv(t) / schedule.sigma(t)
    return relative + schedule.scale_deriv(t) / schedule.scale(t), relative * schedule.scale(t)


def _expect(name: str, value, valid: bool, expected: str) -> None:
    if not valid:
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
