"""Plans: printed, compared, checked; and what folds into their coefficients."""

from __future__ import annotations

import math

import pytest
import torch

import fastdiff
from fastdiff import EDM, ClassifierFree, Denoiser, EDMSampler, Epsilon, EpsilonScaling, Guidance, Plan, Row, Score, Velocity
from fastdiff.schedules import VE, VP, Linear, edm_sigmas, iddpm_sigmas
from tests.samplers.mixture import Mixture


def test_printing_shows_one_row_for_each_network_call():
    plan = EDMSampler(steps=3, S_churn=30).plan(Denoiser())
    text = str(plan).splitlines()
    assert len(text) == 2 + len(plan) == 2 + 5
    assert "5 network calls" in text[0]
    for column in ("sigma", "c_x", "c_D", "c_h1", "c_n", "keep"):
        assert column in text[1]


def test_plans_compare():
    plan = EDMSampler(steps=5).plan(Denoiser())
    assert plan == EDMSampler(steps=5).plan(Denoiser())
    assert plan != EDMSampler(steps=5, rho=6.9).plan(Denoiser())
    assert plan.difference(EDMSampler(steps=5).plan(Denoiser())) == 0
    assert 0 < plan.difference(EDMSampler(steps=5, eps_scale=1.01).plan(Denoiser())) < math.inf
    assert plan.difference(EDMSampler(steps=6).plan(Denoiser())) == math.inf


def test_heun_18_is_35_calls_and_euler_18():
    assert len(EDMSampler().plan(Denoiser())) == 35
    assert len(EDMSampler(solver="euler").plan(Denoiser())) == 18


def test_the_last_step_returns_the_denoised_estimate():
    row = EDMSampler(steps=4).plan(Denoiser()).rows[-1]
    assert row.coef["c_x"] == pytest.approx(0, abs=1e-15)
    assert row.coef["c_D"] == pytest.approx(1, abs=1e-15)


def test_one_step():
    plan = EDMSampler(steps=1, sigma_max=10.0).plan(Denoiser())
    assert len(plan) == 1
    assert plan.prior_scale == pytest.approx(10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, r"steps: expected an integer >= 1, got 0"),
        ({"solver": "rk4"}, r"solver: expected 'heun', 'euler' or 'dpm_2', got 'rk4'"),
        ({"discretization": "ddpm"}, r"discretization: expected .*, got 'ddpm'"),
        ({"schedule": "cosine"}, r"schedule: expected .*, got 'cosine'"),
        ({"scaling": "ve"}, r"scaling: expected .*, got 've'"),
        ({"alpha": 0.0}, r"alpha: expected 0 < alpha <= 1, got 0.0"),
        ({"rho": 0}, r"rho: expected"),
        ({"S_churn": -1}, r"S_churn: expected"),
    ],
)
def test_bad_samplers(arguments, message):
    with pytest.raises(ValueError, match=message):
        EDMSampler(**arguments)


def test_bad_noise_levels():
    with pytest.raises(ValueError, match="sigma_min, sigma_max: expected"):
        EDMSampler(sigma_min=2.0, sigma_max=1.0).plan(Denoiser())
    with pytest.raises(ValueError, match="expected a range that holds a level"):
        iddpm_sigmas(5, 1e6, 2e6)


def test_bad_rows():
    with pytest.raises(ValueError, match=r"rows\[0\]\.coef: expected names among"):
        Plan("x", (Row(1, 1, 1, 1, {"c_y": 1.0}),), 1.0)
    with pytest.raises(ValueError, match=r"rows\[0\]\.coef: expected finite"):
        Plan("x", (Row(1, 1, 1, 1, {"c_x": math.nan}),), 1.0)


def test_noise_levels_are_clamped_to_what_the_network_supports():
    rows = EDMSampler(steps=5).plan(Denoiser(sigma_min=0.1, sigma_max=20.0)).rows
    assert max(row.sigma for row in rows) == pytest.approx(20)
    assert min(row.sigma for row in rows) == pytest.approx(0.1)


def test_round_sigma_is_asked():
    levels = (0.1, 1.0, 5.0, 30.0)
    rounding = Denoiser(sigma_min=0.1, sigma_max=30.0, round_sigma=lambda s: min(levels, key=lambda level: abs(level - s)))
    assert {round(row.sigma, 9) for row in EDMSampler(steps=6, S_churn=20).plan(rounding).rows} <= set(levels)


@pytest.mark.parametrize("schedule", [Linear(), VE(), VP(), Linear("vp"), VE("vp"), VP("vp")], ids=repr)
def test_schedule_derivatives_and_inverse(schedule):
    for t in (0.05, 0.4, 0.9):
        h = 1e-6
        assert schedule.sigma_deriv(t) == pytest.approx((schedule.sigma(t + h) - schedule.sigma(t - h)) / (2 * h), rel=1e-6)
        assert schedule.scale_deriv(t) == pytest.approx((schedule.scale(t + h) - schedule.scale(t - h)) / (2 * h), rel=1e-6, abs=1e-9)
        assert schedule.time(schedule.sigma(t)) == pytest.approx(t, rel=1e-12)


def test_vp_between_meets_both_ends():
    vp = VP.between(0.01, 50.0, 1e-3)
    assert vp.sigma(1e-3) == pytest.approx(0.01)
    assert vp.sigma(1.0) == pytest.approx(50.0)


def test_edm_sigmas_are_those_of_the_paper():
    sigmas = edm_sigmas(18, 0.002, 80.0)
    assert sigmas[0] == pytest.approx(80)
    assert sigmas[-1] == pytest.approx(0.002)
    assert (sigmas[:-1] > sigmas[1:]).all()


