"""Predictor-corrector sampling of a reverse SDE (Song et al. 2021, arXiv:2011.13456, algorithms 1 to 5).

Every predictor and corrector is y = m*x + c*score + G*z:

    Euler-Maruyama      m = 1 - f dt           c = w g^2 dt            G = g sqrt(dt)
    reverse diffusion   m = 2 - m_fwd          c = w G_fwd^2           G = G_fwd          x_{i+1} = m_fwd x_i + G_fwd z
    ancestral           the posterior q(x_{i-1} | x_i, x0) of the discrete process, with x0 = D
    Langevin            m = 1                  c = e                   G = sqrt(2 e)      e = 2 alpha (snr |z|/|score|)^2
    annealed Langevin   m = 1                  c = e                   G = sqrt(2 e)      e = 2 alpha (snr std)^2

with w = 1, or 1/2 and no noise for the probability-flow ODE. Upstream's step sizes are kept: t_i = linspace(T, eps, N) but
dt = T/N, and the last state belongs to no time of its own; `times` gives steps that lead from one time to the next. For EDM's
sigma-space the times are EDM's noise levels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ..parametrizations import Parametrization
from ..plan import Plan, Row
from ..schedules import edm_sigmas, posterior
from ..sdes import EDMSDE, SDE, VESDE, VPSDE, SubVPSDE
from ._rows import CLEAN, Level, Sampler, expect, make_row, score_row

PREDICTORS = ("euler_maruyama", "reverse_diffusion", "ancestral_sampling", "probability_flow", "none")
CORRECTORS = ("langevin", "ald", "none")


class _Step(NamedTuple):
    """A time of calls, the time that the predictor leads to (None for upstream's steps of T/N), and the level there."""

    t: float
    following: float | None
    to: Level


@dataclass(frozen=True)
class PCSampler(Sampler):
    """One predictor step and `corrector_steps` corrector steps at each of N times.

    Args:
        sde: the forward process.
        steps: N; times: instead, the times t_0 > ... > t_N themselves, a step leading from each to the next.
        predictor: "euler_maruyama", "reverse_diffusion", "ancestral_sampling", "probability_flow" or "none".
        corrector: "langevin" (step size from the signal-to-noise ratio), "ald" (annealed Langevin dynamics) or "none".
        snr: signal-to-noise ratio of the corrector; corrector_steps: how often it runs at each time.
        eps: the last time at which the network is called; None for the SDE's own.
        denoise: leave the noise out of the last predictor step.
        probability_flow: the predictor discretizes the probability-flow ODE instead of the reverse SDE.
        step_size: "batch": one Langevin step size from the mean norms of the batch, as upstream; "sample": one for each
            sample, so that a sample does not depend on its batch. A step that depends on the sample biases its law, by (d + 2)/d in
            the variance of a Gaussian in d dimensions: nothing for images, too much for a handful of dimensions.
    """

    sde: SDE = field(default_factory=VPSDE)
    steps: int = 1000
    predictor: Literal["euler_maruyama", "reverse_diffusion", "ancestral_sampling", "probability_flow", "none"] = "reverse_diffusion"
    corrector: Literal["langevin", "ald", "none"] = "langevin"
    snr: float = 0.16
    corrector_steps: int = 1
    eps: float | None = None
    denoise: bool = True
    probability_flow: bool = False
    times: Sequence[float] | None = None
    step_size: Literal["batch", "sample"] = "batch"

    def __post_init__(self) -> None:
        expect("steps", self.steps, isinstance(self.steps, int) and self.steps >= 1, "an integer >= 1")
        expect("predictor", self.predictor, self.predictor in PREDICTORS, f"one of {', '.join(PREDICTORS)}")
        expect("corrector", self.corrector, self.corrector in CORRECTORS, f"one of {', '.join(CORRECTORS)}")
        expect("snr", self.snr, self.snr > 0, "a number > 0")
        expect("corrector_steps", self.corrector_steps, self.corrector_steps >= 1, "an integer >= 1")
        expect("step_size", self.step_size, self.step_size in ("batch", "sample"), "'batch' or 'sample'")
        if self.times is not None:
            falling = all(b < a for a, b in zip(self.times, self.times[1:], strict=False))
            expect("times", self.times, len(self.times) >= 2 and falling and self.times[-1] >= 0, "at least two falling times >= 0")
        if self.ode and self.predictor == "ancestral_sampling":
            raise ValueError("probability_flow: expected False with ancestral sampling, which is a step of the SDE, got True")

    @property
    def ode(self) -> bool:
        """Whether the predictor solves the probability-flow ODE."""
        return self.probability_flow or self.predictor == "probability_flow"

    def plan(self, net: Parametrization) -> Plan:
        """The table for a network of the given parametrization."""
        steps = self._steps()
        rows: list[Row] = []
        draws = 0
        for remaining, step in zip(range(len(steps) - 1, -1, -1), steps, strict=True):
            if self.corrector != "none":
                for _ in range(self.corrector_steps):
                    rows.append(self._correct(net, step, draws, remaining))
                    draws += 1
            if self.predictor != "none":
                rows.append(self._predict(net, step, draws, remaining))
                draws += 1
        dt = "" if self.times is None else ", given times"
        return Plan(
            name=f"PC {type(self.sde).__name__} {self.predictor}{' (ODE)' if self.ode else ''} + {self.corrector}, {len(steps)} steps{dt}",
            rows=tuple(rows), prior_scale=self.sde.prior_std, draws=draws,
        )  # fmt: skip

    def _steps(self) -> list[_Step]:
        """The times and where they lead."""
        times = self.times
        if times is None and isinstance(self.sde, EDMSDE):  # even steps of sigma would all be far too long at its end
            times = [*edm_sigmas(self.steps, self.sde.sigma_min, self.sde.sigma_max), 0.0]
        if times is not None:
            times = [float(t) for t in times]
            return [_Step(a, b, self._level(b)) for a, b in itertools.pairwise(times)]
        eps = self.sde.eps if self.eps is None else self.eps
        times = [self.sde.T - i * (self.sde.T - eps) / max(self.steps - 1, 1) for i in range(self.steps)]
        end = CLEAN if self.denoise else self._level(times[-1])
        return [_Step(t, None, to) for t, to in zip(times, [*map(self._level, times[1:]), end], strict=True)]

    def _level(self, t: float) -> Level:
        return Level.of(self.sde, t)

    def _correct(self, net: Parametrization, step: _Step, draw: int, remaining: int) -> Row:
        at = self._level(step.t)
        alpha = 1.0
        if isinstance(self.sde, VPSDE):
            beta = self.sde.step_beta(step.t, self.steps) if step.following is None else 0.0
            alpha = 1 - beta if step.following is None else self.sde.transition(step.t, step.following)[0] ** 2
        if self.corrector == "ald":
            size = 2 * alpha * (self.snr * at.std) ** 2
            return score_row(net, at, at, 1.0, size, math.sqrt(2 * size), draw=draw, remaining=remaining)
        # The base row of langevin_row: D' = D; the device finds the size of the step.
        more = {"c_l": 2 * alpha * self.snr**2}
        return make_row(net, at, at, 0.0, 1.0, more=more, draw=draw, remaining=remaining, adaptive=self.step_size)

    def _predict(self, net: Parametrization, step: _Step, draw: int, remaining: int) -> Row:
        m, c, G = self._coefficients(step.t, step.following)
        silent = self.ode or (self.denoise and remaining == 0)
        return score_row(net, self._level(step.t), step.to, m, c, 0.0 if silent else G, draw=draw, remaining=remaining)

    def _coefficients(self, t: float, following: float | None) -> tuple[float, float, float]:
        """(m, c, G) of the predictor."""
        sde, weight = self.sde, 0.5 if self.ode else 1.0
        if self.predictor == "euler_maruyama":
            dt = sde.T / self.steps if following is None else t - following
            g = sde.diffusion(t)
            return 1 - sde.drift(t) * dt, weight * g**2 * dt, g * math.sqrt(dt)
        if self.predictor == "ancestral_sampling":
            return self._ancestral(t, following)
        m, G = sde.discretize(t, self.steps) if following is None else sde.transition(t, following)
        return 2 - m, weight * G**2, G

    def _ancestral(self, t: float, following: float | None) -> tuple[float, float, float]:
        """The posterior's mean and noise; DDPM's own for the VP SDE: (x + beta*score)/sqrt(1 - beta), std sqrt(beta)."""
        sde = self.sde
        if following is None and isinstance(sde, VPSDE) and not isinstance(sde, SubVPSDE):
            beta = sde.step_beta(t, self.steps)
            expect("steps", self.steps, beta < 1, f"more than beta_max = {sde.beta_max:g} for ancestral sampling")
            return 1 / math.sqrt(1 - beta), beta / math.sqrt(1 - beta), math.sqrt(beta)
        now = (sde.scale(t), sde.std(t))
        if following is not None:
            before = (sde.scale(following), sde.std(following))
        elif isinstance(sde, VESDE):
            sigma, below = sde.step_sigmas(t, self.steps)
            now, before = (1.0, sigma), (1.0, below)
        else:
            earlier = max(t - sde.T / self.steps, 0.0)
            before = (sde.scale(earlier), sde.std(earlier)) if earlier > 0 else (1.0, 0.0)
        m_x, m_0, std = posterior(now, before)
        # With D = (x + std_t^2 score)/alpha_t: the mean is (m_x + m_0/alpha)*x + m_0*std_t^2/alpha*score.
        alpha = now[0]
        return m_x + m_0 / alpha, m_0 * now[1] ** 2 / alpha, std
