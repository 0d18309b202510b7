"""The score-based framework: predictor-corrector, DDPM, Brownian paths, the adaptive solver, likelihoods."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
import torch

import fastdiff
from benchmarks.conftest import ROWS
from benchmarks.sde_peers import ddpm_sampler, pc_sampler, scipy_likelihood, scipy_ode
from fastdiff import DDPM, EDMSDE, VPSDE, Discrete, EDMSampler, Epsilon, ODESolver, PCSampler, log_likelihood
from fastdiff.flow import Flow
from fastdiff.models import load_model
from fastdiff.models.digits.data import load_digits
from fastdiff.ode import integrate
from fastdiff.parametrizations import Denoiser

TOLERANCE = 1e-4
ROUGH = 1e-3
PROCESS = EDMSDE(0.002, 80.0)


class Constant:
    """A network that costs nothing."""

    def __init__(self, like: torch.Tensor) -> None:
        self.eps = torch.randn(like.shape, generator=torch.Generator().manual_seed(9))

    def __call__(self, x, label):
        return self.eps


def linear(x, label):
    """A network whose samples depend on every coefficient."""
    return 0.1 * x + 0.2


def recorded(shape) -> tuple:
    """(first draw, a maker of callables that replay the same noise)."""
    generator = torch.Generator().manual_seed(3)
    draws = [torch.randn(shape, generator=generator) for _ in range(230)]

    def replay():
        rest = iter(draws[1:])
        return lambda like: next(rest)

    return draws[0], replay


@pytest.mark.parametrize(("shape", "target"), [((64, 3, 32, 32), 8), ((64, 1, 8, 8), 5)], ids=["cifar", "digits"])
def test_predictor_corrector_200_calls(compare, shape, target):
    latents, replay = recorded((2, 3, 8, 8))
    plan = PCSampler(VPSDE(), steps=100).plan(Epsilon(schedule=VPSDE()))

    def check():
        ours = fastdiff.run(plan, linear, latents, noise=replay())
        for compile in (False, True):
            torch.testing.assert_close(ours, pc_sampler(linear, latents, 100, noise=replay(), compile=compile), rtol=2e-3, atol=2e-3)

    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    net, key = Constant(x), fastdiff.keys(0, shape[0])
    peers = {"eager": lambda: pc_sampler(net, x, 100), "torch.compile": lambda: pc_sampler(net, x, 100, compile=True)}
    name = f"PC reverse diffusion + Langevin, 200 calls {list(shape)}"
    compare(name, lambda: fastdiff.run(plan, net, x, key=key), peers, check, {"eager": target}, rounds=5)


def test_ddpm_ancestral(compare):
    shape, schedule = (64, 3, 32, 32), Discrete(fastdiff.linear_betas(100, 1e-3, 0.2))
    betas = torch.tensor(schedule.betas, dtype=torch.float32)
    plan = DDPM(schedule).plan(Epsilon(schedule=schedule, label_scale=1.0))
    latents, replay = recorded((2, 3, 8, 8))

    def check():
        from dataclasses import replace

        ours = fastdiff.run(replace(plan, prior_scale=1.0, _tables={}, _derived={}), linear, latents, noise=replay())
        torch.testing.assert_close(ours, ddpm_sampler(linear, latents, betas, noise=replay()), rtol=2e-3, atol=2e-3)

    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    net, key = Constant(x), fastdiff.keys(0, shape[0])
    compare(
        f"DDPM ancestral, 100 steps {list(shape)}", lambda: fastdiff.run(plan, net, x, key=key),
        {"eager": lambda: ddpm_sampler(net, x, betas)}, check, {"eager": 8}, rounds=5,
    )  # fmt: skip


def test_brownian_path(compare):
    torchsde = pytest.importorskip("torchsde")
    shape = (64, 3, 32, 32)
    like, key, path = torch.empty(shape), fastdiff.keys(0, 64), fastdiff.BrownianPath()
    sigmas = [row.sigma for row in EDMSampler(solver="euler").plan(Denoiser()).rows]
    spans = list(itertools.pairwise(sigmas))
    tree = torchsde.BrownianTree(t0=0.002, w0=torch.zeros(shape), t1=80.0, entropy=0)

    def check():
        first, second = (path.noise(like, key, *span) for span in spans[3:5])
        for z in (first, second):
            assert abs(z.mean()) < 0.01
            assert abs(z.std() - 1) < 0.01
        assert abs((first * second).mean()) < 0.01

    def ours():
        for high, low in spans:
            path.noise(like, key, high, low)

    def theirs():
        for high, low in spans:
            tree(low, high)

    name = f"Brownian noise of {len(spans)} steps {list(shape)}"
    compare(name, ours, {"torchsde.BrownianTree": theirs}, check, {"torchsde.BrownianTree": 50}, rounds=3)


def test_ode_solver_on_digits(compare):
    odeint = pytest.importorskip("torchdiffeq").odeint
    net = load_model("digits")
    x = 80 * torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    flow = Flow(net, Denoiser.of(net), PROCESS)
    solver = ODESolver(TOLERANCE, TOLERANCE, control="batch")

    def ours():
        return integrate(flow, x, 80.0, 0.002, solver)

    def diffeq():
        with torch.no_grad():
            times = torch.tensor([80.0, 0.002], dtype=torch.float64)
            slope = lambda t, x: ((x - net(x, t.expand(len(x)))) / t).float()  # noqa: E731
            options = {"step_t": times[1:]}  # else it steps beyond the end, where sigma < 0, and interpolates
            return odeint(slope, x, times, rtol=TOLERANCE, atol=TOLERANCE, method="dopri5", options=options)[-1]

    def check():
        expected, calls = scipy_ode(net, x, 80.0, 0.002, TOLERANCE)
        result = ours()
        assert abs(int(result.nfe[0]) - calls) <= 12  # float32's rounding may reject a step
        torch.testing.assert_close(result.x, expected, rtol=0, atol=0.05)

    peers = {"scipy RK45": lambda: scipy_ode(net, x, 80.0, 0.002, TOLERANCE), "torchdiffeq dopri5": diffeq}
    compare("probability-flow ODE, digits, batch 64, tolerance 1e-4", ours, peers, check, rounds=3)

    # What is not the network: the whole against the time within its calls, in the same runs.
    inside = []

    def timed(*args, **kwargs):
        start = time.perf_counter()
        result = net(*args, **kwargs)
        inside.append(time.perf_counter() - start)
        return result

    shares = []
    for _ in range(3):
        inside.clear()
        start = time.perf_counter()
        integrate(Flow(timed, Denoiser.of(net), PROCESS), x, 80.0, 0.002, solver)
        whole = time.perf_counter() - start
        shares.append(((whole - sum(inside)) / len(inside), sum(inside) / len(inside)))
    overhead, forward = (float(np.median([share[i] for share in shares])) for i in (0, 1))
    row = {"case": "ODE solver's overhead per call, digits, batch 64", "fastdiff_seconds": overhead}
    ROWS.append(row | {"peers": {"the network's forward": forward}, "target": {"the network's forward": 1 / 0.15}})


def test_likelihood_on_digits(compare):
    net = load_model("digits")
    x0 = load_digits("test").images[:8]
    key = fastdiff.keys(0, 8)
    probe = fastdiff.rademacher(x0, key, 0, fastdiff.Stream.PROBE)
    solver = ODESolver(ROUGH, ROUGH, control="batch")

    def ours():
        return log_likelihood(net, x0, process=PROCESS, solver=solver, seeds=key)

    def theirs():
        return scipy_likelihood(net, x0, 0.002, 80.0, ROUGH, probe)

    def check():
        expected, calls = theirs()
        result = ours()
        assert abs(int(result.nfe[0]) - calls) <= 12
        torch.testing.assert_close(result.log_prob / 64, expected / 64, rtol=0, atol=3e-2)  # nats per dimension

    peers = {"upstream's procedure (scipy, two forwards)": theirs}
    name = "log-likelihood, digits, 8 images, tolerance 1e-3"
    compare(f"{name}, eager network", ours, peers, check, dict.fromkeys(peers, 1.5), rounds=3)


def test_likelihood_on_digits_with_a_compiled_network(compare):
    net = load_model("digits")
    x0 = load_digits("test").images[:8]
    key = fastdiff.keys(0, 8)
    probe = fastdiff.rademacher(x0, key, 0, fastdiff.Stream.PROBE)
    solver = ODESolver(ROUGH, ROUGH, control="batch")
    best = torch.compile(net, dynamic=False)

    def ours():
        return log_likelihood(best, x0, process=PROCESS, solver=solver, seeds=key)

    peers = {"upstream's procedure (scipy, two forwards)": lambda: scipy_likelihood(net, x0, 0.002, 80.0, ROUGH, probe)}
    name = "log-likelihood, digits, 8 images, tolerance 1e-3, network under torch.compile"
    compare(name, ours, peers, ours, dict.fromkeys(peers, 2.0), rounds=3)
