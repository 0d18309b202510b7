"""The adaptive solver: against scipy, torchdiffeq, the original program and closed forms; its control, its errors, encoding."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import fastdiff
from fastdiff import EDMSDE, VESDE, VPSDE, Denoiser, ODEError, ODESolver, SubVPSDE
from fastdiff.encoding import ODESampler
from fastdiff.flow import Flow
from fastdiff.ode import integrate
from tests.samplers.mixture import Mixture, MixtureScore

GOLDEN = np.load(Path(__file__).parent / "golden" / "score_sde.npz")
CASES = {case["name"]: case for case in json.loads(str(GOLDEN["meta"]))}
SDES = {"vp": VPSDE(0.1, 20.0), "subvp": SubVPSDE(0.1, 20.0), "ve": VESDE(0.01, 10.0)}
EDM = EDMSDE(0.05, 10.0)


class Float32Mixture(MixtureScore):
    """The mixture in float32 throughout, as the recorded program computed it: its rounding steers the step sizes."""

    def __call__(self, x, label, class_labels=None):
        self.calls += 1
        t = self.sde.time(label.double()) if self.returns_score else label.double() / 999
        scale, std = (v.float().reshape(-1, 1) for v in (self.sde.scale(t), self.sde.std(t)))
        flat, variance = x.flatten(1), scale**2 * self.std**2 + std**2
        means = scale[:, None] * self.means.float()
        r = (self.log_weights.float() - (flat[:, None] - means).square().sum(-1) / (2 * variance)).softmax(1)
        score = ((r[:, :, None] * means).sum(1) - flat) / variance
        return (score if self.returns_score else -score * std).reshape(x.shape)


def recorded_mixture(name: str) -> Float32Mixture:
    """The network of the golden data."""
    return Float32Mixture(SDES[name], torch.from_numpy(GOLDEN["mu"]), torch.from_numpy(GOLDEN["weights"]), float(GOLDEN["std"]))


def mixture() -> Mixture:
    """Two well separated Gaussians in four dimensions."""
    return Mixture(torch.tensor([[1.0, 0.5, -0.5, 0.0], [-1.0, 0.0, 0.5, 1.0]]), torch.tensor([0.4, 0.6]), 0.3)


class Gaussian:
    """The denoiser of N(0, std^2 I), elementwise, so that a sample's result is the same in any batch, to the bit."""

    def __init__(self, std: float = 0.5) -> None:
        self.std = std
        self.calls = 0

    def __call__(self, x, sigma):
        self.calls += 1
        sigma = sigma.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))
        return x * (self.std**2 / (self.std**2 + sigma**2))


