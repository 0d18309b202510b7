"""sampler_step in Triton: one launch, whatever the sampler; arguments that are None are compiled away."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdiff.ops import formulas
from fastdiff.ops._checks import check_like, check_memory, check_per_sample, check_state
from fastdiff.ops._shapes import compute_dtype
from fastdiff.ops.coef import COLUMNS
from fastdiff.ops.noise import known_stream
from fastdiff.ops.sampler_step import check_step

from .layout import arranged, finish, layout_of, output
from .noise import BLOCKS, COUNTER, NORMAL, counter_words, grid_of, noise_tile, place

denoised = triton.jit(formulas.denoised)
advanced = triton.jit(formulas.advanced)
blended = triton.jit(formulas.blended)

A, B, B_U, LO, HI, C_X, C_D, C_G, C_H1, C_H2, C_H3, C_N, C_IN, E_X, E_D, C_L, K_X, K_N = (tl.constexpr(i) for i in range(len(COLUMNS)))
WIDTH = tl.constexpr(len(COLUMNS))
KNOWN_HALF = tl.constexpr(known_stream(0))


@triton.jit
def optional_load(pointer, at, inside, COMPUTE: tl.constexpr):
    """The values, or None where there is no tensor."""
    if pointer is None:
        return None
    else:
        return tl.load(pointer + at, mask=inside, other=0).to(COMPUTE)


@triton.jit
def clipped_estimate(row, state, F, F_u, at, inside, COMPUTE: tl.constexpr):
    """D = clip(a*x + b*F + b_u*F_u, lo, hi); a NaN stays one."""
    raw = tl.load(F + at, mask=inside, other=0).to(COMPUTE)
    D = denoised(
        tl.load(row + A).to(COMPUTE), state, tl.load(row + B).to(COMPUTE), raw,
        tl.load(row + B_U).to(COMPUTE), optional_load(F_u, at, inside, COMPUTE),
    )  # fmt: skip
    lo, hi = tl.load(row + LO).to(COMPUTE), tl.load(row + HI).to(COMPUTE)
    D = tl.where(lo > D, lo, D)
    return tl.where(hi < D, hi, D)


@triton.jit
def guided_estimate(row, state, F, F_u, G, at, inside, COMPUTE: tl.constexpr):
    """c_x*x + c_D*D + c_g*G: what langevin_row and ode_stage read the first columns as."""
    D = clipped_estimate(row, state, F, F_u, at, inside, COMPUTE)
    return advanced(
        tl.load(row + C_X).to(COMPUTE), state, tl.load(row + C_D).to(COMPUTE), D,
        tl.load(row + C_G).to(COMPUTE), optional_load(G, at, inside, COMPUTE),
        0, None, 0, None, 0, None, 0, None,
    )  # fmt: skip


@triton.jit(do_not_specialize=COUNTER)
def step_kernel(
    out, net_in, D_out, partial, x, F, coef, F_u, G, H1, H2, H3, z_in, known, mask, keys,
    draw_low: tl.uint32, draw_high: tl.uint32, stream: tl.uint32, n, channels, tiles,
    PER_SAMPLE: tl.constexpr, COMPUTE: tl.constexpr, LAST: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """One program makes 4*BLOCKS elements of one sample, and its part of |eps|^2."""
    sample, tile, at, inside = place(n, channels, tiles, LAST, BLOCKS)
    row = coef + (sample * WIDTH if PER_SAMPLE else 0)

    z = optional_load(z_in, at, inside, COMPUTE)
    if keys is not None:
        z = noise_tile(tl.load(keys + sample), tile, draw_low, draw_high, stream, NORMAL, BLOCKS).to(COMPUTE)
    state = tl.load(x + at, mask=inside, other=0).to(COMPUTE)
    D = clipped_estimate(row, state, F, F_u, at, inside, COMPUTE)
    y = advanced(
        tl.load(row + C_X).to(COMPUTE), state, tl.load(row + C_D).to(COMPUTE), D,
        tl.load(row + C_G).to(COMPUTE), optional_load(G, at, inside, COMPUTE),
        tl.load(row + C_H1).to(COMPUTE), optional_load(H1, at, inside, COMPUTE),
        tl.load(row + C_H2).to(COMPUTE), optional_load(H2, at, inside, COMPUTE),
        tl.load(row + C_H3).to(COMPUTE), optional_load(H3, at, inside, COMPUTE),
        tl.load(row + C_N).to(COMPUTE), z,
    )  # fmt: skip
    if mask is not None:
        target = tl.load(row + K_X).to(COMPUTE) * tl.load(known + at, mask=inside, other=0).to(COMPUTE)
        if keys is not None:
            half = stream.to(tl.uint32) ^ KNOWN_HALF
            again = noise_tile(tl.load(keys + sample), tile, draw_low, draw_high, half, NORMAL, BLOCKS).to(COMPUTE)
            target = target + tl.load(row + K_N).to(COMPUTE) * again
        y = blended(y, tl.load(mask + at, mask=inside, other=0).to(COMPUTE), target)
    tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)
    if net_in is not None:
        tl.store(net_in + at, (tl.load(row + C_IN).to(COMPUTE) * y).to(net_in.dtype.element_ty), mask=inside)
    if D_out is not None:
        tl.store(D_out + at, D.to(D_out.dtype.element_ty), mask=inside)
    if partial is not None:
        eps = (tl.load(row + E_X).to(COMPUTE) * state + tl.load(row + E_D).to(COMPUTE) * D).to(tl.float64)
        tl.store(partial + sample * tiles + tile, tl.sum(tl.where(inside, eps * eps, 0.0)))


def sampler_step(
    x, F, coef, F_u=None, G=None, H1=None, H2=None, H3=None, z=None, key=None, draw=0, stream=0, known=None, mask=None,
    net_dtype=None, return_D=False, return_eps_norm=False, *, out=None, net_in=None, D=None, eps_norm=None,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """As fastdiff::sampler_step, and with `out` and the tensors after it as fastdiff::sampler_step.out."""
    check_state("x", x)
    for name, t in (("out", out), ("net_in", net_in), ("D", D)):
        check_like(name, t, x)
    check_per_sample("eps_norm", eps_norm, x)
    check_step(x, F, coef, F_u, G, H1, H2, H3, z, key, draw, stream, known, mask, net_dtype)
    check_memory({"out": out, "net_in": net_in, "D": D}, (x, F, F_u, G, H1, H2, H3, z, known, mask))
    layout = layout_of(x)
    y = output(x, layout, given=out)
    scaled = output(x, layout, net_dtype, net_in) if net_dtype is not None or net_in is not None else None
    denoised_out = output(x, layout, given=D) if return_D or D is not None else None
    programs, tiles = grid_of(layout)
    partial = None
    if return_eps_norm or eps_norm is not None:
        partial = x.new_empty(layout.batch, tiles, dtype=torch.float64)
    if programs:
        operands = (arranged(t, layout) for t in (F_u, G, H1, H2, H3, z, known, mask))
        with torch.cuda.device_of(x):  # Triton launches on the current device
            step_kernel[(programs,)](
                y, scaled, denoised_out, partial, arranged(x, layout), arranged(F, layout), coef.contiguous(), *operands,
                None if key is None else key.contiguous(), *counter_words(draw, stream), layout.n, layout.channels, tiles,
                PER_SAMPLE=coef.dim() == 2, COMPUTE=tl.float64 if x.dtype == torch.float64 else tl.float32,
                # Without noise the order of a sample's elements does not matter, and memory order is the fast one.
                LAST=layout.channels > 1 and key is not None, BLOCKS=BLOCKS, enable_fp_fusion=False,
            )  # fmt: skip
    norm = None
    if partial is not None:
        norm = partial.sum(1).sqrt().to(compute_dtype(x))
        norm = norm if eps_norm is None else eps_norm.copy_(norm)
    net_in = None if scaled is None else finish(scaled, x, net_in)
    D = None if denoised_out is None else finish(denoised_out, x, D)
    return finish(y, x, out), net_in, D, norm
