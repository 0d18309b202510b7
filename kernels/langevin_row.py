"""langevin_row in Triton: one pass over the state for |eps|^2 and |z|^2, then one program that writes the rows."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdiff.ops._checks import check_state
from fastdiff.ops.coef import COLUMNS
from fastdiff.ops.langevin_row import check_langevin, check_rows

from .layout import arranged, layout_of
from .noise import BLOCKS, COUNTER, NORMAL, counter_words, grid_of, noise_tile, place
from .sampler_step import C_D, C_G, C_L, C_N, C_X, E_D, E_X, WIDTH, guided_estimate, optional_load

#: Samples whose rows are written at once.
ROWS = 128


@triton.jit(do_not_specialize=COUNTER)
def norms_kernel(
    partial, x, F, coef, F_u, G, z_in, keys, draw_low: tl.uint32, draw_high: tl.uint32, stream: tl.uint32, n, channels, tiles,
    PER_SAMPLE: tl.constexpr, COMPUTE: tl.constexpr, LAST: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """One program sums eps^2 and z^2 over 4*BLOCKS elements of one sample, into the two halves of `partial`."""
    sample, tile, at, inside = place(n, channels, tiles, LAST, BLOCKS)
    row = coef + (sample * WIDTH if PER_SAMPLE else 0)
    z = optional_load(z_in, at, inside, COMPUTE)
    if keys is not None:
        z = noise_tile(tl.load(keys + sample), tile, draw_low, draw_high, stream, NORMAL, BLOCKS).to(COMPUTE)
    state = tl.load(x + at, mask=inside, other=0).to(COMPUTE)
    D = guided_estimate(row, state, F, F_u, G, at, inside, COMPUTE)
    eps = (tl.load(row + E_X).to(COMPUTE) * state + tl.load(row + E_D).to(COMPUTE) * D).to(tl.float64)
    noise = z.to(tl.float64)
    slot = partial + sample * tiles + tile
    tl.store(slot, tl.sum(tl.where(inside, eps * eps, 0.0)))
    tl.store(slot + tl.num_programs(0), tl.sum(tl.where(inside, noise * noise, 0.0)))


@triton.jit(do_not_specialize=("batch",))
def rows_kernel(out, squares, coef, batch: tl.int32, PER_SAMPLE: tl.constexpr, SHARED: tl.constexpr, ROWS: tl.constexpr):
    """One program writes every row, so that a step size for the whole batch needs no further launch. squares: [2, batch]."""
    eps_mean = tl.zeros([1], tl.float64)
    z_mean = tl.zeros([1], tl.float64)
    if SHARED:
        for first in range(0, batch, ROWS):
            sample = first + tl.arange(0, ROWS)
            inside = sample < batch
            eps_mean += tl.sum(tl.sqrt(tl.load(squares + sample, mask=inside, other=0)))
            z_mean += tl.sum(tl.sqrt(tl.load(squares + batch + sample, mask=inside, other=0)))
        eps_mean = eps_mean / batch
        z_mean = z_mean / batch
    for first in range(0, batch, ROWS):
        sample = first + tl.arange(0, ROWS)
        inside = sample < batch
        if SHARED:
            eps, z = eps_mean, z_mean
        else:
            eps = tl.sqrt(tl.load(squares + sample, mask=inside, other=0))
            z = tl.sqrt(tl.load(squares + batch + sample, mask=inside, other=0))
        still = eps == 0
        ratio = tl.where(still, 0.0, z / tl.where(still, 1.0, eps))

        base = coef + (sample * WIDTH if PER_SAMPLE else tl.zeros_like(sample))
        row = out + sample * WIDTH
        c_l, e_x = tl.load(base + C_L, mask=inside, other=0), tl.load(base + E_X, mask=inside, other=1)
        rho = c_l * ratio * ratio
        tilt = -rho * tl.load(base + E_D, mask=inside, other=0) / e_x
        for column in tl.static_range(WIDTH):
            value = tl.load(base + column, mask=inside, other=0)
            if column == C_X:
                value = 1 - rho + tilt * value
            elif (column == C_D) | (column == C_G):
                value = tilt * value
            elif column == C_N:
                value = tl.sqrt(2 * c_l) * ratio / e_x
            tl.store(row + column, value, mask=inside)


def langevin_row(
    x: Tensor, F: Tensor, coef: Tensor, F_u: Tensor | None = None, G: Tensor | None = None, z: Tensor | None = None,
    key: Tensor | None = None, draw: int = 0, stream: int = 0, shared: bool = False, *, out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """As fastdiff::langevin_row, and with `out` as fastdiff::langevin_row.out."""
    check_state("x", x)
    if out is not None:
        check_rows(out, x)
    check_langevin(x, F, coef, F_u, G, z, key, draw, stream)
    layout = layout_of(x)
    rows = out if out is not None and out.is_contiguous() else x.new_empty(layout.batch, len(COLUMNS), dtype=torch.float64)
    programs, tiles = grid_of(layout)
    partial = x.new_empty(2, layout.batch, tiles, dtype=torch.float64)
    coef = coef.contiguous()
    per_sample = coef.dim() == 2
    with torch.cuda.device_of(x):  # Triton launches on the current device
        if programs:
            norms_kernel[(programs,)](
                partial, *(arranged(t, layout) for t in (x, F)), coef, *(arranged(t, layout) for t in (F_u, G, z)),
                None if key is None else key.contiguous(), *counter_words(draw, stream), layout.n, layout.channels, tiles,
                PER_SAMPLE=per_sample, COMPUTE=tl.float64 if x.dtype == torch.float64 else tl.float32,
                # Sums of given noise do not depend on the order of the elements, and memory order is the fast one.
                LAST=layout.channels > 1 and key is not None, BLOCKS=BLOCKS, enable_fp_fusion=False,
            )  # fmt: skip
        if layout.batch:
            rows_kernel[(1,)](
                rows, partial.sum(2), coef, layout.batch, PER_SAMPLE=per_sample, SHARED=shared, ROWS=ROWS, enable_fp_fusion=False
            )
    return rows if out is None or rows is out else out.copy_(rows)
