"""group_norm_silu: group normalization, an affine map of each channel, and silu, in one pass.

    xhat = (x - mean)*rstd                                     of each (sample, group)
    u = xhat*A + B,   A = gamma*(1 + scale),   B = beta*(1 + scale) + shift
    y = u*sigmoid(u), or u

scale and shift, of each (sample, channel), are what a network makes of its noise level. The backward is an op of its own,
`group_norm_silu_backward`: from the statistics and the input it makes u again and returns, with du = g*dy/du,

    dL/dx = rstd*(A*du - mean(A*du) - xhat*mean(A*du*xhat)),   dot = sum du*xhat,   total = sum du   of each channel,

of which every other gradient is a product.

Source: Wu and He 2018 (arXiv:1803.08494), eq. 1; Dhariwal and Nichol 2021 (arXiv:2105.05233), eq. 2.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ._checks import FLOATING, check_like, check_no_dual, reject
from ._samples import laid_out, randn
from ._shapes import compute_dtype
from ._table import Op, Sample, Tolerance, differentiate, register


def check_norm(x: Tensor, weight: Tensor, bias: Tensor, groups: int, scale: Tensor | None, shift: Tensor | None) -> None:
    """Validate what both ops are given."""
    if x.dim() < 2 or x.dtype not in FLOATING:
        reject("x", "[B, C, ...] float64, float32, bfloat16 or float16", x)
    batch, channels = x.shape[:2]
    for name, t, shape in (
        ("weight", weight, [channels]),
        ("bias", bias, [channels]),
        ("scale", scale, [batch, channels]),
        ("shift", shift, [batch, channels]),
    ):
        if t is not None and (list(t.shape) != shape or t.dtype not in FLOATING or t.device != x.device):
            reject(name, f"{shape} floating on {x.device}", t)
    if groups < 1 or channels % groups:
        raise ValueError(f"groups: expected a divisor of {channels}, got {groups}")


def check_eps(eps: float) -> None:
    """What is added to the variance."""
    if not eps > 0:
        raise ValueError(f"eps: expected a number > 0, got {eps:.6f}")


def check_float64(name: str, t: Tensor, x: Tensor, columns: int) -> None:
    """A [B, columns] tensor of statistics or of sums."""
    if list(t.shape) != [x.shape[0], columns] or t.dtype != torch.float64 or t.device != x.device:
        reject(name, f"[{x.shape[0]}, {columns}] float64 on {x.device}", t)


def _statistics(x: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """mean and 1/sqrt(var + eps) of each (sample, group), [B, groups] float64."""
    values = _grouped(x.double(), groups)
    mean = values.mean(2)
    return mean, ((values - mean[..., None]).square().mean(2) + eps).rsqrt()


def _grouped(t: Tensor, groups: int) -> Tensor:
    """[B, C, ...] as [B, groups, elements of a group]."""
    return t.reshape(t.shape[0], groups, t[0].numel() // groups if t.shape[0] else 1)


def _of_channels(t: Tensor, x: Tensor) -> Tensor:
    """[C] or [B, C] against x [B, C, ...]."""
    return t.reshape(-1, x.shape[1], *[1] * (x.dim() - 2))


def _affine(weight, bias, scale, shift, dtype) -> tuple[Tensor, Tensor]:
    """A and B of u = xhat*A + B, [C] or [B, C]."""
    A, B = weight.to(dtype), bias.to(dtype)
    if scale is not None:
        A, B = A * (1 + scale.to(dtype)), B * (1 + scale.to(dtype))
    return A, B if shift is None else B + shift.to(dtype)


def _normalized(x: Tensor, mean: Tensor, rstd: Tensor, groups: int) -> Tensor:
    """xhat, the difference taken in float64: a large mean must not cost digits."""
    values = _grouped(x.double(), groups)
    return ((values - mean[..., None]) * rstd[..., None]).reshape(x.shape).to(compute_dtype(x))


def reference(x, weight, bias, groups, eps, scale=None, shift=None, silu=True):
    """(y, mean, rstd): y in x's dtype, the statistics in float64."""
    check_norm(x, weight, bias, groups, scale, shift)
    check_eps(eps)
    mean, rstd = _statistics(x, groups, eps)
    A, B = _affine(weight, bias, scale, shift, compute_dtype(x))
    u = _normalized(x, mean, rstd, groups) * _of_channels(A, x) + _of_channels(B, x)
    return (u * torch.sigmoid(u) if silu else u).to(x.dtype), mean, rstd


