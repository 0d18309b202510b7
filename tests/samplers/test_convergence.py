"""Orders of convergence, measured: the probability-flow ODE, strong and weak convergence of the reverse SDE, and what is exact.

All on float64 states and exact denoisers, between a high and a positive last noise level, where the flow is smooth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp

import fastdiff
from fastdiff import (
    DDIM,
    DDPM,
    EDMSDE,
    VESDE,
    VPSDE,
    BrownianPath,
    Denoiser,
    DPMSolver2M,
    DPMSolver2S,
    DPMSolver3M,
    EDMSampler,
    EulerAncestral,
    PCSampler,
    Plan,
    SubVPSDE,
    UniPC,
)
from fastdiff.samplers.dpm import phi_2
from tests.samplers.mixture import Mixture

# From almost pure noise, where D barely depends on x: the first steps of a multistep method, which have a lower order, cost nothing there.
HIGH, LOW = 100.0, 0.1
NET = Mixture(torch.tensor([[-1.0, 0.3], [0.8, -0.6], [0.2, 1.0]]), torch.tensor([0.3, 0.5, 0.2]), 0.5)
VE_SDE = VESDE(0.01, 100.0)


def geometric(steps: int, low: float = LOW, high: float = HIGH) -> list[float]:
    """steps + 1 noise levels in equal ratios."""
    return [float(s) for s in np.geomspace(high, low, steps + 1)]


def cut(plan: Plan, calls: int) -> Plan:
    """The first calls of a plan: it then stops at a positive noise level."""
    return replace(plan, rows=plan.rows[:calls], _tables={}, _derived={})


def in_sigma_space(plan: Plan) -> tuple[Plan, float]:
    """The plan from the state HIGH*latents (an SDE's prior has the std of its own T), and the scale of its last state."""
    first, last = plan.rows[0], plan.rows[-1]
    return replace(plan, prior_scale=first.scale * HIGH, _tables={}, _derived={}), last.next_scale


def slope(steps: list[int], errors: list[float]) -> float:
    """The order: minus the slope of ln error in ln steps, fitted."""
    return -float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


# ---- Samplers, by number of steps ----------------------------------------------------------------------------------------


def edm(calls_each: int, **arguments) -> Callable[[int], Plan]:
    def make(steps: int) -> Plan:
        plan = EDMSampler(steps=steps + 1, sigma_min=LOW, sigma_max=HIGH, **arguments).plan(Denoiser())
        return cut(plan, calls_each * steps)

    return make


def in_sigma(cls: type, **arguments) -> Callable[[int], Plan]:
    return lambda steps: cls(sigmas=geometric(steps), to_zero=False, **arguments).plan(Denoiser())


def unipc(**arguments) -> Callable[[int], Plan]:
    """Cut off some steps before its end, where it lowers its order."""

    def make(steps: int) -> Plan:
        levels = geometric(steps)
        beyond = [LOW * (levels[1] / levels[0]) ** k for k in (1, 2, 3)]
        return cut(UniPC(sigmas=[*levels, *beyond], to_zero=False, **arguments).plan(Denoiser()), steps)

    return make


def pc(sde, predictor: str, **arguments) -> Callable[[int], Plan]:
    def make(steps: int) -> Plan:
        times = [sde.time(sigma) for sigma in geometric(steps)]
        return PCSampler(sde, times=times, predictor=predictor, corrector="none", denoise=False, **arguments).plan(Denoiser())

    return make


def two_points(cls: type, **arguments) -> Callable[[int], Plan]:
    sde = VPSDE()
    return lambda steps: cut(cls(sde, times=[sde.time(s) for s in geometric(steps)], **arguments).plan(Denoiser()), steps)


# ---- The probability-flow ODE --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    return torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(scope="module")
def end_of_the_flow(latents) -> torch.Tensor:
    """The state at LOW by an eighth-order method with a tolerance of 1e-12, in lambda = -ln sigma: dx/dlambda = D - x."""

    def slopes(lam, y):
        x = torch.from_numpy(y).reshape(latents.shape)
        return (NET(x, torch.full((len(x),), math.exp(-lam), dtype=torch.float64)) - x).flatten().numpy()

    start = (HIGH * latents).flatten().numpy()
    solution = solve_ivp(slopes, (-math.log(HIGH), -math.log(LOW)), start, method="DOP853", rtol=1e-12, atol=1e-13)
    return torch.from_numpy(solution.y[:, -1]).reshape(latents.shape)


LONG, SHORT = [64, 128, 256], [32, 64, 128]
ODE_CASES = {
    "EDM Euler": (edm(1, solver="euler"), 1, SHORT),
    "EDM Euler, VE": (edm(1, solver="euler", discretization="ve", schedule="ve"), 1, [128, 256, 512]),
    "EDM Heun": (edm(2), 2, SHORT),
    "EDM Heun, alpha 2/3": (edm(2, alpha=2 / 3), 2, LONG),
    "EDM Heun, VE": (edm(2, discretization="ve", schedule="ve"), 2, SHORT),
    "EDM Heun, VP": (edm(2, discretization="vp", schedule="vp", scaling="vp"), 2, LONG),
    "DDIM": (two_points(DDIM), 1, SHORT),
    "Euler ancestral, eta 0": (in_sigma(EulerAncestral, eta=0.0), 1, SHORT),
    "2M": (in_sigma(DPMSolver2M), 2, SHORT),
    "2M, heun": (in_sigma(DPMSolver2M, solver="heun"), 2, SHORT),
    "2M, VP": (in_sigma(DPMSolver2M, scaling="vp"), 2, SHORT),
    "2S": (in_sigma(DPMSolver2S), 2, SHORT),
    "3M": (in_sigma(DPMSolver3M), 3, LONG),
    # Two, not three: see test_what_the_multistep_weights_integrate_exactly.
    "3M, published": (in_sigma(DPMSolver3M, variant="published"), 2, LONG),
    "UniPC 1 bh1": (unipc(order=1, variant="bh1"), 2, SHORT),
    "UniPC 1 bh2": (unipc(order=1), 2, SHORT),
    "UniPC 2 bh1": (unipc(order=2, variant="bh1"), 3, SHORT),
    "UniPC 2 bh2": (unipc(order=2), 3, SHORT),
    "UniPC 3 bh1": (unipc(order=3, variant="bh1"), 4, SHORT),
    "UniPC 3 bh2": (unipc(order=3), 4, SHORT),
    "UniPC 1, no corrector": (unipc(order=1, correct=False), 1, SHORT),
    "UniPC 2, no corrector": (unipc(order=2, correct=False), 2, SHORT),
    "UniPC 3, no corrector": (unipc(order=3, correct=False), 3, SHORT),
    # To a last level of its own UniPC ends with a step of order 1, whose local error is of order 2.
    "UniPC 3, whole": (in_sigma(UniPC, order=3), 2, LONG),
    "PC Euler-Maruyama, ODE, VP": (pc(VPSDE(), "euler_maruyama", probability_flow=True), 1, SHORT),
    "PC reverse diffusion, ODE, VP": (pc(VPSDE(), "reverse_diffusion", probability_flow=True), 1, SHORT),
    "PC probability flow, sub-VP": (pc(SubVPSDE(), "probability_flow"), 1, SHORT),
    "PC probability flow, VE": (pc(VE_SDE, "probability_flow"), 1, [128, 256, 512]),
    "PC Euler-Maruyama, ODE, EDM": (pc(EDMSDE(), "euler_maruyama", probability_flow=True), 1, SHORT),
}


def ode_errors(make: Callable[[int], Plan], steps: list[int], latents: torch.Tensor, expected: torch.Tensor) -> list[float]:
    errors = []
    for n in steps:
        plan, scale = in_sigma_space(make(n))
        errors.append(float((fastdiff.run(plan, NET, latents) / scale - expected).norm()))
    return errors


@pytest.mark.parametrize("name", ODE_CASES)
def test_order_of_the_probability_flow(name, latents, end_of_the_flow):
    """UniPC-p has order p + 1 with its corrector (Zhao et al. 2023, theorem 3.1) and p without."""
    make, order, steps = ODE_CASES[name]
    errors = ode_errors(make, steps, latents, end_of_the_flow)
    assert slope(steps, errors) == pytest.approx(order, abs=0.15)
    assert errors[-1] < 0.5  # it converges to the flow's end, and not merely to something


def test_higher_orders_pay(latents, end_of_the_flow):
    """With 64 calls on the same levels, each method against a simpler one."""
    error = {name: ode_errors(ODE_CASES[name][0], [64], latents, end_of_the_flow)[0] for name in ODE_CASES}
    error["2S"] = ode_errors(ODE_CASES["2S"][0], [32], latents, end_of_the_flow)[0]  # two calls a step
    for better, worse in [
        ("2M", "DDIM"), ("2S", "DDIM"), ("3M, published", "2M"), ("3M", "3M, published"), ("UniPC 3 bh2", "UniPC 2 bh2"),
        ("UniPC 2 bh2", "2M"),
    ]:  # fmt: skip
        assert error[better] < 0.6 * error[worse], (better, worse)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_what_the_multistep_weights_integrate_exactly(eta):
    """The step of x' = e^-L x + (1+eta) int_0^h e^(-(h-u)(1+eta)) D(u) du + noise, L = h(1+eta), for D a polynomial in u.

    2M with "heun" takes the line through the last two D, as Lu et al. 2022 derive it; 3M the parabola through three. The published
    3M, as the authors' own program, diffusers and k-diffusion have it, gives the second difference half the weight of the parabola,
    so it integrates parabolas no better than 2M, and its order is 2.
    """
    h, past = 0.3, [0.2, 0.45]
    nodes = [0.0, -past[0], -past[0] - past[1]]

    def exact(power: int) -> float:
        return quad(lambda u: (1 + eta) * math.exp((u - h) * (1 + eta)) * u**power, 0, h, epsabs=1e-14)[0]

    def errors(weights: list[float]) -> list[float]:
        return [sum(w * n**k for w, n in zip(weights, nodes, strict=False)) - exact(k) for k in range(3)]

    heun = errors(DPMSolver2M(eta=eta, solver="heun").weights(h, past[:1]))
    assert heun[:2] == pytest.approx([0, 0], abs=1e-13)
    midpoint = errors(DPMSolver2M(eta=eta).weights(h, past[:1]))
    assert midpoint[0] == pytest.approx(0, abs=1e-13)
    assert 1e-4 < abs(midpoint[1]) < 0.1 * h**2
    assert errors(DPMSolver3M(eta=eta).weights(h, past)) == pytest.approx([0, 0, 0], abs=1e-13)
    published = errors(DPMSolver3M(eta=eta, variant="published").weights(h, past))
    assert published[:2] == pytest.approx([0, 0], abs=1e-13)
    assert abs(published[2]) > 1e-3


@pytest.mark.parametrize("h", [1e-8, 9.9e-4, 1.01e-3, 0.3, 7.0])
def test_phi_2_on_both_sides_of_its_series(h):
    exact = math.fsum((-1) ** k * h ** (k - 1) / math.factorial(k) for k in range(2, 60))
    assert phi_2(h) == pytest.approx(exact, rel=1e-12)


# ---- The reverse SDE, strongly: runs that share a Brownian path -------------------------------------------------------------

SAMPLES = 256
PATH = BrownianPath(LOW, HIGH, depth=11)  # its cells are those of 2048 geometric steps

STRONG_CASES = {
    "Euler ancestral": in_sigma(EulerAncestral),
    "2M": in_sigma(DPMSolver2M, eta=1.0),
    "2M, VP": in_sigma(DPMSolver2M, eta=1.0, scaling="vp"),
    "2S": in_sigma(DPMSolver2S, eta=1.0),
    "3M": in_sigma(DPMSolver3M, eta=1.0),
    "DDPM, small": two_points(DDPM),
    "DDPM, large": two_points(DDPM, variance="large"),
    "DDIM, eta 1": two_points(DDIM, eta=1.0),
    "Euler-Maruyama, VP": pc(VPSDE(), "euler_maruyama"),
    "Euler-Maruyama, VE": pc(VE_SDE, "euler_maruyama"),
    "reverse diffusion, VP": pc(VPSDE(), "reverse_diffusion"),
    "reverse diffusion, sub-VP": pc(SubVPSDE(), "reverse_diffusion"),
    "reverse diffusion, VE": pc(VE_SDE, "reverse_diffusion"),
    "ancestral, VE": pc(VE_SDE, "ancestral_sampling"),
}


def on_the_path(make: Callable[[int], Plan], steps: int) -> torch.Tensor:
    plan, scale = in_sigma_space(make(steps))
    start = torch.randn(SAMPLES, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return fastdiff.run(plan, NET, start, key=fastdiff.keys(7, SAMPLES), path=PATH) / scale


@pytest.fixture(scope="module")
def end_of_the_path() -> torch.Tensor:
    return on_the_path(in_sigma(DPMSolver2M, eta=1.0), 2048)


def strong_errors(make: Callable[[int], Plan], steps: list[int], expected: torch.Tensor) -> list[float]:
    return [float((on_the_path(make, n) - expected).square().sum(1).mean().sqrt()) for n in steps]


@pytest.mark.slow
@pytest.mark.parametrize("name", STRONG_CASES)
def test_strong_order_of_the_reverse_sde(name, end_of_the_path):
    """Order 1, since the noise is additive: every sampler, whatever its SDE, converges to the same sample of each key."""
    steps = [32, 64, 128, 256]
    errors = strong_errors(STRONG_CASES[name], steps, end_of_the_path)
    assert slope(steps, errors) == pytest.approx(1, abs=0.15)
    assert errors[-1] < 0.05


@pytest.mark.slow
def test_second_order_in_the_drift_pays_strongly(end_of_the_path):
    """The order stays 1 (no method sees the noise within its step), the error falls."""
    one, two = (strong_errors(STRONG_CASES[name], [128, 256], end_of_the_path) for name in ("Euler ancestral", "2M"))
    assert all(b < 0.8 * a for a, b in zip(one, two, strict=True))


# ---- The reverse SDE, weakly: for Gaussian data D is linear in x, and the law of a run follows from the table alone ---------

MEAN = 0.7


def law(plan: Plan, std: float, start: tuple[float, float]) -> tuple[float, float]:
    """(mean, variance) of the last state of a plan made for a `Denoiser`, for data N(MEAN, std^2) and latents of a mean and variance.

    The state and the history x, H1, H2, H3 are jointly Gaussian: each row is a linear map of them.
    """
    mean, covariance = np.zeros(4), np.zeros((4, 4))
    mean[0], covariance[0, 0] = plan.prior_scale * start[0], plan.prior_scale**2 * start[1] + plan.prior_noise**2
    kept = 0
    for row in plan.rows:
        assert (row.coef["a"], row.coef["b"]) == (0, 1)
        share = std**2 / (std**2 + row.sigma**2)  # D = share*x/s + (1 - share)*MEAN
        D, constant = np.array([share / row.scale, 0, 0, 0]), (1 - share) * MEAN
        following, added = np.zeros((4, 4)), np.zeros(4)
        following[0] = row.coef["c_D"] * D + [row.coef.get(name, 0.0) for name in ("c_x", "c_h1", "c_h2", "c_h3")]
        added[0] = row.coef["c_D"] * constant
        history = [(np.eye(4)[k + 1], 0.0) for k in range(kept - row.forget)]
        if row.keep:
            history.insert(0, (np.eye(4)[0], 0.0) if row.keep == "x" else (D, constant))
        for k, (weights, c) in enumerate(history, 1):
            following[k], added[k] = weights, c
        kept = len(history)
        mean, covariance = following @ mean + added, following @ covariance @ following.T
        covariance[0, 0] += row.coef.get("c_n", 0.0) ** 2
    return mean[0], covariance[0, 0]


def weak_error(make: Callable[[int], Plan], steps: int, std: float = 0.5) -> float:
    """|error of the mean| + |error of the variance| of the unscaled state, from the exact law at HIGH."""
    plan, scale = in_sigma_space(make(steps))
    mean, variance = law(plan, std, (MEAN / HIGH, 1 + (std / HIGH) ** 2))
    return abs(mean / scale - MEAN) + abs(variance / scale**2 - std**2 - plan.rows[-1].next_sigma ** 2)


def churned(churn: float) -> Callable[[int], Plan]:
    return edm(2, S_churn=churn, S_min=1.001 * LOW)  # the state at LOW itself stays where it is


FINE = [256, 512, 1024]
WEAK_CASES = {
    "Euler ancestral": (in_sigma(EulerAncestral), 1),
    "Euler ancestral, eta 0.5": (in_sigma(EulerAncestral, eta=0.5), 1),
    "DDPM, small": (two_points(DDPM), 1),
    "DDPM, large": (two_points(DDPM, variance="large"), 1),
    "DDIM, eta 0.5": (two_points(DDIM, eta=0.5), 1),
    "DDIM, eta 1": (two_points(DDIM, eta=1.0), 1),
    "Euler-Maruyama, VP": (pc(VPSDE(), "euler_maruyama"), 1),
    "Euler-Maruyama, sub-VP": (pc(SubVPSDE(), "euler_maruyama"), 1),
    "reverse diffusion, VP": (pc(VPSDE(), "reverse_diffusion"), 1),
    "reverse diffusion, sub-VP": (pc(SubVPSDE(), "reverse_diffusion"), 1),
    "reverse diffusion, VE": (pc(VE_SDE, "reverse_diffusion"), 1),
    "ancestral, VP": (pc(VPSDE(), "ancestral_sampling"), 1),
    "ancestral, sub-VP": (pc(SubVPSDE(), "ancestral_sampling"), 1),
    "ancestral, VE": (pc(VE_SDE, "ancestral_sampling"), 1),
    "2M, eta 0.5": (in_sigma(DPMSolver2M, eta=0.5), 2),
    "2M, eta 1": (in_sigma(DPMSolver2M, eta=1.0), 2),
    "2M, heun, eta 1": (in_sigma(DPMSolver2M, eta=1.0, solver="heun"), 2),
    "2M, VP, eta 1": (in_sigma(DPMSolver2M, eta=1.0, scaling="vp"), 2),
    "3M, eta 1": (in_sigma(DPMSolver3M, eta=1.0), 2),
    "2S, eta 0.5": (in_sigma(DPMSolver2S, eta=0.5), 2),
    "2S, eta 1": (in_sigma(DPMSolver2S, eta=1.0), 2),
    "EDM Heun, churn 10": (churned(10.0), 2),
    "EDM Heun, churn 40": (churned(40.0), 2),
}


@pytest.mark.parametrize("name", WEAK_CASES)
def test_weak_order_of_the_reverse_sde(name):
    make, order = WEAK_CASES[name]
    assert slope(FINE, [weak_error(make, n) for n in FINE]) == pytest.approx(order, abs=0.05)


def test_the_law_from_the_table_is_that_of_the_samples():
    """What the weak tests rest on: mean and variance of actual runs, within five standard errors."""
    net = Mixture(torch.tensor([[MEAN]]), torch.ones(1), 0.5)
    count = 40_000
    for name in ("2M, VP, eta 1", "2S, eta 0.5", "Euler-Maruyama, VP", "EDM Heun, churn 40"):
        plan, _ = in_sigma_space(WEAK_CASES[name][0](12))
        mean, variance = law(plan, 0.5, (0.0, 1.0))
        x = fastdiff.sample(net, (count, 1), seeds=5, sampler=plan, state_dtype=torch.float64)
        assert abs(float(x.mean()) - mean) < 5 * (variance / count) ** 0.5
        assert abs(float(x.var()) / variance - 1) < 5 * (2 / count) ** 0.5


EXACT_ON_A_POINT = {
    "DDPM, small": two_points(DDPM),
    "DDIM, eta 0": two_points(DDIM),
    "DDIM, eta 0.7": two_points(DDIM, eta=0.7),
    "DDIM, eta 1": two_points(DDIM, eta=1.0),
    "ancestral, VP": pc(VPSDE(), "ancestral_sampling"),
    "ancestral, sub-VP": pc(SubVPSDE(), "ancestral_sampling"),
    "ancestral, VE": pc(VE_SDE, "ancestral_sampling"),
    "Euler ancestral, eta 0.5": in_sigma(EulerAncestral, eta=0.5),
    "2M, eta 0.5": in_sigma(DPMSolver2M, eta=0.5),
    "2M, VP, eta 1": in_sigma(DPMSolver2M, eta=1.0, scaling="vp"),
    "3M, eta 2": in_sigma(DPMSolver3M, eta=2.0),
    "2S, eta 1": in_sigma(DPMSolver2S, eta=1.0),
    "UniPC 3": in_sigma(UniPC, order=3),
    "EDM Euler": edm(1, solver="euler"),
    "EDM Heun, churn 40": churned(40.0),
}


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("name", EXACT_ON_A_POINT)
def test_samplers_that_are_exact_on_a_point(name, steps):
    """Where all data are one point D is constant, and these samplers have the exact marginals after any number of steps."""
    assert weak_error(EXACT_ON_A_POINT[name], steps, std=0.0) < 1e-11  # what is left of variances of 1e4


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_large_variance_is_exact_on_white_noise(steps):
    """Where the data are N(0, I) the variance of the posterior is DDPM's beta (Ho et al. 2020, section 3.2); the small one is too small."""

    def variance(make: Callable[[int], Plan]) -> float:
        return law(in_sigma_space(make(steps))[0], 1.0, (0.0, 1 + HIGH**-2))[1]

    assert variance(two_points(DDPM, variance="large")) == pytest.approx(1, abs=1e-12)
    assert variance(two_points(DDPM)) < 0.95
