"""fastdiff.compat.score_sde beyond the golden data: discrete networks, users' own classes, seeds, training, errors.

The numbers of RECORDED are the original program's, with the model and the draws below: every 19th element of its samples.
"""

from __future__ import annotations

import copy
import math
import pickle
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import fastdiff
from fastdiff import Stream
from fastdiff.compat import score_sde
from fastdiff.compat._handed_over import HANDED_OVER
from fastdiff.compat._plans import plan_for
from fastdiff.compat.score_sde import controllable_generation, losses, sampling, sde_lib
from fastdiff.compat.score_sde.models import ema, utils
from tests.compat.test_score_sde import unfused
from tests.samplers.mixture import MixtureScore

ROOT = Path(__file__).parents[2]
SHAPE = (2, 3, 4, 4)
RECORDED = {
    "vp discrete reverse_diffusion langevin": [2.7827744, 3.0872426, -23.601414, -1.3992723, 0.35492772, 1.6405501],
    "vp discrete ancestral_sampling ald": [25.206051, 3.7990375, -33.452152, -6.2656121, -2.5894513, 1.1870282],
    "ve discrete reverse_diffusion langevin": [0.31860933, 0.43843102, 0.27000293, 0.47592652, 0.46271837, 0.49606743],
    "ve discrete euler_maruyama ald": [-0.0052375747, 0.40306255, 0.092334442, 0.41827983, 0.43832576, 0.43956542],
    "vp own predictor": [23.957443, 16.794144, -33.365204, -23.753752, -18.356403, -0.93844831],
    "ve own corrector": [7.0588937, 8.0645924, -20.212212, -8.2319603, -5.8535118, -1.8939483],
    "subvp both own": [17.174488, 9.1259689, -5.62714, -16.250366, -15.031535, -2.8703673],
    "vp no classes": [1.4024258, 0.74823588, -0.45365328, -1.3234739, -1.2245283, -0.2292434],
    "vp inpainter langevin 2 True": [3.3319755, 0.73177534, -15.199089, -8.4342947, -23.963652, 2.7936783],
    "vp colorizer langevin 2 True": [9.1152611, 4.0009041, -12.157806, -5.2291584, -19.750475, 3.1302662],
    "ve inpainter ald 1 False": [0.33264861, 0.74154955, 0.21524172, 1.6167771, 0.39804178, 0.2081534],
    "ve colorizer ald 1 False": [0.86330724, -0.81969345, -0.7679472, 0.98581666, 0.85760719, -0.22583729],
    "subvp inpainter none 1 True": [-4.2091093, 0.73177534, -147.90878, -102.79246, -208.08438, -17.466518],
    "subvp colorizer none 1 True": [-6.4690557, 155.58522, -131.33784, -18.566938, -185.24567, 91.728317],
}
LOSSES = {
    "smld True": 1.2749407,
    "ddpm True": 0.48193878,
    "smld False": 30.598576,
    "ddpm False": 11.56653,
    "vp": 0.54305238,
    "ve": 4.9598765,
}
SDES = {"vp": sde_lib.VPSDE, "subvp": sde_lib.subVPSDE, "ve": lambda *_: sde_lib.VESDE(0.01, 10, _[-1])}


def sde(name: str, N: int):
    return SDES[name](0.1, 20, N)


def drawn(n: int, shape=SHAPE) -> torch.Tensor:
    """The n-th draw: numbers of mean square 1 that need no generator."""
    k = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    return (math.sqrt(2) * torch.sin(1.7 * k + 0.9 * n * k.sqrt() + n)).float().reshape(shape)


class Draws:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, like: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return drawn(self.calls - 1, like.shape)


