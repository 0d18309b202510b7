"""Noise format 1 in NumPy, written from docs/noise.md alone: an implementation that shares no line with the package's."""

import numpy as np

F32, F64, U32, U64 = np.float32, np.float64, np.uint32, np.uint64


def philox(counter: np.ndarray, key: np.ndarray) -> np.ndarray:
    """[N, 4] counters, [N, 2] keys, uint32, to [N, 4] words."""
    c = [counter[:, i].astype(U32) for i in range(4)]
    k = [key[:, i].astype(U32) for i in range(2)]
    for _ in range(10):
        first, second = c[0].astype(U64) * U64(0xD2511F53), c[2].astype(U64) * U64(0xCD9E8D57)
        high = [(p >> U64(32)).astype(U32) for p in (first, second)]
        low = [p.astype(U32) for p in (first, second)]
        c = [high[1] ^ c[1] ^ k[0], low[1], high[0] ^ c[3] ^ k[1], low[0]]
        k = [k[0] + U32(0x9E3779B9), k[1] + U32(0xBB67AE85)]
    return np.stack(c, axis=1)


def fma(a, b, c) -> np.ndarray:
    """float32 a*b + c rounded once, by rounding the float64 sum to odd."""
    p = F64(1) * a * F64(1) * b
    c = np.broadcast_to(F64(1) * c, p.shape)
    s = p + c
    t = s - p
    e = (p - (s - t)) + (c - t)
    bits = s.view(np.int64).copy()
    nudge = (e != 0) & (bits % 2 == 0)
    bits[nudge] += np.where((e > 0) == (s > 0), 1, -1)[nudge]
    return bits.view(F64).astype(F32)


def polynomial(coefficients: list[str], x: np.ndarray) -> np.ndarray:
    """Horner's rule, highest coefficient first."""
    p = np.full(x.shape, F32(float.fromhex(coefficients[0])))
    for c in coefficients[1:]:
        p = fma(p, x, F32(float.fromhex(c)))
    return p


def log(u: np.ndarray) -> np.ndarray:
    bits = u.view(np.int32)
    e = (bits - np.int32(0x3F3504F3)) >> 23
    f = (bits - (e << 23)).view(F32) - F32(1)
    p = polynomial(
        ["-0x1.383b80p-4", "0x1.085db6p-3", "-0x1.0f4050p-3", "0x1.226e6ep-3", "-0x1.5425c0p-3",
         "0x1.99a416p-3", "-0x1.000432p-2", "0x1.555550p-2", "-0x1.fffff8p-2"], f)  # fmt: skip
    return fma(e.astype(F32), F32(float.fromhex("0x1.62e430p-1")), fma(f * f, p, f))


def pair(w0: np.ndarray, w1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    u = fma((w0 >> U32(1)).astype(np.int32).astype(F32), F32(2.0**-31), F32(2.0**-32))
    radius = np.sqrt(log(u) * F32(-2))
    turned = w1 + U32(1 << 29)
    quadrant = turned >> U32(30)
    rest = (turned & U32((1 << 30) - 1)).astype(np.int32) - np.int32(1 << 29)
    a = rest.astype(F32) * F32(2.0**-31)
    s = polynomial(["-0x1.32f65cp-1", "0x1.467fdcp+1", "-0x1.4abc22p+2", "0x1.921fb6p+1"], a * a) * a
    c = polynomial(["0x1.d4f7eap-3", "-0x1.55b2b6p+0", "0x1.03c1b0p+2", "-0x1.3bd3ccp+2", "0x1p+0"], a * a)
    cosine = np.choose(quadrant, [c, -s, -c, s])
    sine = np.choose(quadrant, [s, c, -s, -c])
    return radius * cosine, radius * sine


def normal(key: int, elements: int, draw: int, stream: int) -> np.ndarray:
    """The first elements of a sample's normals."""
    blocks = -(-elements // 4)
    counter = np.zeros((blocks, 4), U32)
    counter[:, 0] = np.arange(blocks)
    counter[:, 1:] = [draw & 0xFFFFFFFF, draw >> 32, stream]
    keys = np.broadcast_to(np.array([key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF], U32), (blocks, 2))
    w = philox(counter, keys)
    z = [*pair(w[:, 0], w[:, 1]), *pair(w[:, 2], w[:, 3])]
    return np.stack(z, axis=1).reshape(-1)[:elements]
