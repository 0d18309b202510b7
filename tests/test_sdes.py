"""SDEs, discrete schedules and parametrizations against closed forms, integrated ODEs, simulations and published numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp

import fastdiff
from fastdiff import (
    EDM,
    EDMSDE,
    SDE,
    VESDE,
    VPSDE,
    Data,
    Denoiser,
    Discrete,
    Epsilon,
    Mean,
    PCSampler,
    Score,
    SubVPSDE,
    Velocity,
    cosine_betas,
    geometric_sigmas,
    linear_betas,
    scaled_linear_betas,
    tweedie,
)
from fastdiff.schedules import (
    VE,
    VP,
    Linear,
    Schedule,
    alpha_bar_of_sigma,
    lambda_of_sigma,
    posterior,
    sigma_of_alpha_bar,
    sigma_of_lambda,
)
from fastdiff.sdes import normal_log_prob
from tests.samplers.mixture import Mixture

SDES = {
    "VP": VPSDE(),
    "VP, constant beta": VPSDE(3.0, 3.0),
    "sub-VP": SubVPSDE(),
    "VE": VESDE(0.01, 50.0),
    "EDM": EDMSDE(),
}
SCHEDULES: dict[str, Schedule] = SDES | {
    "DDPM": Discrete(),
    "VP schedule": VP("vp"),
    "VP schedule, no scaling": VP(),
    "VE schedule": VE(),
    "VE schedule, VP scaling": VE("vp"),
    "linear, VP scaling": Linear("vp"),
}
each_sde = pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def times(schedule: Schedule) -> list[float]:
    """From near the start to the end; within the segments of a discrete schedule."""
    if isinstance(schedule, Discrete):
        return [0.25, 1.5, 10.3, 500.7, 998.5]
    if isinstance(schedule, EDMSDE):
        return [0.002, 0.5, 7.0, 80.0]
    return [0.001, 0.03, 0.4, 0.95, 1.0]


# ---- f, g and the moments they make ----------------------------------------------------------------------------------------


@each_schedule
def test_derivatives_are_derivatives(schedule):
    for t in times(schedule):
        h = 1e-4 * t
        for function, derivative in ((schedule.sigma, schedule.sigma_deriv), (schedule.scale, schedule.scale_deriv)):
            difference = (function(t + h) - function(t - h)) / (2 * h)
            assert derivative(t) == pytest.approx(difference, rel=1e-5, abs=1e-10)


@each_schedule
def test_drift_and_diffusion_are_those_of_the_marginals(schedule):
    """The overridden closed forms against the generic f = s'/s and g^2 = 2 s^2 sigma sigma'."""
    for t in times(schedule):
        assert schedule.std(t) == pytest.approx(schedule.scale(t) * schedule.sigma(t), rel=1e-12)
        assert schedule.drift(t) == pytest.approx(schedule.scale_deriv(t) / schedule.scale(t), rel=1e-10, abs=1e-15)
        squared = 2 * schedule.scale(t) ** 2 * schedule.sigma(t) * schedule.sigma_deriv(t)
        assert schedule.diffusion(t) ** 2 == pytest.approx(squared, rel=1e-10)
        assert Schedule.diffusion(schedule, t) == pytest.approx(schedule.diffusion(t), rel=1e-10)
        A, B = schedule.slope(t)
        # dx/dt = f x - g^2 score/2, with score = (s D - x)/(s sigma)^2
        variance = schedule.std(t) ** 2
        assert pytest.approx(schedule.drift(t) + squared / (2 * variance), rel=1e-10) == A
        assert pytest.approx(squared * schedule.scale(t) / (2 * variance), rel=1e-10) == B


def test_drift_and_diffusion_of_the_paper():
    """Song et al. 2021, eq. 9, 11 and 12 (and 2 sigma for EDM), written out."""
    for t in (0.001, 0.3, 1.0):
        beta = 0.1 + 19.9 * t
        integral = quad(lambda u: 0.1 + 19.9 * u, 0, t)[0]
        vp, sub, ve = VPSDE(), SubVPSDE(), VESDE(0.01, 50.0)
        assert (vp.drift(t), sub.drift(t), ve.drift(t)) == pytest.approx((-beta / 2, -beta / 2, 0))
        assert vp.diffusion(t) ** 2 == pytest.approx(beta)
        assert sub.diffusion(t) ** 2 == pytest.approx(beta * (1 - math.exp(-2 * integral)))
        assert ve.diffusion(t) == pytest.approx(0.01 * 5000**t * math.sqrt(2 * math.log(5000)))
        assert (vp.scale(t), vp.std(t)) == pytest.approx((math.exp(-integral / 2), math.sqrt(1 - math.exp(-integral))))
        assert (sub.scale(t), sub.std(t)) == pytest.approx((math.exp(-integral / 2), 1 - math.exp(-integral)))
        assert (ve.scale(t), ve.std(t)) == pytest.approx((1, 0.01 * 5000**t))
    assert (EDMSDE().drift(3.0), EDMSDE().diffusion(3.0) ** 2) == pytest.approx((0, 6))


@each_schedule
def test_marginals_solve_the_equations_of_the_moments(schedule):
    """d alpha/dt = f alpha and d std^2/dt = 2 f std^2 + g^2, integrated from the first time to each later one."""
    start, *later = times(schedule)
    if isinstance(schedule, Discrete):
        start, later = 10.2, [10.3, 10.9]  # within one segment: f and g jump at the steps
    initial = [schedule.scale(start), schedule.std(start) ** 2]

    def slopes(t, y):
        return [schedule.drift(t) * y[0], 2 * schedule.drift(t) * y[1] + schedule.diffusion(t) ** 2]

    solution = solve_ivp(slopes, (start, later[-1]), initial, method="DOP853", t_eval=later, rtol=1e-11, atol=1e-14)
    assert solution.y[0] == pytest.approx([schedule.scale(t) for t in later], rel=1e-8, abs=1e-12)
    assert solution.y[1] == pytest.approx([schedule.std(t) ** 2 for t in later], rel=1e-8)


@each_sde
def test_a_simulation_of_the_forward_sde_has_the_marginals(sde):
    """Euler-Maruyama from x0 = 1.5 over 500 steps of equal growth in ln sigma, 20 000 paths: moments within sampling error and bias."""
    count, steps, x0 = 20_000, 500, 1.5
    start, end = (0.01 * sde.T, sde.T)
    grid = [sde.time(float(s)) for s in np.geomspace(sde.sigma(start), sde.sigma(end), steps + 1)]
    generator = torch.Generator().manual_seed(0)
    x = sde.scale(grid[0]) * x0 + sde.std(grid[0]) * torch.randn(count, generator=generator, dtype=torch.float64)
    for t, following in itertools.pairwise(grid):
        dt = following - t
        x = x * (1 + sde.drift(t) * dt) + sde.diffusion(t) * math.sqrt(dt) * torch.randn(count, generator=generator, dtype=torch.float64)
    std = sde.std(sde.T)
    assert abs(float(x.mean()) - sde.scale(sde.T) * x0) < 4 * std / count**0.5 + 0.01
    assert float(x.std()) / std == pytest.approx(1, abs=4 / (2 * count) ** 0.5 + 0.02)


# ---- Times -------------------------------------------------------------------------------------------------------------------


@each_schedule
def test_time_inverts_sigma(schedule):
    for t in times(schedule):
        assert schedule.time(schedule.sigma(t)) == pytest.approx(t, rel=1e-9)


@each_schedule
def test_floats_and_tensors_give_the_same_numbers(schedule):
    ts = times(schedule)
    tensor = torch.tensor(ts, dtype=torch.float64)
    for name in ("sigma", "sigma_deriv", "scale", "scale_deriv", "std", "drift", "diffusion"):
        values = getattr(schedule, name)(tensor)
        assert values.dtype == torch.float64
        assert values.tolist() == pytest.approx([getattr(schedule, name)(t) for t in ts], rel=1e-12, abs=1e-15), name
    sigmas = schedule.sigma(tensor)
    assert schedule.time(sigmas).tolist() == pytest.approx([schedule.time(s) for s in sigmas.tolist()], rel=1e-12)
    for a, b in zip(schedule.slope(tensor), zip(*(schedule.slope(t) for t in ts), strict=True), strict=True):
        assert a.tolist() == pytest.approx(list(b), rel=1e-12)


def test_conversions_are_inverses():
    for sigma in (1e-4, 0.3, 1.0, 80.0):
        assert sigma_of_alpha_bar(alpha_bar_of_sigma(sigma)) == pytest.approx(sigma, rel=1e-7)
        assert sigma_of_lambda(lambda_of_sigma(sigma)) == pytest.approx(sigma)
        alpha, std = VPSDE().scale(VPSDE().time(sigma)), VPSDE().std(VPSDE().time(sigma))
        assert alpha_bar_of_sigma(sigma) == pytest.approx(alpha**2)
        assert lambda_of_sigma(sigma) == pytest.approx(math.log(alpha / std))
    sigmas = torch.tensor([0.3, 1.0, 80.0], dtype=torch.float64)
    assert sigma_of_alpha_bar(alpha_bar_of_sigma(sigmas)).tolist() == pytest.approx(sigmas.tolist())
    assert sigma_of_lambda(lambda_of_sigma(sigmas)).tolist() == pytest.approx(sigmas.tolist())


# ---- Kernels -----------------------------------------------------------------------------------------------------------------


@each_sde
def test_transitions_compose_and_lead_from_margin_to_margin(sde):
    """x(t) = m x(earlier) + G z: over two spans as over one, and from any marginal to the later one."""
    first, middle, last = 0.1 * sde.T, 0.4 * sde.T, 0.9 * sde.T
    m_1, G_1 = sde.transition(middle, first)
    m_2, G_2 = sde.transition(last, middle)
    m, G = sde.transition(last, first)
    assert m == pytest.approx(m_2 * m_1)
    assert pytest.approx(math.hypot(m_2 * G_1, G_2)) == G
    assert sde.scale(last) == pytest.approx(m * sde.scale(first))
    assert sde.std(last) == pytest.approx(math.hypot(m * sde.std(first), G))


@each_sde
def test_a_short_transition_is_drift_and_diffusion(sde):
    t, dt = 0.5 * sde.T, 1e-6 * sde.T
    m, G = sde.transition(t + dt, t)
    assert (m - 1) / dt == pytest.approx(sde.drift(t), rel=1e-4, abs=1e-6)
    assert G**2 / dt == pytest.approx(sde.diffusion(t) ** 2, rel=1e-4)


def chained(sde: SDE, steps: int, upto: int) -> tuple[float, float]:
    """(alpha, std) after the discrete kernels of the first `upto` of N steps, from clean data."""
    alpha, variance = 1.0, 0.0
    for i in range(upto):
        m, G = sde.discretize(i / max(steps - 1, 1) * sde.T, steps)
        alpha, variance = m * alpha, m**2 * variance + G**2
    return alpha, math.sqrt(variance)


@pytest.mark.parametrize(("sde", "exact"), [(VPSDE(), False), (VESDE(0.01, 50.0), True), (SubVPSDE(), False)], ids=["VP", "VE", "sub-VP"])
def test_discrete_kernels_converge_to_the_marginals(sde, exact):
    """Figure 5 of Song et al. 2021: SMLD and DDPM with N = 1000 against VE and VP; and the error of the latter falls with 1/N."""
    errors = []
    for steps in (250, 500, 1000, 2000):
        worst = 0.0
        for share in (0.1, 0.5, 1.0):
            upto = round(share * steps)
            alpha, std = chained(sde, steps, upto)
            # The SMLD kernel has sigma_i exactly; in the others step i ends at time i/N.
            t = (upto - 1) / (steps - 1) if exact else upto / steps
            worst = max(worst, abs(alpha - sde.scale(t)), abs(std / sde.std(t) - 1))
        errors.append(worst)
    assert errors[2] < (1e-12 if exact else 0.01)
    if not exact:
        assert -np.polyfit(np.log([250, 500, 1000, 2000]), np.log(errors), 1)[0] == pytest.approx(1, abs=0.15)


def test_the_discrete_kernel_of_vp_is_ddpms():
    """beta_i from beta_min/N to beta_max/N in equal steps: DDPM's betas are those of N = 1000."""
    sde, betas = VPSDE(), linear_betas()
    for i in (0, 1, 17, 500, 999):
        m, G = sde.discretize(i / 999, 1000)
        assert (m, G) == pytest.approx((math.sqrt(1 - betas[i]), math.sqrt(betas[i])), rel=1e-12)
    alpha_bar = Discrete().alpha_bar
    assert [chained(sde, 1000, i + 1)[0] ** 2 for i in (0, 300, 999)] == pytest.approx(alpha_bar[[0, 300, 999]], rel=1e-10)


