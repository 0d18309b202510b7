"""denoising_loss: the loss that people write, what it keeps for the backward, how many launches that takes."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import fastdiff
from fastdiff.ops import denoising_loss, has_kernel, perturb

SHAPE, DRAW, STREAM = (4, 3, 8, 8), 3, 1


def _problem(dtype=torch.float32, shape=SHAPE):
    """EDM's: x_t = x0 + sigma*z, D = c_skip*x_t + c_out*F, weight 1/c_out^2."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(shape, generator=generator).to(torch.float64)
    F = torch.randn(shape, generator=generator).to(dtype).requires_grad_()
    sigma = torch.rand(shape[0], generator=generator, dtype=torch.float64) + 0.1
    c_skip, c_out = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / (sigma**2 + 0.25).sqrt()
    coef = torch.stack([c_out, c_skip - 1, c_skip * sigma, 1 / c_out**2], dim=1)
    return F, x0.to(dtype), sigma, c_skip, c_out, coef, fastdiff.keys(0, shape[0])


def _as_people_write_it(F, x0, c_skip, c_out, x_t):
    """The loss of each sample."""
    c_skip, c_out = (v.to(x0.dtype).reshape(-1, 1, 1, 1) for v in (c_skip, c_out))
    D = c_skip * x_t + c_out * F
    return (((D - x0) / c_out) ** 2).sum(dim=(1, 2, 3))


def test_is_the_loss_of_the_perturbed_data():
    F, x0, sigma, c_skip, c_out, coef, key = _problem(torch.float64)
    x_t = perturb(x0, 1.0, sigma, key, DRAW, STREAM)
    expected = _as_people_write_it(F, x0, c_skip, c_out, x_t)
    ours = denoising_loss(F, x0, coef, key, DRAW, STREAM)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(v.mean(), F)[0] for v in (ours, expected)), rtol=1e-12, atol=1e-14)


class _Launches(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.ours, self.large = [], []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        out = op(*args, **(kwargs or {}))
        produced = out[0] if isinstance(out, tuple) else out
        if op.namespace == "fastdiff":
            self.ours.append(op._schema.name)
        elif isinstance(produced, torch.Tensor) and produced.shape == SHAPE:
            self.large.append(str(op))
        return out


@pytest.mark.parametrize("net_dtype", [torch.float32, torch.bfloat16], ids=str)
def test_backward_is_one_launch_and_keeps_neither_noise_nor_residual(net_dtype):
    F, x0, *_, coef, key = _problem()
    F = F.detach().to(net_dtype).requires_grad_()
    with _Launches() as launches:
        loss = denoising_loss(F, x0, coef, key, DRAW, STREAM).mean()
        forward = len(launches.ours)
        (gradient,) = torch.autograd.grad(loss, F)
    assert launches.ours[:forward] == ["fastdiff::denoising_loss"]
    assert launches.ours[forward:] == ["fastdiff::sampler_step"]
    assert [name for name in launches.large if "detach" not in name] == []
    assert gradient.dtype == net_dtype


def _new_bytes_kept(function, inputs) -> int:
    """Bytes that autograd keeps for the backward and that were not there before."""
    before = {t.untyped_storage().data_ptr() for t in inputs}
    kept = {}

    def pack(t):
        storage = t.untyped_storage()
        kept[storage.data_ptr()] = (storage.nbytes(), storage)  # alive, so that no address comes twice
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        function()
    return sum(size for address, (size, _) in kept.items() if address not in before)


def _peak_bytes(function) -> int:
    """The most memory that was allocated at once, beyond what was there before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function()
    now = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


@pytest.mark.skipif(not has_kernel("denoising_loss", "CPU"), reason="the reference makes whole tensors on its way")
def test_keeps_nothing_new_and_needs_the_memory_of_the_gradient_alone():
    F, x0, sigma, c_skip, c_out, coef, key = _problem(shape=(16, 3, 32, 32))
    inputs = (F, x0, sigma, c_skip, c_out, coef, key)
    state = x0.numel() * x0.element_size()
    x_t = perturb(x0, 1.0, sigma, key)  # the network needs it either way

    def ours():
        return denoising_loss(F, x0, coef, key).mean()

    def eager():
        return _as_people_write_it(F, x0, c_skip, c_out, x_t).mean()

    torch.testing.assert_close(ours(), eager())
    assert _new_bytes_kept(ours, inputs) == 0
    assert _new_bytes_kept(eager, inputs) >= state
    peaks = [_peak_bytes(lambda loss=loss: torch.autograd.grad(loss(), F)) for loss in (ours, eager)]
    assert peaks[0] < 1.1 * state
    assert peaks[1] > 2.9 * state


def test_data_in_float32_under_a_network_in_bfloat16():
    F, x0, *_, coef, key = _problem()
    half = F.detach().to(torch.bfloat16).requires_grad_()
    whole = half.detach().float().requires_grad_()
    losses = [denoising_loss(v, x0, coef, key) for v in (half, whole)]
    torch.testing.assert_close(*losses, rtol=0, atol=0)
    gradients = [torch.autograd.grad(loss.sum(), v)[0] for loss, v in zip(losses, (half, whole), strict=True)]
    torch.testing.assert_close(gradients[0], gradients[1].to(torch.bfloat16), rtol=2**-7, atol=0)


@pytest.mark.parametrize("dtypes", [(torch.float64, torch.float32), (torch.float32, torch.float64)], ids=str)
def test_gradients_where_one_tensor_is_float64(dtypes):
    F, x0, *_, coef, key = _problem(torch.float64)
    given = [t.detach().to(dtype).requires_grad_() for t, dtype in zip((F, x0), dtypes, strict=True)]
    exact = [t.detach().double().requires_grad_() for t in given]
    loss, expected = (denoising_loss(*pair, coef, key) for pair in (given, exact))
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)
    for t, g, e in zip(given, torch.autograd.grad(loss.sum(), given), torch.autograd.grad(expected.sum(), exact), strict=True):
        assert g.dtype == t.dtype
        torch.testing.assert_close(g.double(), e, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_compiles_with_perturb_and_the_backward_in_one_graph():
    _, x0, sigma, _, _, coef, key = _problem()

    def training(weight, draw):
        x_t = perturb(x0, 1.0, sigma, key, draw, STREAM)
        return denoising_loss(weight * x_t, x0, coef, key, draw, STREAM).mean()

    torch._dynamo.reset()
    compiled = torch.compile(training, fullgraph=True, dynamic=False)
    for draw in (0, 1, 7):
        weight = torch.tensor(0.3, requires_grad=True)
        losses = [function(weight, draw) for function in (compiled, training)]
        torch.testing.assert_close(*losses)
        torch.testing.assert_close(*(torch.autograd.grad(loss, weight)[0] for loss in losses))
