"""normal_sum in Triton: y = sum_m w[m]*z(draw[m]), each draw made and added in registers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdiff.ops.normal_sum import check_sum

from .layout import finish, layout_of, output
from .noise import BLOCKS, NORMAL, grid_of, noise_tile, place


@triton.jit(do_not_specialize=("stream", "count"))
def sum_kernel(
    out, keys, draws, weights, count: tl.int32, stream: tl.uint32, n, channels, tiles,
    COMPUTE: tl.constexpr, LAST: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """One program makes 4*BLOCKS elements of one sample."""
    sample, tile, at, inside = place(n, channels, tiles, LAST, BLOCKS)
    key = tl.load(keys + sample)
    total = tl.zeros([4 * BLOCKS], COMPUTE)
    for m in range(count):
        weight = tl.load(weights + m).to(COMPUTE)
        if weight != 0:
            draw = tl.load(draws + m)
            low, high = (draw & 0xFFFFFFFF).to(tl.uint32), ((draw >> 32) & 0xFFFFFFFF).to(tl.uint32)
            total = total + weight * noise_tile(key, tile, low, high, stream, NORMAL, BLOCKS).to(COMPUTE)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)


def normal_sum(
    like: Tensor, key: Tensor, draws: Tensor, weights: Tensor, stream: int = 0, *, out: Tensor | None = None
) -> Tensor:  # fmt: skip
    """As fastdiff::normal_sum; with `out`, which is then also the `like`, as fastdiff::normal_sum.out."""
    check_sum(like, key, draws, weights, stream, "like" if out is None else "out")
    layout = layout_of(like)
    written = output(like, layout, given=out)
    programs, tiles = grid_of(layout)
    if programs:
        with torch.cuda.device_of(like):  # Triton launches on the current device
            sum_kernel[(programs,)](
                written, key.contiguous(), draws.contiguous(), weights.contiguous(), draws.shape[0], stream,
                layout.n, layout.channels, tiles, COMPUTE=tl.float64 if like.dtype == torch.float64 else tl.float32,
                LAST=layout.channels > 1, BLOCKS=BLOCKS, enable_fp_fusion=False,
            )  # fmt: skip
    return finish(written, like, out)
