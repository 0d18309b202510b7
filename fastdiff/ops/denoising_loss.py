"""denoising_loss: the weighted squared error of a network's output, whatever the network predicts, in one pass.

    r = b*F + p*x0 + q*z,   L[i] = w * sum_e r_e^2,   z ~ N(0, 1) from (key, draw, stream)

z is the noise that `perturb` added to the data, made again. With D = a*x_t + b*F and x_t = m*x0 + s*z, the error D - x0 has
p = a*m - 1 and q = a*s. Neither the noise nor the residual is stored; the backward makes both again, in the launch of one
`sampler_step` for each of

    dL/dF = 2*g*w*b*r,   dL/dx0 = 2*g*w*p*r

Source: Vincent 2011; Karras et al. 2022 (arXiv:2206.00364), eq. 8; noise format 1, docs/noise.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ._checks import check_coef, check_counter, check_key, check_like, check_no_dual, check_per_sample, check_state
from ._samples import keys, laid_out, randn, states
from ._shapes import column, sum_per_sample
from ._table import OPS, Op, Sample, Tolerance, register
from .coef import COLUMNS
from .formulas import residual
from .noise import NOISE_OPS, noise_reference

#: Columns of the row of coefficients.
LOSS_COLUMNS = ("b", "p", "q", "w")


def check_loss(F: Tensor, x0: Tensor, coef: Tensor, key: Tensor, draw: int, stream: int) -> None:
    """Validate the inputs of denoising_loss."""
    check_state("F", F)
    check_like("x0", x0, F)
    check_coef(coef, F, len(LOSS_COLUMNS))
    check_key(key, F)
    check_counter(draw, stream)


def loss_dtype(F: Tensor, x0: Tensor) -> torch.dtype:
    """What the loss is computed and returned in: float64 where either tensor is, else float32."""
    return torch.float64 if torch.float64 in (F.dtype, x0.dtype) else torch.float32


def _rows(coef: Tensor, F: Tensor) -> tuple[Tensor, ...]:
    """b, p, q, w of each sample, [B] each."""
    return coef.expand(F.shape[0], len(LOSS_COLUMNS)).unbind(1)


def reference(F, x0, coef, key, draw=0, stream=0):
    """[B]: residuals in the computing type, their squares summed in float64."""
    check_loss(F, x0, coef, key, draw, stream)
    dtype = loss_dtype(F, x0)
    b, p, q, w = _rows(coef, F)
    z = noise_reference("normal", F.detach().to(dtype), key, draw, stream)
    r = residual(column(b, F, dtype), F.to(dtype), column(p, F, dtype), x0.to(dtype), column(q, F, dtype), z)
    return (w * sum_per_sample(r.double().square())).to(dtype)


def _out_reference(F, x0, coef, key, draw=0, stream=0, *, out):
    check_state("F", F)
    check_per_sample("out", out, F)
    return (reference(F, x0, coef, key, draw, stream),)


def _setup_context(ctx, inputs, output) -> None:
    *tensors, ctx.draw, ctx.stream = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, grad: Tensor):
    """In differentiable operations, so that it can be differentiated again."""
    F, x0, coef, key = ctx.saved_tensors
    dtype = loss_dtype(F, x0)
    b, p, q, w = _rows(coef, F)
    g = grad.double()

    def gradient(of: Tensor, own: Tensor, other: Tensor, others: Tensor) -> Tensor:
        """2*g*w*own*(own*of + others*other + q*z), as y = c_x*x + c_D*D + c_n*z with x = of and D = other."""
        factor = 2 * g * w * own
        rows = coef.new_zeros(F.shape[0], len(COLUMNS))
        for name, value in (
            ("b", 1.0),
            ("lo", -torch.inf),
            ("hi", torch.inf),
            ("c_x", factor * own),
            ("c_D", factor * others),
            ("c_n", factor * q),
        ):
            rows[:, COLUMNS.index(name)] = value
        draw = {"key": key, "draw": ctx.draw, "stream": ctx.stream}
        return OPS["sampler_step"].overload(of.to(dtype) if dtype == torch.float64 else of, other, rows, **draw)[0].to(of.dtype)

    need_F, need_x0, need_coef = ctx.needs_input_grad[:3]
    grad_F = gradient(F, b, x0, p) if need_F else None
    grad_x0 = gradient(x0, p, F, b) if need_x0 else None
    return grad_F, grad_x0, _grad_coef(ctx, g) if need_coef else None, None, None, None


def _grad_coef(ctx, g: Tensor) -> Tensor:
    """The gradient to (b, p, q, w): g*(2*w*sum r*F, 2*w*sum r*x0, 2*w*sum r*z, sum r^2)."""
    F, x0, coef, key = ctx.saved_tensors
    dtype = loss_dtype(F, x0)
    b, p, q, w = _rows(coef, F)
    z = NOISE_OPS["normal"].overload(F.detach().to(dtype), key, ctx.draw, ctx.stream)
    operands = (F.to(dtype), x0.to(dtype), z)
    r = residual(*(v for c, t in zip((b, p, q), operands, strict=True) for v in (column(c, F, dtype), t)))
    sums = [2 * w * sum_per_sample((r * t).double()) for t in operands] + [sum_per_sample(r.double().square())]
    per_sample = torch.stack([g * total for total in sums], dim=1)
    return per_sample if coef.dim() == 2 else per_sample.sum(0)


def _samples(device, dtype) -> Iterator[Sample]:
    def coef(seed: int, batch: int | None = None, **values: float) -> Tensor:
        row = randn((4,) if batch is None else (batch, 4), device, torch.float64, seed)
        for name, value in values.items():
            row[..., LOSS_COLUMNS.index(name)] = value
        return row

    for label, F in states(device, dtype, seed=1):
        yield Sample(label, (F, randn(F.shape, device, dtype, 2), coef(3), keys(F.shape[0], device)), {"draw": 5})
    F, x0 = randn((2, 3, 5, 7), device, dtype, 1), randn((2, 3, 5, 7), device, dtype, 2)
    yield Sample("per-sample coefficients", (F, x0, coef(4, 2), keys(2, device)), {"stream": 9})
    yield Sample("weight 0", (F, x0, coef(4, 2, w=0.0), keys(2, device)))
    yield Sample("network without effect", (F, x0, coef(5, 2, b=0.0), keys(2, device)))
    last = laid_out(randn((2, 3, 6, 9), device, dtype, 1), "channels_last")
    yield Sample("per-sample coefficients, channels_last", (last, last.flip(0), coef(6, 2), keys(2, device)), {"draw": 1})
    yield Sample("data laid out otherwise", (last, randn((2, 3, 6, 9), device, dtype, 2), coef(6), keys(2, device)))
    yield Sample("network in bfloat16", (F.to(torch.bfloat16), x0, coef(7), keys(2, device)), {"draw": 2})


def _errors(device) -> Iterator[Sample]:
    F, x0, key = torch.zeros(2, 3, device=device), torch.zeros(2, 3, device=device), keys(2, device)
    coef = torch.ones(4, device=device, dtype=torch.float64)
    yield Sample("integer F", (F.long(), x0, coef, key))
    yield Sample("scalar F", (F[0, 0], x0, coef, key))
    yield Sample("shape of x0", (F, x0[:, :2], coef, key))
    yield Sample("integer x0", (F, x0.int(), coef, key))
    yield Sample("short row", (F, x0, coef[:3], key))
    yield Sample("float32 row", (F, x0, coef.float(), key))
    yield Sample("too many rows", (F, x0, coef.expand(3, -1), key))
    yield Sample("short key", (F, x0, coef, key[:1]))
    yield Sample("negative draw", (F, x0, coef, key), {"draw": -1})
    yield Sample("large stream", (F, x0, coef, key), {"stream": 2**32})


_ARGS = "Tensor F, Tensor x0, Tensor coef, Tensor key, SymInt draw=0, SymInt stream=0"
OP = register(
    Op(
        name="denoising_loss",
        args=_ARGS,
        returns="Tensor",
        out_args=f"{_ARGS}, *, Tensor(a!) out",
        equation="L = w * sum r^2, r = b*F + p*x0 + q*z",
        source="Vincent 2011; Karras et al. 2022, eq. 8",
        reference=reference,
        out_names=("out",),
        out_reference=_out_reference,
        samples=_samples,
        errors=_errors,
        tolerance={
            torch.float64: Tolerance(1e-12, 1e-12, "a sum of a sample's elements in another order"),
            torch.float32: Tolerance(2e-6, 2e-6, "residuals in float32, their squares summed in float64, coefficients rounded to float32"),
        },
        bytes_moved=lambda sample: sum(t.numel() * t.element_size() for t in sample.args[:2]),
        setup_context=_setup_context,
        backward=_backward,
    )
)


def denoising_loss(
    F: Tensor, x0: Tensor, coef: Tensor, key: Tensor, draw: int = 0, stream: int = 0, *, out: Tensor | None = None
) -> Tensor:  # fmt: skip
    """L = w * sum r^2 of each sample, r = b*F + p*x0 + q*z, with the noise made again in the forward and in the backward.

    The loss of a denoiser D = a*x_t + b*F on x_t = m*x0 + s*z (`perturb` with the same key, draw and stream) has
    p = a*m - 1 and q = a*s; one that compares F with the noise has b = 1, p = 0, q = -1.

    Args:
        F: [B, ...] raw network output.
        x0: [B, ...] data, of any floating dtype. The arithmetic is float64 where F or x0 is, else float32.
        coef: [4] or [B, 4] float64, the columns (b, p, q, w).
        key: [B] int64 noise keys (`fastdiff.keys`).
        draw, stream: which noise of those keys, as for `normal`.
        out: [B] written instead of a new tensor, and returned; no gradients then.

    Returns:
        [B] the loss of each sample: float64 where F or x0 is, else float32; differentiable twice in F, x0 and coef.

    Raises:
        ValueError: names the argument, what was expected and what came.

    Source: Karras et al. 2022 (arXiv:2206.00364), eq. 8; Vincent 2011.
    """
    check_no_dual(F, x0, coef)
    if out is None:
        return OP.overload(F, x0, coef, key, draw, stream)
    OP.out_overload(F, x0, coef, key, draw, stream, out=out)
    return out
