"""Noise format 1 in PyTorch: the reference of every backend (docs/noise.md says the same in words).

A value is a pure function of (key, draw, stream, element): Philox4x32-10 of counter (element // 4, draw, stream) gives four
words, and four words give four values. float32 arithmetic is exact to the bit: an fma is one rounding, a sqrt is correctly
rounded.
"""

from __future__ import annotations

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
TOP = 0x80000000
LN2 = float.fromhex("0x1.62e430p-1")
LOG = [float.fromhex(c) for c in (
    "-0x1.383b80p-4", "0x1.085db6p-3", "-0x1.0f4050p-3", "0x1.226e6ep-3", "-0x1.5425c0p-3",
    "0x1.99a416p-3", "-0x1.000432p-2", "0x1.555550p-2", "-0x1.fffff8p-2",
)]  # fmt: skip
SIN = [float.fromhex(c) for c in ("-0x1.32f65cp-1", "0x1.467fdcp+1", "-0x1.4abc22p+2", "0x1.921fb6p+1")]
COS = [float.fromhex(c) for c in ("0x1.d4f7eap-3", "-0x1.55b2b6p+0", "0x1.03c1b0p+2", "-0x1.3bd3ccp+2", "0x1p+0")]


def philox4x32_10(counter: list[Tensor], key: list[Tensor]) -> list[Tensor]:
    """Ten rounds of Philox (Salmon et al. 2011) on four counter and two key words, each an int64 tensor of 32-bit values."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = _high(p1) ^ c1 ^ k0, p1 & MASK, _high(p0) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return [c0, c1, c2, c3]


def words(key: Tensor, blocks: int, draw: int, stream: int) -> list[Tensor]:
    """The four words of blocks 0..blocks of every sample: key [B] int64 to four [B, blocks]."""
    block = torch.arange(blocks, device=key.device)[None, :] & MASK
    shape = torch.zeros_like(key)[:, None] + block
    counter = [shape, shape * 0 + (draw & MASK), shape * 0 + (draw >> 32), shape * 0 + stream]
    return philox4x32_10(counter, [(key & MASK)[:, None], ((key >> 32) & MASK)[:, None]])


def to_uniform(w: list[Tensor]) -> list[Tensor]:
    """Words to [0, 1): the upper 24 bits, exactly."""
    return [(word >> 8).to(torch.float32) * 2.0**-24 for word in w]


def to_rademacher(w: list[Tensor]) -> list[Tensor]:
    """Words to -1 (top bit set) or +1."""
    return [1.0 - 2.0 * (word >> 31).to(torch.float32) for word in w]


def to_normal(w: list[Tensor]) -> list[Tensor]:
    """Four words to four normals."""
    return [*box_muller(w[0], w[1]), *box_muller(w[2], w[3])]


def box_muller(w0: Tensor, w1: Tensor) -> tuple[Tensor, Tensor]:
    """Radius sqrt(-2 ln u) from w0, angle 2 pi w1 / 2^32 from w1."""
    u = fma((w0 >> 1).to(torch.float32), 2.0**-31, 2.0**-32)
    radius = (log_unit(u) * -2.0).double().sqrt().float()  # torch.sqrt in float32 is not correctly rounded on the CPU

    shifted = (w1 + 0x20000000) & MASK  # quadrant in the two top bits
    rest = (shifted & 0x3FFFFFFF) - 0x20000000
    a = rest.to(torch.float32) * 2.0**-31
    t = a * a
    sine, cosine = horner(SIN, t) * a, horner(COS, t)
    odd = (shifted & 0x40000000) != 0
    cosine, sine = torch.where(odd, sine, cosine), torch.where(odd, cosine, sine)
    cosine = torch.where(((shifted + 0x40000000) & TOP) != 0, -cosine, cosine)
    sine = torch.where((shifted & TOP) != 0, -sine, sine)
    return radius * cosine, radius * sine


def log_unit(u: Tensor) -> Tensor:
    """ln u for float32 u in (0, 1]: u = 2^e (1 + f), 1 + f in [sqrt(1/2), sqrt(2)), ln(1 + f) = f + f^2 P(f)."""
    bits = u.view(torch.int32).to(torch.int64)
    exponent = (bits - 0x3F3504F3) >> 23
    f = (bits - (exponent << 23)).to(torch.int32).view(torch.float32) - 1.0
    return fma(exponent.to(torch.float32), LN2, fma(f * f, horner(LOG, f), f))


def horner(coefficients: list[float], t: Tensor) -> Tensor:
    """The polynomial with the highest coefficient first, an fma a term."""
    p = torch.full_like(t, coefficients[0])
    for c in coefficients[1:]:
        p = fma(p, t, c)
    return p


def fma(a: Tensor, b: Tensor | float, c: Tensor | float) -> Tensor:
    """float32 a*b + c, rounded once: the float64 sum is rounded to odd, so that rounding it to float32 is the only rounding."""
    product = a.double() * b  # exact: 24 + 24 bits
    addend = c.double() if isinstance(c, Tensor) else torch.full_like(product, c)
    total = product + addend
    back = total - product
    error = (product - (total - back)) + (addend - back)
    bits = total.view(torch.int64)
    inexact_even = (error != 0) & ((bits & 1) == 0)
    away = (error > 0) == (total > 0)
    bits = bits + torch.where(inexact_even, torch.where(away, 1, -1), 0)
    return bits.view(torch.float64).to(torch.float32)


def _high(product: Tensor) -> Tensor:
    return (product >> 32) & MASK