def test_the_discrete_kernel_of_ve_is_smlds():
    sde = VESDE(0.01, 50.0)
    sigmas = geometric_sigmas(1000, 50.0, 0.01)[::-1]
    assert sde.step_sigmas(0.0, 1000) == pytest.approx((0.01, 0.0))
    for i in (1, 400, 999):
        assert sde.step_sigmas(i / 999, 1000) == pytest.approx((sigmas[i], sigmas[i - 1]), rel=1e-12)
        assert sde.discretize(i / 999, 1000) == pytest.approx((1, math.sqrt(sigmas[i] ** 2 - sigmas[i - 1] ** 2)), rel=1e-9)


def test_every_index_of_a_discretization_is_met():
    """i/(N - 1) leads to step i for every i and N, in spite of rounding, and nothing beyond the last."""
    for steps in (2, 3, 25, 50, 999, 1000):
        met = [VESDE().step_sigmas(i / (steps - 1), steps)[0] for i in range(steps)]
        assert met == pytest.approx(np.geomspace(0.01, 50, steps), rel=1e-9)
    for steps in (20, 50, 999, 1000):
        met = [VPSDE().step_beta(i / (steps - 1), steps) * steps for i in range(steps)]
        assert met == pytest.approx(np.linspace(0.1, 20, steps), rel=1e-12)