@pytest.mark.parametrize("sampler", [EDMSampler(steps=6), EDMSampler(steps=6, scaling="vp", schedule="vp", discretization="vp", S_churn=3)])
@pytest.mark.parametrize("kind", ["F", "eps", "eps-ve", "score", "v"])
def test_every_parametrization_gives_the_samples_of_the_denoiser(kind, sampler):
    """One mixture, presented as D, F, eps, score and v: the same samples."""
    generator = torch.Generator().manual_seed(0)
    net = Mixture(torch.randn(3, 12, generator=generator), torch.tensor([0.2, 0.3, 0.5]), 0.3)
    vp, sigma_data = VP("vp"), 0.5
    parametrization = {
        "F": EDM(sigma_data=sigma_data),
        "eps": Epsilon(),
        "eps-ve": Epsilon(schedule=Linear(), label_is_sigma=True),
        "score": Score(),
        "v": Velocity(),
    }[kind]

    def presented(x_in, label):
        sigma = {"F": lambda: (4 * label).exp(), "eps-ve": lambda: label}.get(
            kind, lambda: torch.tensor([vp.sigma(float(t) / 999) for t in label], dtype=x_in.dtype)
        )()
        s = torch.tensor([parametrization.c_in(float(v)) for v in sigma], dtype=x_in.dtype)[:, None]
        sigma = sigma[:, None]
        x = x_in / s
        D = net(x, sigma)
        if kind == "F":
            c_skip, c_out = sigma_data**2 / (sigma**2 + sigma_data**2), sigma * sigma_data / (sigma**2 + sigma_data**2).sqrt()
            return (D - c_skip * x) / c_out
        eps = (x - D) / sigma
        if kind == "score":
            return -eps / (s * sigma)
        return s * eps - s * sigma * D if kind == "v" else eps

    latents = torch.randn(4, 12, generator=generator, dtype=torch.float64)
    key = fastdiff.keys(0, 4)
    expected = fastdiff.run(sampler.plan(Denoiser()), net, latents, key=key)
    got = fastdiff.run(sampler.plan(parametrization), presented, latents, key=key)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8)


def test_epsilon_scaling_constant_and_linear():
    assert EpsilonScaling(1.01).mix(3, 1.0) == pytest.approx((1 - 1 / 1.01, 1 / 1.01))
    assert EpsilonScaling(1.0, k=0.01).mix(5, 1.0)[1] == pytest.approx(1 / 1.05)
    constant = EDMSampler(steps=4, eps_scale=1.01).plan(Denoiser())
    assert constant == EDMSampler(steps=4, eps_scale=EpsilonScaling(1.01)).plan(Denoiser())
    linear = EDMSampler(steps=4, eps_scale=EpsilonScaling(1.0, k=0.01)).plan(Denoiser())
    plain = EDMSampler(steps=4).plan(Denoiser())
    lambdas = [p.coef["c_D"] / row.coef["c_D"] for p, row in zip(plain.rows, linear.rows, strict=True)]
    assert lambdas == pytest.approx([1.03, 1.03, 1.02, 1.02, 1.01, 1.01, 1.0])
    with pytest.raises(ValueError, match=r"expected k\*t \+ b > 0"):
        EDMSampler(steps=4, eps_scale=EpsilonScaling(0.02, k=-0.01)).plan(Denoiser())


def test_epsilon_scaling_does_not_depend_on_the_scaling_of_the_state():
    """x = s*(x0 + sigma*z): the same ODE in other coordinates must give the same sample as steps grow small."""
    net = Mixture(torch.tensor([[-1.0, 0.5], [1.0, 0.2]]), torch.tensor([0.4, 0.6]), 0.2)
    latents = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    results = [
        fastdiff.run(EDMSampler(steps=400, scaling=scaling, eps_scale=1.01).plan(Denoiser()), net, latents) for scaling in ("none", "vp")
    ]
    torch.testing.assert_close(*results, rtol=2e-3, atol=2e-3)


def test_guidance_weights_orders_and_window():
    plan = EDMSampler(steps=6).plan(Denoiser())
    window = (0.1, 10.0)
    guided = Guidance(lambda x, sigma: x, weight=2.0, second_order_weight=0.5, window=window).apply(plan)
    for row, plain in zip(guided.rows, plan.rows, strict=True):
        if window[0] <= row.sigma <= window[1]:
            weight = 2.0 if row.order == 1 else 0.5
            assert row.coef["c_g"] == pytest.approx(plain.coef["c_D"] * weight * row.sigma**2)
        else:
            assert "c_g" not in row.coef
    first_only = Guidance(lambda x, sigma: x, weight=2.0).apply(plan)
    assert all("c_g" not in row.coef for row in first_only.rows if row.order == 2)
    assert fastdiff.vp_time_window(0.01, 1.0) == pytest.approx((VP().sigma(0.01), VP().sigma(1.0)))
    with pytest.raises(ValueError, match="time_min, time_max: expected"):
        fastdiff.vp_time_window(0.5, 0.1)


def test_classifier_free_weights():
    plan = EDMSampler(steps=3).plan(EDM())
    assert ClassifierFree(1.0).apply(plan) == plan
    for row, plain in zip(ClassifierFree(2.5).apply(plan).rows, plan.rows, strict=True):
        assert row.coef["b"] == pytest.approx(2.5 * plain.coef["b"])
        assert row.coef["b_u"] == pytest.approx(-1.5 * plain.coef["b"])
