"""normal, uniform, rademacher in Triton: noise format 1, the same bits as csrc/formulas.h (docs/noise.md)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastdiff.ops import noise_format
from fastdiff.ops.noise import check_noise

from .layout import Layout, finish, layout_of, output

NORMAL = tl.constexpr(0)
UNIFORM = tl.constexpr(1)
RADEMACHER = tl.constexpr(2)
LN2 = tl.constexpr(noise_format.LN2)
LOG = tl.constexpr(tuple(noise_format.LOG))
SIN = tl.constexpr(tuple(noise_format.SIN))
COS = tl.constexpr(tuple(noise_format.COS))

#: Scalar arguments that change from call to call: no specialization on their values.
COUNTER = ("draw_low", "draw_high", "stream")

#: Philox blocks (of four elements) that one program makes.
BLOCKS = 256


@triton.jit
def philox4x32_10(c0, c1, c2, c3, k0, k1):
    """Ten rounds of Philox on uint32 words."""
    for _ in tl.static_range(10):
        hi0, lo0 = tl.umulhi(c0, 0xD2511F53), c0 * 0xD2511F53
        hi1, lo1 = tl.umulhi(c2, 0xCD9E8D57), c2 * 0xCD9E8D57
        c0, c1, c2, c3 = hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def log_unit(u):
    """ln u for u in (0, 1]."""
    bits = u.to(tl.int32, bitcast=True)
    exponent = (bits - 0x3F3504F3) >> 23
    f = (bits - (exponent << 23)).to(tl.float32, bitcast=True) - 1.0
    p = tl.full(f.shape, LOG[0], tl.float32)
    for i in tl.static_range(1, 9):
        p = tl.fma(p, f, tl.full(f.shape, LOG[i], tl.float32))
    f_squared = f * f
    return tl.fma(exponent.to(tl.float32), tl.full(f.shape, LN2, tl.float32), tl.fma(f_squared, p, f))


@triton.jit
def box_muller(w0, w1):
    """Two words to two normals."""
    k = (w0 >> 1).to(tl.int32, bitcast=True).to(tl.float32)
    u = tl.fma(k, tl.full(k.shape, 2.0**-31, tl.float32), tl.full(k.shape, 2.0**-32, tl.float32))
    radius = tl.sqrt_rn(log_unit(u) * -2.0)

    shifted = w1 + 0x20000000
    rest = (shifted & 0x3FFFFFFF).to(tl.int32, bitcast=True) - 0x20000000
    a = rest.to(tl.float32) * (2.0**-31)
    t = a * a
    s = tl.full(t.shape, SIN[0], tl.float32)
    for i in tl.static_range(1, 4):
        s = tl.fma(s, t, tl.full(t.shape, SIN[i], tl.float32))
    s = s * a
    c = tl.full(t.shape, COS[0], tl.float32)
    for i in tl.static_range(1, 5):
        c = tl.fma(c, t, tl.full(t.shape, COS[i], tl.float32))
    odd = (shifted & 0x40000000) != 0
    cosine = tl.where(odd, s, c)
    sine = tl.where(odd, c, s)
    cosine = tl.where(((shifted + 0x40000000) >> 31) != 0, -cosine, cosine)
    sine = tl.where((shifted >> 31) != 0, -sine, sine)
    return radius * cosine, radius * sine


@triton.jit
def noise_tile(key, tile, draw_low, draw_high, stream, KIND: tl.constexpr, BLOCKS: tl.constexpr):
    """[4*BLOCKS] values of a sample's elements from 4*BLOCKS*tile on, in order. key: int64; draw and stream: words."""
    c0 = (tile * BLOCKS + tl.arange(0, BLOCKS)).to(tl.uint32)
    zero = c0 * 0
    k0 = zero + (key & 0xFFFFFFFF).to(tl.uint32)
    k1 = zero + ((key >> 32) & 0xFFFFFFFF).to(tl.uint32)
    c1 = zero + draw_low.to(tl.uint32)
    c2 = zero + draw_high.to(tl.uint32)
    c3 = zero + stream.to(tl.uint32)
    w0, w1, w2, w3 = philox4x32_10(c0, c1, c2, c3, k0, k1)
    if KIND == NORMAL:
        v0, v1 = box_muller(w0, w1)
        v2, v3 = box_muller(w2, w3)
    elif KIND == UNIFORM:
        v0 = (w0 >> 8).to(tl.float32) * (2.0**-24)
        v1 = (w1 >> 8).to(tl.float32) * (2.0**-24)
        v2 = (w2 >> 8).to(tl.float32) * (2.0**-24)
        v3 = (w3 >> 8).to(tl.float32) * (2.0**-24)
    else:
        v0 = 1.0 - 2.0 * (w0 >> 31).to(tl.float32)
        v1 = 1.0 - 2.0 * (w1 >> 31).to(tl.float32)
        v2 = 1.0 - 2.0 * (w2 >> 31).to(tl.float32)
        v3 = 1.0 - 2.0 * (w3 >> 31).to(tl.float32)
    return tl.interleave(tl.interleave(v0, v2), tl.interleave(v1, v3))


