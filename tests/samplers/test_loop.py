"""The loop and the front door: one launch a call, noise, guidance, dtypes, gradients, errors."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import fastdiff
from fastdiff import ClassifierFree, Denoiser, EDMSampler, Guidance
from tests.samplers.mixture import Mixture


@pytest.fixture
def net():
    generator = torch.Generator().manual_seed(0)
    return Mixture(torch.randn(4, 48, generator=generator), torch.tensor([0.1, 0.2, 0.3, 0.4]), 0.25)


@pytest.fixture
def latents():
    return torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Count(TorchDispatchMode):
    """Counts the operations that reach a backend."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls[str(function)] += 1
        return function(*args, **(kwargs or {}))


def _constant(like):
    D = torch.zeros_like(like)
    return lambda x, label, **condition: D


@pytest.mark.parametrize("watched", [False, True])
def test_exactly_one_launch_for_each_network_call_and_nothing_else(latents, watched):
    """Churn, epsilon scaling, guidance and another dtype for the network: still one launch a call."""
    plan = EDMSampler(steps=6, S_churn=30, eps_scale=1.005).plan(fastdiff.EDM())
    G = torch.zeros_like(latents)
    infos = []
    guidance = Guidance(lambda x, sigma: G, 1.0, 1.0)
    net, key = _constant(latents), fastdiff.keys(0, 4)

    def run():
        fastdiff.run(plan, net, latents, key=key, guidance=guidance, net_dtype=torch.float32, callback=infos.append if watched else None)

    run()  # the plan's tables are made once
    infos.clear()
    with Count() as count:
        run()
    assert count.calls.pop("fastdiff.sampler_step.default") == len(plan) == 11
    assert count.calls.pop("fastdiff.perturb.default") == 1
    assert count.calls == {"aten.mul.Tensor": 1, "aten._to_copy.default": 1}  # the first network input
    assert len(infos) == (11 if watched else 0)


def test_nothing_in_the_loop_waits_for_the_device(latents):
    """No .item(), no nonzero, no comparison on the host; on a GPU torch itself watches (see test_gpu.py)."""
    plan = EDMSampler(steps=5, S_churn=30).plan(Denoiser())
    with Count() as count:
        fastdiff.run(plan, _constant(latents), latents, key=fastdiff.keys(0, 4))
    assert not [name for name in count.calls if any(word in name for word in ("item", "local_scalar", "nonzero", "is_same"))]


def test_noise_callable_is_asked_once_for_each_original_draw_in_order(net, latents):
    asked = []

    def noise(like):
        asked.append(like.shape)
        return torch.full_like(like, float(len(asked)))

    for churn in (40, 0):  # upstream draws at every step, used or not
        asked.clear()
        plan = EDMSampler(steps=8, S_churn=churn, S_min=0.05, S_max=50).plan(Denoiser())
        fastdiff.run(plan, net, latents, noise=noise)
        assert len(asked) == plan.draws == 8


