"""ode_error in Triton: the error of a Runge-Kutta step against its tolerance, squared and summed in one pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdiff.ops._checks import check_per_sample, check_state
from fastdiff.ops.ode_error import check_error

from .layout import arranged, rows_of
from .noise import BLOCKS, grid_of, place
from .ode_stage import with_slopes


@triton.jit
def error_kernel(
    partial, x0, y, K, weights, rtol: tl.float64, atol: tl.float64, n, tiles, numel,
    COUNT: tl.constexpr, PER_SAMPLE: tl.constexpr, COMPUTE: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """One program sums 4*BLOCKS elements of one sample."""
    sample, tile, at, inside = place(n, 1, tiles, False, BLOCKS)
    w = weights + (sample * COUNT if PER_SAMPLE else 0)
    error = with_slopes(tl.zeros([4 * BLOCKS], COMPUTE), K, w, at, inside, numel, COUNT, COMPUTE)
    before = tl.abs(tl.load(x0 + at, mask=inside, other=0).to(COMPUTE))
    after = tl.abs(tl.load(y + at, mask=inside, other=0).to(COMPUTE))
    # A NaN must not pass for a small error.
    largest = tl.maximum(before, after, propagate_nan=tl.PropagateNan.ALL)
    # tl.full, since an interpreted kernel gets Python's floats.
    tolerance = tl.full([4 * BLOCKS], atol, COMPUTE) + tl.full([4 * BLOCKS], rtol, COMPUTE) * largest
    relative = (error / tolerance if error.dtype == tl.float64 else tl.div_rn(error, tolerance)).to(tl.float64)
    tl.store(partial + sample * tiles + tile, tl.sum(tl.where(inside, relative * relative, 0.0)))


def ode_error(
    x0: Tensor, y: Tensor, K: Tensor, weights: Tensor, rtol: float, atol: float, *, out: Tensor | None = None
) -> Tensor:  # fmt: skip
    """As fastdiff::ode_error, and with `out` as fastdiff::ode_error.out."""
    check_state("x0", x0)
    check_per_sample("out", out, x0)
    check_error(x0, y, K, weights, rtol, atol)
    layout = rows_of(x0)
    programs, tiles = grid_of(layout)
    partial = x0.new_empty(layout.batch, tiles, dtype=torch.float64)
    if programs:
        with torch.cuda.device_of(x0):  # Triton launches on the current device
            error_kernel[(programs,)](
                partial, arranged(x0, layout), arranged(y, layout), K.contiguous(), weights.contiguous(), rtol, atol,
                layout.n, tiles, x0.numel(), COUNT=K.shape[0], PER_SAMPLE=weights.dim() == 2,
                COMPUTE=tl.float64 if x0.dtype == torch.float64 else tl.float32, BLOCKS=BLOCKS, enable_fp_fusion=False,
            )  # fmt: skip
    sums = partial.sum(1)
    return sums if out is None else out.copy_(sums)