# ---- Noising and the prior ---------------------------------------------------------------------------------------------------


@each_sde
def test_perturb_has_the_moments_of_the_marginal(sde):
    t = torch.tensor([0.05, 0.5, 1.0], dtype=torch.float64) * sde.T
    x0 = torch.full((3, 20_000), 0.7, dtype=torch.float64)
    mean, std = sde.marginal(x0, t)
    assert mean[:, 0].tolist() == pytest.approx([sde.scale(v) * 0.7 for v in t.tolist()], rel=1e-12)
    assert std.tolist() == pytest.approx([sde.std(v) for v in t.tolist()], rel=1e-12)
    x_t, z = sde.perturb(x0, t, seeds=0, return_noise=True)
    torch.testing.assert_close(x_t, mean + std[:, None] * z, rtol=1e-12, atol=1e-12)
    assert (((x_t - mean).mean(1) / std).abs() < 4 / 20_000**0.5).all()
    assert ((x_t.std(1) / std - 1).abs() < 4 / 40_000**0.5).all()


def test_perturb_is_reproducible_bit_for_bit():
    sde, x0 = VPSDE(), torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    t = torch.linspace(0.1, 1.0, 6)
    seeds = [1, 2, 3, 4, 5, 6]
    x_t = sde.perturb(x0, t, seeds, draw=7)
    assert torch.equal(x_t, sde.perturb(x0, t, seeds, draw=7))
    parts = [sde.perturb(x0[s], t[s], seeds[s], draw=7) for s in (slice(0, 1), slice(1, 6))]
    assert torch.equal(x_t, torch.cat(parts))
    assert torch.equal(x_t, sde.perturb(x0, t, seeds, draw=7, return_noise=True)[0])
    assert not torch.equal(x_t, sde.perturb(x0, t, seeds, draw=8))
    # Training noise shares nothing with the sampler's: draw 0 of the state is the prior's.
    _, z = sde.perturb(x0, t, seeds=0, return_noise=True)
    assert not torch.allclose(z, fastdiff.randn(x0.shape, 0))


