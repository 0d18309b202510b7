"""group_norm_silu and its backward in Triton: one program for each (sample, group), which reads its elements twice."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdiff.ops._checks import check_like, check_memory
from fastdiff.ops.group_norm_silu import check_eps, check_float64, check_norm

from .layout import Layout, arranged, finish, layout_of, output

#: Elements that a program works on at once.
ELEMENTS = 1024


@triton.jit
def elements_of(c, s, sample, group, channels, width, n, LAST: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr):
    """A tile of a group: its channels [CHANNELS, 1] in the group and in the sample, the elements' offsets, which there are."""
    channel = c + tl.arange(0, CHANNELS)[:, None]
    pixel = s + tl.arange(0, PIXELS)[None, :]
    of_sample = group * width + channel
    if LAST:
        at = (sample * n + pixel) * channels + of_sample
    else:
        at = (sample * channels + of_sample) * n + pixel
    return channel, of_sample, at, (channel < width) & (pixel < n)


@triton.jit
def affine(weight, bias, scale, shift, sample, channels, of_sample, there):
    """A and B of u = xhat*A + B, [CHANNELS, 1] float64."""
    A = tl.load(weight + of_sample, mask=there, other=0).to(tl.float64)
    B = tl.load(bias + of_sample, mask=there, other=0).to(tl.float64)
    if scale is not None:
        factor = 1.0 + tl.load(scale + sample * channels + of_sample, mask=there, other=0).to(tl.float64)
        A, B = A * factor, B * factor
    if shift is not None:
        B += tl.load(shift + sample * channels + of_sample, mask=there, other=0).to(tl.float64)
    return A, B


@triton.jit
def normalized(values, m, rest, rstd, A, B, COMPUTE: tl.constexpr):
    """u = (x - m)*a + b, where m is the mean rounded to the computing type and b makes up for the rest."""
    return (values - m) * (rstd * A).to(COMPUTE) + (B - rest * rstd * A).to(COMPUTE)