@triton.jit
def memory_offset(element, n, channels, LAST: tl.constexpr):
    """Where element (in NCHW order) of a sample lies in its memory."""
    if LAST:
        spatial = n // channels
        return (element % spatial) * channels + element // spatial
    else:
        return element


@triton.jit
def place(n, channels, tiles, LAST: tl.constexpr, BLOCKS: tl.constexpr):
    """This program's (sample, tile of it, offsets of the tile's 4*BLOCKS elements in memory, which of them there are)."""
    program = tl.program_id(0).to(tl.int64)
    sample, tile = program // tiles, program % tiles
    element = tile * (4 * BLOCKS) + tl.arange(0, 4 * BLOCKS)
    return sample, tile, sample * n + memory_offset(element, n, channels, LAST), element < n


@triton.jit(do_not_specialize=COUNTER)
def noise_kernel(
    out, keys, draw_low: tl.uint32, draw_high: tl.uint32, stream: tl.uint32, n, channels, tiles,
    KIND: tl.constexpr, LAST: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """One program writes 4*BLOCKS elements of one sample."""
    sample, tile, at, inside = place(n, channels, tiles, LAST, BLOCKS)
    z = noise_tile(tl.load(keys + sample), tile, draw_low, draw_high, stream, KIND, BLOCKS)
    tl.store(out + at, z.to(out.dtype.element_ty), mask=inside)


def counter_words(draw: int, stream: int) -> tuple[int, int, int]:
    """(draw_low, draw_high, stream) as the kernels take them: words keep their type whatever the value."""
    return draw & 0xFFFFFFFF, draw >> 32, stream


def grid_of(layout: Layout) -> tuple[int, int]:
    """(programs, programs of a sample)."""
    tiles = triton.cdiv(layout.n, 4 * BLOCKS)
    return layout.batch * tiles, tiles


def _launch(kind: int, like: Tensor, key: Tensor, draw: int, stream: int, out: Tensor | None) -> Tensor:
    check_noise(like, key, draw, stream, "like" if out is None else "out")
    layout = layout_of(like)
    written = output(like, layout, given=out)
    programs, tiles = grid_of(layout)
    if programs:
        with torch.cuda.device_of(like):  # Triton launches on the current device
            noise_kernel[(programs,)](
                written, key.contiguous(), *counter_words(draw, stream), layout.n, layout.channels, tiles,
                KIND=kind, LAST=layout.channels > 1, BLOCKS=BLOCKS, enable_fp_fusion=False,
            )  # fmt: skip
    return finish(written, like, out)


def normal(like: Tensor, key: Tensor, draw: int = 0, stream: int = 0, *, out: Tensor | None = None) -> Tensor:
    """As fastdiff::normal."""
    return _launch(NORMAL.value, like, key, draw, stream, out)


def uniform(like: Tensor, key: Tensor, draw: int = 0, stream: int = 0, *, out: Tensor | None = None) -> Tensor:
    """As fastdiff::uniform."""
    return _launch(UNIFORM.value, like, key, draw, stream, out)


def rademacher(like: Tensor, key: Tensor, draw: int = 0, stream: int = 0, *, out: Tensor | None = None) -> Tensor:
    """As fastdiff::rademacher."""
    return _launch(RADEMACHER.value, like, key, draw, stream, out)
