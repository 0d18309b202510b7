"""DG's arguments in fastdiff.compat.edm: recorded outputs of DG, and its boosting against the same program written plainly."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from fastdiff.compat.edm import PhiloxGenerator, ablation_sampler, classifier_lib, dg, edm_sampler, guided
from fastdiff.models import Discriminator
from fastdiff.schedules import VP
from tests.checkpoints.test_convert import randomized
from tests.models.test_discriminator import KINDS, META, discriminator, golden
from tests.samplers.mixture import Mixture


def callable_of(net):
    """A Discriminator as DG has it: a callable of VP states and times that gives probabilities."""

    def evaluate(perturbed_inputs, timesteps=None, condition=None):
        return net(perturbed_inputs, timesteps, condition).sigmoid()

    return evaluate


@pytest.mark.parametrize("form", ["ours", "theirs"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["sampler_w1", "sampler_w12", "sampler_win"])
def test_golden(kind, name, form):
    case, given = META[f"{kind}/{name}"], golden(kind)
    net, model = discriminator(kind), Mixture(given["mu"], given["weights"], case["std"])
    arguments = {key: case[key] for key in ("dg_weight_1st_order", "dg_weight_2nd_order", "time_min", "time_max", "num_steps")}
    told = {"discriminator": net if form == "ours" else callable_of(net)}
    samples = edm_sampler(model, given["latents"], given.get("class_labels"), **told, **arguments)
    # The original ran the discriminator in float32, see tests/models/test_discriminator.py.
    torch.testing.assert_close(samples, given[name], rtol=0, atol=5e-4)
    plain = edm_sampler(model, given["latents"], num_steps=case["num_steps"], dg_weight_1st_order=0.0, **told)
    assert (plain - given[name]).abs().max() > 1e-3


def test_dgs_own_order_of_arguments():
    case, given = META["uncond/sampler_w1"], golden("uncond")
    model = Mixture(given["mu"], given["weights"], case["std"])
    first = (0, case["time_min"], case["time_max"], classifier_lib.vpsde(), case["dg_weight_1st_order"], case["dg_weight_2nd_order"])
    samples = dg.edm_sampler(*first, callable_of(discriminator("uncond")), model, given["latents"], num_steps=case["num_steps"])
    torch.testing.assert_close(samples, given["sampler_w1"], rtol=0, atol=5e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_the_log_ratio(kind):
    given = golden(kind)
    told, labels = callable_of(discriminator(kind)), given.get("class_labels")
    x, sigma = given["grad/x"], given["grad/sigma"]
    added, ratio = classifier_lib.get_grad_log_ratio(told, classifier_lib.vpsde(), x, sigma, 32, 0.0, 1.0, labels, log=True)
    torch.testing.assert_close(ratio, given["grad/log_ratio"], rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(added.float(), given["grad/guidance"], rtol=1e-4, atol=1e-5)
    for nothing in ((None, 0.0, 1.0), (told, 0.0, 1e-6), (told, 0.9999, 1.0)):
        added, ratio = classifier_lib.get_grad_log_ratio(nothing[0], classifier_lib.vpsde(), x, sigma, 32, *nothing[1:], labels, log=True)
        assert not added.any()
        assert (ratio == 1e7).all()
    assert not classifier_lib.get_log_ratio(None, x, sigma, None).any()


def test_vpsde_is_the_schedule():
    sde, t = classifier_lib.vpsde(), torch.linspace(0.01, 1, 20, dtype=torch.float64)
    sigma = VP().sigma(t)
    mean, std, tau = sde.transform_unnormalized_wve_to_normalized_vp(sigma, std_out=True)
    torch.testing.assert_close(tau, t)
    torch.testing.assert_close(mean, torch.exp(-0.25 * t**2 * 19.9 - 0.05 * t))
    torch.testing.assert_close(mean**2 + std**2, torch.ones_like(t))
    assert sde.T == 1
    with_cosine = torch.cos((sde.compute_t_cos_from_t_lin(t) + 0.008) / 1.008 * torch.pi / 2)
    torch.testing.assert_close(with_cosine / torch.cos(torch.tensor(0.008 / 1.008 * torch.pi / 2)).double(), mean, rtol=1e-6, atol=1e-7)


MODEL = Mixture(torch.randn(5, 12, generator=torch.Generator().manual_seed(1)), torch.full((5,), 0.2), 0.3)
DIRECTIONS = torch.randn(12, generator=torch.Generator().manual_seed(2))
LATENTS = torch.randn(8, 3, 2, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def linear(x, timesteps=None, condition=None):
    """A discriminator that likes one direction, and the less the earlier; far from 0 and 1, where float32 has few digits left."""
    return torch.sigmoid(0.5 * (x.flatten(1) @ DIRECTIONS.to(x.dtype)) * (1.2 - timesteps) + 0.3 * timesteps)


class Replayed:
    """A randn_like that gives recorded noise."""

    def __init__(self, noise):
        self.noise, self.taken = noise, 0

    def __call__(self, like):
        self.taken += 1
        return self.noise[self.taken - 1]


def eager_boosting(noise, num_steps, S_churn=0.0, S_noise=1.0, weights=(2.0, 0.5), boosting=True):
    """EDM-G++'s sampler with boosting as its description says it, a sample with its own noise level at a time."""
    ramp = torch.arange(num_steps, dtype=torch.float64) / (num_steps - 1)
    sigmas = [*((80 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7).tolist(), 0.0]
    x, low, boosted = LATENTS * sigmas[0], torch.zeros(8, dtype=torch.bool), 0

    def slope(x, sigma, weight):
        wide = sigma.reshape(-1, 1, 1, 1)
        leaf = x.detach().requires_grad_()
        t = VP().time(sigma)
        d = linear(leaf / (1 + wide**2).sqrt(), t).clip(1e-5, 1 - 1e-5)
        ratio = (d / (1 - d)).log()
        (G,) = torch.autograd.grad(ratio.sum(), leaf)
        inside = (t >= 0.01) & (t <= 1)
        ratio, G = torch.where(inside, ratio, 1.0), torch.where(inside.reshape(-1, 1, 1, 1), G, 0.0)
        return (x - MODEL(x, sigma)) / wide, -weight * wide * G, ratio.detach()

    for i in range(num_steps):
        often = boosting and i % 5 == 0
        boosted += int((low & often).sum())
        churn, factor = (torch.tensor(pair, dtype=torch.float64)[(low & often).long()] for pair in ((S_churn, 4.0), (S_noise, 1.0)))
        sigma = torch.full((8,), sigmas[i], dtype=torch.float64)
        hat = sigma * (1 + torch.clamp(churn / num_steps, max=2**0.5 - 1))
        x = x + ((hat**2 - sigma**2).clip(min=0).sqrt() * factor).reshape(-1, 1, 1, 1) * noise[i]
        d, g, ratio = slope(x, hat, weights[0])
        low = ratio < 0
        d = d + g * torch.where(low & (boosting and i % 2 == 0), 2.0, 1.0).reshape(-1, 1, 1, 1)
        h = (sigmas[i + 1] - hat).reshape(-1, 1, 1, 1)
        following = x + h * d
        if i < num_steps - 1:
            d_next, g, _ = slope(following, torch.full((8,), sigmas[i + 1], dtype=torch.float64), weights[1])
            following = x + h * (d + d_next + g) / 2
        x = following
    return x, boosted


@pytest.mark.parametrize("discriminator_form", ["theirs", "ours"])
@pytest.mark.parametrize("churn", [0.0, 3.0])
@pytest.mark.parametrize("steps", [12, 18, 23])
def test_boosting(steps, churn, discriminator_form):
    class Ours:
        def log_ratio(self, x, sigma, class_labels=None):
            d = linear(x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2).sqrt(), VP().time(sigma)).clip(1e-5, 1 - 1e-5)
            return (d / (1 - d)).log()

    told, tolerance = (linear, 2e-5) if discriminator_form == "theirs" else (Ours(), 1e-9)  # theirs sees float32
    noise = torch.randn(steps, 8, 3, 2, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    expected, boosted = eager_boosting(noise, steps, churn, 1.01)
    assert boosted > 0  # some samples get noise of their own, others do not
    assert boosted < 8 * ((steps - 1) // 5)
    arguments = dict(num_steps=steps, S_churn=churn, S_noise=1.01, dg_weight_1st_order=2.0, dg_weight_2nd_order=0.5)
    for _ in range(2):  # nothing of one run stays in the tables of the next
        draws = Replayed(noise)
        got = edm_sampler(MODEL, LATENTS, randn_like=draws, boosting=True, discriminator=told, **arguments)
        torch.testing.assert_close(got, expected, rtol=0, atol=tolerance)
        assert draws.taken == steps
    plain = edm_sampler(MODEL, LATENTS, randn_like=Replayed(noise), discriminator=told, **arguments)
    torch.testing.assert_close(plain, eager_boosting(noise, steps, churn, 1.01, boosting=False)[0], rtol=0, atol=tolerance)
    assert (plain - expected).abs().amax((1, 2, 3)).max() > 1e-3


def test_boosting_with_philox_and_without_first_order_weight():
    def draw(boosting=True, part=slice(None), **arguments):
        own = PhiloxGenerator("cpu", range(8)[part])
        return edm_sampler(MODEL, LATENTS[part], randn_like=own, num_steps=12, boosting=boosting, discriminator=linear, **arguments)

    both = draw()
    called = PhiloxGenerator("cpu", range(8))
    slow = edm_sampler(
        MODEL, LATENTS, randn_like=lambda like: called.randn_like(like), num_steps=12, boosting=True, discriminator=linear
    )  # fmt: skip
    torch.testing.assert_close(both, slow, rtol=0, atol=1e-10)
    assert (both - draw(boosting=False)).abs().max() > 1e-3
    torch.testing.assert_close(draw(part=slice(3, 6)), both[3:6], rtol=0, atol=1e-5)  # a sample's boosting is its own
    nothing = dict(dg_weight_1st_order=0.0, dg_weight_2nd_order=0.5)
    assert torch.equal(draw(**nothing), draw(boosting=False, **nothing))


def test_the_ablation_sampler_takes_a_discriminator():
    guided = ablation_sampler(MODEL, LATENTS, num_steps=6, discriminator=linear, dg_weight_2nd_order=0.5)
    torch.testing.assert_close(guided, edm_sampler(MODEL, LATENTS, num_steps=6, discriminator=linear, dg_weight_2nd_order=0.5))
    assert (guided - ablation_sampler(MODEL, LATENTS, num_steps=6)).abs().max() > 1e-3


def test_discriminators_are_not_kept_alive_and_their_plans_are():
    class Told(torch.nn.Module):
        def forward(self, x, timesteps=None, condition=None):
            return linear(x, timesteps)

    class Unhashable(Told):
        __hash__ = None

    told = Told()
    samples = [edm_sampler(MODEL, LATENTS, num_steps=6, discriminator=told, boosting=boosting) for boosting in (False, False, True)]
    assert torch.equal(samples[0], samples[1])
    assert guided.guidance_of(told, None, 0, 2.0, 0.0, 0.01, 1.0) is guided.guidance_of(told, None, 0, 2.0, 0.0, 0.01, 1.0)
    alive = weakref.ref(told)
    del told
    gc.collect()
    assert alive() is None
    assert torch.equal(edm_sampler(MODEL, LATENTS, num_steps=6, discriminator=Unhashable()), samples[0])


@pytest.mark.parametrize("condition", [False, True])
def test_get_discriminator_reads_the_two_files(condition, tmp_path):
    shared = dict(num_head_channels=64, use_scale_shift_norm=True, resblock_updown=True, pool="attention", num_res_blocks=1)
    extractor = dict(image_size=16, in_channels=3, model_channels=64, out_channels=10, attention_resolutions=(2,), channel_mult=(1, 2))
    classes = dict(condition=True, num_class=4) if condition else {}
    head = dict(image_size=8, in_channels=128, model_channels=64, out_channels=1, attention_resolutions=(1,), channel_mult=(1,), **classes)
    net = randomized(Discriminator(extractor | shared, head | shared))
    torch.save(net.extractor.state_dict(), tmp_path / "encoder.pt")
    torch.save(net.head.state_dict(), tmp_path / "head.pt")
    files = (tmp_path / "encoder.pt", tmp_path / "head.pt")
    evaluate = classifier_lib.get_discriminator(*files, condition, 16, "cpu")
    x, t = torch.randn(2, 3, 16, 16, requires_grad=True), torch.tensor([0.3, 0.8])
    labels = torch.eye(4)[:2] if condition else None
    d = evaluate(x, timesteps=t, condition=labels)
    torch.testing.assert_close(d, net(x, t, labels).sigmoid())
    assert d.requires_grad
    assert 0.001 < float(d.detach().std()) < 1
    assert not classifier_lib.get_discriminator(*files, condition, 16, "cpu", enable_grad=False)(x, t, labels).requires_grad
    with pytest.raises(ValueError, match="condition: expected"):
        classifier_lib.get_discriminator(*files, not condition, 16, "cpu")
