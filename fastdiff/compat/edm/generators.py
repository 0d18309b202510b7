"""Random generators with a seed for each sample of a batch: torch's own streams, as NVlabs/edm has them, and counter-based ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ... import ops
from ...noise import Stream, keys

#: Integers are drawn here, out of the way of the noise of samples.
_INTEGER_DRAWS = 2**33


class StackedRandomGenerator:
    """A torch.Generator for each sample: the same numbers for the same seeds as NVlabs/edm's class, to the bit.

    Args:
        device: of the generators; CPU and CUDA have different streams.
        seeds: one integer for each sample, taken modulo 2^32.
    """

    def __init__(self, device: torch.device | str, seeds: Sequence[int] | Tensor) -> None:
        self.generators = [torch.Generator(device) for _ in seeds]
        for generator, seed in zip(self.generators, seeds, strict=True):
            generator.manual_seed(int(seed) % 2**32)

    def randn(self, size: Sequence[int], **kwargs: Any) -> Tensor:
        """[B, ...] standard normals; kwargs as torch.randn takes them."""
        _expect_batch(size, len(self.generators))
        return torch.stack([torch.randn(tuple(size[1:]), generator=generator, **kwargs) for generator in self.generators])

    def randn_like(self, input: Tensor) -> Tensor:
        """Standard normals with the shape, dtype, layout and device of a tensor."""
        return self.randn(input.shape, dtype=input.dtype, layout=input.layout, device=input.device)

    def randint(self, *args: Any, size: Sequence[int], **kwargs: Any) -> Tensor:
        """[B, ...] integers; args and kwargs as torch.randint takes them."""
        _expect_batch(size, len(self.generators))
        draw: Any = torch.randint
        return torch.stack([draw(*args, size=tuple(size[1:]), generator=generator, **kwargs) for generator in self.generators])


class PhiloxGenerator:
    """Counter-based noise behind the methods of StackedRandomGenerator: one launch for the batch, the same on every device.

    A sample's numbers depend on its own seed and on how many draws came before. The first `randn` is draw 0, the latents; steps have
    draws 1, 2, ...: those of `fastdiff.sample(net, seeds=seeds)`. A sampler of this package that is given `randn_like` of such a
    generator makes the noise within its steps instead of calling it, and gets the same samples.

    Args:
        device: where the numbers are made; seeds: one integer for each sample, taken modulo 2^64.
    """

    def __init__(self, device: torch.device | str, seeds: Sequence[int] | Tensor) -> None:
        self.key = keys([int(seed) for seed in seeds], len(seeds), device=device)
        self.draw = 0
        self._integers = _INTEGER_DRAWS

    def randn(self, size: Sequence[int], **kwargs: Any) -> Tensor:
        """[B, ...] standard normals; kwargs as torch.empty takes them."""
        self.draw += 1
        return self._normal(self._empty(size, **kwargs), self.draw - 1)

    def randn_like(self, input: Tensor) -> Tensor:
        """Standard normals with the shape, dtype, strides and device of a tensor."""
        _expect_batch(input.shape, len(self.key))
        return self._normal(torch.empty_like(input), self.reserve(1))

    def randint(self, *args: int, size: Sequence[int], **kwargs: Any) -> Tensor:
        """[B, ...] int64 integers from 0, or from the first of two numbers, to below the last, at most 2^24 different ones."""
        if not 1 <= len(args) <= 2 or not 1 <= args[-1] - (args[0] if len(args) == 2 else 0) <= 2**24:
            raise ValueError(f"randint: expected (high) or (low, high) with 1 to 2**24 integers between, got {args}")
        low, high = (0, *args) if len(args) == 1 else args
        device, dtype = kwargs.pop("device", None), kwargs.pop("dtype", torch.int64)
        self._integers += 1
        unit = ops.uniform(self._empty(size, device=device, dtype=torch.float64, **kwargs), self.key, self._integers - 1, Stream.STATE)
        return (low + (unit * (high - low)).floor()).to(dtype)

    def reserve(self, count: int) -> int:
        """The first of `count` draws, which are passed over: somebody makes them from `key`."""
        first = max(self.draw, 1)
        self.draw = first + count
        return first

    def _empty(self, size: Sequence[int], device: torch.device | str | None = None, **kwargs: Any) -> Tensor:
        _expect_batch(size, len(self.key))
        return torch.empty(*size, device=self.key.device if device is None else device, **kwargs)

    def _normal(self, out: Tensor, draw: int) -> Tensor:
        return ops.normal(out, self.key.to(out.device), draw, Stream.STATE, out=out)


def _expect_batch(size: Sequence[int], count: int) -> None:
    if not len(size) or size[0] != count:
        raise ValueError(f"size: expected [{count}, ...], a sample for each seed, got {list(size)}")