def test_keys_and_callable_agree(net, latents):
    """The counter-based noise of draw i is what a callable would return at its i-th call."""
    plan = EDMSampler(steps=5, S_churn=40).plan(Denoiser())
    key = fastdiff.keys(3, 4)
    draws = iter(range(1, 100))
    expected = fastdiff.run(plan, net, latents, noise=lambda like: fastdiff.normal(like, key, next(draws)))
    torch.testing.assert_close(fastdiff.run(plan, net, latents, key=key), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("churn", [0.0, 30.0])
def test_a_sample_depends_on_its_seed_alone(net, churn):
    sampler = EDMSampler(steps=5, S_churn=churn)
    together = fastdiff.sample(net, (6, 48), seeds=[5, 6, 7, 8, 9, 10], sampler=sampler, state_dtype=torch.float64)
    alone = fastdiff.sample(net, (1, 48), seeds=[8], sampler=sampler, state_dtype=torch.float64)
    torch.testing.assert_close(together[3:4], alone, rtol=1e-12, atol=1e-12)
    shuffled = fastdiff.sample(net, (6, 48), seeds=[10, 9, 8, 7, 6, 5], sampler=sampler, state_dtype=torch.float64)
    torch.testing.assert_close(together.flip(0), shuffled, rtol=1e-12, atol=1e-12)


def test_channels_last_gives_the_same_sample(net):
    sampler = EDMSampler(steps=5, S_churn=30)
    a, b = (
        fastdiff.sample(net, (4, 3, 4, 4), seeds=0, sampler=sampler, state_dtype=torch.float64, memory_format=f)
        for f in (torch.contiguous_format, torch.channels_last)
    )
    assert b.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_samples_are_of_the_mixture():
    """2000 samples against exact ones: means of projections within the sampling error."""
    net = Mixture(torch.tensor([[-2.0, 0.0], [2.0, 1.0]]), torch.tensor([0.3, 0.7]), 0.2)
    exact = net.sample(20000, 0)
    for sampler in (EDMSampler(), EDMSampler(S_churn=40, S_noise=1.0), EDMSampler(steps=60, solver="euler")):
        x = fastdiff.sample(net, (4000, 2), seeds=1, sampler=sampler).double()
        error = 5 * exact.std(0) / 4000**0.5
        assert ((x.mean(0) - exact.mean(0)).abs() < error).all()
        assert abs(float((x[:, 0] > 0).double().mean()) - 0.7) < 5 * (0.21 / 4000) ** 0.5
        assert ((x.std(0) - exact.std(0)).abs() < 0.05 * exact.std(0) + 0.02).all()


def test_guidance_moves_samples_and_is_called_in_its_window_only(net, latents):
    seen = []

    def towards_zero(x, sigma, **condition):
        seen.append(float(sigma[0]))
        return -x

    plan = EDMSampler(steps=6).plan(Denoiser())
    plain = fastdiff.run(plan, net, latents)
    guided = fastdiff.run(plan, net, latents, guidance=Guidance(towards_zero, 2.0, 1.0, window=(0.01, 5.0)))
    assert seen
    assert all(0.01 <= sigma <= 5 for sigma in seen)
    assert not torch.allclose(plain, guided)


@pytest.mark.parametrize("scaling", ["none", "vp"])
def test_guidance_equals_a_guided_denoiser(net, latents, scaling):
    """D + w*sigma^2*G in the network or in the plan: the same numbers, whatever the scaling."""
    sampler = EDMSampler(steps=6, scaling=scaling)

    def gradient(x, sigma, **condition):
        return torch.tanh(x) / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)

    def guided(x, sigma, **condition):
        return net(x, sigma) + 1.5 * sigma.reshape(-1, 1, 1, 1) ** 2 * gradient(x, sigma)

    expected = fastdiff.run(sampler.plan(Denoiser()), guided, latents)
    got = fastdiff.run(sampler.plan(Denoiser()), net, latents, guidance=Guidance(gradient, 1.5, 1.5))
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_discriminator_gradients_work_inside_the_loop(net, latents):
    """A gradient that needs autograd inside, as a discriminator does."""
    head = torch.nn.Linear(48, 1).double()

    def gradient(x, sigma, **condition):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(head(x.flatten(1)).sum(), x)[0]

    x = fastdiff.run(EDMSampler(steps=4).plan(Denoiser()), net, latents, guidance=Guidance(gradient, 1.0))
    assert torch.isfinite(x).all()
    assert not x.requires_grad


def test_classifier_free_guidance_equals_the_mixed_denoiser(latents):
    def net(x, sigma, class_labels=None):
        return 0.3 * x if class_labels is None else 0.3 * x + class_labels.reshape(-1, 1, 1, 1)

    labels = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    plan = EDMSampler(steps=5).plan(Denoiser())
    expected = fastdiff.run(plan, lambda x, s: net(x, s) + 2.5 * (net(x, s, labels) - net(x, s)), latents)
    got = fastdiff.run(plan, net, latents, cfg=ClassifierFree(2.5), condition={"class_labels": labels})
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_clip_bounds_the_denoised_estimate(net, latents):
    seen = []
    fastdiff.run(EDMSampler(steps=5).plan(Denoiser()), net, latents, clip=(-0.1, 0.2), callback=seen.append)
    assert all(float(info.D.min()) >= -0.1 and float(info.D.max()) <= 0.2 for info in seen)