def start(count: int, dim: int = 4, seed: int = 0) -> torch.Tensor:
    """States at sigma = 10."""
    return 10 * torch.randn(count, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", list(SDES))
def test_samples_of_the_original_program(name):
    net = recorded_mixture(name)
    flow = Flow(net, net.parametrization, SDES[name], net_dtype=torch.float32)
    prior = torch.from_numpy(GOLDEN[f"ode/{name}/noise"][0]) * SDES[name].prior_std
    case = CASES[f"ode/{name}"]
    solver = ODESolver(case["rtol"], case["atol"], control="batch")
    result = integrate(flow, prior.double(), 1.0, case["eps"], solver)
    # The issue asks for 2e-4; VE reaches 2e-7, sub-VP 5e-5: near t = 0 its network divides by std, and float32 shows.
    torch.testing.assert_close(result.x.float(), torch.from_numpy(GOLDEN[f"ode/{name}/out0"]), rtol=0, atol=1e-4)
    assert abs(int(result.nfe[0]) - int(GOLDEN[f"ode/{name}/out1"])) <= 12  # two attempts: float32 rounding may reject one
    assert net.calls == int(result.nfe[0])


@pytest.mark.parametrize("rtol", [1e-3, 1e-5, 1e-8])
def test_batch_control_takes_scipys_steps(rtol):
    integrate_scipy = pytest.importorskip("scipy.integrate").solve_ivp
    net, x = mixture(), start(5)

    def slope(t, flat):
        x = torch.from_numpy(flat.reshape(5, 4))
        return ((x - net(x, torch.full((5,), t, dtype=torch.float64))) / t).numpy().ravel()

    expected = integrate_scipy(slope, (10.0, 0.05), x.numpy().ravel(), rtol=rtol, atol=rtol, method="RK45")
    result = integrate(Flow(net, Denoiser(), EDM), x, 10.0, 0.05, ODESolver(rtol, rtol, control="batch"))
    assert set(result.nfe.tolist()) == {expected.nfev}
    assert set(result.accepted.tolist()) == {len(expected.t) - 1}
    assert result.nfe[0] == 2 + 6 * (result.accepted[0] + result.rejected[0])
    np.testing.assert_allclose(result.x.numpy().ravel(), expected.y[:, -1], rtol=0, atol=1e-10)


def test_agrees_with_torchdiffeq():
    odeint = pytest.importorskip("torchdiffeq").odeint
    net, x = mixture(), start(5)

    def slope(t, x):
        return (x - net(x, t.expand(len(x)))) / t

    expected = odeint(slope, x, torch.tensor([10.0, 0.05], dtype=torch.float64), rtol=1e-9, atol=1e-9, method="dopri5")[-1]
    result = integrate(Flow(net, Denoiser(), EDM), x, 10.0, 0.05, ODESolver(1e-9, 1e-9))
    torch.testing.assert_close(result.x, expected, rtol=0, atol=1e-7)


def test_order_five():
    net, x = mixture(), start(8)
    exact = integrate(Flow(net, Denoiser(), EDM), x, 10.0, 2.0, ODESolver(1e-13, 1e-13)).x
    errors = []
    for steps in (8, 16, 32):
        times, state = np.geomspace(10.0, 2.0, steps + 1), x
        for a, b in itertools.pairwise(times):  # one step each: the tolerance is never reached
            part = integrate(Flow(net, Denoiser(), EDM), state, a, b, ODESolver(1e6, 1e6, first_step=abs(b - a) * 2))
            assert part.accepted.tolist() == [1] * 8
            state = part.x
        errors.append((state - exact).abs().max().item())
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert 4.5 < orders[-1] < 6.0, (errors, orders)


def test_control_by_sample_does_not_depend_on_the_batch():
    net, x = Gaussian(), start(6).float() * torch.tensor([1.0, 5.0, 0.1, 1.0, 2.0, 0.5])[:, None]
    flow = Flow(net, Denoiser(), EDM)
    together = integrate(flow, x, 10.0, 0.05, ODESolver(1e-4, 1e-4))
    for i in range(6):
        alone = integrate(flow, x[i : i + 1], 10.0, 0.05, ODESolver(1e-4, 1e-4))
        assert torch.equal(alone.x[0], together.x[i])
        assert (alone.nfe[0], alone.accepted[0]) == (together.nfe[i], together.accepted[i])
    assert len(set(together.accepted.tolist())) > 1  # they did take different steps
    shared = integrate(flow, x, 10.0, 0.05, ODESolver(1e-4, 1e-4, control="batch"))
    alone = integrate(flow, x[:1], 10.0, 0.05, ODESolver(1e-4, 1e-4, control="batch"))
    assert not torch.equal(shared.x[0], alone.x[0])


def test_error_follows_the_tolerance_and_a_closed_form():
    x = start(4)
    factor = math.sqrt((0.25 + 0.05**2) / (0.25 + 100))  # x(t) = x(T)*sqrt((s^2 + t^2)/(s^2 + T^2))
    errors = []
    for tolerance in (1e-3, 1e-6, 1e-9):
        result = integrate(Flow(Gaussian(), Denoiser(), EDM), x, 10.0, 0.05, ODESolver(tolerance, tolerance))
        errors.append((result.x - factor * x).abs().max().item())
    assert errors[0] < 1e-2
    assert errors[1] < 1e-5
    assert errors[2] < 1e-8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_lower_network_dtype_and_channels_last_states(dtype):
    x = start(2, 2 * 3 * 4).reshape(2, 2, 3, 4).to(dtype)
    seen = []

    def net(x, sigma):
        seen.append((x.dtype, sigma.dtype))
        return Gaussian()(x, sigma)

    low = integrate(Flow(net, Denoiser(), EDM, net_dtype=torch.bfloat16), x, 10.0, 1.0, ODESolver(1e-2, 1e-2)).x
    assert set(seen) == {(torch.bfloat16, torch.float32)}
    plain = integrate(Flow(Gaussian(), Denoiser(), EDM), x, 10.0, 1.0, ODESolver(1e-2, 1e-2)).x
    last = integrate(Flow(Gaussian(), Denoiser(), EDM), x.contiguous(memory_format=torch.channels_last), 10.0, 1.0, ODESolver(1e-2, 1e-2)).x
    torch.testing.assert_close(last, plain)
    torch.testing.assert_close(low, plain, rtol=0.1, atol=0.1)


def test_an_empty_batch():
    result = integrate(Flow(Gaussian(), Denoiser(), EDM), torch.zeros(0, 4), 10.0, 0.05)
    assert result.x.shape == (0, 4)


def test_a_step_limit_and_values_that_are_not_finite_say_where():
    flow = Flow(mixture(), Denoiser(), EDM)
    with pytest.raises(ODEError, match=r"max_steps: not done after 3 steps, at t = [0-9.]+ on the way to 0.05"):
        integrate(flow, start(3), 10.0, 0.05, ODESolver(1e-8, 1e-8, max_steps=3))

    def breaks(x, sigma):
        return torch.where(sigma.reshape(-1, 1) < 2.0, torch.nan, mixture()(x, sigma))

    with pytest.raises(ODEError, match=r"cannot go on at t = [0-9.]+: a value is not finite") as error:
        integrate(Flow(breaks, Denoiser(), EDM), start(3), 10.0, 0.05, ODESolver(1e-5, 1e-5))
    assert 2.0 <= float(str(error.value).split("at t = ")[1].split(":")[0]) <= 10.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rtol": -1.0}, "rtol, atol: expected rtol >= 0 and atol > 0, got -1.0 and 1e-05"),
        ({"atol": 0.0}, "rtol, atol"),
        ({"control": "all"}, "control: expected 'sample' or 'batch', got 'all'"),
        ({"max_steps": 0}, "max_steps: expected an integer >= 1, got 0"),
        ({"first_step": 0.0}, "first_step: expected a number > 0, got 0.0"),
    ],
)
def test_solver_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        ODESolver(**arguments)


