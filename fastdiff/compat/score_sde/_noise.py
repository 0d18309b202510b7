"""Where the draws of this package come from: the caller's `noise=`, or noise keys of torch's global generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ... import ops
from ...noise import Stream, keys

#: Called as noise(like) once for each draw of the original program, in its order; returns standard normals like its argument.
Noise = Callable[[Tensor], Tensor]


def new_keys(batch: int, device: torch.device) -> Tensor:
    """[batch] noise keys that torch.manual_seed makes repeat."""
    return keys(torch.default_generator, batch, device=device)


def first_draw(noise: Noise, shape: Sequence[int], device: torch.device) -> Tensor:
    """The draw of the prior.

    Raises:
        TypeError: not a callable; ValueError: one that returns something else than normals of that shape.
    """
    if not callable(noise):
        raise TypeError(f"noise: expected a callable noise(like), got {type(noise).__name__}")
    z = noise(torch.empty(*shape, device=device))
    if z.shape != tuple(shape):
        raise ValueError(f"noise: expected a tensor {list(shape)} from it, got {list(z.shape)}")
    return z


class Keyed:
    """A `noise=` callable of noise keys, whose draws are numbered as `fastdiff.run` numbers them: the prior first."""

    def __init__(self, key: Tensor) -> None:
        self.key = key
        self.draw = 0

    def __call__(self, like: Tensor) -> Tensor:
        self.draw += 1
        return ops.normal(like, self.key, self.draw - 1, int(Stream.STATE))