def test_callback_sees_D_and_the_norm_of_eps(net, latents):
    infos = []
    plan = EDMSampler(steps=4).plan(Denoiser())
    x = fastdiff.run(plan, net, latents, callback=infos.append)
    assert [info.call for info in infos] == list(range(len(plan)))
    assert torch.equal(infos[-1].x, x)
    first = infos[0]
    state = latents * plan.prior_scale
    D = net(state, torch.full((4,), first.sigma, dtype=torch.float64))
    torch.testing.assert_close(first.D, D)
    torch.testing.assert_close(first.eps_norm, ((state - D) / first.sigma).flatten(1).norm(dim=1))


def test_float32_and_bfloat16_networks_under_a_float64_state(net, latents):
    plan = EDMSampler(steps=6).plan(Denoiser())
    exact = fastdiff.run(plan, net, latents)
    seen = set()

    def low(x, sigma):
        seen.add(x.dtype)
        return net(x.float(), sigma.float()).to(x.dtype)

    for dtype, tolerance in ((torch.float32, 1e-3), (torch.bfloat16, 0.2)):
        got = fastdiff.run(plan, low, latents, net_dtype=dtype)
        assert got.dtype == torch.float64
        assert float((got - exact).abs().max()) < tolerance
    assert seen == {torch.float32, torch.bfloat16}


def test_gradients_flow_through_a_whole_sampler(net, latents):
    plan = EDMSampler(steps=3, S_churn=5).plan(Denoiser())
    start = latents[:2].clone().requires_grad_()
    key = fastdiff.keys(0, 2)

    def end(latents):
        return fastdiff.run(plan, net, latents, key=key, differentiable=True)

    assert torch.autograd.gradcheck(end, (start,), fast_mode=True, atol=1e-4)


def test_front_door_defaults(net):
    x = fastdiff.sample(net, (3, 48))
    assert x.shape == (3, 48)
    assert x.dtype == torch.float32
    assert net.calls == 35
    assert torch.equal(x, fastdiff.sample(net, (3, 48), seeds=0))
    assert not torch.equal(x, fastdiff.sample(net, (3, 48), seeds=1))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"net": 3}, TypeError, "net: expected a callable, got int"),
        ({"shape": None}, ValueError, "shape: expected the shape of the samples"),
        ({"shape": (2, -1)}, ValueError, r"shape: expected \(B, \.\.\.\) of integers >= 0, got \(2, -1\)"),
        ({"parametrization": "y0"}, ValueError, "parametrization: expected one of D, F, eps, score, v, x0"),
        ({"state_dtype": torch.float16}, ValueError, "state_dtype: expected torch.float32 or torch.float64"),
        ({"seeds": [1, 2, 3]}, ValueError, r"seeds: expected \[2\] int64, got \[3\] int64"),
        ({"seeds": "zero"}, TypeError, "seeds: expected an int, 2 ints, an int64 tensor or a torch.Generator, got str"),
        ({"seeds": [1, 2.5]}, TypeError, "seeds: expected ints"),
        ({"latents": torch.zeros(3, 4)}, ValueError, r"shape: expected that of latents, \[3, 4\], got \[2, 48\]"),
    ],
)
def test_front_door_errors(net, arguments, error, message):
    with pytest.raises(error, match=message):
        fastdiff.sample(**{"net": net, "shape": (2, 48)} | arguments)


def test_loop_errors(net, latents):
    plan = EDMSampler(steps=3, S_churn=5).plan(Denoiser())
    with pytest.raises(ValueError, match="key: expected noise keys or a noise callable"):
        fastdiff.run(plan, net, latents)
    with pytest.raises(ValueError, match="noise: expected none beside key, got both"):
        fastdiff.run(plan, net, latents, key=fastdiff.keys(0, 4), noise=torch.randn_like)
    with pytest.raises(ValueError, match=r"latents: expected \[B, \.\.\.\] float32 or float64"):
        fastdiff.run(plan, net, latents.half(), key=fastdiff.keys(0, 4))
    with pytest.raises(ValueError, match=r"F: expected \[4, 3, 4, 4\] floating on cpu, got \[4, 1, 4, 4\]"):
        fastdiff.run(plan, lambda x, s: x[:, :1], latents, key=fastdiff.keys(0, 4))


