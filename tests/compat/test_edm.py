"""fastdiff.compat.edm: the samplers and generators of NVlabs/edm and EDM-ES against their recorded outputs."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import fastdiff
from fastdiff import EDMSampler, EpsilonScaling, eager
from fastdiff.compat.edm import PhiloxGenerator, StackedRandomGenerator, ablation_sampler, edm_sampler
from fastdiff.loop import STEP
from tests.samplers.mixture import Mixture

ROOT = Path(__file__).parents[2]
GOLDEN = np.load(ROOT / "tests" / "golden" / "edm_samplers.npz")
CASES = json.loads(str(GOLDEN["meta"]))
LATENTS = torch.from_numpy(GOLDEN["latents"])
# What float32 states differ by is explained in tests/samplers/test_golden.py.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 5e-4}


def mixture() -> Mixture:
    return Mixture(torch.from_numpy(GOLDEN["mu"]), torch.from_numpy(GOLDEN["weights"]), float(GOLDEN["std"]))


class Counted:
    """A randn_like that says how often and with what it was called."""

    def __init__(self, draws=None) -> None:
        self.draws, self.dtypes = draws, []

    def __call__(self, like):
        self.dtypes.append(like.dtype)
        return torch.randn_like(like) if self.draws is None else self.draws[len(self.dtypes) - 1]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_golden(case, dtype):
    name, net = case["name"], mixture()
    sampler = ablation_sampler if name.startswith("ablation/") else edm_sampler
    randn_like = Counted(torch.from_numpy(GOLDEN[f"{name}/noise"]) if f"{name}/noise" in GOLDEN else None)
    x = sampler(net, LATENTS, randn_like=randn_like, state_dtype=dtype, **case["kwargs"])
    expected = torch.from_numpy(GOLDEN[f"{name}/out"])
    assert x.dtype == dtype
    assert float((x.double() - expected).abs().max() / expected.abs().max()) < TOLERANCE[dtype]
    assert randn_like.dtypes == [torch.float64] * case["kwargs"]["num_steps"]  # one a step, dead or not, whatever the state is


def test_every_golden_case_is_there():
    assert len(CASES) == 56


@pytest.mark.parametrize("churn", [0.0, 20.0])
def test_torch_randn_like_gives_upstreams_samples_and_leaves_its_generator_where_upstream_does(churn):
    torch.manual_seed(5)
    expected = eager.edm_sampler(mixture(), LATENTS, num_steps=9, S_churn=churn, S_min=0.1, S_max=30)
    after = torch.rand(1)
    torch.manual_seed(5)
    got = edm_sampler(mixture(), LATENTS, None, torch.randn_like, 9, S_churn=churn, S_min=0.1, S_max=30)
    assert torch.equal(torch.rand(1), after)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_without_randn_like_seeds_repeat_and_dead_draws_are_skipped():
    def draw(churn):
        torch.manual_seed(7)
        return edm_sampler(mixture(), LATENTS, num_steps=6, S_churn=churn), torch.rand(1)

    (a, after_a), (b, after_b), (plain, after_plain) = draw(30.0), draw(30.0), draw(0.0)
    assert torch.equal(a, b)
    assert torch.equal(after_a, after_b)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(1), after_plain)  # nothing was drawn
    assert not torch.equal(after_a, after_plain)
    assert (a - plain).abs().max() > 1e-3
    torch.manual_seed(8)
    assert (edm_sampler(mixture(), LATENTS, num_steps=6, S_churn=30.0) - a).abs().max() > 1e-3


def test_stacked_generator_is_torchs_own_stream_of_each_seed():
    seeds = torch.tensor([3, 2**32 + 5, 0])
    stacked = StackedRandomGenerator("cpu", seeds)
    alone = [torch.Generator().manual_seed(seed) for seed in (3, 5, 0)]
    for shape, dtype in (((3, 7, 7), torch.float32), ((1, 33), torch.float64)):
        like = torch.empty(3, *shape, dtype=dtype)
        assert torch.equal(stacked.randn_like(like), torch.stack([torch.randn(shape, generator=g, dtype=dtype) for g in alone]))
        integers = torch.stack([torch.randint(2, 10, (4,), generator=g) for g in alone])
        assert torch.equal(stacked.randint(2, 10, size=[3, 4]), integers)
    assert torch.equal(stacked.randn([3, 2]), torch.stack([torch.randn(2, generator=g) for g in alone]))
    assert stacked.randint(10, size=[3]).shape == stacked.randn([3]).shape == (3,)


SEEDS = [3, 9, 2**40, 17]


@pytest.mark.parametrize("taken", [0, 1, 4])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("schedule", ["edm", "vp"])
def test_philox_in_the_step_is_philox_called(schedule, dtype, taken, monkeypatch):
    """The steps make the noise that randn_like would give, and the generator goes on behind it; churn before the first step included."""

    def draw(wrap):
        generator = PhiloxGenerator("cpu", SEEDS)
        for _ in range(taken):
            generator.randn([4, 3])
        if schedule == "edm":
            x = edm_sampler(mixture(), LATENTS, randn_like=wrap(generator), num_steps=7, S_churn=30, state_dtype=dtype)
        else:
            more = dict(discretization="vp", schedule="vp", scaling="vp")
            x = ablation_sampler(mixture(), LATENTS, randn_like=wrap(generator), num_steps=7, S_churn=30, state_dtype=dtype, **more)
        return x, generator.randn([4, 3])

    calls = []
    monkeypatch.setattr(
        PhiloxGenerator, "_normal", lambda self, out, draw, _f=PhiloxGenerator._normal: calls.append(draw) or _f(self, out, draw)
    )
    called, after = draw(lambda g: lambda like: g.randn_like(like))
    first = max(taken, 1)
    assert calls == [*range(taken), *range(first, first + 8)]
    for wrap in (lambda g: g.randn_like, lambda g: g):
        calls.clear()
        fused, after_fused = draw(wrap)
        assert len(calls) == taken + 1  # none of them within the run
        torch.testing.assert_close(fused, called, rtol=0, atol=1e-12 if dtype == torch.float64 else 3e-4)
        assert torch.equal(after_fused, after)


def test_philox_depends_on_the_own_seed_alone_and_is_fastdiffs_noise():
    whole, part = PhiloxGenerator("cpu", SEEDS), PhiloxGenerator("cpu", torch.tensor(SEEDS)[[2, 0]])
    for shape in ((3, 5), (7,)):
        assert torch.equal(whole.randn([4, *shape])[[2, 0]], part.randn([2, *shape]))
        assert torch.equal(whole.randint(10, size=[4, 30])[[2, 0]], part.randint(10, size=[2, 30]))
        like = torch.zeros(4, *shape, dtype=torch.float64)
        assert torch.equal(whole.randn_like(like)[[2, 0]], part.randn_like(like[:2]))
    generator = PhiloxGenerator("cpu", SEEDS)
    assert torch.equal(generator.randn([4, 3, 4, 4]), fastdiff.randn((4, 3, 4, 4), SEEDS))
    drawn = PhiloxGenerator("cpu", range(50)).randint(3, 9, size=[50, 100])
    assert drawn.dtype == torch.int64
    assert torch.bincount(drawn.flatten(), minlength=9).tolist()[:3] == [0, 0, 0]
    assert (torch.bincount(drawn.flatten())[3:] / 5000 - 1 / 6).abs().max() < 0.02  # 4 standard errors


@pytest.mark.parametrize("how", ["seeds", "generator"])
def test_seeds_are_those_of_sample(how):
    generator = PhiloxGenerator("cpu", SEEDS)
    latents = generator.randn([4, 3, 4, 4])
    expected = fastdiff.sample(mixture(), (4, 3, 4, 4), seeds=SEEDS, sampler=EDMSampler(steps=6, S_churn=20))
    noise = {"seeds": SEEDS} if how == "seeds" else {"randn_like": generator}
    assert torch.equal(edm_sampler(mixture(), latents, num_steps=6, S_churn=20, state_dtype=torch.float32, **noise), expected)


def test_any_network_of_the_repository_is_taken_and_called_by_position():
    class Net:
        sigma_min, sigma_max, img_resolution, label_dim = 0.01, 30.0, 4, 5

        def __init__(self):
            self.seen = []

        def round_sigma(self, sigma):
            return (torch.as_tensor(sigma) * 8).round().clip(min=1) / 8

        def __call__(self, x, t, c):
            self.seen.append((x.dtype, t.item(), c))  # one sigma for all, as upstream has it
            return x / (1 + t.reshape(-1, 1, 1, 1) ** 2)

    labels = torch.eye(5)[:4]
    net = Net()
    x = edm_sampler(net, LATENTS, labels, num_steps=5)
    assert x.shape == LATENTS.shape
    assert {dtype for dtype, _, _ in net.seen} == {torch.float64}
    assert all(c is labels for _, _, c in net.seen)
    levels = [t for _, t, _ in net.seen]
    assert levels[0] == 30.0
    assert all(8 * t == round(8 * t) for t in levels)
    assert min(levels) == 0.125


def test_tables_are_made_once(monkeypatch):
    made = []
    monkeypatch.setattr(EDMSampler, "plan", lambda self, net, _plan=EDMSampler.plan: made.append(1) or _plan(self, net))
    net = mixture()
    for _ in range(3):
        edm_sampler(net, LATENTS, num_steps=4, eps_scaler=1.01)
        ablation_sampler(net, LATENTS, num_steps=4, discretization="ve", schedule="ve")
    assert len(made) == 2


def test_one_launch_for_each_network_call(monkeypatch):
    launches, net = [], mixture()
    step = STEP.overload
    monkeypatch.setattr(
        "fastdiff.loop.STEP", type("Op", (), {"overload": staticmethod(lambda *a, **k: launches.append(1) or step(*a, **k))})
    )
    edm_sampler(net, LATENTS)
    assert len(launches) == net.calls == 35


def test_epsilon_scaling_may_depend_on_the_step():
    net = mixture()
    constant = edm_sampler(net, LATENTS, num_steps=5, eps_scaler=1.01)
    assert torch.equal(edm_sampler(net, LATENTS, num_steps=5, eps_scaler=EpsilonScaling(1.01)), constant)
    linear = edm_sampler(net, LATENTS, num_steps=5, eps_scaler=EpsilonScaling(1.01, 0.002))
    assert 1e-5 < (linear - constant).abs().max() < 1


def test_the_ablation_sampler_scales_predictors_alone_as_edm_es_does():
    """EDM-ES's ablation_sampler leaves the second slope as it is; its edm_sampler scales both."""
    net, sigmas = mixture(), [20.0, 5.0, 1.0, 0.0]
    x = LATENTS * sigmas[0]
    for sigma, following in itertools.pairwise(torch.tensor(sigmas, dtype=torch.float64)):
        d = (x - net(x, sigma.expand(len(x)))) / sigma / 1.02
        x_next = x + (following - sigma) * d
        if following:
            d = (d + (x_next - net(x_next, following.expand(len(x)))) / following) / 2
        x = x + (following - sigma) * d
    # The even levels of rho = 1, rounded by the network to those above.
    net.sigma_min, net.sigma_max = 0.0, 100.0
    net.round_sigma = lambda sigma: sigmas[[20.0, 10.5, 1.0].index(float(sigma))]
    arguments = dict(num_steps=3, sigma_min=1.0, sigma_max=20.0, rho=1, eps_scaler=1.02)
    torch.testing.assert_close(ablation_sampler(net, LATENTS, **arguments), x, rtol=1e-10, atol=1e-10)
    assert (edm_sampler(net, LATENTS, **arguments) - x).abs().max() > 1e-3
    both = ablation_sampler(net, LATENTS, **arguments | {"eps_scaler": EpsilonScaling(1.02)})
    torch.testing.assert_close(edm_sampler(net, LATENTS, **arguments), both)