@each_sde
def test_the_prior(sde):
    z = sde.prior_sample((5, 3, 2), seeds=4, dtype=torch.float64)
    assert torch.equal(z, sde.prior_std * fastdiff.randn((5, 3, 2), 4, dtype=torch.float64))
    std = torch.tensor(sde.prior_std, dtype=torch.float64)
    expected = torch.distributions.Normal(torch.zeros_like(std), std).log_prob(z).sum((1, 2))
    torch.testing.assert_close(sde.prior_log_prob(z), expected, rtol=1e-12, atol=1e-10)
    assert sde.prior_std == pytest.approx(sde.std(sde.T), rel=0.03)  # data of unit size are lost in it


def test_log_probabilities_in_float64_and_by_sample():
    x, std = torch.randn(4, 7, generator=torch.Generator().manual_seed(0)), torch.tensor([0.5, 1.0, 2.0, 80.0], dtype=torch.float64)
    expected = torch.distributions.Normal(torch.zeros(4, 1).double(), std[:, None]).log_prob(x.double()).sum(1)
    got = normal_log_prob(x, std)
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)


# ---- Back in time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probability_flow", [False, True], ids=["SDE", "ODE"])
@each_sde
def test_the_reverse_process_has_the_marginals(sde, probability_flow):
    """From the exact marginal of N(0.7, 0.5^2) data at T, with the exact score, back to sigma = 0.2."""
    mean, width, count, steps = 0.7, 0.5, 10_000, 300

    def score(x, t):
        assert t.shape == (len(x),)
        alpha, std = sde.scale(t), sde.std(t)
        return (alpha[:, None] * mean - x) / (alpha**2 * width**2 + std**2)[:, None]

    reverse = sde.reverse(score, probability_flow)
    low, high = 0.2, sde.sigma(sde.T)
    grid = [sde.time(float(s)) for s in np.geomspace(high, low, steps + 1)]
    generator = torch.Generator().manual_seed(0)
    spread = math.hypot(sde.scale(sde.T) * width, sde.std(sde.T))
    x = sde.scale(sde.T) * mean + spread * torch.randn(count, 1, generator=generator, dtype=torch.float64)
    for t, following in itertools.pairwise(grid):
        now, dt = torch.full((count,), t, dtype=torch.float64), t - following
        z = torch.randn(count, 1, generator=generator, dtype=torch.float64)
        g = reverse.diffusion(now)
        assert bool((g == 0).all()) == probability_flow
        x = x - reverse.drift(x, now) * dt + g[:, None] * math.sqrt(dt) * z
    expected = math.hypot(sde.scale(grid[-1]) * width, sde.std(grid[-1]))
    assert float(x.mean()) == pytest.approx(sde.scale(grid[-1]) * mean, abs=4 * expected / count**0.5 + 0.02)
    assert float(x.std()) / expected == pytest.approx(1, abs=4 / (2 * count) ** 0.5 + 0.03)