class Model:
    """A smooth function of state and label; remembers its labels."""

    def __init__(self, factor: float = 1.0, growth: float = 1.0) -> None:
        self.factor, self.growth, self.labels = factor, growth, []

    def __call__(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.labels.append(labels.clone())
        c = labels.to(x.dtype)[:, None, None, None]
        return self.factor * (0.3 * x * torch.cos(0.01 * c) - 0.2 * torch.sin(x + 0.1 * c)) * self.growth**c


class Half(sampling.Predictor):
    """A user's own: half a step of reverse diffusion, without noise."""

    def update_fn(self, x, t):
        f, _ = self.rsde.discretize(x, t)
        return x - 0.5 * f, x - 0.5 * f


class Push(sampling.Corrector):
    """A user's own: small steps along the score."""

    def update_fn(self, x, t):
        for _ in range(self.n_steps):
            x = x + self.snr * 0.01 * self.score_fn(x, t)
        return x, x


def model_of(name: str, continuous: bool) -> Model:
    """The model of a recorded case; where labels number the levels it grows as 1/sigma, as a score does."""
    if name == "ve" and not continuous:
        return Model(-0.1, 1000 ** (1 / 29))
    return Model({"vp": 1.0, "subvp": 0.3, "ve": -0.01}[name])


def same(x):
    return x


def assert_recorded(x: torch.Tensor, name: str) -> None:
    expected = torch.tensor(RECORDED[name])
    # Float32, over 30 steps of a model that contracts nothing.
    torch.testing.assert_close(x.flatten()[::19], expected, rtol=0, atol=float(5e-5 * expected.abs().max()))


def pc(name: str, predictor, corrector, model, continuous=True, **given):
    options = {"n_steps": 2, "continuous": continuous, "device": "cpu"} | given
    return sampling.get_pc_sampler(sde(name, 30), SHAPE, predictor, corrector, same, 0.16, **options)(model, noise=Draws())[0]


@pytest.mark.parametrize("case", [case for case in RECORDED if "discrete" in case])
def test_networks_of_discrete_time(case):
    name, _, predictor, corrector = case.split()
    model = model_of(name, False)
    assert_recorded(pc(name, sampling.get_predictor(predictor), sampling.get_corrector(corrector), model, continuous=False), case)
    labels = torch.stack(model.labels)[:, 0]
    times = torch.linspace(1, 1e-3, 30).repeat_interleave(3)
    if name == "ve":
        assert labels.dtype == torch.int64
        assert labels.tolist() == torch.arange(30).repeat_interleave(3).tolist()
    else:
        torch.testing.assert_close(labels, times * 29)


@pytest.mark.parametrize(("case", "classes"), [
    ("vp own predictor", (Half, sampling.LangevinCorrector)), ("ve own corrector", (sampling.AncestralSamplingPredictor, Push)),
    ("subvp both own", (Half, Push)), ("vp no classes", (None, None)),
])  # fmt: skip
def test_own_classes_keep_working(case, classes):
    name = case.split()[0]
    HANDED_OVER.clear()
    assert_recorded(pc(name, *classes, model_of(name, True), eps=0.03 if name == "subvp" else 1e-3), case)
    assert any("a plain loop" in what for what in HANDED_OVER) == (classes != (None, None))


@pytest.mark.parametrize("case", [case for case in RECORDED if "inpainter" in case or "colorizer" in case])
def test_controllable_generation_with_other_arguments(case):
    """More corrector steps than one, and noise at the end: what the fused loop leaves to the plain one."""
    name, kind, corrector, n_steps, denoise = case.split()
    data, mask = torch.tanh(drawn(100)), (drawn(101) > 0).float()
    given = (data, mask) if kind == "inpainter" else (data.mean(1, keepdim=True).repeat(1, 3, 1, 1),)
    make = getattr(controllable_generation, f"get_pc_{kind}")
    function = make(
        sde(name, 30), sampling.ReverseDiffusionPredictor, sampling.get_corrector(corrector), same, 0.16, n_steps=int(n_steps),
        continuous=False, denoise=denoise == "True", eps=1e-3,
    )  # fmt: skip
    assert_recorded(function(model_of(name, False), *given, noise=Draws()), case)


@pytest.mark.parametrize("corrector", ["none", "ald"])
@pytest.mark.parametrize("kind", ["inpainter", "colorizer"])
def test_known_data_beside_the_probability_flow_ode(kind, corrector):
    """The predictor's noise is drawn, though not used, before that of the known data: as the plain loop does it."""
    data, mask = torch.tanh(drawn(100)), (drawn(101) > 0).float()
    given = (data, mask) if kind == "inpainter" else (data.mean(1, keepdim=True).repeat(1, 3, 1, 1),)
    model, samples = Model(0.3), []

    def neighbours(x, labels):  # through which known pixels act on the others
        return model(0.5 * (x + x.roll(1, 3)), labels)

    for process in (sde("vp", 30), unfused(sde("vp", 30))):
        make, noise = getattr(controllable_generation, f"get_pc_{kind}"), Draws()
        function = make(
            process, sampling.ReverseDiffusionPredictor, sampling.get_corrector(corrector), same, 0.16, probability_flow=True,
            continuous=True, eps=1e-3,
        )  # fmt: skip
        samples.append(function(neighbours, *given, noise=noise))
        assert noise.calls == 1 + 30 * (3 + (corrector != "none"))
    torch.testing.assert_close(samples[0], samples[1], rtol=0, atol=float(5e-5 * samples[1].abs().max()))


def test_masks_may_be_boolean():
    data, mask = torch.tanh(drawn(100)), drawn(101) > 0
    inpaint = controllable_generation.get_pc_inpainter(
        sde("vp", 30), sampling.ReverseDiffusionPredictor, None, same, 0.16, continuous=True, eps=1e-3
    )
    assert torch.equal(inpaint(Model(0.3), data, mask, noise=Draws()), inpaint(Model(0.3), data, mask.float(), noise=Draws()))


@pytest.mark.parametrize(("snr", "n_steps"), [(0.0, 1), (0.16, 0)])
def test_a_corrector_that_does_nothing_draws_its_noise(snr, n_steps):
    arguments = (sde("vp", 30), SHAPE, sampling.ReverseDiffusionPredictor)
    noise = Draws()
    x, nfe = sampling.get_pc_sampler(*arguments, sampling.LangevinCorrector, same, snr, n_steps, continuous=True, device="cpu")(
        Model(0.3), noise=noise
    )
    assert noise.calls == 1 + 30 * (1 + n_steps)
    assert nfe == 30 * (n_steps + 1)

    own = Draws()

    def skipping(like):
        own.calls += n_steps * (own.calls > 0)
        return own(like)

    expected, _ = sampling.get_pc_sampler(*arguments, None, same, 0.1, continuous=True, device="cpu")(Model(0.3), noise=skipping)
    torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-4)


