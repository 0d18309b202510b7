"""group_norm_silu: what networks compute with PyTorch, numbers far from zero, instruction sets, threads."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from fastdiff.ops import OPS, group_norm_silu
from tests.conftest import need


def _tensors(shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)

    def randn(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    batch, channels = shape[:2]
    return randn(*shape), randn(channels), randn(channels), randn(batch, channels), randn(batch, channels)


def _as_people_write_it(x, weight, bias, groups, scale=None, shift=None):
    y = functional.group_norm(x, groups, weight, bias, 1e-5)
    if scale is not None:
        y = y * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    return functional.silu(y)


@pytest.mark.parametrize("adaptive", [False, True], ids=["plain", "adaptive"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def test_is_group_norm_and_silu_with_all_gradients(memory_format, adaptive):
    x, weight, bias, scale, shift = _tensors((3, 24, 7, 9))
    x = x.detach().contiguous(memory_format=memory_format).requires_grad_()
    more = {"scale": scale, "shift": shift} if adaptive else {}
    inputs = [x, weight, bias, *more.values()]
    results = [group_norm_silu(x, weight, bias, 4, **more), _as_people_write_it(x, weight, bias, 4, *more.values())]
    torch.testing.assert_close(*results, rtol=1e-11, atol=1e-11)
    assert results[0].stride() == x.stride()
    gradients = [torch.autograd.grad(y.square().sum(), inputs) for y in results]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_second_derivatives_know_that_the_statistics_depend_on_x():
    x, weight, bias, *_ = _tensors((2, 4, 3, 3))

    def penalty(function):
        (first,) = torch.autograd.grad(function(x, weight, bias, 2).square().sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), (x, weight, bias))

    for ours, theirs in zip(penalty(group_norm_silu), penalty(_as_people_write_it), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def test_a_large_mean_costs_no_digits(memory_format):
    x = (_tensors((2, 8, 8, 8))[0].detach() / 16 + 1000).float().contiguous(memory_format=memory_format)
    x[0, 0, 0, 0] = 1100  # and neither does an element far from the others, the first one included
    _, weight, bias, *_ = (t.detach().float() for t in _tensors((2, 8, 8, 8)))
    expected = _as_people_write_it(x.double(), weight.double(), bias.double(), 2)
    torch.testing.assert_close(group_norm_silu(x, weight, bias, 2).double(), expected, rtol=1e-5, atol=1e-5)


def test_silu_of_any_float():
    """A group that is one element has xhat = 0, so that u is the bias."""
    u = torch.cat([torch.linspace(-110, 110, 4001), torch.tensor([0.0, -0.0, 1e-30, -1e-30, 3e38, torch.nan])])
    x = torch.zeros(1, len(u), 1)
    y = group_norm_silu(x, torch.ones(len(u)), u, len(u)).flatten()
    exact = functional.silu(u.double())
    torch.testing.assert_close(y.double(), exact, rtol=5e-7, atol=1e-35, equal_nan=True)


def _calls():
    x, weight, bias, scale, shift = (t.detach() for t in _tensors((3, 24, 17, 19), torch.float32))
    for state in (x, x.contiguous(memory_format=torch.channels_last)):
        y, mean, rstd = OPS["group_norm_silu"].overload(state, weight, bias, 4, 1e-5, scale, shift)
        yield y, mean, rstd
        yield OPS["group_norm_silu_backward"].overload(state, x.flip(0), weight, bias, mean, rstd, 4, scale, shift)


def test_the_same_bits_for_every_instruction_set_and_thread_count(capability, threads):
    from fastdiff import _C

    runs = []
    for name in _C.cpu_capabilities():
        for count in (1, 2):
            capability(name)
            threads(count)
            runs.append([t for result in _calls() for t in result])
    need("cpu", len(runs) > 2, "one instruction set only")
    for run in runs[1:]:
        for t, first in zip(run, runs[0], strict=True):
            assert torch.equal(t, first)


def test_the_langevin_norms_have_the_same_bits_for_every_instruction_set(capability):
    from fastdiff import _C

    op = OPS["langevin_row"]
    samples = [s for s in op.samples("cpu", torch.float32) if s.kwargs.get("key") is not None]
    runs = []
    for name in _C.cpu_capabilities():
        capability(name)
        runs.append([op.overload(*s.args, **s.kwargs) for s in samples])
    for run in runs[1:]:
        for row, first in zip(run, runs[0], strict=True):
            torch.testing.assert_close(row, first, rtol=0, atol=0, equal_nan=True)
