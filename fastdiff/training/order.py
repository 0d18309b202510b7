"""Which images a step sees: a pure function of the seed and of how many came before, so that a resumed run goes on where it was."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


def seed_of(*numbers: int) -> int:
    """One seed from several numbers, the same everywhere."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


class Order:
    """The images in a new order in every epoch.

    Args:
        size: of the data; seed: of the orders.
    """

    def __init__(self, size: int, seed: int) -> None:
        if size < 1:
            raise ValueError(f"data: expected at least one image, got {size}")
        self.size, self.seed = size, seed
        self._epoch, self._permutation = -1, torch.empty(0, dtype=torch.int64)

    def indices(self, positions: range) -> Tensor:
        """[n] indices of the images at positions counted from the start of the training."""
        parts, position = [], positions.start
        while position < positions.stop:
            epoch, offset = divmod(position, self.size)
            count = min(positions.stop - position, self.size - offset)
            parts.append(self._order(epoch)[offset : offset + count])
            position += count
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)

    def _order(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(seed_of(self.seed, epoch))
            self._epoch, self._permutation = epoch, torch.randperm(self.size, generator=generator)
        return self._permutation


class Positions:
    """The parts of a process's share of every step from a number of images on, as a batch sampler of a DataLoader."""

    def __init__(self, order: Order, first: int, last: int, batch: int, share: range, parts: int) -> None:
        self.order, self.steps, self.share, self.parts = order, range(first, last, batch), share, parts

    def ranges(self) -> Iterator[range]:
        """Positions of each part."""
        size = len(self.share) // self.parts
        for start in self.steps:
            for part in range(self.parts):
                begin = start + self.share.start + part * size
                yield range(begin, begin + size)

    def __iter__(self) -> Iterator[list[int]]:
        for positions in self.ranges():
            yield self.order.indices(positions).tolist()