def reference_backward(x, grad, weight, bias, mean, rstd, groups, scale=None, shift=None, silu=True):
    """(dL/dx, dot, total): sums over each (sample, channel) in float64."""
    check_norm(x, weight, bias, groups, scale, shift)
    check_like("grad", grad, x)
    check_float64("mean", mean, x, groups)
    check_float64("rstd", rstd, x, groups)
    dtype = compute_dtype(x)
    A, B = (_of_channels(t, x) for t in _affine(weight, bias, scale, shift, dtype))
    xhat = _normalized(x, mean, rstd, groups)
    du = grad.to(dtype)
    if silu:
        u = xhat * A + B
        s = torch.sigmoid(u)
        du = du * (s + u * s * (1 - s))
    channels = tuple(range(2, x.dim()))
    total, dot = (t.double().sum(channels) if channels else t.double() for t in (du, du * xhat))
    of_group = [_grouped((A * t).double(), groups).mean(2, keepdim=True) for t in (du, du * xhat)]
    inner = _grouped((A * du).double(), groups) - of_group[0] - _grouped(xhat.double(), groups) * of_group[1]
    return (inner * rstd[..., None]).reshape(x.shape).to(x.dtype), dot, total


def _check_out(x, groups, out, **statistics) -> None:
    check_like("out", out, x)
    for name, (t, columns) in statistics.items():
        check_float64(name, t, x, columns)


def _out_reference(x, weight, bias, groups, eps, scale=None, shift=None, silu=True, *, out, mean, rstd):
    check_norm(x, weight, bias, groups, scale, shift)
    _check_out(x, groups, out, mean=(mean, groups), rstd=(rstd, groups))
    return reference(x, weight, bias, groups, eps, scale, shift, silu)


def _out_reference_backward(x, grad, weight, bias, mean, rstd, groups, scale=None, shift=None, silu=True, *, out, dot, total):
    check_norm(x, weight, bias, groups, scale, shift)
    _check_out(x, groups, out, dot=(dot, x.shape[1]), total=(total, x.shape[1]))
    return reference_backward(x, grad, weight, bias, mean, rstd, groups, scale, shift, silu)


def _setup_context(ctx, inputs, output) -> None:
    x, weight, bias, ctx.groups, ctx.eps, scale, shift, ctx.silu = inputs
    _, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.save_for_backward(x, weight, bias, scale, shift, mean, rstd)


def _backward(ctx, grad, _grad_mean, _grad_rstd):
    x, weight, bias, scale, shift, mean, rstd = ctx.saved_tensors
    if torch.is_grad_enabled():  # someone differentiates the gradient: then the statistics are functions of x again
        mean, rstd = _statistics(x, ctx.groups, ctx.eps)
    grad_x, dot, total = BACKWARD.overload(x, grad, weight, bias, mean, rstd, ctx.groups, scale, shift, ctx.silu)
    need_weight, need_bias = ctx.needs_input_grad[1:3]
    need_scale, need_shift = (t is not None and ctx.needs_input_grad[i] for t, i in ((scale, 5), (shift, 6)))
    factor = 1.0 if scale is None else 1 + scale.double()
    grad_weight = (factor * dot).sum(0).to(weight.dtype) if need_weight else None
    grad_bias = (factor * total).sum(0).to(bias.dtype) if need_bias else None
    grad_scale = (weight.double() * dot + bias.double() * total).to(scale.dtype) if need_scale else None
    return grad_x, grad_weight, grad_bias, None, None, grad_scale, total.to(shift.dtype) if need_shift else None, None


