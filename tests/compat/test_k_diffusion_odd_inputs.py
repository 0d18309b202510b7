"""fastdiff.compat.k_diffusion where the arguments are unusual: types, 0-dim tensors, ends of intervals, nested patches."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from fastdiff.compat import k_diffusion as K
from fastdiff.compat._plans import plan_from_state
from tests.compat.upstream_k_diffusion import upstream
from tests.samplers.mixture import Mixture

NET = Mixture(torch.randn(4, 48, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1, 0.2, 0.3, 0.4]), 0.25)
X = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 7
SIGMAS = torch.tensor([7.0, 0.7, 0.1, 0.0])


def model(x, sigma):
    return NET(x, sigma)


def ones(sigma, sigma_next):
    return torch.ones_like(X)


@pytest.mark.parametrize("name", ["euler", "heun", "dpm_2", "lms", "dpmpp_2m", "dpmpp_2s_ancestral", "dpmpp_2m_sde"])
def test_a_model_that_changes_its_sigma_spoils_no_later_run(name):
    sample, given = getattr(K, f"sample_{name}"), {"noise_sampler": ones} if name.startswith("dpmpp_2") and name != "dpmpp_2m" else {}
    first = sample(model, X, SIGMAS, **given)
    sample(lambda x, sigma: NET(x, sigma.clamp_(min=1.0)), X, SIGMAS, **given)
    assert torch.equal(sample(model, X, SIGMAS, **given), first)


@pytest.mark.parametrize("name", ["euler", "heun", "dpm_2"])
@pytest.mark.parametrize("bounds", [{"s_tmin": 0.7}, {"s_tmax": 0.1}], ids=str)
def test_a_level_at_the_end_of_the_churned_range_is_churned(name, bounds, monkeypatch):
    """0.7 in float32 is less than 0.7: upstream compares in the levels' dtype."""
    ours = getattr(K, f"sample_{name}")(model, X, SIGMAS, s_churn=1.0, noise_sampler=ones, **bounds)
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    theirs = getattr(upstream(), f"sample_{name}")(model, X, SIGMAS, disable=True, s_churn=1.0, **bounds)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"])
def test_numbers_given_as_tensors_make_no_new_plans(name):
    sample = getattr(K, f"sample_{name}")
    expected = sample(model, X, SIGMAS, eta=0.5, s_noise=1.5, noise_sampler=ones)
    made = plan_from_state.cache_info().misses
    for _ in range(2):
        got = sample(model, X, SIGMAS, eta=torch.tensor(0.5), s_noise=torch.tensor(1.5), noise_sampler=ones)
        assert torch.equal(got, expected)
    assert plan_from_state.cache_info().misses == made


@pytest.mark.parametrize("name", ["euler", "heun", "dpm_2"])
def test_churn_given_as_tensors_makes_no_new_plans(name):
    sample = getattr(K, f"sample_{name}")
    churn = {"s_churn": 1.0, "s_tmin": 0.5, "s_tmax": 10.0, "s_noise": 1.5}
    expected = sample(model, X, SIGMAS, noise_sampler=ones, **churn)
    made = plan_from_state.cache_info().misses
    got = sample(model, X, SIGMAS, noise_sampler=ones, **{name: torch.tensor(value) for name, value in churn.items()})
    assert torch.equal(got, expected)
    assert plan_from_state.cache_info().misses == made


def test_dpm_solvers_take_tensors_and_no_samples():
    for sample in (lambda *a, **k: K.sample_dpm_fast(*a, 5, **k), K.sample_dpm_adaptive):
        expected = sample(model, X, 0.1, 7.0, eta=0.5, noise_sampler=ones)
        got = sample(model, X, torch.tensor(0.1), torch.tensor(7.0), eta=torch.tensor(0.5), noise_sampler=ones)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
        assert sample(model, X[:0], 0.1, 7.0).shape == (0, 3, 4, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_callbacks_of_the_dpm_solvers_see_the_dtype_of_x(dtype):
    seen: list[dict] = []
    for sample in (lambda *a: K.sample_dpm_fast(*a[:4], 5, *a[4:]), K.sample_dpm_adaptive):
        sample(lambda x, sigma: NET(x.float(), sigma.float()).to(dtype), X.to(dtype), 0.5, 7.0, None, seen.append)
    assert {info[name].dtype for info in seen for name in ("x", "denoised")} == {dtype}


def test_brownian_spans_and_seeds():
    z = K.BrownianTreeNoiseSampler(X, 0.1, 7.0, seed=3)(7.0, 0.1)
    assert torch.equal(K.BrownianTreeNoiseSampler(X, 7.0, 0.1, seed=torch.tensor(3))(7.0, 0.1), z)
    with pytest.raises(ValueError, match=r"t0, t1: expected two different times, got 1.0 and 1.0"):
        K.BatchedBrownianTree(X, 1.0, 1.0)
    tree = K.BatchedBrownianTree(X, 0.0, 2.0, seed=1)
    for outside in (-3.0, 2.5):
        with pytest.raises(ValueError, match=r"t0, t1: expected times within \[0.0, 2.0\], got "):
            tree(1.0, outside)


def test_a_patch_within_a_patch_leaves_the_outer_one():
    module = ModuleType("copy")
    module.sample_euler = original = object()
    with K.patch(module):
        with K.patch(module):
            assert module.sample_euler is K.sample_euler
        assert module.sample_euler is K.sample_euler
    assert module.sample_euler is original


@pytest.mark.parametrize("name", ["x", "denoised"])
def test_a_callback_that_comes_too_late_to_change_a_step_is_refused(name):
    """Upstream calls it before the step, which follows the change."""
    for sample in (K.sample_euler, K.sample_heun, K.sample_dpmpp_2m):
        assert sample(model, X, SIGMAS, None, lambda info: info[name].clone().mul_(2)).shape == X.shape
        with pytest.raises(ValueError, match="callback: expected one that leaves x and denoised as they are"):
            sample(model, X.clone(), SIGMAS, None, lambda info: info[name].mul_(2))
    with pytest.raises(ValueError, match="callback: expected one that leaves x and denoised as they are"):
        K.sample_dpm_fast(model, X.clone(), 0.1, 7.0, 5, None, lambda info: info[name].mul_(2))
    with torch.inference_mode():
        assert K.sample_euler(model, X, SIGMAS, None, lambda info: None).shape == X.shape
