"""fastdiff.compat.diffusers where a program does something unusual: mixed types, schedules changed in place, runs without set_timesteps."""

from __future__ import annotations

import inspect

import pytest
import torch

original = pytest.importorskip("diffusers", minversion="0.35")

import fastdiff.compat.diffusers as ours  # noqa: E402

NAMES = [cls.__name__ for cls in ours.SCHEDULERS]
SHAPE = (2, 3, 4, 4)
X = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def take(scheduler, F, t, x, **arguments):
    """(outputs of one step) of any scheduler, noise from a generator."""
    step = getattr(scheduler, "step", None) or scheduler.step_pred
    if hasattr(scheduler, "scale_model_input"):
        scheduler.scale_model_input(x, t)
    if "generator" in inspect.signature(step).parameters:
        arguments.setdefault("generator", torch.Generator().manual_seed(1))
    return step(F, t, x, return_dict=False, **arguments)


TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_mixed_types_give_the_originals(name):
    config = {"algorithm_type": "sde-dpmsolver++"} if "DPMSolver" in name else {}
    for state in TYPES:
        for output in TYPES:
            results = []
            for module in (original, ours):
                scheduler = getattr(module, name)(**config)
                scheduler.set_timesteps(4)
                x = X.to(state)
                for t in scheduler.timesteps[:2]:
                    x, *rest = take(scheduler, X.flip(0).to(output), t, x)
                results.append([x, *rest])
            for expected, got in zip(*results, strict=True):
                assert got.dtype == expected.dtype, (state, output)
                atol = (0.1 if min(torch.finfo(state).bits, torch.finfo(output).bits) == 16 else 2e-4) * max(1, float(expected.abs().max()))
                torch.testing.assert_close(got.double(), expected.double(), rtol=0, atol=atol)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_in_inference_mode_spoils_no_gradients(name):
    scheduler = getattr(ours, name)()
    scheduler.set_timesteps(4)
    arguments = {"generator": None} if "generator" in inspect.signature(getattr(scheduler, "step", take)).parameters else {}
    F = X.clone().requires_grad_()
    with torch.inference_mode():
        take(scheduler, X, scheduler.timesteps[0], X, **arguments)
    scheduler._step_index = scheduler.dt = None  # the same step again, with the tables that were made
    scheduler.model_outputs, scheduler.derivatives, scheduler.lower_order_nums = [None] * 3, [], 0
    take(scheduler, F, scheduler.timesteps[0], X, **arguments)[0].sum().backward()
    assert F.grad is not None
    assert F.grad.abs().min() > 0


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        *((n, "sigmas") for n in NAMES if "Euler" in n or "Heun" in n or "LMS" in n or "Multistep" in n),
        ("DDPMScheduler", "alphas_cumprod"),
        ("DDIMScheduler", "alphas_cumprod"),
    ],
)
def test_a_schedule_changed_in_place_is_seen(name, schedule):
    results = []
    for module in (original, ours):
        scheduler = getattr(module, name)()
        for factor in (1.0, 0.8):
            scheduler.set_timesteps(5)
            if factor == 1 and module is ours:
                _ = scheduler.plan.matrix()  # made for the schedule as it was
            getattr(scheduler, schedule).mul_(factor)
            if factor == 1:
                take(scheduler, X, scheduler.timesteps[0], X)
        if name.startswith("DD"):  # (their schedule is that of training: set_timesteps leaves it)
            take(scheduler, X, scheduler.timesteps[1], X)
            getattr(scheduler, schedule).mul_(0.9)
        results.append(take(scheduler, X, scheduler.timesteps[1 if name.startswith("DD") else 0], X))
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * max(1, float(expected.abs().max())))


@pytest.mark.parametrize(("name", "arguments"), [("DDPMScheduler", {}), ("DDIMScheduler", {"eta": 1.0})])
@pytest.mark.parametrize("steps", [1, 5])
def test_torchs_seed_repeats_a_run_without_set_timesteps(name, arguments, steps):
    """These schedulers have no index that must be set back: programs set the timesteps once and sample often."""
    scheduler, runs = getattr(ours, name)(), []
    scheduler.set_timesteps(steps + 1)
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        x, seen = X, []
        for t in scheduler.timesteps[:-1]:
            x = scheduler.step(X * 0.1, t, x, **arguments).prev_sample
            seen.append(x)
        runs.append(seen)
    assert all(torch.equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not torch.equal(runs[0][-1], runs[2][-1])


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler"])
def test_timesteps_changed_in_place_are_seen(name):
    results = []
    for module in (original, ours):
        scheduler = getattr(module, name)()
        scheduler.set_timesteps(5)
        scheduler.timesteps[1] = 500
        results.append(take(scheduler, X, scheduler.timesteps[1], X)[0])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_steps_under_torch_func():
    gradients = []
    for module in (original, ours):
        scheduler = module.DDIMScheduler(clip_sample=False)
        scheduler.set_timesteps(5)
        step = lambda x, scheduler=scheduler: scheduler.step(x.sin(), scheduler.timesteps[1], x).prev_sample.square().sum()  # noqa: E731
        gradients.append(torch.func.grad(step)(X))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_etas_make_no_more_tables_than_are_kept():
    scheduler = ours.DDIMScheduler()
    scheduler.set_timesteps(5)
    t = scheduler.timesteps[0]
    same = [scheduler.step(X, t, X, eta=eta, variance_noise=X).prev_sample for eta in (0.5, torch.tensor(0.5), torch.tensor(0.5))]
    assert torch.equal(same[0], same[1])
    assert len(scheduler._tables) == 1
    for i in range(40):
        scheduler.step(X, t, X, eta=i / 40, variance_noise=X)
    assert len(scheduler._tables) <= 8
    assert torch.equal(scheduler.step(X, t, X, eta=0.5, variance_noise=X).prev_sample, same[0])


@pytest.mark.parametrize(("bound", "level"), [("s_tmin", 0.7), ("s_tmax", 0.1)])
def test_a_level_at_the_end_of_the_churned_range_is_churned(bound, level):
    """0.7 in float32 is less than 0.7, and 0.1 more than 0.1: the original compares in float32."""
    results = []
    for module in (original, ours):
        scheduler, x = module.EDMEulerScheduler(sigma_min=level, sigma_max=7.0), X
        scheduler.set_timesteps(3)
        scheduler.sigmas[-2] = level
        for t in scheduler.timesteps:
            x = take(scheduler, X * 0.1, t, x, s_churn=2.0, **{bound: level})[0]
        results.append(x)
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_accelerated_between_the_halves_of_a_heun_step():
    results = []
    for swap in (False, True):
        scheduler, x = original.HeunDiscreteScheduler(), X * 10
        scheduler.set_timesteps(5)
        for i, t in enumerate(scheduler.timesteps):
            if swap and i == 3:
                assert scheduler.dt is not None
                ours.accelerate(scheduler)
            x = take(scheduler, torch.tanh(x), t, x)[0]
        results.append(x)
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_integers_on_other_devices_are_not_indices():
    """The original refuses integers that are Python's or the CPU's alone."""
    scheduler = ours.EulerDiscreteScheduler()
    scheduler.is_scale_input_called = True
    scheduler._check_timestep(torch.tensor(3, device="meta"))
    with pytest.raises(ValueError, match=r"timestep: expected one of scheduler.timesteps, got Tensor"):
        scheduler._check_timestep(torch.tensor(3))
