"""perturb: the forward process of every diffusion model in one pass.

    x_t = m*x0 + s*z,   z ~ N(0, 1) from (key, draw, stream)

m and s are one number for each sample. The noise is made in registers; the backward makes it again instead of storing it:

    dL/dx0 = m*g,   dL/dm = sum g*x0,   dL/ds = sum g*z

Source: Song et al. 2021 (arXiv:2011.13456), eq. 29; noise format 1, docs/noise.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ._checks import check_counter, check_key, check_like, check_no_dual, check_per_sample, check_state
from ._samples import keys, laid_out, randn, states
from ._shapes import column, compute_dtype, sum_per_sample
from ._table import Op, Sample, Tolerance, register
from .formulas import perturbed
from .noise import NOISE_OPS, noise_reference


def check_perturb(x0: Tensor, mean_coef: Tensor, std: Tensor, key: Tensor, draw: int, stream: int) -> None:
    """Validate the inputs of perturb."""
    check_state("x0", x0)
    check_per_sample("mean_coef", mean_coef, x0)
    check_per_sample("std", std, x0)
    check_key(key, x0)
    check_counter(draw, stream)


def reference(
    x0: Tensor, mean_coef: Tensor, std: Tensor, key: Tensor, draw: int = 0, stream: int = 0, return_noise: bool = False
) -> tuple[Tensor, Tensor | None]:
    """x_t, and z in x0's dtype if asked for."""
    check_perturb(x0, mean_coef, std, key, draw, stream)
    compute = compute_dtype(x0)
    z = noise_reference("normal", x0.to(compute), key, draw, stream)
    x_t = perturbed(column(mean_coef, x0, compute), x0.to(compute), column(std, x0, compute), z)
    return x_t.to(x0.dtype), z.to(x0.dtype) if return_noise else None


def _out_reference(x0, mean_coef, std, key, draw=0, stream=0, *, out, noise=None):
    check_state("x0", x0)
    check_like("out", out, x0)
    check_like("noise", noise, x0)
    return reference(x0, mean_coef, std, key, draw, stream, return_noise=noise is not None)


def _setup_context(ctx, inputs, output) -> None:
    x0, mean_coef, std, key, draw, stream, _ = inputs
    ctx.save_for_backward(x0, mean_coef, std, key)
    ctx.draw, ctx.stream = draw, stream
    if output[1] is not None:
        ctx.mark_non_differentiable(output[1])


def _backward(ctx, grad: Tensor, _grad_noise):
    x0, mean_coef, std, key = ctx.saved_tensors
    need_x0, need_mean, need_std = ctx.needs_input_grad[:3]
    compute = compute_dtype(x0)
    g = grad.to(compute)

    grad_x0 = (column(mean_coef, x0, compute) * g).to(x0.dtype) if need_x0 else None
    grad_mean = sum_per_sample(g * x0.to(compute)).to(mean_coef.dtype) if need_mean else None
    grad_std = None
    if need_std:
        z = NOISE_OPS["normal"].overload(x0.detach().to(compute), key, ctx.draw, ctx.stream)
        grad_std = sum_per_sample(g * z).to(std.dtype)
    return grad_x0, grad_mean, grad_std, None, None, None, None


def _samples(device, dtype) -> Iterator[Sample]:
    def per_sample(batch: int, seed: int, kind=torch.float64) -> Tensor:
        return randn((batch,), device, kind, seed).abs()

    for label, x0 in states(device, dtype):
        batch = x0.shape[0]
        yield Sample(label, (x0, per_sample(batch, 2), per_sample(batch, 3), keys(batch, device)), {"draw": 2})
    x0 = randn((2, 3, 5, 7), device, dtype, 1)
    args = (x0, per_sample(2, 2, torch.float32), per_sample(2, 3, torch.float32), keys(2, device))
    yield Sample("returns the noise", args, {"return_noise": True})
    last = laid_out(randn((2, 3, 6, 9), device, dtype, 1), "channels_last")
    yield Sample("returns the noise, channels_last", (last, *args[1:]), {"return_noise": True, "stream": 7})
    yield Sample("std 0", (x0, args[1], torch.zeros_like(args[2]), args[3]))