def _calls(device, dtype) -> Iterator[tuple[str, Tensor, tuple, int, dict]]:
    """(label, x, (weight, bias), groups, what else)."""

    def parameters(channels: int, kind=dtype) -> tuple[Tensor, Tensor]:
        return randn((channels,), device, kind, 2), randn((channels,), device, kind, 3)

    def adaptive(batch: int, channels: int, kind=dtype) -> dict:
        return {"scale": randn((batch, channels), device, kind, 4), "shift": randn((batch, channels), device, kind, 5)}

    def image(*shape: int, layout: str = "") -> Tensor:
        x = randn(shape, device, dtype, 1)
        return laid_out(x, layout) if layout else x

    yield "one pixel", image(2, 4, 1), parameters(4), 2, {}
    yield "no spatial dimensions", image(3, 6), parameters(6), 2, {}
    yield "no batch", image(0, 4, 3, 3), parameters(4), 2, {}
    yield "one group", image(2, 3, 4, 4), parameters(3), 1, {}
    yield "odd image", image(2, 6, 5, 7), parameters(6), 3, {}
    yield "a group for each channel", image(2, 4, 4, 5), parameters(4), 4, {}
    yield "several ranges", image(2, 24, 17, 16), parameters(24), 4, {}
    yield "video", image(2, 4, 2, 3, 5), parameters(4), 2, {}
    for layout in ("channels_last", "strided", "transposed", "offset"):
        yield layout, image(2, 6, 6, 9, layout=layout), parameters(6), 3, {}
    yield "adaptive", image(2, 6, 5, 7), parameters(6), 2, adaptive(2, 6)
    yield "adaptive, channels_last", image(2, 36, 3, 3, layout="channels_last"), parameters(36), 12, adaptive(2, 36)
    yield "shift alone", image(2, 4, 4, 4), parameters(4), 2, {"shift": randn((2, 4), device, dtype, 5)}
    yield "without silu", image(2, 6, 5, 7), parameters(6), 2, {"silu": False}
    yield "without silu, channels_last", image(2, 20, 3, 4, layout="channels_last"), parameters(20), 4, {"silu": False}
    yield "parameters in float32", image(2, 6, 5, 7), parameters(6, torch.float32), 2, adaptive(2, 6, torch.float32)
    yield "large values", image(2, 4, 4, 4) * 1e4, parameters(4), 2, {}
    far = (image(2, 4, 4, 8) / 64 + 64).to(dtype)
    yield "large mean, small variance", far, parameters(4), 2, {}


_EPS = 1e-5


def _samples(device, dtype) -> Iterator[Sample]:
    for label, x, parameters, groups, more in _calls(device, dtype):
        yield Sample(label, (x, *parameters, groups, _EPS), more)


def _samples_backward(device, dtype) -> Iterator[Sample]:
    for label, x, parameters, groups, more in _calls(device, dtype):
        grad = randn(x.shape, device, dtype, 6)
        yield Sample(label, (x, grad, *parameters, *_statistics(x, groups, _EPS), groups), more)


def _errors(device) -> Iterator[Sample]:
    x, one = torch.zeros(2, 4, 3, device=device), torch.ones(4, device=device)
    yield Sample("integer x", (x.long(), one, one, 2, _EPS))
    yield Sample("no channels", (x[:, 0, 0], one, one, 2, _EPS))
    yield Sample("short weight", (x, one[:2], one, 2, _EPS))
    yield Sample("integer bias", (x, one, one.int(), 2, _EPS))
    yield Sample("groups that do not divide", (x, one, one, 3, _EPS))
    yield Sample("no groups", (x, one, one, 0, _EPS))
    yield Sample("eps 0", (x, one, one, 2, 0.0))
    yield Sample("shape of scale", (x, one, one, 2, _EPS), {"scale": one})
    yield Sample("shape of shift", (x, one, one, 2, _EPS), {"shift": x})


def _errors_backward(device) -> Iterator[Sample]:
    x, one, of_group = torch.zeros(2, 4, 3, device=device), torch.ones(4, device=device), torch.ones(2, 2, device=device).double()
    yield Sample("shape of grad", (x, x[:1], one, one, of_group, of_group, 2))
    yield Sample("short weight", (x, x, one[:2], one, of_group, of_group, 2))
    yield Sample("groups that do not divide", (x, x, one, one, of_group, of_group, 3))
    yield Sample("shape of mean", (x, x, one, one, of_group[:1], of_group, 2))
    yield Sample("float32 rstd", (x, x, one, one, of_group, of_group.float(), 2))


def _bytes(sample: Sample, states: int) -> int:
    return states * sample.args[0].numel() * sample.args[0].element_size()


_ADAPTIVE = "SymInt groups{}, Tensor? scale=None, Tensor? shift=None, bool silu=True"
_ARGS = "Tensor x, Tensor weight, Tensor bias, " + _ADAPTIVE.format(", float eps")
_ARGS_BACKWARD = "Tensor x, Tensor grad, Tensor weight, Tensor bias, Tensor mean, Tensor rstd, " + _ADAPTIVE.format("")
_SOURCE = "Wu and He 2018, eq. 1; Dhariwal and Nichol 2021, eq. 2"
_HALVES = "float32 arithmetic, rounded once"