def test_integrate_errors():
    flow = Flow(Gaussian(), Denoiser(), EDM)
    with pytest.raises(ValueError, match=r"x: expected \[B, \.\.\.\] float32 or float64"):
        integrate(flow, torch.zeros(2, 3, dtype=torch.int64), 10.0, 1.0)
    with pytest.raises(ValueError, match="start, end: expected two times"):
        integrate(flow, torch.zeros(2, 3), 1.0, 1.0)


# ---- The front doors ----


def test_encode_and_decode_are_inverse_within_the_tolerance():
    net = mixture()
    x0 = net.sample(16, seed=1)
    solver = ODESolver(1e-8, 1e-8)
    z = fastdiff.encode(net, x0, process=EDM, solver=solver)
    # Round trip error: each way 1e-8 a step, amplified by the flow where the two Gaussians part. Measured 2e-7.
    torch.testing.assert_close(fastdiff.decode(net, z, process=EDM, solver=solver), x0, rtol=0, atol=5e-6)
    assert 0.8 < z.std() < 1.2
    rough = {"process": EDM, "solver": ODESolver(1e-3, 1e-3)}
    loose = fastdiff.decode(net, fastdiff.encode(net, x0, **rough), **rough)
    assert 5e-6 < (loose - x0).abs().max() < 0.2  # the tolerance is what decides


