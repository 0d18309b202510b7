"""probe_dot in Triton: d = sum v*g of each sample, the probe made in registers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdiff.ops._checks import check_per_sample, check_state
from fastdiff.ops.probe_dot import check_probe

from .layout import arranged, layout_of
from .noise import BLOCKS, COUNTER, NORMAL, RADEMACHER, counter_words, grid_of, noise_tile, place


@triton.jit(do_not_specialize=COUNTER)
def probe_kernel(
    partial, g, keys, draw_low: tl.uint32, draw_high: tl.uint32, stream: tl.uint32, n, channels, tiles,
    KIND: tl.constexpr, COMPUTE: tl.constexpr, LAST: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """One program sums 4*BLOCKS elements of one sample."""
    sample, tile, at, inside = place(n, channels, tiles, LAST, BLOCKS)
    v = noise_tile(tl.load(keys + sample), tile, draw_low, draw_high, stream, KIND, BLOCKS).to(COMPUTE)
    product = (v * tl.load(g + at, mask=inside, other=0).to(COMPUTE)).to(tl.float64)
    tl.store(partial + sample * tiles + tile, tl.sum(tl.where(inside, product, 0.0)))


def probe_dot(
    g: Tensor, key: Tensor, draw: int = 0, stream: int = 0, gaussian: bool = False, *, out: Tensor | None = None
) -> Tensor:  # fmt: skip
    """As fastdiff::probe_dot, and with `out` as fastdiff::probe_dot.out."""
    check_state("g", g)
    check_per_sample("out", out, g)
    check_probe(g, key, draw, stream)
    layout = layout_of(g)
    programs, tiles = grid_of(layout)
    partial = g.new_empty(layout.batch, tiles, dtype=torch.float64)
    if programs:
        with torch.cuda.device_of(g):  # Triton launches on the current device
            probe_kernel[(programs,)](
                partial, arranged(g, layout), key.contiguous(), *counter_words(draw, stream), layout.n, layout.channels, tiles,
                KIND=(NORMAL if gaussian else RADEMACHER).value, COMPUTE=tl.float64 if g.dtype == torch.float64 else tl.float32,
                LAST=layout.channels > 1, BLOCKS=BLOCKS, enable_fp_fusion=False,
            )  # fmt: skip
    dots = partial.sum(1)
    return dots if out is None else out.copy_(dots)
