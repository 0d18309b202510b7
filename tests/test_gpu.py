"""What only a GPU can show. Skips visibly without one; FASTDIFF_REQUIRE=cuda turns that into a failure."""

from __future__ import annotations

import pytest
import torch

import fastdiff
from fastdiff import Denoiser, EDMSampler
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


def _sampler_run():
    shape = (8, 3, 16, 16)
    D = torch.zeros(shape, device="cuda")
    plan = EDMSampler(steps=6, S_churn=30).plan(Denoiser())
    key = fastdiff.keys(0, 8, device="cuda")
    latents = torch.empty(shape, device="cuda")

    def run():
        fastdiff.normal(latents, key, 0, out=latents)
        return fastdiff.run(plan, lambda x, sigma: 0.5 * D + 0.1 * x, latents, key=key)

    return run, key


def test_no_sync_in_the_loop():
    run, _ = _sampler_run()
    run()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_cuda_graph_of_a_whole_stochastic_sampler_replays_with_fresh_seeds():
    run, key = _sampler_run()
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


def test_gpu_samples_are_those_of_the_cpu():
    plan = EDMSampler(steps=8, S_churn=20).plan(Denoiser())
    results = []
    for device in ("cpu", "cuda"):
        latents = fastdiff.randn((4, 3, 8, 8), seeds=0, device=device)
        results.append(fastdiff.run(plan, lambda x, sigma: 0.3 * x, latents, key=fastdiff.keys(0, 4, device=device)).cpu())
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)
