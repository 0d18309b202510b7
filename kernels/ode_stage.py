"""ode_stage in Triton: the slope, the next state and the next network input of a Runge-Kutta stage, in one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdiff.ops._checks import check_like, check_memory, check_state
from fastdiff.ops.ode_stage import check_stage

from .layout import arranged, finish, output, rows_of
from .noise import BLOCKS, grid_of, place
from .sampler_step import C_IN, WIDTH, guided_estimate


@triton.jit
def with_slopes(total, K, weights, at, inside, numel, COUNT: tl.constexpr, COMPUTE: tl.constexpr):
    """total + sum_m w[m]*K[m], in this order. numel: elements from one slope to the next."""
    for m in tl.static_range(COUNT):
        total = total + tl.load(weights + m).to(COMPUTE) * tl.load(K + at, mask=inside, other=0).to(COMPUTE)
        K += numel  # m*numel could leave 32 bits
    return total


@triton.jit
def stage_kernel(
    k, y, net_in, x, F, coef, x0, K, weights, F_u, G, n, tiles, numel,
    COUNT: tl.constexpr, PER_SAMPLE: tl.constexpr, WEIGHTS_PER_SAMPLE: tl.constexpr, COMPUTE: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """One program makes 4*BLOCKS elements of one sample."""
    sample, _tile, at, inside = place(n, 1, tiles, False, BLOCKS)
    row = coef + (sample * WIDTH if PER_SAMPLE else 0)
    w = weights + (sample * (COUNT + 1) if WEIGHTS_PER_SAMPLE else 0)
    slope = guided_estimate(row, tl.load(x + at, mask=inside, other=0).to(COMPUTE), F, F_u, G, at, inside, COMPUTE)
    start = tl.load(x0 + at, mask=inside, other=0).to(COMPUTE)
    value = with_slopes(start, K, w, at, inside, numel, COUNT, COMPUTE) + tl.load(w + COUNT).to(COMPUTE) * slope
    tl.store(k + at, slope.to(k.dtype.element_ty), mask=inside)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=inside)
    if net_in is not None:
        tl.store(net_in + at, (tl.load(row + C_IN).to(COMPUTE) * value).to(net_in.dtype.element_ty), mask=inside)


def ode_stage(
    x: Tensor, F: Tensor, coef: Tensor, x0: Tensor, K: Tensor, weights: Tensor, F_u: Tensor | None = None, G: Tensor | None = None,
    net_dtype: torch.dtype | None = None, *, out: Tensor | None = None, y: Tensor | None = None, net_in: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """As fastdiff::ode_stage, and with `out` (the slope) and the tensors after it as fastdiff::ode_stage.out."""
    check_state("x", x)
    for name, t in (("out", out), ("y", y), ("net_in", net_in)):
        check_like(name, t, x)
    check_stage(x, F, coef, x0, K, weights, F_u, G, net_dtype)
    layout = rows_of(x)
    state, raw, start, unconditional, guidance = (arranged(t, layout) for t in (x, F, x0, F_u, G))
    slopes = K.contiguous()
    check_memory({"out": out, "y": y, "net_in": net_in}, (state, raw, start, unconditional, guidance, slopes))
    k = output(x, layout, given=out)
    value = output(x, layout, given=y)
    scaled = output(x, layout, net_dtype, net_in) if net_dtype is not None or net_in is not None else None
    programs, tiles = grid_of(layout)
    if programs:
        with torch.cuda.device_of(x):  # Triton launches on the current device
            stage_kernel[(programs,)](
                k, value, scaled, state, raw, coef.contiguous(), start, slopes, weights.contiguous(), unconditional, guidance,
                layout.n, tiles, x.numel(), COUNT=K.shape[0], PER_SAMPLE=coef.dim() == 2, WEIGHTS_PER_SAMPLE=weights.dim() == 2,
                COMPUTE=tl.float64 if x.dtype == torch.float64 else tl.float32, BLOCKS=BLOCKS, enable_fp_fusion=False,
            )  # fmt: skip
    return finish(k, x, out), finish(value, x, y), None if scaled is None else finish(scaled, x, net_in)