def discrete_loss(kind: str, reduce_mean: bool, train: bool = False):
    if kind == "smld":
        return losses.get_smld_loss_fn(sde("ve", 100), train, reduce_mean)
    return losses.get_ddpm_loss_fn(sde("vp", 100), train, reduce_mean)


@pytest.mark.parametrize("reduce_mean", [True, False])
@pytest.mark.parametrize("kind", ["smld", "ddpm"])
def test_losses_of_discrete_time(kind, reduce_mean):
    model, labels = Model(), torch.tensor([45, 39])
    loss = discrete_loss(kind, reduce_mean)(model, torch.tanh(drawn(100)), t=labels, noise=Draws())
    assert float(loss) == pytest.approx(LOSSES[f"{kind} {reduce_mean}"], rel=1e-5)
    assert model.labels[0].dtype == torch.int64
    assert model.labels[0].tolist() == labels.tolist()


@pytest.mark.parametrize("name", ["vp", "ve"])
def test_sde_loss_of_a_network_of_discrete_time(name):
    loss_fn = losses.get_sde_loss_fn(sde(name, 100), False, reduce_mean=True, continuous=False, likelihood_weighting=False)
    t = torch.tensor([0.3, 0.8]) * (1 - 1e-5) + 1e-5
    loss = loss_fn(Model(), torch.tanh(drawn(100)), t=t, noise=drawn(0))
    assert float(loss) == pytest.approx(LOSSES[name], rel=1e-5)


class Conv(nn.Module):
    """A network with one weight of each kind, small enough to differentiate at once."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.3, -0.2, 0.1]))

    def forward(self, x, labels):
        a, b, c = self.weight
        return a * x + b * torch.sin(x) + c * torch.cos(0.01 * labels.to(x.dtype))[:, None, None, None]


def every_loss():
    for name in SDES:
        for continuous in (True, False):
            for weighting in (True, False):
                for mean in (True, False):
                    fn = losses.get_sde_loss_fn(sde(name, 100), True, mean, continuous, weighting)
                    yield pytest.param(fn, torch.tensor([0.3, 0.8]), id=f"{name} {continuous} {weighting} {mean}")
    for kind in ("smld", "ddpm"):
        for mean in (True, False):
            yield pytest.param(discrete_loss(kind, mean, True), torch.tensor([45, 39]), id=f"{kind} {mean}")


@pytest.mark.parametrize(("loss_fn", "t"), list(every_loss()))
def test_fused_losses_and_their_gradients(loss_fn, t):
    """Without noise the loss makes its own from keys of torch's global generator; given that noise it must be the same."""
    data, model = torch.tanh(drawn(100)), Conv()
    torch.manual_seed(5)
    fused = loss_fn(model, data, t=t)
    torch.manual_seed(5)
    z = fastdiff.normal(data, fastdiff.keys(torch.default_generator, 2), 0, int(Stream.DATA))
    eager = loss_fn(model, data, t=t, noise=z)
    torch.testing.assert_close(fused, eager, rtol=2e-5, atol=1e-6)
    (gradient,), (expected,) = (torch.autograd.grad(loss, model.weight) for loss in (fused, eager))
    torch.testing.assert_close(gradient, expected, rtol=2e-4, atol=float(2e-5 * expected.abs().max()))
    assert model.training