@pytest.mark.parametrize("clip", [(1, -1), (float("nan"), 1.0), 1.0, (0, 1, 2)])
def test_bad_clip(net, latents, clip):
    with pytest.raises(ValueError, match=r"clip: expected \(lo, hi\) with lo <= hi"):
        fastdiff.run(EDMSampler(steps=2).plan(Denoiser()), net, latents, clip=clip)


def test_bad_network_dtype(net, latents):
    with pytest.raises(ValueError, match="net_dtype: expected float64, float32, bfloat16 or float16, got int32"):
        fastdiff.run(EDMSampler(steps=2).plan(Denoiser()), net, latents, net_dtype=torch.int32)


def test_a_plan_with_guidance_folded_in_is_not_run_without_it(net, latents):
    plan = EDMSampler(steps=3).plan(Denoiser())
    for name, change in (("cfg", ClassifierFree(3.0)), ("guidance", Guidance(lambda x, sigma: x, 1.0))):
        for given in ({}, {name: change}):
            with pytest.raises(ValueError, match=f"{name}: expected a plan without {name}"):
                fastdiff.run(change.apply(plan), net, latents, **given)


def test_a_first_run_in_inference_mode_does_not_spoil_later_gradients(net, latents):
    plan = EDMSampler(steps=3).plan(Denoiser())
    with torch.inference_mode():
        fastdiff.run(plan, net, latents)
    start = latents.clone().requires_grad_()
    fastdiff.run(plan, net, start, differentiable=True).sum().backward()
    assert torch.isfinite(start.grad).all()


def test_labels_keep_float32_for_a_bfloat16_network(latents):
    labels = []

    def net(x, label):
        labels.append(label)
        return x

    plan = EDMSampler(steps=3).plan(fastdiff.Epsilon())
    fastdiff.run(plan, net, latents, net_dtype=torch.bfloat16)
    assert {label.dtype for label in labels} == {torch.float32}
    assert float(labels[0][0]) == pytest.approx(plan.rows[0].label, rel=1e-6)


def test_a_generator_gives_the_keys_of_prior_and_steps_once(net):
    sampler = EDMSampler(steps=3, S_churn=10)
    seeded = fastdiff.sample(net, (3, 48), seeds=torch.Generator().manual_seed(5), sampler=sampler)
    key = fastdiff.keys(torch.Generator().manual_seed(5), 3)
    assert torch.equal(seeded, fastdiff.sample(net, (3, 48), seeds=key, sampler=sampler))


def test_a_plan_remembers_a_bounded_number_of_derived_plans(net, latents):
    plan = EDMSampler(steps=2).plan(Denoiser())
    for _ in range(20):
        fastdiff.run(plan, lambda x, s, class_labels=None: 0 * x, latents, cfg=ClassifierFree(2.0))
    assert len(plan._derived) <= 8


def test_seeds():
    assert torch.equal(fastdiff.keys([1, 2], 2), torch.tensor([1, 2]))
    assert torch.equal(fastdiff.keys([2**64 - 1], 1), torch.tensor([-1]))
    assert torch.equal(fastdiff.keys(7, 10)[4:], fastdiff.keys(7, 6, first=4))
    both = torch.cat([fastdiff.keys(0, 10000), fastdiff.keys(1, 10000)])
    assert len(both.unique()) == 20000
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(fastdiff.keys(generator, 3), fastdiff.keys(torch.Generator().manual_seed(3), 3))
    with pytest.raises(ValueError, match="first: expected 0"):
        fastdiff.keys([1, 2], 2, first=1)


def test_progress_bar_only_where_asked(net, latents, capsys):
    plan = EDMSampler(steps=3).plan(Denoiser())
    fastdiff.run(plan, net, latents)
    assert capsys.readouterr().err == ""
    fastdiff.run(plan, net, latents, progress=True)
    assert "sampling" in capsys.readouterr().err
