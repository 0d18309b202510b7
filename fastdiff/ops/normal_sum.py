"""normal_sum: a weighted sum of many draws of noise, none of them stored.

    y = sum_m w[m]*z(key, draw[m], stream)

An increment of a Brownian path that is refined by a bridge is such a sum (fastdiff/brownian.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ._checks import check_key, check_state, check_stream, reject
from ._samples import keys, laid_out, randn, states
from ._shapes import compute_dtype
from ._table import Op, Sample, Tolerance, register
from .noise import noise_reference


def check_sum(like: Tensor, key: Tensor, draws: Tensor, weights: Tensor, stream: int, name: str = "like") -> None:
    """Validate the inputs of normal_sum."""
    check_state(name, like)
    check_key(key, like)
    if draws.dim() != 1 or draws.dtype != torch.int64 or draws.device != like.device:
        reject("draws", f"[M] int64 on {like.device}", draws)
    if weights.shape != draws.shape or weights.dtype != torch.float64 or weights.device != like.device:
        reject("weights", f"{list(draws.shape)} float64 on {like.device}", weights)
    check_stream(stream)


def reference(like, key, draws, weights, stream=0, *, name="like"):
    """Noise with the shape and dtype of `like`, summed in the order of the draws."""
    check_sum(like, key, draws, weights, stream, name)
    dtype = compute_dtype(like)
    total = torch.zeros_like(like, dtype=dtype)
    if like.device.type != "meta" and draws.device.type != "meta":
        for draw, weight in zip(draws.tolist(), weights.tolist(), strict=True):
            total = total + torch.tensor(weight, dtype=dtype).to(total.device) * noise_reference("normal", total, key, draw, stream)
    return total.to(like.dtype)


def _out_reference(key, draws, weights, stream=0, *, out):
    return (reference(out, key, draws, weights, stream, name="out"),)


def _samples(device, dtype) -> Iterator[Sample]:
    draws, weights = torch.tensor([0, 7, 2**40], device=device), randn((3,), device, torch.float64, 5)
    for label, like in states(device, dtype):
        yield Sample(label, (like, keys(like.shape[0], device), draws, weights))
    like = randn((3, 10), device, dtype, 1)
    yield Sample("no draws", (like, keys(3, device), draws[:0], weights[:0]))
    last = laid_out(randn((2, 3, 4, 4), device, dtype, 1), "channels_last")
    yield Sample("zero weight", (last, keys(2, device), draws, weights * torch.tensor([1.0, 0.0, 1.0], device=device)), {"stream": 4})


def _errors(device) -> Iterator[Sample]:
    like, key = torch.zeros(2, 3, device=device), keys(2, device)
    draws, weights = torch.tensor([1, 2], device=device), torch.ones(2, dtype=torch.float64, device=device)
    yield Sample("integer like", (like.long(), key, draws, weights))
    yield Sample("short key", (like, key[:1], draws, weights))
    yield Sample("float draws", (like, key, draws.double(), weights))
    yield Sample("float32 weights", (like, key, draws, weights.float()))
    yield Sample("one weight", (like, key, draws, weights[:1]))
    yield Sample("large stream", (like, key, draws, weights), {"stream": 2**32})


OP = register(
    Op(
        name="normal_sum",
        args="Tensor like, Tensor key, Tensor draws, Tensor weights, SymInt stream=0",
        returns="Tensor",
        out_args="Tensor key, Tensor draws, Tensor weights, SymInt stream=0, *, Tensor(a!) out",
        equation="y = sum_m w_m*z(draw_m)",
        source="noise format 1, docs/noise.md",
        reference=reference,
        out_names=("out",),
        out_reference=_out_reference,
        samples=_samples,
        errors=_errors,
        tolerance={
            torch.float64: Tolerance(1e-13, 1e-13, "a rounding for each draw"),
            torch.float32: Tolerance(1e-6, 2e-6, "a rounding for each draw, weights rounded to float32"),
            torch.bfloat16: Tolerance(2**-8, 2e-6, "float32 arithmetic, rounded once"),
            torch.float16: Tolerance(2**-10, 2e-6, "float32 arithmetic, rounded once"),
        },
        bytes_moved=lambda sample: sample.args[0].numel() * sample.args[0].element_size(),
    )
)


def normal_sum(like: Tensor, key: Tensor, draws: Tensor, weights: Tensor, stream: int = 0, *, out: Tensor | None = None) -> Tensor:
    """sum_m w_m*z(draw_m): many draws of noise in one launch, none of them stored.

    Args:
        like: [B, ...], gives shape, dtype, device and strides; its values are not read.
        key: [B] int64; draws: [M] int64 >= 0 and weights: [M] float64, on like's device; a weight of 0 costs nothing.
        stream: as for `normal`.
        out: written instead of a new tensor, and returned.

    Returns:
        [B, ...].

    Raises:
        ValueError: names the argument, what was expected and what came.

    Source: noise format 1, docs/noise.md.
    """
    if out is None:
        return OP.overload(like, key, draws, weights, stream)
    OP.out_overload(key, draws, weights, stream, out=out)
    return out
