"""normal, uniform, rademacher: noise that is a pure function of (key, draw, stream, element).

    z[b, e] = value(word[e % 4] of Philox4x32-10(key[b]; e // 4, draw, stream)),   e = element of the sample in NCHW order

The same bits for any batch split, memory format, thread count and instruction set: "noise format 1", docs/noise.md.
Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; Box and Muller 1958.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from . import noise_format
from ._checks import check_counter, check_key, check_state
from ._samples import keys, laid_out, randn, states
from ._table import Op, Sample, Tolerance, register

_TO_VALUES = {
    "normal": noise_format.to_normal,
    "uniform": noise_format.to_uniform,
    "rademacher": noise_format.to_rademacher,
}


def check_noise(like: Tensor, key: Tensor, draw: int, stream: int, name: str = "like") -> None:
    """Validate the arguments of a noise op."""
    check_state(name, like)
    check_key(key, like)
    check_counter(draw, stream)


def known_stream(stream: int) -> int:
    """The half of a stream in which the noise of known data lies: its top bit flipped."""
    return stream ^ 0x80000000


def noise_reference(kind: str, like: Tensor, key: Tensor, draw: int, stream: int, name: str = "like") -> Tensor:
    """Noise of one kind with the shape, dtype and device of `like`, in plain PyTorch."""
    check_noise(like, key, draw, stream, name)
    if like.device.type == "meta":
        return torch.empty_like(like)
    if like.device.type == "mps":  # no float64 there, and the format needs it
        return noise_reference(kind, like.cpu(), key.cpu(), draw, stream).to(like.device)
    batch = like.shape[0]
    n = like.numel() // batch if batch else 0
    values = _TO_VALUES[kind](noise_format.words(key, (n + 3) // 4, draw, stream))
    return torch.stack(values, dim=-1).flatten(1)[:, :n].reshape(like.shape).to(like.dtype)


def _reference(kind: str) -> Callable[..., Tensor]:
    def reference(like: Tensor, key: Tensor, draw: int = 0, stream: int = 0) -> Tensor:
        return noise_reference(kind, like, key, draw, stream)

    return reference


def _out_reference(kind: str) -> Callable[..., tuple[Tensor]]:
    def out_reference(key: Tensor, draw: int = 0, stream: int = 0, *, out: Tensor) -> tuple[Tensor]:
        return (noise_reference(kind, out, key, draw, stream, name="out"),)

    return out_reference


def _samples(device, dtype) -> Iterator[Sample]:
    for label, like in states(device, dtype):
        yield Sample(label, (like, keys(like.shape[0], device)), {"draw": 3})
    like = randn((3, 10), device, dtype, 1)
    yield Sample("largest counters", (like, keys(3, device)), {"draw": 2**63 - 1, "stream": 2**32 - 1})
    yield Sample("draw 1", (laid_out(randn((2, 3, 4, 4), device, dtype, 1), "channels_last"), keys(2, device)), {"draw": 1})


def _errors(device) -> Iterator[Sample]:
    like, key = torch.zeros(2, 3, device=device), keys(2, device)
    yield Sample("integer like", (like.long(), key))
    yield Sample("no batch dimension", (like[0, 0], key))
    yield Sample("short key", (like, key[:1]))
    yield Sample("float key", (like, key.double()))
    yield Sample("negative draw", (like, key), {"draw": -1})
    yield Sample("large stream", (like, key), {"stream": 2**32})


_EXACT = "noise format 1 is exact to the bit in float32"
_ROUNDED = "the float32 value, rounded once"

NOISE_OPS = {
    kind: register(
        Op(
            name=kind,
            args="Tensor like, Tensor key, SymInt draw=0, SymInt stream=0",
            returns="Tensor",
            out_args="Tensor key, SymInt draw=0, SymInt stream=0, *, Tensor(a!) out",
            equation=equation,
            source="Salmon et al. 2011; noise format 1, docs/noise.md",
            reference=_reference(kind),
            out_names=("out",),
            out_reference=_out_reference(kind),
            samples=_samples,
            errors=_errors,
            tolerance={
                torch.float64: Tolerance(0, 0, _EXACT),
                torch.float32: Tolerance(0, 0, _EXACT),
                torch.bfloat16: Tolerance(2**-8, 0, _ROUNDED),
                torch.float16: Tolerance(2**-10, 2**-24, _ROUNDED),
            },
            bytes_moved=lambda sample: sample.args[0].numel() * sample.args[0].element_size(),
        )
    )
    for kind, equation in (
        ("normal", "z ~ N(0, 1)"),
        ("uniform", "u ~ U[0, 1), multiples of 2^-24"),
        ("rademacher", "r = -1 or +1 with probability 1/2 each"),
    )
}


def noise_of_op(kind: str, like: Tensor, key: Tensor, draw: int, stream: int) -> Tensor:
    """As noise_reference, from whatever serves the op: what a backward uses, where the compiler must not look inside."""
    return NOISE_OPS[kind].overload(like, key, draw, stream)


def _public(kind: str, doc: str) -> Callable[..., Tensor]:
    op = NOISE_OPS[kind]

    def draw_noise(like: Tensor, key: Tensor, draw: int = 0, stream: int = 0, *, out: Tensor | None = None) -> Tensor:
        if out is None:
            return op.overload(like, key, draw, stream)
        op.out_overload(key, draw, stream, out=out)
        return out

    draw_noise.__name__ = draw_noise.__qualname__ = kind
    draw_noise.__doc__ = f"""{doc}

    Args:
        like: [B, ...], gives shape, dtype, device and strides; its values are not read.
        key: [B] int64, one key for each sample (`fastdiff.keys`).
        draw: which draw of that key, an integer >= 0.
        stream: 32-bit number that separates uses of a key (`fastdiff.Stream`).
        out: written instead of a new tensor, and returned.

    Returns:
        [B, ...] noise; element e of sample b depends on (key[b], draw, stream, e) alone.

    Raises:
        ValueError: names the argument, what was expected and what came.

    Source: noise format 1, docs/noise.md.
    """
    return draw_noise


normal = _public("normal", "Counter-based standard normals.")
uniform = _public("uniform", "Counter-based uniforms in [0, 1), multiples of 2^-24.")
rademacher = _public("rademacher", "Counter-based signs, -1 or +1 with equal probability.")
