"""Validation of op arguments. The texts are those of csrc/tensor.h; tests compare the two."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad

FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_state(name: str, x: Tensor) -> None:
    """x: [B, ...] of a floating dtype that the kernels compute with."""
    if x.dim() < 1 or x.dtype not in FLOATING:
        reject(name, "[B, ...] float64, float32, bfloat16 or float16", x)


def check_like(name: str, t: Tensor | None, x: Tensor) -> None:
    """t: floating, with the shape and the device of x."""
    if t is not None and (t.shape != x.shape or t.dtype not in FLOATING or t.device != x.device):
        reject(name, f"{list(x.shape)} floating on {x.device}", t)


def check_key(key: Tensor | None, x: Tensor) -> None:
    """key: one int64 for each sample of x."""
    if key is not None and (key.dim() != 1 or key.shape[0] != x.shape[0] or key.dtype != torch.int64 or key.device != x.device):
        reject("key", f"[{x.shape[0]}] int64 on {x.device}", key)


def check_per_sample(name: str, t: Tensor | None, x: Tensor) -> None:
    """t: one float64 or float32 for each sample of x."""
    if t is None:
        return
    if t.dim() != 1 or t.shape[0] != x.shape[0] or t.dtype not in FLOATING[:2] or t.device != x.device:
        reject(name, f"[{x.shape[0]}] float64 or float32 on {x.device}", t)


def check_coef(coef: Tensor, x: Tensor, columns: int) -> None:
    """coef: float64, one row for the batch or one for each sample."""
    shaped = coef.dim() in (1, 2) and coef.shape[-1] == columns and (coef.dim() == 1 or coef.shape[0] == x.shape[0])
    if not shaped or coef.dtype != torch.float64 or coef.device != x.device:
        reject("coef", f"[{columns}] or [{x.shape[0]}, {columns}] float64 on {x.device}", coef)


def check_counter(draw: int, stream: int) -> None:
    """The coordinates of a draw in the noise format."""
    if draw < 0:
        raise ValueError(f"draw: expected an integer >= 0, got {draw}")
    check_stream(stream)


def check_stream(stream: int) -> None:
    """The third word of the counter."""
    if not 0 <= stream < 2**32:
        raise ValueError(f"stream: expected 0 <= stream < 2**32, got {stream}")


def check_weights(weights: Tensor, x: Tensor, count: int) -> None:
    """weights: float64, one row for the batch or one for each sample."""
    shaped = weights.dim() in (1, 2) and weights.shape[-1] == count and (weights.dim() == 1 or weights.shape[0] == x.shape[0])
    if not shaped or weights.dtype != torch.float64 or weights.device != x.device:
        reject("weights", f"[{count}] or [{x.shape[0]}, {count}] float64 on {x.device}", weights)


def check_tolerance(rtol: float, atol: float) -> None:
    """Tolerances of an adaptive solver."""
    if not rtol >= 0:
        raise ValueError(f"rtol: expected a number >= 0, got {rtol:.6f}")
    if not atol > 0:
        raise ValueError(f"atol: expected a number > 0, got {atol:.6f}")


def check_net_dtype(dtype: torch.dtype | None) -> None:
    """net_dtype: a floating dtype that the kernels write."""
    if dtype is not None and dtype not in FLOATING:
        raise ValueError(f"net_dtype: expected float64, float32, bfloat16 or float16, got {str(dtype).removeprefix('torch.')}")


def check_memory(targets: dict[str, Tensor | None], inputs: Iterable[Tensor | None]) -> None:
    """Where outputs are written: the first may be exactly an input, the others must be apart from every other tensor."""
    given = [(name, t) for name, t in targets.items() if t is not None]
    others = [t for t in inputs if t is not None]
    for position, (name, out) in enumerate(given):
        for t in others:
            same = out.data_ptr() == t.data_ptr() and out.stride() == t.stride() and out.dtype == t.dtype
            if _overlap(out, t) and not (position == 0 and same):
                what = "or exactly an input's, got a partial overlap" if position == 0 else "got an overlap"
                apart = "the inputs'" if position == 0 else "every other tensor's,"
                raise ValueError(f"{name}: expected memory apart from {apart} {what}")
        others.append(out)


def _overlap(a: Tensor, b: Tensor) -> bool:
    if not a.numel() or not b.numel():
        return False
    spans = []
    for t in (a, b):
        last = sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True))
        spans.append((t.data_ptr(), t.data_ptr() + (last + 1) * t.element_size()))
    return spans[0][0] < spans[1][1] and spans[1][0] < spans[0][1]


def check_no_dual(*tensors: Tensor | None) -> None:
    """Refuse forward-mode dual tensors: the dispatcher would drop their tangents in silence. Under torch.func the references run."""
    if forward_ad._current_level < 0 or torch._C._functorch.maybe_current_level() is not None:
        return
    if any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors):
        raise NotImplementedError("forward-mode dual tensors are not supported: use torch.func.jvp")


def reject(name: str, expected: str, got: Tensor) -> NoReturn:
    """Raise with the argument, what was expected, and what came."""
    raise ValueError(f"{name}: expected {expected}, got {list(got.shape)} {str(got.dtype).removeprefix('torch.')} on {got.device}")