def _errors(device) -> Iterator[Sample]:
    x0, m, s, key = torch.zeros(2, 3, device=device), torch.ones(2, device=device), torch.ones(2, device=device), keys(2, device)
    yield Sample("integer x0", (x0.int(), m, s, key))
    yield Sample("long mean_coef", (x0, m.repeat(2), s, key))
    yield Sample("half std", (x0, m, s.half(), key))
    yield Sample("short key", (x0, m, s, key[:1]))
    yield Sample("negative draw", (x0, m, s, key), {"draw": -1})
    yield Sample("negative stream", (x0, m, s, key), {"stream": -1})


def _bytes_moved(sample: Sample) -> int:
    x0 = sample.args[0]
    return (3 if sample.kwargs.get("return_noise") else 2) * x0.numel() * x0.element_size()


_ARGS = "Tensor x0, Tensor mean_coef, Tensor std, Tensor key, SymInt draw=0, SymInt stream=0"

OP = register(
    Op(
        name="perturb",
        args=f"{_ARGS}, bool return_noise=False",
        returns="(Tensor, Tensor?)",
        out_args=f"{_ARGS}, *, Tensor(a!) out, Tensor(b!)? noise=None",
        equation="x_t = m*x0 + s*z",
        source="Song et al. 2021, eq. 29",
        reference=reference,
        out_names=("out", "noise"),
        out_reference=_out_reference,
        samples=_samples,
        errors=_errors,
        tolerance={
            torch.float64: Tolerance(1e-14, 1e-14, "two roundings, one of them an fma's in some backends"),
            torch.float32: Tolerance(2e-7, 5e-7, "two roundings of terms of size 1, one of them an fma's in some backends"),
            torch.bfloat16: Tolerance(2**-8, 1e-6, "float32 arithmetic, rounded once"),
            torch.float16: Tolerance(2**-10, 1e-6, "float32 arithmetic, rounded once"),
        },
        bytes_moved=_bytes_moved,
        setup_context=_setup_context,
        backward=_backward,
    )
)


def perturb(
    x0: Tensor,
    mean_coef: Tensor | float,
    std: Tensor | float,
    key: Tensor,
    draw: int = 0,
    stream: int = 0,
    *,
    return_noise: bool = False,
    out: Tensor | None = None,
):
    """x_t = m*x0 + s*z with the noise regenerated, never stored, in the backward.

    Args:
        x0: [B, ...] data, data units.
        mean_coef: m, [B] float64 or float32, or a number for all.
        std: s, likewise.
        key: [B] int64 noise keys (`fastdiff.keys`).
        draw, stream: which noise of those keys, as for `normal`.
        return_noise: return (x_t, z) instead of x_t.
        out: written instead of a new tensor, and returned; no gradients then.

    Returns:
        x_t [B, ...] in x0's dtype and strides (and z likewise).

    Raises:
        ValueError: names the argument, what was expected and what came.

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 29.
    """
    check_state("x0", x0)
    mean_coef, std = _per_sample(mean_coef, x0), _per_sample(std, x0)
    check_no_dual(x0, mean_coef, std)
    if out is None:
        x_t, z = OP.overload(x0, mean_coef, std, key, draw, stream, return_noise)
    else:
        z = torch.empty_like(x0) if return_noise else None
        OP.out_overload(x0, mean_coef, std, key, draw, stream, out=out, noise=z)
        x_t = out
    return (x_t, z) if return_noise else x_t


def _per_sample(value: Tensor | float, x0: Tensor) -> Tensor:
    if isinstance(value, Tensor) and value.dim() > 0:
        return value
    if isinstance(value, Tensor):
        return value.expand(x0.shape[0])
    return torch.full((x0.shape[0],), value, dtype=torch.float64, device=x0.device)