@pytest.mark.parametrize("name", list(SDES))
def test_seeds_repeat_and_do_not_depend_on_the_path(name):
    own, process = unfused(sde(name, 20)), sde(name, 20)
    means = torch.tensor([[1.0] * 48, [-1.0] * 48])
    model = MixtureScore(process.process, means, torch.tensor([0.5, 0.5]), 0.3)
    results = []
    for chosen in (process, process, own):
        sampler = sampling.get_pc_sampler(
            chosen, (3, *SHAPE[1:]), sampling.ReverseDiffusionPredictor, None, same, 0.16, continuous=True, device="cpu"
        )
        torch.manual_seed(11)
        results.append(sampler(model)[0])
    assert torch.equal(results[0], results[1])
    torch.testing.assert_close(results[2], results[0], rtol=0, atol=1e-4)
    assert not torch.equal(sampler(model)[0], results[2])


def test_known_data_stay_where_they_are_known_without_given_noise():
    process = sde("vp", 30)
    model = MixtureScore(process.process, torch.tensor([[1.0] * 48, [-1.0] * 48]), torch.tensor([0.5, 0.5]), 0.1)
    data, mask = torch.ones(16, *SHAPE[1:]), torch.zeros(16, *SHAPE[1:])
    mask[:, :, :2] = 1
    inpaint = controllable_generation.get_pc_inpainter(
        process, sampling.ReverseDiffusionPredictor, sampling.LangevinCorrector, same, 0.16, continuous=True, eps=1e-3
    )
    torch.manual_seed(0)
    x = inpaint(model, data, mask)
    torch.testing.assert_close(x[:, :, :2], data[:, :, :2] * process.process.scale(1e-3), rtol=0, atol=1e-6)
    right = x[:, :, 2:].mean((1, 2, 3)) > 0.8  # the other half of the mode that the known half is from
    assert right.sum() >= 14


def test_plans_are_made_once():
    sampler = sampling.get_pc_sampler(sde("vp", 30), SHAPE, sampling.ReverseDiffusionPredictor, None, same, 0.1, device="cpu")
    sampler(Model())
    before = plan_for.cache_info().misses
    for _ in range(3):
        sampler(Model())
    assert plan_for.cache_info().misses == before


def test_what_was_changed_runs_as_changed():
    """N, or a table, that a user sets after construction counts, as in the original."""
    for change in ({"N": 12}, {"discrete_betas": torch.full((30,), 0.1), "alphas": torch.full((30,), 0.9)}):
        process = sde_lib.VPSDE(0.1, 20, 30)
        assert sampling.as_sampler(process, sampling.ReverseDiffusionPredictor, None, 0.1, 1, False, True, 1e-3) is not None
        for name, value in change.items():
            setattr(process, name, value)
        assert sampling.as_sampler(process, sampling.ReverseDiffusionPredictor, None, 0.1, 1, False, True, 1e-3) is None
        model = Model()
        x, nfe = sampling.get_pc_sampler(process, SHAPE, sampling.ReverseDiffusionPredictor, None, same, 0.1, device="cpu")(
            model, noise=Draws()
        )
        assert len(model.labels) == process.N
        assert nfe == 2 * process.N
        # By hand: x + (x - sqrt(alpha)*x) + beta*score, with noise but at the end.
        y, score_fn = drawn(0), utils.get_score_fn(process, Model())
        for i, t in enumerate(torch.linspace(1, 1e-3, process.N)):
            beta = process.discrete_betas[int(t * (process.N - 1))]
            mean = (2 - torch.sqrt(1 - beta)) * y + beta * score_fn(y, t.repeat(2))
            y = mean + torch.sqrt(beta) * drawn(i + 1)
        torch.testing.assert_close(x, mean, rtol=1e-5, atol=1e-5)


def test_what_was_changed_in_place_runs_as_changed_too():
    def fused(process) -> bool:
        return sampling.as_sampler(process, sampling.ReverseDiffusionPredictor, None, 0.1, 1, False, True, 1e-3) is not None

    def changed(change):
        process = sde("vp", 30)
        change(process)
        return process

    assert not fused(changed(lambda process: process.discrete_betas.mul_(2)))
    assert not fused(changed(lambda process: setattr(process, "discretize", lambda x, t: (x, t))))
    assert not fused(changed(lambda process: setattr(process, "alphas", process.alphas.numpy())))
    assert fused(changed(lambda process: setattr(process, "note", "mine")))
    copies = (copy.copy, copy.deepcopy, lambda process: pickle.loads(pickle.dumps(process)))
    assert all(fused(make(sde(name, 30))) for make in copies for name in SDES)
    assert not any(fused(make(changed(lambda process: process.alphas.mul_(2)))) for make in copies)


