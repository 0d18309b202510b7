"""perturb in Triton: x_t = m*x0 + s*z, the noise made in registers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdiff.ops import formulas
from fastdiff.ops._checks import check_like, check_memory
from fastdiff.ops.perturb import check_perturb

from .layout import arranged, finish, layout_of, output
from .noise import BLOCKS, COUNTER, NORMAL, counter_words, grid_of, noise_tile, place

perturbed = triton.jit(formulas.perturbed)


@triton.jit(do_not_specialize=COUNTER)
def perturb_kernel(
    out, noise, x0, mean_coef, std, keys, draw_low: tl.uint32, draw_high: tl.uint32, stream: tl.uint32, n, channels, tiles,
    COMPUTE: tl.constexpr, LAST: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """One program makes 4*BLOCKS elements of one sample."""
    sample, tile, at, inside = place(n, channels, tiles, LAST, BLOCKS)
    z = noise_tile(tl.load(keys + sample), tile, draw_low, draw_high, stream, NORMAL, BLOCKS).to(COMPUTE)
    m, s = tl.load(mean_coef + sample).to(COMPUTE), tl.load(std + sample).to(COMPUTE)
    x_t = perturbed(m, tl.load(x0 + at, mask=inside).to(COMPUTE), s, z)
    tl.store(out + at, x_t.to(out.dtype.element_ty), mask=inside)
    if noise is not None:
        tl.store(noise + at, z.to(noise.dtype.element_ty), mask=inside)


def perturb(
    x0: Tensor, mean_coef: Tensor, std: Tensor, key: Tensor, draw: int = 0, stream: int = 0, return_noise: bool = False,
    *, out: Tensor | None = None, noise: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """As fastdiff::perturb, and with `out` and `noise` as fastdiff::perturb.out."""
    check_perturb(x0, mean_coef, std, key, draw, stream)
    for name, t in (("out", out), ("noise", noise)):
        check_like(name, t, x0)
    check_memory({"out": out, "noise": noise}, (x0,))
    layout = layout_of(x0)
    x_t = output(x0, layout, given=out)
    z = output(x0, layout, given=noise) if return_noise or noise is not None else None
    programs, tiles = grid_of(layout)
    if programs:
        with torch.cuda.device_of(x0):  # Triton launches on the current device
            perturb_kernel[(programs,)](
                x_t, z, arranged(x0, layout), mean_coef.contiguous(), std.contiguous(), key.contiguous(),
                *counter_words(draw, stream), layout.n, layout.channels, tiles,
                COMPUTE=tl.float64 if x0.dtype == torch.float64 else tl.float32,
                LAST=layout.channels > 1, BLOCKS=BLOCKS, enable_fp_fusion=False,
            )  # fmt: skip
    return finish(x_t, x0, out), None if z is None else finish(z, x0, noise)
