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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..epsilon_scaling import EpsilonScaling
from ..parametrizations import Parametrization
from ..plan import Plan, Row
from ..schedules import VE, VP, Linear, Schedule, edm_sigmas, iddpm_sigmas, ve_sigmas, vp_sigmas
from ._rows import CLEAN, Level, Sampler, check_levels, expect, make_row


@dataclass(frozen=True)
class EDMSampler(Sampler):
    """Stochastic Heun or Euler with every choice of Karras et al. 2022; the defaults are EDM's own (35 network calls).

    Args:
        steps: N, noise levels above 0.
        sigmas: the levels themselves instead, in any order; a last 0 is added where it is missing and `to_zero`.
        to_zero: end at 0; else at the last of the given sigmas.
        sigma_min, sigma_max: the lowest and highest of them; None for the discretization's default. Clamped to what
            the network supports.
        rho: exponent of EDM's discretization.
        solver: "heun" (2N - 1 calls), "euler" (N calls) or "dpm_2" (2N - 1 calls: the first slope leads half way in ln sigma, the
            second is the whole step's, as in k-diffusion after Lu et al. 2022, arXiv:2206.00927).
        alpha: where Heun's second slope is taken (1: at the next level).
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
    solver: Literal["heun", "euler", "dpm_2"] = "heun"
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
    sigmas: Sequence[float] | None = None
    to_zero: bool = True

    def __post_init__(self) -> None:
        expect("steps", self.steps, isinstance(self.steps, int) and self.steps >= 1, "an integer >= 1")
        expect("solver", self.solver, self.solver in ("heun", "euler", "dpm_2"), "'heun', 'euler' or 'dpm_2'")
        known = self.discretization in ("edm", "vp", "ve", "iddpm")
        expect("discretization", self.discretization, known, "'edm', 'vp', 've' or 'iddpm'")
        expect("schedule", self.schedule, self.schedule in ("linear", "vp", "ve"), "'linear', 'vp' or 've'")
        expect("scaling", self.scaling, self.scaling in ("none", "vp"), "'none' or 'vp'")
        expect("alpha", self.alpha, 0 < self.alpha <= 1, "0 < alpha <= 1")
        expect("rho", self.rho, self.rho > 0, "a number > 0")
        expect("S_churn", self.S_churn, self.S_churn >= 0, "a number >= 0")

    def plan(self, net: Parametrization) -> Plan:
        """The table for a network of the given parametrization."""
        schedule, sigmas = self._levels(net)
        times = [schedule.time(net.round_sigma(sigma)) if sigma else 0.0 for sigma in sigmas]
        steps = len(times) - 1
        starts = [self._churned(schedule, net, t, steps) for t in times[:-1]] + [(times[-1], 1.0, 0.0)]
        rows: list[Row] = []
        for i in range(steps):
            # The state after this step is rescaled and gets the churn noise of the next.
            raised, factor, noise = starts[i + 1]
            to = Level.of(schedule, raised) if raised else CLEAN
            rows += self._step(schedule, net, i, steps - 1 - i, starts[i][0], times[i + 1], to, factor, noise)
        t_0 = times[0]
        plan = Plan(
            name=f"EDM {self.solver} {steps} steps ({self.discretization}/{self.schedule}/{self.scaling})",
            rows=tuple(rows),
            prior_scale=schedule.sigma(t_0) * schedule.scale(t_0) * starts[0][1],
            prior_noise=starts[0][2],
            prior_draw=0 if starts[0][2] else -1,
            draws=steps,
        )
        return EpsilonScaling.of(self.eps_scale).apply(plan)

    def _levels(self, net: Parametrization) -> tuple[Schedule, list[float]]:
        """sigma(t), s(t) and the noise levels: those given, or chosen within what the network supports."""
        if self.sigmas is not None:
            given = [float(sigma) for sigma in self.sigmas]
            if self.to_zero and (not given or given[-1] != 0):
                given.append(0.0)
            check_levels(given, "")
            above = [sigma for sigma in given if sigma]
            return self._schedule(min(above), max(above)), given
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
        if self.discretization == "vp":
            sigmas = vp_sigmas(self.steps, VP.between(sigma_min, sigma_max, self.epsilon_s), self.epsilon_s)
        elif self.discretization == "ve":
            sigmas = ve_sigmas(self.steps, sigma_min, sigma_max)
        elif self.discretization == "iddpm":
            sigmas = iddpm_sigmas(self.steps, sigma_min, sigma_max, self.C_1, self.C_2, self.M)
        else:
            sigmas = edm_sigmas(self.steps, sigma_min, sigma_max, self.rho)
        return self._schedule(sigma_min, sigma_max), [*(float(sigma) for sigma in sigmas), 0.0]

    def _schedule(self, sigma_min: float, sigma_max: float) -> Schedule:
        if self.schedule == "vp":
            return VP.between(sigma_min, sigma_max, self.epsilon_s, self.scaling)
        return VE(self.scaling) if self.schedule == "ve" else Linear(self.scaling)

    def _churned(self, schedule: Schedule, net: Parametrization, t: float, steps: int) -> tuple[float, float, float]:
        """(t_hat, factor, noise): the state at t becomes factor*x + noise*z at t_hat."""
        sigma = schedule.sigma(t)
        gamma = min(self.S_churn / steps, math.sqrt(2) - 1) if self.S_min <= sigma <= self.S_max else 0.0
        if gamma == 0:
            return t, 1.0, 0.0
        t_hat = schedule.time(net.round_sigma(sigma + gamma * sigma))
        added = math.sqrt(max(schedule.sigma(t_hat) ** 2 - sigma**2, 0.0))
        return t_hat, schedule.scale(t_hat) / schedule.scale(t), added * schedule.scale(t_hat) * self.S_noise

    def _step(
        self, schedule: Schedule, net: Parametrization, i: int, remaining: int, t: float, t_next: float, to: Level, factor: float,
        noise: float,
    ) -> list[Row]:  # fmt: skip
        """The rows of step i: one of Euler, or two of Heun or DPM-Solver-2."""
        h = t_next - t
        churn = {"c_n": noise} if noise else {}
        draw = i + 1 if noise else -1
        at = Level.of(schedule, t)
        A, B = schedule.slope(t)
        if self.solver == "euler" or t_next == 0:
            c_x, c_D = factor * (1 + h * A), factor * -h * B
            return [make_row(net, at, to, c_x, c_D, more=churn, draw=draw, remaining=remaining)]

        if self.solver == "heun":
            length, weight, order = self.alpha * h, 1 / (2 * self.alpha), 2
        else:
            length, weight, order = schedule.time(math.sqrt(at.sigma * schedule.sigma(t_next))) - t, 1.0, 1
        prime = Level.of(schedule, t + length)
        A_prime, B_prime = schedule.slope(t + length)
        kappa = (1 - weight) / self.alpha
        c_x, c_D = factor * (kappa + h * weight * A_prime), factor * -h * weight * B_prime
        more = {"c_h1": factor * (1 - kappa)} | churn
        return [
            make_row(net, at, prime, 1 + length * A, -length * B, keep="x", remaining=remaining),
            make_row(net, prime, to, c_x, c_D, more=more, order=order, draw=draw, forget=True, remaining=remaining),
        ]
