"""GroupNorm with its scale, shift and SiLU: the fused kernel where the layer takes it, PyTorch elsewhere, the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as nnf

from fastdiff.models import layers


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("side", [8, 16])
def test_equals_pytorch(side, silu, adaptive):
    generator = torch.Generator().manual_seed(0)
    norm = layers.GroupNorm(32)
    with torch.no_grad():
        norm.weight.normal_(generator=generator)
        norm.bias.normal_(generator=generator)
    x = torch.randn(3, 32, side, side, generator=generator, requires_grad=True)
    scale, shift = (torch.randn(3, 32, generator=generator, requires_grad=True) if adaptive else None for _ in range(2))
    wanted = [t for t in (x, scale, shift, norm.weight, norm.bias) if t is not None]
    y = nnf.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
    if adaptive:
        y = y * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    y = nnf.silu(y) if silu else y
    got = norm(x, scale, shift, silu)
    torch.testing.assert_close(got, y, rtol=1e-5, atol=1e-5)
    direction = torch.randn(y.shape, generator=generator)
    for ours, theirs in zip(torch.autograd.grad(got, wanted, direction), torch.autograd.grad(y, wanted, direction), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_fused_kernel_is_taken_where_it_is_faster(monkeypatch):
    taken = []
    monkeypatch.setattr(layers, "group_norm_silu", lambda x, *args, **kwargs: taken.append(x.shape) or x)
    norm = layers.GroupNorm(32)
    large = torch.randn(2, 32, 16, 16)
    for x in (large, large.to(memory_format=torch.channels_last), large[..., :8, :8].contiguous(), large.bfloat16()):
        norm(x)
    assert taken == [large.shape]
