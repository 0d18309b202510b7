"""Linear multistep, DPM-Solver-2, -fast and SDE-DPM-Solver++(2S): orders, what folds into kept slopes, explicit levels."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import quad

import fastdiff
from fastdiff import (
    EDM,
    BrownianPath,
    ClassifierFree,
    Denoiser,
    DPMSolver2M,
    DPMSolver3M,
    EDMSampler,
    Epsilon,
    EpsilonScaling,
    EulerAncestral,
    Guidance,
)
from fastdiff.samplers import DPM2Ancestral, DPMSolverFast, LinearMultistep, SDEDPMSolver2S, adams_weights
from fastdiff.schedules import Linear, edm_sigmas
from tests.samplers.mixture import Mixture
from tests.samplers.test_convergence import HIGH, LOW, NET, geometric, slope

LEVELS = (20.0, 8.0, 3.0, 1.0, 0.3, 0.1)
NEW = [
    LinearMultistep(sigmas=LEVELS),
    LinearMultistep(sigmas=LEVELS, order=1),
    LinearMultistep(sigmas=LEVELS, order=3, to_zero=False),
    DPM2Ancestral(sigmas=LEVELS, eta=0.7),
    SDEDPMSolver2S(sigmas=LEVELS),
    SDEDPMSolver2S(sigmas=LEVELS, r=0.4, eta=0.5),
    DPMSolverFast(11, 0.1, 20.0, eta=0.5),
    EDMSampler(sigmas=LEVELS, solver="dpm_2", S_churn=2.0),
]
IDS = ["lms", "lms 1", "lms 3, not to 0", "dpm_2 ancestral", "sde 2s", "sde 2s, r 0.4", "dpm fast", "dpm_2"]
SCALABLE = [s for s in NEW if hasattr(s, "scaling") and not isinstance(s, EDMSampler)]  # (EDM's steps are of the scaled state)


@pytest.fixture
def net():
    generator = torch.Generator().manual_seed(0)
    return Mixture(torch.randn(4, 12, generator=generator), torch.tensor([0.1, 0.2, 0.3, 0.4]), 0.25)


@pytest.fixture
def latents():
    return torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


KEY = fastdiff.keys(0, 4)


def run(sampler, net, latents, parametrization=None, **arguments):
    return fastdiff.run(sampler.plan(parametrization or Denoiser()), net, latents, key=KEY, **arguments)


def close(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# ---- Weights and orders --------------------------------------------------------------------------------------------------


def test_adams_weights_integrate_the_polynomial():
    sigmas = [9.0, 5.0, 3.5, 1.0, 0.2]
    for i, order in itertools.product(range(4), range(1, 5)):
        if order > i + 1:
            with pytest.raises(ValueError, match=rf"order: expected an integer from 1 to {i + 1} at step {i}, got {order}"):
                adams_weights(sigmas, i, order)
            continue
        for j, weight in enumerate(adams_weights(sigmas, i, order)):
            others = [sigmas[i - k] for k in range(order) if k != j]

            def integrand(s, j=j, i=i, others=others):
                return math.prod((s - o) / (sigmas[i - j] - o) for o in others)

            assert weight == pytest.approx(quad(integrand, sigmas[i], sigmas[i + 1])[0], rel=1e-11, abs=1e-12)
    assert adams_weights([3.0, 2.0, 1.0], 1, 2) == pytest.approx([-1.5, 0.5])  # Adams-Bashforth's 3/2, -1/2
    with pytest.raises(ValueError, match="sigmas: expected levels 0 to 1 that differ"):
        adams_weights([3.0, 3.0, 1.0], 1, 2)


ODE = {
    "lms 1": (lambda n: LinearMultistep(sigmas=geometric(n), order=1, to_zero=False), 1, (64, 128, 256)),
    "lms 2": (lambda n: LinearMultistep(sigmas=geometric(n), order=2, to_zero=False), 2, (64, 128, 256)),
    "lms 3": (lambda n: LinearMultistep(sigmas=geometric(n), order=3, to_zero=False), 3, (128, 256, 512)),
    "lms 4": (lambda n: LinearMultistep(sigmas=geometric(n), to_zero=False), 4, (128, 256, 512)),
    "dpm_2": (lambda n: EDMSampler(sigmas=geometric(n), solver="dpm_2", to_zero=False), 2, (32, 64, 128)),
    "dpm_2 ancestral, eta 0": (lambda n: DPM2Ancestral(sigmas=geometric(n), eta=0.0, to_zero=False), 2, (32, 64, 128)),
    "sde 2s, eta 0": (lambda n: SDEDPMSolver2S(sigmas=geometric(n), eta=0.0, to_zero=False), 2, (32, 64, 128)),
    "sde 2s, r 0.3, eta 0": (lambda n: SDEDPMSolver2S(sigmas=geometric(n), eta=0.0, r=0.3, to_zero=False), 2, (32, 64, 128)),
    "dpm fast": (lambda n: DPMSolverFast(3 * n + 2, LOW, HIGH), 3, (32, 64, 128)),
}


@pytest.fixture(scope="module")
def start():
    return torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(scope="module")
def end_of_the_flow(start):
    """By another family, third-order, at 3000 steps."""
    return fastdiff.run(DPMSolver3M(sigmas=geometric(3000), to_zero=False).plan(Denoiser()), NET, start)


@pytest.mark.parametrize("name", ODE)
def test_order(name, start, end_of_the_flow):
    make, order, steps = ODE[name]
    errors = [float((fastdiff.run(make(n).plan(Denoiser()), NET, start) - end_of_the_flow).abs().max()) for n in steps]
    assert slope(list(steps), errors) > order - 0.35, errors


def test_noise_levels_of_dpm_fast():
    for calls in range(1, 20):
        sampler = DPMSolverFast(calls, 0.1, 10.0)
        assert sum(sampler.orders) == calls == len(sampler.plan(Denoiser()))
        assert sampler.levels == pytest.approx(list(np.geomspace(10.0, 0.1, len(sampler.orders) + 1)))


@pytest.mark.parametrize("sampler", [DPM2Ancestral(steps=40), SDEDPMSolver2S(steps=40), DPMSolverFast(150, 0.002, 80.0, eta=1.0)], ids=str)
def test_stochastic_samples_are_of_the_mixture(sampler):
    net = Mixture(torch.tensor([[-2.0, 0.0], [2.0, 1.0]]), torch.tensor([0.3, 0.7]), 0.2)
    exact = net.sample(20000, 0)
    x = fastdiff.sample(net, (4000, 2), seeds=1, sampler=sampler).double()
    assert ((x.mean(0) - exact.mean(0)).abs() < 5 * exact.std(0) / 4000**0.5).all()
    assert abs(float((x[:, 0] > 0).double().mean()) - 0.7) < 5 * (0.21 / 4000) ** 0.5
    assert ((x.std(0) - exact.std(0)).abs() < 0.05 * exact.std(0) + 0.02).all()


# ---- What folds into a plan, for every new way of keeping ----------------------------------------------------------------


@pytest.mark.parametrize("sampler", NEW, ids=IDS)
def test_parametrizations_give_the_same_samples(sampler, net, latents):
    """An EDM network and an eps network of the same denoiser."""
    edm, eps = EDM(sigma_data=0.6), Epsilon(schedule=Linear("vp"), label_scale=1.0)

    def raw(meaning):
        def call(x_in, label, **_):
            sigma = (4 * label).exp() if meaning is edm else label
            level = float(sigma[0])
            x = x_in / meaning.c_in(level)
            a, b = meaning.denoiser(level)
            return (net(x, sigma) - a * x) / b

        return call

    expected = run(sampler, net, latents)
    for meaning in (edm, eps):
        close(run(sampler, raw(meaning), latents, meaning), expected, 1e-8)


@pytest.mark.parametrize("sampler", SCALABLE, ids=str)
def test_scaling_does_not_change_samples(sampler, net, latents):
    """The scaled state is the unscaled one times s at every level."""
    scaled = replace(sampler, scaling="vp")
    seen: tuple[list, list] = ([], [])
    for s, infos in zip((sampler, scaled), seen, strict=True):
        run(s, net, latents, callback=infos.append)
    plan = scaled.plan(Denoiser())
    for row, a, b in zip(plan.rows, *seen, strict=True):
        close(a.D, b.D, 1e-8)
        close(a.before * row.scale, b.before, 1e-8)
        close(a.x * row.next_scale, b.x, 1e-8)


@pytest.mark.parametrize("sampler", NEW, ids=IDS)
@pytest.mark.parametrize("scaling", [EpsilonScaling(1.01), EpsilonScaling(1.0, 0.005), EpsilonScaling(1.01, of_scaled_state=True)], ids=str)
def test_epsilon_scaling_is_a_scaled_denoiser(sampler, scaling, net, latents):
    """lambda in the plan, or D - and what is kept - from a network whose eps is divided by lambda."""
    for s in [sampler, replace(sampler, scaling="vp")] if hasattr(sampler, "scaling") else [sampler]:
        plan = s.plan(Denoiser())
        rows = iter(plan.rows)

        def scaled(x, sigma, rows=rows, **_):
            row = next(rows)
            p, q = scaling.mix(row.remaining, row.scale)
            return p * (x * row.scale) + q * net(x, sigma)

        close(fastdiff.run(plan, net, latents, key=KEY, eps_scale=scaling), fastdiff.run(plan, scaled, latents, key=KEY))


@pytest.mark.parametrize("sampler", NEW, ids=IDS)
def test_guidance_is_a_guided_denoiser(sampler, net, latents):
    def gradient(x, sigma, **_):
        return torch.tanh(x) / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)

    def guided(x, sigma, **_):
        inside = (sigma.reshape(-1, 1, 1, 1) > 0.21).double()
        return net(x, sigma) + inside * 1.5 * sigma.reshape(-1, 1, 1, 1) ** 2 * gradient(x, sigma)

    for s in [sampler, replace(sampler, scaling="vp")] if hasattr(sampler, "scaling") else [sampler]:
        guidance = Guidance(gradient, 1.5, 1.5, window=(0.21, math.inf))
        close(run(s, net, latents, guidance=guidance), run(s, guided, latents))
        cfg = ClassifierFree(2.0, {"uncond": True})

        def both(x, sigma, uncond=False, **_):
            return 0.5 * net(x, sigma) if uncond else net(x, sigma)  # D_c + (D_c - D_u) = 1.5 D

        def mixed(x, sigma, **_):
            return 1.5 * net(x, sigma)

        close(run(s, both, latents, cfg=cfg), run(s, mixed, latents))

        def together(x, sigma, **_):
            return guided(x, sigma) + 0.5 * net(x, sigma)

        close(run(s, both, latents, cfg=cfg, guidance=guidance), run(s, together, latents))


@pytest.mark.parametrize("sampler", NEW, ids=IDS)
@pytest.mark.parametrize("scaling", ["none", "vp"])
def test_callbacks_see_the_denoised_estimate_and_eps(sampler, scaling, net, latents):
    """Also where slopes are kept, and the next state is the state before of the next call."""
    s = replace(sampler, scaling=scaling) if hasattr(sampler, "scaling") else sampler
    infos: list[fastdiff.StepInfo] = []
    watched = run(s, net, latents, callback=infos.append)
    assert torch.equal(watched, run(s, net, latents))
    plan = s.plan(Denoiser())
    for row, info in zip(plan.rows, infos, strict=True):
        x = info.before / row.scale
        D = net(x, torch.full((4,), row.sigma, dtype=torch.float64))
        close(info.D, D)
        close(info.eps_norm, ((x - D) / row.sigma).flatten(1).norm(dim=1))
    for a, b in itertools.pairwise(infos):
        assert torch.equal(a.x, b.before)
    assert torch.equal(infos[-1].x, watched)


@pytest.mark.parametrize("sampler", [*NEW, DPMSolver3M(sigmas=LEVELS)], ids=[*IDS, "3m"])
def test_reused_outputs_change_nothing(sampler, net, latents):
    """Outputs that are D are kept instead of copies; anything that makes D another tensor still does."""
    guidance = Guidance(lambda x, sigma, **_: -x, 0.1, 0.1)
    for more in ({}, {"eps_scale": 1.01}, {"guidance": guidance}, {"cfg": ClassifierFree(2.0, {})}):
        infos: tuple[list, list] = ([], [])
        a, b = (run(sampler, net, latents, reuse_outputs=reuse, callback=infos[reuse].append, **more) for reuse in (False, True))
        assert torch.equal(a, b)
        assert torch.equal(a, run(sampler, net, latents, reuse_outputs=True, **more))
        assert all(torch.equal(x.D, y.D) for x, y in zip(*infos, strict=True))
    outputs: list[torch.Tensor] = []
    kept: list[torch.Tensor] = []
    run(
        sampler,
        lambda x, sigma: outputs.append(net(x, sigma)) or outputs[-1],
        latents,
        reuse_outputs=True,
        callback=lambda i: kept.append(i.D),
    )
    slopes = isinstance(sampler, LinearMultistep)
    assert all((a is b) != slopes for a, b in zip(outputs, kept, strict=True))


def test_a_clip_is_refused_where_slopes_are_kept(net, latents):
    with pytest.raises(ValueError, match="clip: expected none for LinearMultistep"):
        run(NEW[0], net, latents, clip=(-1.0, 1.0))

    def clipped(x, sigma, **_):
        return net(x, sigma).clamp(-0.5, 0.5)

    for sampler in NEW[3:]:
        close(run(sampler, net, latents, clip=(-0.5, 0.5)), run(sampler, clipped, latents))


@pytest.mark.parametrize("sampler", NEW, ids=IDS)
def test_keys_and_callable_agree(sampler, net, latents):
    draws = iter(range(1, 100))
    plan = sampler.plan(Denoiser())

    def noise(like):
        return fastdiff.normal(like, KEY, next(draws))

    close(fastdiff.run(plan, net, latents, noise=noise), fastdiff.run(plan, net, latents, key=KEY))
    assert next(draws) == 1 + plan.draws


# ---- Explicit levels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [{}, {"solver": "euler"}, {"S_churn": 20.0, "S_min": 0.05}, {"scaling": "vp"}, {"alpha": 0.6}], ids=str
)
def test_edm_sampler_with_its_own_levels_is_itself(arguments):
    sigmas = tuple(float(sigma) for sigma in edm_sigmas(9, 0.01, 50.0))
    expected = EDMSampler(steps=9, sigma_min=0.01, sigma_max=50.0, **arguments).plan(Denoiser())
    given = EDMSampler(sigmas=sigmas, **arguments).plan(Denoiser())
    assert given == expected
    assert EDMSampler(sigmas=(*sigmas, 0.0), to_zero=False, **arguments).plan(Denoiser()) == expected


def test_edm_sampler_stops_at_the_last_level_and_may_go_up(net, latents):
    plan = EDMSampler(sigmas=LEVELS, to_zero=False, S_churn=2.0).plan(Denoiser())
    assert len(plan) == 2 * (len(LEVELS) - 1)
    assert plan.draws == len(LEVELS) - 1
    assert plan.rows[-1].next_sigma == LEVELS[-1]
    assert plan.rows[0].sigma == pytest.approx(20.0 * (1 + min(2.0 / 5, math.sqrt(2) - 1)))
    down, up = (tuple(np.geomspace(*ends, 400)) for ends in ((5.0, 1.0), (1.0, 5.0)))
    there = fastdiff.run(EDMSampler(sigmas=down, to_zero=False).plan(Denoiser()), net, latents)
    back = fastdiff.run(EDMSampler(sigmas=up, to_zero=False).plan(Denoiser()), net, there)  # prior_scale 1: starts at sigma 1
    close(back, 5 * latents, 1e-3)


def test_levels_in_any_order(net, latents):
    up_and_down = (2.0, 4.0, 4.0, 1.0)
    for sampler in (EulerAncestral(sigmas=up_and_down, eta=0.0, falling=False), EDMSampler(sigmas=up_and_down, solver="euler")):
        close(run(replace(sampler, to_zero=False), net, latents), run(EulerAncestral(sigmas=(2.0, 4.0, 1.0), eta=0.0, to_zero=False, falling=False), net, latents))  # noqa: E501  # fmt: skip
    for sampler in (
        EulerAncestral(sigmas=up_and_down, eta=1.0, falling=False),
        DPMSolver2M(sigmas=up_and_down),
        SDEDPMSolver2S(sigmas=(1.0, 3.0)),
    ):
        with pytest.raises(ValueError, match="sigmas: expected at least two levels that"):
            sampler.plan(Denoiser())
    for bad in ((1.0,), (0.0, 1.0), (1.0, -1.0), (1.0, math.nan), (math.inf, 1.0)):
        with pytest.raises(ValueError, match="sigmas: expected at least two levels"):
            EDMSampler(sigmas=bad, to_zero=False).plan(Denoiser())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearMultistep(order=5), "order: expected 1, 2, 3 or 4, got 5"),
        (lambda: SDEDPMSolver2S(r=1.5), "r: expected 0 < r <= 1, got 1.5"),
        (lambda: DPM2Ancestral(eta=-1.0), "eta: expected a number >= 0, got -1.0"),
        (lambda: DPMSolverFast(0), "calls: expected an integer >= 1, got 0"),
        (lambda: DPMSolverFast(5, 3.0, 1.0, eta=0.5), "eta: expected 0 where sigma rises, got 0.5"),
        (lambda: DPMSolverFast(5, 1.0, 1.0), "sigma_max: expected a number > 0, not sigma_min, got 1.0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_finer_grid_keeps_a_path():
    path, like = BrownianPath(0.01, 100.0, depth=6), torch.empty(4, 500, dtype=torch.float64)
    levels = [100.0 * 1e-4 ** (point / 64) for point in (0, 16, 17)]  # points of the coarse grid
    finer = path.resolving([(10.0, 9.99)])
    assert finer.depth > path.depth
    assert path.resolving([(10.0, 5.0), (0.0, 0.0)]) is path
    for high, low in itertools.combinations(levels, 2):
        close(finer.noise(like, KEY, high, low), path.noise(like, KEY, high, low))
    assert torch.isfinite(finer.noise(like, KEY, 10.0, 9.99)).all()