@pytest.mark.parametrize("name", list(SDES))
def test_views_of_the_sdes(name):
    """In closed form; f and G of the reverse follow from those of the SDE."""
    process, x, t = sde(name, 1000), drawn(0), torch.tensor([0.2, 0.9])
    integral = 0.1 * t + 0.5 * 19.9 * t**2
    beta = (0.1 + 19.9 * t).double()
    if name == "ve":
        std = 0.01 * 1000**t
        f, g, mean = torch.zeros(2), std * math.sqrt(2 * math.log(1000)), torch.ones(2)
    else:
        mean = torch.exp(-0.5 * integral)
        std = torch.sqrt(1 - mean**2) if name == "vp" else 1 - mean**2
        f, g = -0.5 * beta.float(), torch.sqrt(beta.float() * (1 if name == "vp" else 1 - torch.exp(-2 * integral)))
    column = (slice(None), None, None, None)
    for got, expected in zip(process.sde(x, t), (f[column] * x, g), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    for got, expected in zip(process.marginal_prob(x, t), (mean[column] * x, std), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    prior = torch.distributions.Normal(0.0, 10.0 if name == "ve" else 1.0)
    torch.testing.assert_close(process.prior_logp(x), prior.log_prob(x).sum((1, 2, 3)), rtol=1e-5, atol=1e-4)
    torch.manual_seed(3)
    prior_sample = process.prior_sampling(SHAPE)
    torch.manual_seed(3)
    assert torch.equal(prior_sample, torch.randn(*SHAPE) * prior.scale)
    assert torch.equal(process.prior_sampling(SHAPE, noise=lambda like: x), x * prior.scale)
    drift, diffusion = process.discretize(x, t)
    assert process.T == 1
    for flow, weight in ((False, 1.0), (True, 0.5)):
        reverse = process.reverse(lambda x, t: torch.sin(x), flow)
        f, G = reverse.discretize(x, t)
        torch.testing.assert_close(f, drift - weight * diffusion[column] ** 2 * torch.sin(x))
        assert torch.equal(G, diffusion * (not flow))
        torch.testing.assert_close(
            reverse.sde(x, t)[0], process.sde(x, t)[0] - weight * g[column] ** 2 * torch.sin(x), rtol=1e-5, atol=1e-5
        )
        assert (reverse.N, reverse.T) == (1000, 1)
    assert not isinstance(sde_lib.subVPSDE(), sde_lib.VPSDE)


def test_tables_of_the_sdes():
    vp, ve = sde_lib.VPSDE(0.1, 20, 1000), sde_lib.VESDE(0.01, 50, 1000)
    betas = torch.linspace(1e-4, 0.02, 1000)
    torch.testing.assert_close(vp.discrete_betas, betas)
    torch.testing.assert_close(vp.alphas_cumprod, torch.cumprod(1 - betas.double(), 0).float(), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(vp.sqrt_alphas_cumprod**2 + vp.sqrt_1m_alphas_cumprod**2, torch.ones(1000))
    torch.testing.assert_close(ve.discrete_sigmas, 0.01 * 5000 ** torch.linspace(0, 1, 1000), rtol=1e-5, atol=0)
    t = torch.tensor([0.0, 0.5, 1.0])
    for process, expected in (
        (vp, betas[[0, 499, 999]].sqrt()),
        (ve, (ve.discrete_sigmas**2).diff(prepend=torch.zeros(1))[[0, 499, 999]].sqrt()),
    ):
        torch.testing.assert_close(process.discretize(torch.zeros(3, 1, 1, 1), t)[1], expected, rtol=1e-3, atol=0)


def test_likelihood_of_a_gaussian_whatever_the_probe():
    """The Jacobian is a multiple of the identity: a Rademacher probe is exact, ours as well as a given one."""
    process = sde("vp", 1000)
    model = MixtureScore(process.process, torch.zeros(1, 48), torch.ones(1), 0.5)
    data = 0.5 * drawn(7)
    function = score_sde.get_likelihood_fn(process, lambda x: (x + 1) / 2, eps=1e-3)
    bits, z, nfe = function(model, data)
    given, _, _ = function(model, data, noise=lambda like: torch.sign(drawn(3)))
    torch.testing.assert_close(bits, given, rtol=0, atol=1e-5)
    assert (z.dtype, z.shape, type(nfe)) == (torch.float32, data.shape, int)
    density = torch.distributions.Normal(0.0, 0.5).log_prob(data).sum((1, 2, 3))
    torch.testing.assert_close(bits, -density / 48 / math.log(2) + 7, rtol=0, atol=5e-3)
    levels, _, _ = score_sde.get_likelihood_fn(process, same, eps=1e-3)(model, data)
    torch.testing.assert_close(levels, bits + 1, rtol=0, atol=1e-5)  # data in [0, 1] are half as far apart


@pytest.mark.parametrize("method", ["RK23", "DOP853"])
def test_other_solvers_are_scipys(method):
    pytest.importorskip("scipy")
    process = sde("vp", 1000)
    model = MixtureScore(process.process, torch.tensor([[0.5] * 48]), torch.ones(1), 0.5)
    z, arguments = drawn(0), {"rtol": 1e-4, "atol": 1e-4, "device": "cpu"}
    ours, _ = sampling.get_ode_sampler(process, SHAPE, same, **arguments)(model, z)
    other, nfe = sampling.get_ode_sampler(process, SHAPE, same, method=method, denoise=True, **arguments)(model, z)
    assert nfe > 20
    torch.testing.assert_close(other, ours, rtol=0, atol=2e-2)
    rough = {"rtol": 1e-3, "atol": 1e-3, "eps": 1e-3}
    bits = [score_sde.get_likelihood_fn(process, same, method=m, **rough)(model, z, noise=torch.sign)[0] for m in ("RK45", method)]
    torch.testing.assert_close(*bits, rtol=0, atol=2e-2)


def test_a_missing_scipy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=r"pip install 'fastdiff-torch\[eval\]'"):
        sampling.get_ode_sampler(sde("vp", 10), SHAPE, same, method="RK23", device="cpu")(Model())
    assert sampling.get_ode_sampler(sde("vp", 30), SHAPE, same, rtol=0.1, atol=0.1, device="cpu")(Model())[0].shape == SHAPE


def test_div_fn_estimates_the_divergence():
    x, matrix = drawn(0), torch.linspace(-1, 1, 48 * 48).reshape(48, 48)
    div_fn = score_sde.get_div_fn(lambda x, t: (x.flatten(1) @ matrix).reshape(x.shape) * t[:, None, None, None])
    unit = torch.zeros(SHAPE)
    unit[:, 1, 2, 3] = 1
    assert div_fn(x, torch.tensor([1.0, 2.0]), unit).tolist() == pytest.approx([float(matrix[27, 27] * t) for t in (1, 2)])
    assert not x.requires_grad


def config(**optim):
    defaults = {"optimizer": "Adam", "lr": 2e-4, "beta1": 0.9, "eps": 1e-8, "weight_decay": 0.01, "warmup": 10, "grad_clip": 1.0}
    model = SimpleNamespace(sigma_min=0.01, sigma_max=50, num_scales=100, beta_min=0.1, beta_max=20, name="linear")
    return SimpleNamespace(optim=SimpleNamespace(**defaults | optim), model=model, device="cpu")


def test_a_step_of_training_and_of_evaluation():
    model, settings = Conv(), config()
    average = ema.ExponentialMovingAverage(model.parameters(), 0.5)
    state = {"optimizer": losses.get_optimizer(settings, model.parameters()), "model": model, "ema": average, "step": 3}
    group = state["optimizer"].param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (2e-4, (0.9, 0.999), 1e-8, 0.01)
    data, given = torch.tanh(drawn(100)), {"t": torch.tensor([0.3, 0.8]), "noise": drawn(0)}
    train = losses.get_step_fn(sde("vp", 100), True, losses.optimization_manager(settings))
    evaluate = losses.get_step_fn(sde("vp", 100), False)
    first = model.weight.detach().clone()
    loss = train(state, data, **given)
    assert state["step"] == 4
    assert group["lr"] == pytest.approx(2e-4 * 3 / 10)
    assert model.training
    assert model.weight.grad.norm() == pytest.approx(1.0, rel=1e-3)  # clipped
    # Adam's first step is lr*sign of the gradient; the average goes 1 - 2/11 of the way.
    moved = model.weight.detach() - first
    torch.testing.assert_close(moved, -6e-5 * torch.sign(model.weight.grad), rtol=1e-2, atol=0)
    torch.testing.assert_close(average.shadow_params[0] - first, 9 / 11 * moved, rtol=1e-2, atol=0)
    for _ in range(20):
        train(state, data, **given)
    assert group["lr"] == 2e-4
    kept = model.weight.detach().clone()
    with torch.no_grad():
        average.shadow_params[0].copy_(first)
    assert float(evaluate(state, data, **given)) == pytest.approx(float(loss.detach()), rel=1e-6)
    assert not model.training
    assert torch.equal(model.weight.detach(), kept)
    assert state["step"] == 24
    with pytest.raises(RuntimeError):
        evaluate(state, data, t=given["t"], noise=torch.zeros(3))
    assert torch.equal(model.weight.detach(), kept)  # after an error too


def test_discrete_training_takes_the_losses_of_smld_and_ddpm():
    data, state = torch.tanh(drawn(100)), {"model": Conv(), "ema": ema.ExponentialMovingAverage(Conv().parameters(), 0.9)}
    for name, kind in (("ve", "smld"), ("vp", "ddpm")):
        step = losses.get_step_fn(sde(name, 100), False, reduce_mean=True, continuous=False)
        given = {"t": torch.tensor([45, 39]), "noise": drawn(0)}
        assert torch.equal(step(state, data, **given), discrete_loss(kind, True)(state["model"], data, **given))


def test_moving_average():
    """The numbers of the original's class."""
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0]]))
        layer.bias.fill_(0.5)
    average = ema.ExponentialMovingAverage(layer.parameters(), 0.9)
    for _ in range(3):
        with torch.no_grad():
            layer.weight.mul_(2)
        average.update(layer.parameters())
    torch.testing.assert_close(average.shadow_params[0], torch.tensor([[6.601398468017578, 13.202796936035156]]))
    other = ema.ExponentialMovingAverage(nn.Linear(2, 1).parameters(), 0.5)
    other.load_state_dict(average.state_dict())
    assert (other.decay, other.num_updates) == (0.9, 3)
    average.store(layer.parameters())
    other.copy_to(layer.parameters())
    assert torch.equal(layer.weight, average.shadow_params[0])
    average.restore(layer.parameters())
    assert layer.weight.tolist() == [[8.0, 16.0]]