def test_the_posterior_is_bayes_rule():
    """q(x_b | x, x0) from the joint normal of (x_b, x) given x0, inverted numerically."""
    (alpha, std), (alpha_b, std_b) = (0.3, 0.9), (0.8, 0.5)
    ratio = alpha / alpha_b
    covariance = ratio * std_b**2  # of x = ratio*x_b + noise with x_b
    m_x, m_0, left = posterior((alpha, std), (alpha_b, std_b))
    assert m_x == pytest.approx(covariance / std**2)
    assert m_0 == pytest.approx(alpha_b - covariance / std**2 * alpha)
    assert left == pytest.approx(math.sqrt(std_b**2 - covariance**2 / std**2))
    m_x, m_0, left = posterior((alpha, std), (1.0, 0.0))
    assert (m_x, m_0, left) == pytest.approx((0, 1, 0))


# ---- Discrete schedules ------------------------------------------------------------------------------------------------------


def test_published_numbers_of_discrete_schedules():
    """DDPM's and latent diffusion's alpha_bar, as their programs print them; and improved DDPM's cosine."""
    ddpm = Discrete()
    assert len(ddpm) == 1000
    assert (ddpm.betas[0], ddpm.betas[-1]) == (1e-4, 0.02)
    assert ddpm.alpha_bar[[0, 1, -1]] == pytest.approx([0.9999, 0.99978009, 4.0358e-5], rel=2e-5)
    assert ddpm.sigmas[[0, -1]] == pytest.approx([0.0100005, 157.407], rel=1e-5)
    stable = Discrete(scaled_linear_betas())
    assert stable.alpha_bar[[0, -1]] == pytest.approx([0.99915, 0.0046602], rel=1e-4)
    assert stable.sigmas[[0, -1]] == pytest.approx([0.0291671, 14.6146], rel=1e-5)  # k-diffusion's levels of Stable Diffusion 1
    cosine = cosine_betas()
    assert cosine[[0, -1]] == pytest.approx([4.1284e-5, 0.999], rel=1e-4)
    expected = [math.cos((i / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2 for i in (1, 500, 999)]
    assert Discrete(cosine).alpha_bar[[0, 499, 998]] == pytest.approx(expected, rel=1e-9)
    assert geometric_sigmas()[[0, 1, -1]] == pytest.approx([1.0, 0.5994843, 0.01], rel=1e-6)


def test_a_discrete_schedule_at_its_steps():
    schedule = Discrete()
    for t in (0, 1, 500, 999):
        assert schedule.scale(float(t)) ** 2 == pytest.approx(schedule.alpha_bar[t], rel=1e-12)
        assert schedule.std(float(t)) ** 2 == pytest.approx(1 - schedule.alpha_bar[t], rel=1e-11)
        assert schedule.sigma(float(t)) == pytest.approx(schedule.sigmas[t], rel=1e-12)
        assert schedule.time(schedule.sigmas[t]) == pytest.approx(t, abs=1e-9)
    middle = math.sqrt(schedule.sigmas[10] * schedule.sigmas[11])
    assert schedule.sigma(10.5) == pytest.approx(middle)
    assert (schedule.sigma(-3.0), schedule.sigma(2000.0)) == pytest.approx((schedule.sigmas[0], schedule.sigmas[-1]))
    assert Discrete([0.1, 0.2]) == Discrete((0.1, 0.2))
    assert hash(Discrete([0.1, 0.2])) == hash(Discrete(np.array([0.1, 0.2])))


def test_betas_by_hand():
    assert linear_betas(3, 0.1, 0.3) == pytest.approx([0.1, 0.2, 0.3])
    assert scaled_linear_betas(3, 0.01, 0.09) == pytest.approx([0.01, 0.04, 0.09])
    assert geometric_sigmas(3, 4.0, 1.0) == pytest.approx([4, 2, 1])
    first = 1 - (math.cos(0.508 / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2
    assert cosine_betas(2) == pytest.approx([first, 0.999])


# ---- Parametrizations --------------------------------------------------------------------------------------------------------

GENERATOR = torch.Generator().manual_seed(0)
NET = Mixture(torch.randn(3, 5, generator=GENERATOR), torch.tensor([0.2, 0.3, 0.5]), 0.4)
X = torch.randn(6, 5, generator=GENERATOR, dtype=torch.float64)


def outputs(schedule: Schedule, sigma: float) -> dict[str, tuple[fastdiff.Parametrization, torch.Tensor, torch.Tensor]]:
    """Each parametrization with the unscaled state and what an ideal network of its kind returns there."""
    x = X * math.hypot(1, sigma)
    D = NET(x, torch.full((6,), sigma, dtype=torch.float64))
    s = schedule.scale(schedule.time(sigma))
    eps = (x - D) / sigma
    c_skip, c_out = 0.5**2 / (sigma**2 + 0.5**2), sigma * 0.5 / math.hypot(sigma, 0.5)
    made = {
        "D": (Denoiser(), x, D),
        "F": (EDM(), x, (D - c_skip * x) / c_out),
        "eps": (Epsilon(schedule=schedule), x, eps),
        "score": (Score(schedule=schedule), x, -eps / (s * sigma)),
        "x0": (Data(schedule=schedule), x, D),
    }
    if not isinstance(schedule, SubVPSDE | VESDE):
        made["v"] = (Velocity(schedule=schedule), x, s * eps - s * sigma * D)
    return made


@pytest.mark.parametrize("sigma", [0.02, 0.7, 30.0])
@pytest.mark.parametrize("schedule", [VPSDE(), VP("vp"), SubVPSDE(), VESDE(0.01, 50.0), Discrete()], ids=lambda s: type(s).__name__)
def test_every_parametrization_gives_the_same_denoised_estimate(schedule, sigma):
    for name, (net, x, F) in outputs(schedule, sigma).items():
        a, b = net.denoiser(sigma)
        expected = NET(x, torch.full((6,), sigma, dtype=torch.float64))
        torch.testing.assert_close(a * x + b * F, expected, rtol=1e-9, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")
        by_float = (a, b, net.c_in(sigma), net.label(sigma))
        levels = torch.full((6,), sigma, dtype=torch.float64)
        by_tensor = (*net.denoiser(levels), net.c_in(levels), net.label(levels))
        for one, each in zip(by_float, by_tensor, strict=True):
            assert each.tolist() == pytest.approx([one] * 6, rel=1e-10)


def test_posterior_means_of_a_discrete_schedule():
    """mu of q(x_{t-1} | x_t, x0) with the exact D for x0, at every kind of step; D comes back."""
    schedule = Discrete(linear_betas(20, 0.01, 0.3))
    net = Mean(schedule=schedule, label_scale=1.0)
    betas, alpha_bar = np.array(schedule.betas), schedule.alpha_bar
    for t in (0, 1, 7, 19):
        sigma = float(schedule.sigmas[t])
        x = X * math.hypot(1, sigma)
        D = NET(x, torch.full((6,), sigma, dtype=torch.float64))
        before = alpha_bar[t - 1] if t else 1.0
        x_t = math.sqrt(alpha_bar[t]) * x
        # Ho et al. 2020, eq. 7
        mu = (math.sqrt(before) * betas[t] * D + math.sqrt(1 - betas[t]) * (1 - before) * x_t) / (1 - alpha_bar[t])
        a, b = net.denoiser(sigma)
        torch.testing.assert_close(a * x + b * mu, D, rtol=1e-9, atol=1e-9)
        assert net.c_in(sigma) == pytest.approx(math.sqrt(alpha_bar[t]))
        assert net.label(sigma) == pytest.approx(t, abs=1e-9)


def test_labels_and_inputs():
    assert Epsilon().label(VP().sigma(0.25)) == pytest.approx(999 * 0.25)
    assert Epsilon(schedule=Discrete(), label_scale=1.0).label(float(Discrete().sigmas[321])) == pytest.approx(321)
    assert Score(schedule=VESDE(), label_is_sigma=True).label(0.4) == 0.4
    assert Epsilon().c_in(3.0) == pytest.approx(1 / math.sqrt(10))
    assert EDM().label(2.0) == pytest.approx(math.log(2) / 4)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_tweedie_is_the_exact_denoiser(scale):
    """With the score by autograd from the mixture's log density."""
    sigma = torch.tensor([0.05, 0.3, 1.0, 2.0, 10.0, 50.0], dtype=torch.float64)
    x = (scale * X * (1 + sigma[:, None])).requires_grad_()
    variance = scale**2 * (NET.std**2 + sigma**2)
    distance = (x[:, None] - scale * NET.means).square().sum(-1)
    log_density = (NET.log_weights - distance / (2 * variance[:, None])).logsumexp(1)
    (score,) = torch.autograd.grad(log_density.sum(), x)
    expected = NET(x.detach() / scale, sigma)
    torch.testing.assert_close(tweedie(x.detach(), score, sigma, scale), expected, rtol=1e-9, atol=1e-9)
    one = tweedie(x.detach()[2:3], score[2:3], 1.0, torch.tensor([scale], dtype=torch.float64))
    torch.testing.assert_close(one, expected[2:3], rtol=1e-9, atol=1e-9)


# ---- Errors ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VPSDE(5.0, 1.0), r"beta_min, beta_max: expected 0 < beta_min <= beta_max, got 5.0 and 1.0"),
        (lambda: SubVPSDE(0.0, 1.0), r"beta_min, beta_max: expected 0 < beta_min"),
        (lambda: VESDE(1.0, 0.5), r"sigma_min, sigma_max: expected 0 < sigma_min < sigma_max, got 1.0 and 0.5"),
        (lambda: EDMSDE(0.0, 80.0), r"sigma_min, sigma_max: expected 0 < sigma_min < sigma_max, got 0.0 and 80.0"),
        (lambda: Discrete([0.1]), r"betas: expected at least two numbers in \(0, 1\), got \[0.1\]"),
        (lambda: Discrete([0.1, 1.0]), r"betas: expected at least two numbers in \(0, 1\)"),
        (lambda: Discrete([[0.1, 0.2]]), r"betas: expected at least two numbers in \(0, 1\)"),
        (lambda: linear_betas(0), r"steps: expected an integer >= 1, got 0"),
        (lambda: cosine_betas(2.5), r"steps: expected an integer >= 1, got 2.5"),
        (lambda: VPSDE().step_beta(1.0, 19), r"steps: expected at least beta_max = 20, .*, got 19"),
        (
            lambda: PCSampler(VPSDE(), steps=20, predictor="ancestral_sampling").plan(Epsilon()),
            r"steps: expected more than beta_max = 20 for ancestral sampling, got 20",
        ),
        (lambda: VPSDE().perturb(torch.zeros(3, 2), torch.zeros(2), 0), r"t: expected a tensor \[3\], got \[2\]"),
        (lambda: VPSDE().marginal(torch.zeros(3, 2), 0.5), r"t: expected a tensor \[3\], got float"),
        (lambda: VPSDE().reverse(lambda x, t: x).drift(torch.zeros(3, 2), torch.zeros(3, 1)), r"t: expected a tensor \[3\], got \[3, 1\]"),
        (lambda: Velocity(schedule=VESDE()), r"schedule: expected a variance-preserving one"),
        (lambda: Mean(), r"schedule: expected a Discrete one for mean prediction, got VP"),
        (lambda: Mean(schedule=Discrete()).denoiser(torch.ones(2)), r"sigma: expected a float, got a tensor"),
    ],
)  # fmt: skip
def test_errors_say_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()
