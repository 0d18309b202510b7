"""denoising_loss in Triton: w * sum (b*F + p*x0 + q*z)^2 of each sample, the noise made in registers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdiff.ops import formulas
from fastdiff.ops._checks import check_per_sample, check_state
from fastdiff.ops.denoising_loss import LOSS_COLUMNS, check_loss, loss_dtype

from .layout import arranged, layout_of
from .noise import BLOCKS, COUNTER, NORMAL, counter_words, grid_of, noise_tile, place

residual = triton.jit(formulas.residual)

WIDTH = tl.constexpr(len(LOSS_COLUMNS))


@triton.jit(do_not_specialize=COUNTER)
def loss_kernel(
    partial, F, x0, coef, keys, draw_low: tl.uint32, draw_high: tl.uint32, stream: tl.uint32, n, channels, tiles,
    PER_SAMPLE: tl.constexpr, COMPUTE: tl.constexpr, LAST: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """One program sums 4*BLOCKS elements of one sample."""
    sample, tile, at, inside = place(n, channels, tiles, LAST, BLOCKS)
    row = coef + (sample * WIDTH if PER_SAMPLE else 0)
    z = noise_tile(tl.load(keys + sample), tile, draw_low, draw_high, stream, NORMAL, BLOCKS).to(COMPUTE)
    r = residual(
        tl.load(row).to(COMPUTE), tl.load(F + at, mask=inside, other=0).to(COMPUTE),
        tl.load(row + 1).to(COMPUTE), tl.load(x0 + at, mask=inside, other=0).to(COMPUTE), tl.load(row + 2).to(COMPUTE), z,
    ).to(tl.float64)  # fmt: skip
    tl.store(partial + sample * tiles + tile, tl.load(row + 3) * tl.sum(tl.where(inside, r * r, 0.0)))


def denoising_loss(
    F: Tensor, x0: Tensor, coef: Tensor, key: Tensor, draw: int = 0, stream: int = 0, *, out: Tensor | None = None
) -> Tensor:  # fmt: skip
    """As fastdiff::denoising_loss, and with `out` as fastdiff::denoising_loss.out."""
    check_state("F", F)
    check_per_sample("out", out, F)
    check_loss(F, x0, coef, key, draw, stream)
    layout, dtype = layout_of(F), loss_dtype(F, x0)
    programs, tiles = grid_of(layout)
    partial = F.new_empty(layout.batch, tiles, dtype=torch.float64)
    if programs:
        with torch.cuda.device_of(F):  # Triton launches on the current device
            loss_kernel[(programs,)](
                partial, arranged(F, layout), arranged(x0, layout), coef.contiguous(), key.contiguous(), *counter_words(draw, stream),
                layout.n, layout.channels, tiles, PER_SAMPLE=coef.dim() == 2,
                COMPUTE=tl.float64 if dtype == torch.float64 else tl.float32, LAST=layout.channels > 1, BLOCKS=BLOCKS,
                enable_fp_fusion=False,
            )  # fmt: skip
    losses = partial.sum(1)
    return losses.to(dtype) if out is None else out.copy_(losses)
