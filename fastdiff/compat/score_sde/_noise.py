"""Where the draws of this package come from: the caller's `noise=`, or noise keys of torch's global generator."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ... import ops
from ...noise import Stream, keys

#: Called as noise(like) once for each draw of the original program, in its order; returns standard normals like its argument.
Noise = Callable[[Tensor], Tensor]


def new_keys(batch: int, device: torch.device) -> Tensor:
    """[batch] noise keys that torch.manual_seed makes repeat."""
    return keys(torch.default_generator, batch, device=device)


class Keyed:
    """A `noise=` callable of noise keys, whose draws are numbered as `fastdiff.run` numbers them: the prior first."""

    def __init__(self, key: Tensor) -> None:
        self.key = key
        self.draw = 0

    def __call__(self, like: Tensor) -> Tensor:
        self.draw += 1
        return ops.normal(like, self.key, self.draw - 1, int(Stream.STATE))
