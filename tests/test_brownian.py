"""Brownian paths: increments are white, add up, and stay where they are when the steps are refined, at a bounded cost."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import fastdiff
from fastdiff import VESDE, BrownianPath, Denoiser, DPMSolver2M, DPMSolver2S, EDMSampler, EulerAncestral, PCSampler, Plan
from tests.samplers.mixture import Mixture

PATH = BrownianPath(0.01, 100.0, depth=10)
LIKE = torch.empty(4, 3, 5, 5, dtype=torch.float64)
KEY = fastdiff.keys(0, 4)


def level(path: BrownianPath, point: int) -> float:
    """The noise level of a grid point, 0 at sigma_max."""
    return path.sigma_max * (path.sigma_min / path.sigma_max) ** (point / 2**path.depth)


def increment(path: BrownianPath, start: int, end: int, like: torch.Tensor = LIKE, key: torch.Tensor = KEY) -> torch.Tensor:
    """M(q_end) - M(q_start) in the clock q = 1/sigma^2, from the normalized noise, between grid points."""
    high, low = level(path, start), level(path, end)
    return math.sqrt(low**-2 - high**-2) * path.noise(like, key, high, low)


def weights(path: BrownianPath, start: int, end: int) -> dict[int, float]:
    return dict(zip(*path.increment(level(path, start), level(path, end)), strict=True))


POINTS = [0, 1, 2, 17, 256, 257, 512, 700, 701, 1000, 1023, 1024]


def test_increments_are_standard_and_independent_as_sums_of_draws():
    """The draws are independent N(0, 1): increments over disjoint steps are an orthonormal set of weights."""
    steps = [weights(PATH, a, b) for a, b in itertools.pairwise(POINTS)]
    for i, one in enumerate(steps):
        for j, two in enumerate(steps):
            inner = sum(w * two.get(draw, 0.0) for draw, w in one.items())
            assert inner == pytest.approx(float(i == j), abs=1e-9), (POINTS[i], POINTS[j])
    overlapping = sum(w * weights(PATH, 256, 700).get(draw, 0.0) for draw, w in weights(PATH, 0, 512).items())
    q = [level(PATH, point) ** -2 for point in (0, 256, 512, 700)]
    assert overlapping == pytest.approx((q[2] - q[1]) / math.sqrt((q[2] - q[0]) * (q[3] - q[1])), rel=1e-9)


def test_increments_are_standard_and_independent_as_noise():
    """4 x 5000 elements: mean, variance, fourth moment, correlations of steps and of samples, within five standard errors."""
    like = torch.empty(4, 5000, dtype=torch.float64)
    z = torch.stack([PATH.noise(like, KEY, level(PATH, a), level(PATH, b)) for a, b in itertools.pairwise(POINTS)])
    error = 5 / like.numel() ** 0.5
    flat = z.flatten(1)
    assert (flat.mean(1).abs() < error).all()
    assert ((flat.square().mean(1) - 1).abs() < error * 2**0.5).all()
    assert ((flat**4).mean(1) - 3).abs().max() < error * 96**0.5
    assert ((flat @ flat.T / like.numel()).fill_diagonal_(0).abs() < error).all()
    samples = z.transpose(0, 1).flatten(1)
    assert ((samples @ samples.T / samples.shape[1]).fill_diagonal_(0).abs() < 5 / samples.shape[1] ** 0.5).all()


@pytest.mark.parametrize(("a", "b", "c"), [(0, 512, 1024), (0, 1, 2), (3, 700, 701), (255, 256, 257), (511, 640, 1023)])
def test_increments_add_up(a, b, c):
    """From a to b and from b to c as from a to c, in the clock q = 1/sigma^2."""
    torch.testing.assert_close(
        increment(PATH, a, b) + increment(PATH, b, c), increment(PATH, a, c), rtol=1e-9, atol=1e-11 * level(PATH, c) ** -1
    )


def test_refining_keeps_the_path():
    """Twice as many steps, again and again, down to the cells: the same sum over the same span."""
    whole = increment(PATH, 0, 1024)
    for steps in (2, 8, 64, 1024):
        points = range(0, 1025, 1024 // steps)
        torch.testing.assert_close(sum(increment(PATH, a, b) for a, b in itertools.pairwise(points)), whole, rtol=1e-9, atol=1e-9)


def test_a_finer_grid_is_of_the_same_path():
    """The nodes of the tree keep their draws: a deeper path goes through the same values."""
    deeper = BrownianPath(PATH.sigma_min, PATH.sigma_max, PATH.depth + 4)
    for a, b in ((0, 1), (17, 700), (1000, 1024)):
        fine, coarse = weights(deeper, 16 * a, 16 * b), weights(PATH, a, b)
        assert fine.keys() == coarse.keys()
        assert [fine[draw] for draw in coarse] == pytest.approx(list(coarse.values()), rel=1e-9)
    other_span = BrownianPath(PATH.sigma_min, 2 * PATH.sigma_max, PATH.depth)
    assert not torch.allclose(other_span.noise(LIKE, KEY, 1.0, 0.5), PATH.noise(LIKE, KEY, 1.0, 0.5), atol=0.1)


@pytest.mark.parametrize("depth", [1, 5, 12, 20, 40])
def test_the_cost_of_an_increment_is_bounded(depth):
    """At most 2*depth + 1 draws, however many steps there are; one where the step is the span."""
    path = BrownianPath(0.01, 100.0, depth)
    last = 2**depth
    assert len(weights(path, 0, last)) == 1
    for a, b in ((0, 1), (last - 1, last), (last // 3, last // 3 + 1), (last // 2 - 1, last // 2 + 1), (last // 5, 4 * last // 5 + 1)):
        if 0 <= a < b <= last:
            draws = weights(path, a, b)
            assert 1 <= len(draws) <= 2 * depth + 1
            assert sum(w**2 for w in draws.values()) == pytest.approx(1, abs=1e-12)


def test_the_path_is_the_keys_alone():
    """Bit for bit, whatever the batch, and apart from the noise of the state."""
    noise = PATH.noise(LIKE, KEY, 3.0, 1.0)
    assert torch.equal(noise[2:], PATH.noise(LIKE[2:], KEY[2:], 3.0, 1.0))
    assert torch.equal(noise, BrownianPath(0.01, 100.0, depth=10).noise(LIKE, KEY, 3.0, 1.0))
    assert not torch.allclose(noise, PATH.noise(LIKE, fastdiff.keys(1, 4), 3.0, 1.0), atol=0.1)
    draws, _ = PATH.increment(100.0, 0.01)
    assert draws == [0]
    whole = PATH.noise(LIKE, KEY, 100.0, 0.01)
    assert torch.equal(whole, fastdiff.normal(LIKE, KEY, 0, int(fastdiff.Stream.PATH)))
    assert not torch.allclose(whole, fastdiff.normal(LIKE, KEY, 0), atol=0.1)
    assert PATH.noise(LIKE.float(), KEY, 3.0, 1.0).dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BrownianPath(1.0, 0.5), r"sigma_min, sigma_max: expected 0 < sigma_min < sigma_max, got 1.0 and 0.5"),
        (lambda: BrownianPath(0.0, 0.5), r"sigma_min, sigma_max: expected 0 < sigma_min"),
        (lambda: BrownianPath(depth=0), r"depth: expected an integer from 1 to 40, got 0"),
        (lambda: BrownianPath(depth=41), r"depth: expected an integer from 1 to 40, got 41"),
        (lambda: PATH.noise(LIKE, KEY, 101.0, 1.0), r"sigma: expected a level within the path's span \[0.01, 100.0\], got 101.0"),
        (lambda: PATH.noise(LIKE, KEY, 1.0, 0.009), r"sigma: expected a level within the path's span \[0.01, 100.0\], got 0.009"),
        (lambda: PATH.noise(LIKE, KEY, 1.0, 1.0), r"sigma: expected levels more than a cell .* apart \(depth=10\), got 1.0 and 1.0"),
        (lambda: PATH.noise(LIKE, KEY, 1.0, 0.9999), r"sigma: expected levels more than a cell of the path apart"),
        (lambda: PATH.noise(LIKE, KEY, 0.5, 1.0), r"sigma: expected levels more than a cell of the path apart"),
    ],
)  # fmt: skip
def test_errors_say_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- In the loop -------------------------------------------------------------------------------------------------------------

NET = Mixture(torch.tensor([[-1.0, 0.5], [1.0, 0.2]]), torch.tensor([0.4, 0.6]), 0.3)
LATENTS = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SEEDS = fastdiff.keys(3, 6)


def on_the_path(plan: Plan, key: torch.Tensor = SEEDS, latents: torch.Tensor = LATENTS, path: BrownianPath = PATH) -> torch.Tensor:
    return fastdiff.run(plan, NET, latents, key=key, path=path)


def test_a_step_takes_the_paths_increment():
    """One step to sigma = 1: the noise is that of the path from the first level to the last."""
    plan = EulerAncestral(sigmas=[50.0, 1.0], to_zero=False).plan(Denoiser())
    (row,) = plan.rows
    D = NET(50 * LATENTS, torch.full((6,), 50.0, dtype=torch.float64))
    expected = row.coef["c_x"] * 50 * LATENTS + row.coef["c_D"] * D + row.coef["c_n"] * PATH.noise(LATENTS, SEEDS, 50.0, 1.0)
    torch.testing.assert_close(on_the_path(plan), expected, rtol=1e-12, atol=1e-12)


def test_a_step_of_two_calls_takes_the_increment_of_the_whole_step():
    """2S draws at its second call, half way down, but the noise belongs to the step from its first."""
    plan = DPMSolver2S(sigmas=[50.0, 1.0], to_zero=False, eta=1.0).plan(Denoiser())
    first, second = plan.rows
    x = 50 * LATENTS
    D = NET(x, torch.full((6,), 50.0, dtype=torch.float64))
    D = NET(first.coef["c_x"] * x + first.coef["c_D"] * D, torch.full((6,), second.sigma, dtype=torch.float64))
    expected = second.coef["c_h1"] * x + second.coef["c_D"] * D + second.coef["c_n"] * PATH.noise(LATENTS, SEEDS, 50.0, 1.0)
    torch.testing.assert_close(on_the_path(plan), expected, rtol=1e-12, atol=1e-12)


SAMPLERS = {
    "Euler ancestral": EulerAncestral(steps=8, sigma_min=0.02),
    "2M": DPMSolver2M(steps=8, sigma_min=0.02, eta=1.0),
    "2S, eta 1": DPMSolver2S(steps=8, sigma_min=0.02, eta=1.0),
    "2S, eta 0.5": DPMSolver2S(steps=8, sigma_min=0.02, eta=0.5),
    "EDM Heun, churn": EDMSampler(steps=8, sigma_min=0.02, sigma_max=60.0, S_churn=10),
    "PC with Langevin": PCSampler(VESDE(0.02, 80.0), steps=10),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_runs_on_a_path_depend_on_the_keys_and_not_on_the_batch(name):
    plan = SAMPLERS[name].plan(Denoiser())
    if name.startswith("PC"):  # a batch's Langevin step size is of the batch
        plan = PCSampler(VESDE(0.02, 80.0), steps=10, step_size="sample").plan(Denoiser())
    whole = on_the_path(plan)
    assert torch.isfinite(whole).all()
    torch.testing.assert_close(whole[4:], on_the_path(plan, SEEDS[4:], LATENTS[4:]), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(whole, on_the_path(plan), rtol=0, atol=0)
    assert not torch.allclose(whole, on_the_path(plan, fastdiff.keys(4, 6)), atol=1e-3)


def test_more_steps_lead_to_the_same_samples_only_on_a_path():
    def distance(**path) -> float:
        few, many = (
            fastdiff.run(EulerAncestral(steps=n, sigma_min=0.02, rho=100.0).plan(Denoiser()), NET, LATENTS, key=SEEDS, **path)
            for n in (100, 200)
        )
        return float((few - many).norm())

    assert distance(path=PATH) < 0.25 * distance()


def test_a_path_needs_keys_and_levels_within_its_span():
    plan = EulerAncestral(steps=4).plan(Denoiser())
    with pytest.raises(ValueError, match="path: expected noise keys beside it, got none"):
        fastdiff.run(plan, NET, LATENTS, noise=torch.randn_like, path=PATH)
    with pytest.raises(ValueError, match=r"sigma: expected a level within the path's span \[0.01, 100.0\], got 0.002"):
        on_the_path(plan)


def test_where_no_noise_is_drawn_a_path_changes_nothing():
    plan = DPMSolver2M(steps=8).plan(Denoiser())
    assert torch.equal(on_the_path(plan), fastdiff.run(plan, NET, LATENTS))