def test_numbers_of_numpy_and_torch_are_numbers():
    plain = edm_sampler(mixture(), LATENTS, num_steps=4, sigma_max=60.0, seeds=3, S_churn=5)
    for steps, kind in ((np.int64(4), np.float64), (torch.tensor(4), torch.tensor)):
        assert torch.equal(edm_sampler(mixture(), LATENTS, num_steps=steps, sigma_max=kind(60.0), seeds=3, S_churn=kind(5.0)), plain)


def test_gradients_are_recorded_where_latents_ask():
    def ends(latents):
        return edm_sampler(mixture(), latents, num_steps=4)

    latents = LATENTS[:2].clone().requires_grad_()
    out = ends(latents)
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(out.sum(), latents)
    h = 1e-5
    numeric = (ends(LATENTS[:2] + h * direction).sum() - ends(LATENTS[:2] - h * direction).sum()) / (2 * h)
    torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-5, atol=1e-7)
    assert not ends(LATENTS[:2]).requires_grad
    with torch.no_grad():
        assert not ends(latents).requires_grad


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"net": None}, TypeError, "net: expected a callable"),
        ({"latents": [1.0]}, TypeError, "latents: expected a tensor"),
        ({"latents": torch.tensor(1.0)}, ValueError, "latents: expected"),
        ({"num_steps": 4.0}, TypeError, "num_steps: expected an integer >= 1, got 4.0"),
        ({"sigma_max": "high"}, TypeError, "sigma_max: expected a number, got 'high'"),
        ({"state_dtype": torch.float16}, ValueError, "state_dtype: expected torch.float32 or torch.float64, got torch.float16"),
        ({"randn_like": 3}, TypeError, "randn_like: expected a callable or a PhiloxGenerator, got int"),
        ({"randn_like": torch.randn_like, "seeds": 0}, ValueError, "seeds: expected none beside randn_like"),
        ({"randn_like": PhiloxGenerator("cpu", [1])}, ValueError, "randn_like: expected a generator of 4 seeds, got 1"),
        ({"num_steps": 0}, ValueError, "num_steps: expected an integer >= 1, got 0"),
        ({"discriminator": 3}, TypeError, "discriminator: expected a Discriminator or a callable"),
    ],
)
def test_bad_arguments_say_what_was_expected(arguments, error, message):
    with pytest.raises(error, match=message):
        edm_sampler(**{"net": mixture(), "latents": LATENTS, **arguments})


@pytest.mark.parametrize("generator", [StackedRandomGenerator, PhiloxGenerator])
def test_generators_expect_their_batch(generator):
    own = generator("cpu", [1, 2])
    for call in (lambda: own.randn([3, 4]), lambda: own.randn_like(torch.zeros(1)), lambda: own.randint(3, size=[])):
        with pytest.raises(ValueError, match=re.escape("size: expected [2, ...]")):
            call()
    with pytest.raises(ValueError, match="randint: expected"):
        PhiloxGenerator("cpu", [1]).randint(2**24 + 1, size=[1])


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "compat_edm.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert blocks
    names: dict = {}
    exec("\n".join(blocks), names)
    assert names["images"].shape[1:] == (1, 8, 8)
    assert names["images"].dtype == torch.float64
