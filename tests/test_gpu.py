"""What only a GPU can show. Skips visibly without one; FASTDIFF_REQUIRE=cuda turns that into a failure."""

from __future__ import annotations

import pytest
import torch

import fastdiff
from fastdiff import (
    EDMSDE,
    VPSDE,
    BrownianPath,
    Denoiser,
    DPMSolver2M,
    EDMSampler,
    Epsilon,
    Known,
    ODESolver,
    PCSampler,
)
from fastdiff.flow import Flow
from fastdiff.ode import integrate
from fastdiff.ops import OPS
from tests.conftest import GPU, need
from tests.ops.backends import backend


@pytest.fixture(autouse=True)
def gpu():
    need("cuda", GPU, "no GPU")


@pytest.mark.parametrize("name", ["cuda", "triton"])
@pytest.mark.parametrize("kind", ["normal", "uniform", "rademacher"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def test_noise_of_cpu_and_gpu_is_equal_in_every_bit(kind, name, memory_format):
    call, device = backend(name, OPS[kind])
    key = fastdiff.keys(3, 8)
    expected = OPS[kind].overload(torch.empty(8, 3, 33, 35), key, 5, 1)
    like = torch.empty(8, 3, 33, 35, device=device, memory_format=memory_format)
    assert torch.equal(call(like, key.to(device), 5, 1).cpu(), expected)


def _net(x, label):
    return 0.5 + 0.1 * x


SHAPE = (8, 3, 16, 16)
#: What a run on the GPU may be: (plan, further arguments), the latter made anew for each run.
RUNS = {
    "EDM": (EDMSampler(steps=6, S_churn=30).plan(Denoiser()), dict),
    "PC, batch": (PCSampler(VPSDE(), steps=25, snr=0.1).plan(Epsilon()), dict),
    "PC, sample": (PCSampler(VPSDE(), steps=25, snr=0.1, step_size="sample").plan(Epsilon()), dict),
    "Brownian path": (DPMSolver2M(steps=6, eta=1.0).plan(Denoiser()), lambda: {"path": BrownianPath()}),
    "known data": (
        EDMSampler(steps=6, S_churn=30).plan(Denoiser()),
        lambda: {"known": Known(torch.zeros(SHAPE, device="cuda"), (torch.arange(16, device="cuda") < 8).float())},
    ),
}


def _sampler_run(name: str):
    plan, more = RUNS[name]
    arguments = more()
    key = fastdiff.keys(0, 8, device="cuda")
    latents = torch.empty(SHAPE, device="cuda")

    def run():
        fastdiff.normal(latents, key, 0, out=latents)
        return fastdiff.run(plan, _net, latents, key=key, **arguments)

    return run, key


@pytest.mark.parametrize("name", RUNS)
def test_no_sync_in_the_loop(name):
    run, _ = _sampler_run(name)
    run()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", RUNS)
def test_cuda_graph_of_a_whole_stochastic_sampler_replays_with_fresh_seeds(name):
    run, key = _sampler_run(name)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    for seed in (0, 1, 2):
        key.copy_(fastdiff.keys(seed, 8))
        graph.replay()
        replayed = captured.clone()
        torch.testing.assert_close(replayed, run(), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["EDM", "PC, batch", "PC, sample", "Brownian path"])
def test_gpu_samples_are_those_of_the_cpu(name):
    plan, more = RUNS[name]
    results = []
    for device in ("cpu", "cuda"):
        latents = fastdiff.randn((4, 3, 8, 8), seeds=0, device=device)
        results.append(fastdiff.run(plan, _net, latents, key=fastdiff.keys(0, 4, device=device), **more()).cpu())
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("control", ["batch", "sample"])
def test_the_adaptive_solver_of_the_gpu_is_that_of_the_cpu(control):
    x = fastdiff.randn((4, 3, 8, 8), seeds=0, dtype=torch.float64) * 80
    flow = Flow(lambda x, sigma: 0.1 * torch.tanh(x), Denoiser(), EDMSDE())
    results = [integrate(flow, x.to(device), 80.0, 0.002, ODESolver(1e-6, 1e-6, control=control)) for device in ("cpu", "cuda")]
    torch.testing.assert_close(results[1].x.cpu(), results[0].x, rtol=1e-8, atol=1e-8)
    assert torch.equal(results[1].nfe.cpu(), results[0].nfe)


def test_the_loss_and_its_gradient_neither_wait_for_the_gpu_nor_differ_from_the_cpu():
    generator = torch.Generator().manual_seed(0)
    F, x0 = torch.randn(SHAPE, generator=generator), torch.randn(SHAPE, generator=generator)
    coef, key = torch.rand(8, 4, dtype=torch.float64, generator=generator), fastdiff.keys(0, 8)

    def run(device: str):
        output = F.to(device).requires_grad_()
        arguments = [t.to(device) for t in (x0, coef, key)]
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            loss = fastdiff.ops.denoising_loss(output, *arguments)
            return loss.detach(), torch.autograd.grad(loss.mean(), output)[0]
        finally:
            torch.cuda.set_sync_debug_mode("default")

    for expected, got in zip(run("cpu"), run("cuda"), strict=True):
        torch.testing.assert_close(got.cpu(), expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def test_group_norm_silu_and_its_gradients_are_those_of_the_cpu(memory_format):
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=generator) for shape in ((4, 64, 33, 32), (64,), (64,)))
    results = []
    for device in ("cpu", "cuda"):
        inputs = [t.to(device) for t in (x.contiguous(memory_format=memory_format), weight, bias)]
        inputs = [t.requires_grad_() for t in inputs]
        y = fastdiff.ops.group_norm_silu(*inputs, 16)
        results.append([t.cpu() for t in (y.detach(), *torch.autograd.grad(y.square().sum(), inputs))])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize(
    "name", ["DDPM", "DDIM", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "DPMSolverMultistep", "UniPCMultistep"]
)
def test_a_step_of_diffusers_schedulers_never_waits(name):
    pytest.importorskip("diffusers")
    from fastdiff.compat import diffusers as ours

    scheduler = getattr(ours, f"{name}Scheduler")()
    scheduler.set_timesteps(6, device="cuda")
    x = torch.randn(2, 3, 8, 8, device="cuda")
    expected = x.cpu()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for t in scheduler.timesteps:
            x = scheduler.step(scheduler.scale_model_input(x, t), t, x).prev_sample
    finally:
        torch.cuda.set_sync_debug_mode("default")
    if name not in ("DDPM", "EulerAncestralDiscrete"):
        scheduler.set_timesteps(6)
        for t in scheduler.timesteps:
            expected = scheduler.step(scheduler.scale_model_input(expected, t), t, expected).prev_sample
        torch.testing.assert_close(x.cpu(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m", "euler_ancestral", "dpmpp_2m_sde"])
def test_k_diffusions_samplers_run_there(name):
    from fastdiff.compat.k_diffusion import sampling as K

    sigmas = K.get_sigmas_karras(6, 0.03, 15.0, device="cuda")
    x = torch.randn(2, 3, 8, 8, device="cuda") * 15
    y = getattr(K, f"sample_{name}")(lambda x, sigma: 0.1 * x, x, sigmas, disable=True)
    assert y.is_cuda
    assert y.isfinite().all()
