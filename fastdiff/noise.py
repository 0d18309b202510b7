"""Where noise comes from: keys from seeds, streams that keep uses apart, and callables for parity with other programs."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import torch
from torch import Tensor

from . import ops
from .ops.noise_format import philox4x32_10

#: What `seeds=` takes everywhere: one int for the batch, one for each sample, or a generator to draw keys from.
Seeds = int | Sequence[int] | Tensor | torch.Generator


class Stream(IntEnum):
    """Third counter word of the noise format: uses of a key that must not share noise."""

    STATE = 0  #: the prior draw (draw 0) and the noise of the sampler's steps
    PROBE = 1  #: Hutchinson probes
    DATA = 2  #: training noise
    PATH = 3  #: the nodes of a Brownian path
    DEQUANTIZE = 4  #: uniform noise within data levels
    LEVEL = 5  #: the noise level of a training sample
    PERTURBATION = 6  #: what input perturbation adds to training data
    AUGMENTATION = 7  #: how a training sample is turned and shifted
    KEYS = 0x6B657973  #: keys derived from a single seed ("keys" in ASCII)


def keys(seeds: Seeds, batch: int, *, first: int = 0, device: torch.device | str = "cpu") -> Tensor:
    """[batch] int64 noise keys.

    Args:
        seeds: an int gives sample i the key Philox(seed; first + i), so that seeds 0 and 1 share no sample; a sequence or an
            int64 tensor of `batch` seeds gives sample i the key seeds[i] itself, wherever it stands in a batch;
            a torch.Generator is drawn from.
        batch: number of samples.
        first: index of the first sample, for a batch that continues another; with an int seed only.
        device: where the keys go.

    Raises:
        ValueError: a wrong number of seeds, or `first` with seeds of each sample.
        TypeError: seeds of another type.
    """
    if isinstance(seeds, bool) or not isinstance(seeds, int | Tensor | torch.Generator | Sequence) or isinstance(seeds, str):
        raise TypeError(f"seeds: expected an int, {batch} ints, an int64 tensor or a torch.Generator, got {type(seeds).__name__}")
    if isinstance(seeds, int):
        return _derived(seeds, batch, first).to(device)
    if isinstance(seeds, torch.Generator):
        return torch.randint(-(2**63), 2**63 - 1, (batch,), generator=seeds, device=seeds.device).to(device)
    if first:
        raise ValueError(f"first: expected 0 with one seed for each sample, got {first}")
    if not isinstance(seeds, Tensor):
        if not all(isinstance(seed, int) and not isinstance(seed, bool) for seed in seeds):
            raise TypeError(f"seeds: expected ints, got {sorted({type(seed).__name__ for seed in seeds})}")
        seeds = torch.tensor([_signed(seed) for seed in seeds], dtype=torch.int64, device="cpu")
    if seeds.shape != (batch,) or seeds.dtype != torch.int64:
        raise ValueError(f"seeds: expected [{batch}] int64, got {list(seeds.shape)} {str(seeds.dtype).removeprefix('torch.')}")
    return seeds.to(device)


def randn(
    shape: Sequence[int], seeds: Seeds, *, draw: int = 0, stream: int = Stream.STATE, dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu", memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:  # fmt: skip
    """[B, ...] standard normals of the noise format: draw 0 is what `sample` starts from.

    Args:
        shape: of the result, batch first; seeds: see `keys`; draw, stream: see `fastdiff.ops.normal`.
    """
    out = torch.empty(*shape, dtype=dtype, device=device, memory_format=memory_format)
    return ops.normal(out, keys(seeds, shape[0], device=device), draw, stream, out=out)


def _derived(seed: int, batch: int, first: int) -> Tensor:
    index = torch.arange(first, first + batch, dtype=torch.int64, device="cpu")
    low, high = index & 0xFFFFFFFF, index >> 32
    zero = torch.zeros_like(index)
    key = [zero + (seed & 0xFFFFFFFF), zero + ((seed >> 32) & 0xFFFFFFFF)]
    w0, w1, _, _ = philox4x32_10([low, high, zero, zero + int(Stream.KEYS)], key)
    return w0 | (w1 << 32)


def _signed(seed: int) -> int:
    """A seed modulo 2^64, as the int64 of the same bits."""
    return (seed + 2**63) % 2**64 - 2**63