OP = register(
    Op(
        name="group_norm_silu",
        args=_ARGS,
        returns="(Tensor, Tensor, Tensor)",
        out_args=f"{_ARGS}, *, Tensor(a!) out, Tensor(b!) mean, Tensor(c!) rstd",
        equation="u = ((x - mean)*rstd*gamma + beta)*(1 + scale) + shift; y = u*sigmoid(u)",
        source=_SOURCE,
        reference=reference,
        out_names=("out", "mean", "rstd"),
        out_reference=_out_reference,
        samples=_samples,
        errors=_errors,
        tolerance={
            torch.float64: Tolerance(1e-11, 1e-11, "statistics from sums in another order, and what a mean of 4000 deviations costs"),
            torch.float32: Tolerance(2e-6, 4e-6, "float64 statistics; xhat up to 4, A, B and the exponential in float32"),
            torch.bfloat16: Tolerance(2**-8, 4e-6, _HALVES),
            torch.float16: Tolerance(2**-10, 4e-6, _HALVES),
        },
        bytes_moved=lambda sample: _bytes(sample, 2),
        setup_context=_setup_context,
        backward=_backward,
    )
)

BACKWARD = register(
    Op(
        name="group_norm_silu_backward",
        args=_ARGS_BACKWARD,
        returns="(Tensor, Tensor, Tensor)",
        out_args=f"{_ARGS_BACKWARD}, *, Tensor(a!) out, Tensor(b!) dot, Tensor(c!) total",
        equation="dx = rstd*(A*du - mean(A*du) - xhat*mean(A*du*xhat)), dot = sum du*xhat, total = sum du, du = g*dy/du",
        source=_SOURCE,
        reference=reference_backward,
        out_names=("out", "dot", "total"),
        out_reference=_out_reference_backward,
        samples=_samples_backward,
        errors=_errors_backward,
        tolerance={
            torch.float64: Tolerance(1e-10, 1e-10, "as the forward, and differences of terms of size rstd"),
            torch.float32: Tolerance(4e-6, 1e-3, "du in float32, times rstd up to 64 in the samples; sums in float64"),
            torch.bfloat16: Tolerance(2**-8, 1e-3, _HALVES),
            torch.float16: Tolerance(2**-10, 1e-3, _HALVES),
        },
        bytes_moved=lambda sample: _bytes(sample, 3),
        **differentiate(reference_backward),
    )
)


def group_norm_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float = 1e-5,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    silu: bool = True,
) -> Tensor:
    """silu(((x - mean)*rstd*gamma + beta)*(1 + scale) + shift), the statistics of each group of channels.

    Args:
        x: [B, C, ...], plain or channels-last memory.
        weight, bias: gamma and beta, [C] of any floating dtype.
        groups: how many; C is a multiple of it.
        eps: added to the variance.
        scale, shift: [B, C] of any floating dtype; None for 0.
        silu: False leaves the activation out.

    Returns:
        y [B, C, ...] in x's dtype and strides; differentiable twice in every tensor.

    Raises:
        ValueError: names the argument, what was expected and what came.

    Source: Wu and He 2018 (arXiv:1803.08494), eq. 1; Dhariwal and Nichol 2021 (arXiv:2105.05233), eq. 2.
    """
    check_no_dual(x, weight, bias, scale, shift)
    return OP.overload(x, weight, bias, groups, eps, scale, shift, silu)[0]


def group_norm_silu_backward(
    x: Tensor,
    grad: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
    groups: int,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    silu: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """What `group_norm_silu` needs of a gradient: dL/dx, and sums of each channel that give the others.

    Args:
        x, weight, bias, groups, scale, shift, silu: as for `group_norm_silu`.
        grad: [B, C, ...] the gradient to y.
        mean, rstd: [B, groups] float64, the statistics of x.

    Returns:
        (dL/dx in x's dtype and strides, sum du*xhat, sum du), the sums [B, C] float64.

    Raises:
        ValueError: names the argument, what was expected and what came.

    Source: as `group_norm_silu`.
    """
    check_no_dual(x, grad, weight, bias, mean, rstd, scale, shift)
    return BACKWARD.overload(x, grad, weight, bias, mean, rstd, groups, scale, shift, silu)