def test_configurations_of_models():
    sigmas = utils.get_sigmas(config())
    assert (sigmas[0], sigmas[-1], len(sigmas)) == (pytest.approx(50), pytest.approx(0.01), 100)
    params = utils.get_ddpm_params(SimpleNamespace(model=SimpleNamespace(beta_min=0.1, beta_max=20.0, num_scales=1000)))
    assert (params["betas"][0], params["betas"][-1], params["num_diffusion_timesteps"]) == (1e-4, 0.02, 1000)
    assert params["alphas_cumprod"][-1] == pytest.approx(4.0358e-5, rel=1e-4)
    assert (params["beta_min"], params["beta_max"]) == (pytest.approx(0.0999), pytest.approx(19.98))

    @utils.register_model(name="linear")
    class Linear(nn.Linear):
        def __init__(self, config):
            super().__init__(config.model.num_scales, 1)

    made = utils.create_model(config())
    assert isinstance(made, nn.DataParallel)
    assert made.module.in_features == 100
    assert utils.get_model("linear") is Linear
    scaled = SimpleNamespace(data=SimpleNamespace(centered=True))
    assert score_sde.get_data_scaler(scaled)(1.0) == 1
    assert score_sde.get_data_inverse_scaler(scaled)(-1.0) == 0
    flat = utils.to_flattened_numpy(drawn(0))
    assert flat.shape == (96,)
    assert torch.equal(utils.from_flattened_numpy(flat, SHAPE), drawn(0))