def test_the_scale_of_the_last_state_is_taken_out():
    net = MixtureScore(VPSDE(), mixture().means, mixture().log_weights.exp(), 0.3)
    z = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    raw = ODESampler(eps=0.01, unscale=False).solve(net, net.parametrization, z, backward=True).x
    ours = ODESampler(eps=0.01).solve(net, net.parametrization, z, backward=True).x
    torch.testing.assert_close(ours, raw / VPSDE().scale(0.01))


def test_sample_takes_an_ode_sampler():
    net = mixture()
    sampler = ODESampler(EDM, ODESolver(1e-6, 1e-6))
    seeded = fastdiff.sample(net, (4, 4), seeds=3, sampler=sampler, state_dtype=torch.float64)
    latents = fastdiff.randn((4, 4), 3, dtype=torch.float64)
    torch.testing.assert_close(fastdiff.decode(net, latents, process=EDM, solver=ODESolver(1e-6, 1e-6)), seeded)
    with pytest.raises(ValueError, match="callback: expected none with an ODESampler"):
        fastdiff.sample(net, (4, 4), sampler=sampler, callback=print)
    with pytest.raises(ValueError, match="eps_scale, differentiable"):
        fastdiff.sample(net, (4, 4), sampler=sampler, eps_scale=1.1)


def test_classifier_free_guidance_and_gradients_in_the_drift():
    """CFG of two Gaussians' denoisers is linear; a gradient that is linear in x likewise: both must act as their sum."""

    def net(x, sigma, class_labels=None):
        return Gaussian(0.5 if class_labels is None else 0.8)(x, sigma)

    def combined(x, sigma):
        D = net(x, sigma) + 1.5 * (net(x, sigma, 1) - net(x, sigma))
        return D - 0.3 * sigma.to(x.dtype).reshape(-1, 1) ** 2 * x

    x, solver = start(4), ODESolver(1e-8, 1e-8)
    guidance = fastdiff.Guidance(lambda x, sigma, **_: -x, weight=0.3)
    guided = Flow(net, Denoiser(), EDM, guidance, fastdiff.ClassifierFree(1.5), {"class_labels": 1})
    expected = integrate(Flow(combined, Denoiser(), EDM), x, 10.0, 0.5, solver).x
    torch.testing.assert_close(integrate(guided, x, 10.0, 0.5, solver).x, expected, rtol=1e-6, atol=1e-12)


def test_a_gradient_outside_its_window_does_not_matter():
    def gradient(x, sigma, **_):
        return torch.where(sigma.reshape(-1, 1) > 1.0, torch.nan, -x)

    flow = Flow(mixture(), Denoiser(), EDM, fastdiff.Guidance(gradient, window=(0.0, 1.0)))
    assert torch.isfinite(integrate(flow, start(3), 10.0, 0.05, ODESolver(1e-3, 1e-3)).x).all()


def test_slerp_and_temperature():
    a, b = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 2.0, 0.0])
    walk = fastdiff.slerp(a, b, 5)
    torch.testing.assert_close(walk[[0, -1]], torch.stack([a, b]))
    torch.testing.assert_close(walk.norm(dim=1), torch.full((5,), 2.0))
    torch.testing.assert_close(walk[2], torch.tensor([2**0.5, 2**0.5, 0.0]))
    torch.testing.assert_close(fastdiff.slerp(a, a, 3), a.expand(3, -1))
    torch.testing.assert_close(fastdiff.with_temperature(a, 0.5), 0.5 * a)
    for call, message in (
        (lambda: fastdiff.slerp(a, b[:2], 3), r"z1: expected the shape of z0, \[3\], got \[2\]"),
        (lambda: fastdiff.slerp(a, b, 1), "steps: expected an integer >= 2, got 1"),
        (lambda: fastdiff.with_temperature(a, 0.0), "temperature: expected a number > 0, got 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