@triton.jit
def norm_kernel(
    out, mean_out, rstd_out, x, weight, bias, scale, shift, eps: tl.float64, n, channels, groups, width,
    SILU: tl.constexpr, COMPUTE: tl.constexpr, LAST: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Statistics in float64 about the group's first element, then y."""
    program = tl.program_id(0).to(tl.int64)
    sample, group = program // groups, program % groups
    origin = sample * channels * n + group * width * (1 if LAST else n)
    pivot = tl.load(x + origin).to(tl.float64)
    sums = tl.zeros((CHANNELS, PIXELS), tl.float64)
    squares = tl.zeros((CHANNELS, PIXELS), tl.float64)
    for c in range(0, width, CHANNELS):
        for s in range(0, n, PIXELS):
            _, _, at, inside = elements_of(c, s, sample, group, channels, width, n, LAST, CHANNELS, PIXELS)
            d = tl.where(inside, tl.load(x + at, mask=inside, other=0).to(tl.float64) - pivot, 0.0)
            sums += d
            squares += d * d
    count = tl.zeros((), tl.float64) + width * n
    offset = tl.sum(sums) / count
    mean = pivot + offset
    rstd = 1.0 / tl.sqrt(tl.maximum(tl.sum(squares) / count - offset * offset, 0.0) + eps)
    tl.store(mean_out + program, mean)
    tl.store(rstd_out + program, rstd)
    m = mean.to(COMPUTE)
    rest = mean - m.to(tl.float64)
    for c in range(0, width, CHANNELS):
        for s in range(0, n, PIXELS):
            channel, of_sample, at, inside = elements_of(c, s, sample, group, channels, width, n, LAST, CHANNELS, PIXELS)
            A, B = affine(weight, bias, scale, shift, sample, channels, of_sample, channel < width)
            u = normalized(tl.load(x + at, mask=inside, other=0).to(COMPUTE), m, rest, rstd, A, B, COMPUTE)
            if SILU:
                u = u / (1.0 + tl.exp(-u))
            tl.store(out + at, u.to(out.dtype.element_ty), mask=inside)


@triton.jit
def slope(g, values, m, rest, rstd, A, B, SILU: tl.constexpr, COMPUTE: tl.constexpr):
    """du = g*dy/du."""
    if SILU:
        u = normalized(values, m, rest, rstd, A, B, COMPUTE)
        sigmoid = 1.0 / (1.0 + tl.exp(-u))
        g = g * (sigmoid + u * sigmoid * (1.0 - sigmoid))
    return g


@triton.jit
def norm_backward_kernel(
    grad_x, dot_out, total_out, x, grad, weight, bias, scale, shift, mean_in, rstd_in, n, channels, groups, width,
    SILU: tl.constexpr, COMPUTE: tl.constexpr, LAST: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """The sums of each channel, then dL/dx."""
    program = tl.program_id(0).to(tl.int64)
    sample, group = program // groups, program % groups
    mean, rstd = tl.load(mean_in + program), tl.load(rstd_in + program)
    m = mean.to(COMPUTE)
    rest = mean - m.to(tl.float64)
    mean_du = tl.zeros((), tl.float64)
    mean_dot = tl.zeros((), tl.float64)
    for c in range(0, width, CHANNELS):
        totals = tl.zeros((CHANNELS, 1), tl.float64)
        dots = tl.zeros((CHANNELS, 1), tl.float64)
        for s in range(0, n, PIXELS):
            channel, of_sample, at, inside = elements_of(c, s, sample, group, channels, width, n, LAST, CHANNELS, PIXELS)
            A, B = affine(weight, bias, scale, shift, sample, channels, of_sample, channel < width)
            values = tl.load(x + at, mask=inside, other=0).to(COMPUTE)
            du = slope(tl.load(grad + at, mask=inside, other=0).to(COMPUTE), values, m, rest, rstd, A, B, SILU, COMPUTE)
            totals += tl.sum(du.to(tl.float64), axis=1, keep_dims=True)  # grad is 0 outside
            dots += tl.sum(du.to(tl.float64) * (values - m).to(tl.float64), axis=1, keep_dims=True)
        first = c + tl.arange(0, CHANNELS)[:, None]
        of_channel = group * width + first
        there = first < width
        A, B = affine(weight, bias, scale, shift, sample, channels, of_channel, there)
        dots = rstd * (dots - rest * totals)
        tl.store(total_out + sample * channels + of_channel, totals, mask=there)
        tl.store(dot_out + sample * channels + of_channel, dots, mask=there)
        mean_du += tl.sum(tl.where(there, A * totals, 0.0))
        mean_dot += tl.sum(tl.where(there, A * dots, 0.0))
    count = tl.zeros((), tl.float64) + width * n
    k2 = -rstd * rstd * mean_dot / count
    k3 = (-rstd * mean_du / count - rest * k2).to(COMPUTE)
    for c in range(0, width, CHANNELS):
        for s in range(0, n, PIXELS):
            channel, of_sample, at, inside = elements_of(c, s, sample, group, channels, width, n, LAST, CHANNELS, PIXELS)
            A, B = affine(weight, bias, scale, shift, sample, channels, of_sample, channel < width)
            values = tl.load(x + at, mask=inside, other=0).to(COMPUTE)
            du = slope(tl.load(grad + at, mask=inside, other=0).to(COMPUTE), values, m, rest, rstd, A, B, SILU, COMPUTE)
            dx = (rstd * A).to(COMPUTE) * du + (k2.to(COMPUTE) * (values - m) + k3)
            tl.store(grad_x + at, dx.to(grad_x.dtype.element_ty), mask=inside)


def tile_of(width: int, pixels: int) -> dict[str, int]:
    """Channels and pixels of a program's tile, powers of two."""
    across = min(ELEMENTS, triton.next_power_of_2(max(pixels, 1)))
    return {"CHANNELS": min(ELEMENTS // across, triton.next_power_of_2(width)), "PIXELS": across}


def _geometry(x: Tensor, layout: Layout, groups: int) -> tuple[tuple[int, ...], dict]:
    """(n, channels, groups, width) and what the kernels are compiled for."""
    channels = x.shape[1]
    pixels, width = layout.n // max(channels, 1), channels // groups
    compiled = {"COMPUTE": tl.float64 if x.dtype == torch.float64 else tl.float32, "LAST": layout.channels > 1, "enable_fp_fusion": False}
    return (pixels, channels, groups, width), compiled | tile_of(width, pixels)


def _dense(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if t is None else t.contiguous() for t in tensors]


def group_norm_silu(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, scale: Tensor | None = None, shift: Tensor | None = None,
    silu: bool = True, *, out: Tensor | None = None, mean: Tensor | None = None, rstd: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """As fastdiff::group_norm_silu, and with `out`, `mean` and `rstd` as fastdiff::group_norm_silu.out."""
    check_norm(x, weight, bias, groups, scale, shift)
    check_like("out", out, x)
    for name, t in (("mean", mean), ("rstd", rstd)):
        if t is not None:
            check_float64(name, t, x, groups)
    check_eps(eps)
    check_memory({"out": out}, (x,))
    layout = layout_of(x)
    y = output(x, layout, given=out)
    statistics = [x.new_empty(x.shape[0], groups, dtype=torch.float64) for _ in range(2)]
    sizes, compiled = _geometry(x, layout, groups)
    if x.numel():
        with torch.cuda.device_of(x):  # Triton launches on the current device
            norm_kernel[(layout.batch * groups,)](
                y, *statistics, arranged(x, layout), *_dense(weight, bias, scale, shift), eps, *sizes, SILU=silu, **compiled
            )
    first, second = (t if given is None else given.copy_(t) for t, given in zip(statistics, (mean, rstd), strict=True))
    return finish(y, x, out), first, second


def group_norm_silu_backward(
    x: Tensor, grad: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, groups: int, scale: Tensor | None = None,
    shift: Tensor | None = None, silu: bool = True, *, out: Tensor | None = None, dot: Tensor | None = None, total: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """As fastdiff::group_norm_silu_backward, and with `out`, `dot` and `total` as fastdiff::group_norm_silu_backward.out."""
    check_norm(x, weight, bias, groups, scale, shift)
    check_like("out", out, x)
    for name, t in (("dot", dot), ("total", total)):
        if t is not None:
            check_float64(name, t, x, x.shape[1])
    check_like("grad", grad, x)
    check_float64("mean", mean, x, groups)
    check_float64("rstd", rstd, x, groups)
    check_memory({"out": out}, (x, grad))
    layout = layout_of(x)
    grad_x = output(x, layout, given=out)
    sums = [x.new_empty(x.shape[:2], dtype=torch.float64) for _ in range(2)]
    sizes, compiled = _geometry(x, layout, groups)
    if x.numel():
        with torch.cuda.device_of(x):  # Triton launches on the current device
            norm_backward_kernel[(layout.batch * groups,)](
                grad_x, *sums, arranged(x, layout), arranged(grad, layout), *_dense(weight, bias, scale, shift, mean, rstd), *sizes,
                SILU=silu, **compiled,
            )  # fmt: skip
    first, second = (t if given is None else given.copy_(t) for t, given in zip(sums, (dot, total), strict=True))
    return finish(grad_x, x, out), first, second