def test_models_are_evaluated_where_they_are():
    model = Conv().train()
    for sampler in (
        sampling.get_pc_sampler(
            sde("vp", 30), SHAPE, sampling.EulerMaruyamaPredictor, None, same, 0.1
        ),  # device: 'cuda', and none is there
        sampling.get_ode_sampler(sde("vp", 30), SHAPE, same, rtol=0.1, atol=0.1),
        sampling.get_pc_sampler(sde("vp", 30), SHAPE, Half, None, same, 0.1),
    ):
        model.train()
        x, _ = sampler(model)
        assert x.device == model.weight.device
        assert not x.requires_grad
        assert not model.training


def test_every_part_of_a_model_is_put_in_its_mode():
    model = nn.Sequential(nn.Dropout()).eval()
    model[0].train()
    utils.get_model_fn(lambda x, labels: model(x))(drawn(0), torch.zeros(2))
    assert model[0].training  # a function has no mode

    class Two(nn.Sequential):
        def forward(self, x, labels):
            return super().forward(x)

    model = Two(nn.Dropout()).eval()
    model[0].train()
    assert torch.equal(utils.get_model_fn(model)(drawn(0), torch.zeros(2)), drawn(0))


def test_registries():
    @sampling.register_predictor
    class OfItsName(Half):
        pass

    @sampling.register_corrector(name="pushed")
    class Pushed(Push):
        pass

    assert sampling.get_predictor("OfItsName") is OfItsName
    assert sampling.get_corrector("pushed") is Pushed
    with pytest.raises(ValueError, match="name: expected one that no corrector has yet, got 'pushed'"):
        sampling.register_corrector(Pushed, name="pushed")
    with pytest.raises(ValueError, match=r"name: expected one of .*none.*, got 'heun'"):
        sampling.get_predictor("heun")


def test_errors():
    settings = SimpleNamespace(sampling=SimpleNamespace(method="sde"))
    with pytest.raises(ValueError, match=r"config.sampling.method: expected 'pc' or 'ode', got 'sde'"):
        sampling.get_sampling_fn(settings, sde("vp", 10), SHAPE, same, 1e-3)
    ancestral = sampling.AncestralSamplingPredictor
    with pytest.raises(NotImplementedError, match="sde: expected a VPSDE or VESDE for ancestral sampling, got subVPSDE"):
        sampling.get_pc_sampler(sde("subvp", 30), SHAPE, ancestral, None, same, 0.1, device="cpu")(Model())
    with pytest.raises(ValueError, match="probability_flow: expected False with ancestral sampling"):
        sampling.get_pc_sampler(sde("vp", 30), SHAPE, ancestral, None, same, 0.1, probability_flow=True, device="cpu")(Model())
    with pytest.raises(NotImplementedError, match=r"sde: expected a VPSDE, subVPSDE or VESDE of .*, got .*ReverseSDE"):
        utils.get_score_fn(sde("vp", 30).reverse(same), Model())
    with pytest.raises(NotImplementedError, match=r"VESDE of fastdiff.compat.score_sde.sde_lib, got .*\.VPSDE"):
        utils.get_score_fn(type("VPSDE", (), {})(), Model())
    sampler = sampling.get_pc_sampler(sde("vp", 30), SHAPE, sampling.EulerMaruyamaPredictor, None, same, 0.1, device="cpu")
    with pytest.raises(ValueError, match=r"noise: expected a tensor \[2, 3, 4, 4\] from it, got \[3\]"):
        sampler(Model(), noise=lambda like: torch.zeros(3))
    with pytest.raises(TypeError, match=r"noise: expected a callable noise\(like\), got Tensor"):
        sampler(Model(), noise=drawn(0))
    with pytest.raises(ValueError, match="hutchinson_type: expected 'Rademacher' or 'Gaussian', got 'Cauchy'"):
        score_sde.get_likelihood_fn(sde("vp", 30), same, "Cauchy")
    with pytest.raises(TypeError, match="vesde: expected a VESDE, got VPSDE"):
        losses.get_smld_loss_fn(sde("vp", 30), True)
    with pytest.raises(TypeError, match="vpsde: expected a VPSDE, got VESDE"):
        losses.get_ddpm_loss_fn(sde("ve", 30), True)
    with pytest.raises(ValueError, match=r"t: expected a tensor \[2\] of integers from 0 to 99, got \[2\] torch.float32"):
        discrete_loss("ddpm", True)(Model(), drawn(0), t=torch.tensor([0.3, 0.8]))
    for outside in ([-1, 3], [0, 100]):
        with pytest.raises(ValueError, match=rf"t: expected a tensor \[2\] of integers from 0 to 99, got {min(outside)} to {max(outside)}"):
            discrete_loss("smld", True)(Model(), drawn(0), t=torch.tensor(outside))
    for t, shown in ((0.5, "float"), (torch.tensor([0.5]), r"\[1\] torch.float32")):
        with pytest.raises(ValueError, match=rf"t: expected a tensor \[2\] of times, got {shown}"):
            losses.get_sde_loss_fn(sde("vp", 30), True)(Model(), drawn(0), t=t)
    with pytest.raises(ValueError, match="optimize_fn: expected one for training, got None"):
        losses.get_step_fn(sde("vp", 30), True)
    with pytest.raises(ValueError, match="likelihood_weighting: expected False"):
        losses.get_step_fn(sde("vp", 30), False, continuous=False, likelihood_weighting=True)
    with pytest.raises(ValueError, match="sde: expected a VESDE or VPSDE for training in discrete time, got subVPSDE"):
        losses.get_step_fn(sde("subvp", 30), False, continuous=False)
    with pytest.raises(ValueError, match=r"config.optim.optimizer: expected 'Adam', got 'SGD'"):
        losses.get_optimizer(config(optimizer="SGD"), [])
    with pytest.raises(ValueError, match=r"decay: expected a number from 0 to 1, got 1.5"):
        ema.ExponentialMovingAverage([], 1.5)


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_page_runs(when):
    """The blocks of docs/compat_score_sde.md; the first where the original program can be imported."""
    page = ROOT / "docs" / "compat_score_sde.md"
    if not page.exists():
        pytest.skip("not a source tree")
    if when == "before":
        pytest.importorskip("sde_lib")
    block = re.search(rf"```python{' before' * (when == 'before')}\n(.*?)```", page.read_text(encoding="utf-8"), re.S).group(1)
    names = {"torch": torch, "score_model": Conv(), "config": SimpleNamespace(data=SimpleNamespace(centered=True))}
    for shown, run in (("64, 3, 32, 32", "2, 3, 4, 4"), ("N=1000", "N=40"), ('"cuda"', '"cuda" if torch.cuda.is_available() else "cpu"')):
        block = block.replace(shown, run)
    exec(block, names)
    assert names["images"].shape == SHAPE
    assert names["nfe"] == 80
    assert bool(torch.isfinite(names["images"]).all())
