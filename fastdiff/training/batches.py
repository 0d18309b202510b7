"""From a data set to the batches of a process: in the order of the seed, loaded by workers where asked, on the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..data import open_data
from ..distributed import World
from ..noise import keys
from .augment import augment
from .config import TrainConfig
from .order import Order, Positions


class Batch(NamedTuple):
    """One part of a process's share of a step."""

    x0: Tensor  #: [B, ...] float32
    labels: Tensor  #: [B] int64
    key: Tensor  #: [B] int64, of the sample's place in the training
    more: dict[str, Tensor]  #: what else the objective takes


class Source(Protocol):
    """Data that can be trained on."""

    shape: tuple[int, ...]
    classes: int
    labels: Tensor  #: [N] int64, -1 where there is none

    def __len__(self) -> int: ...

    def load(self, indices: list[int]) -> dict[str, Tensor]:
        """x0, labels, and what else the objective takes."""


class Plain:
    """A data set by its name."""

    def __init__(self, name: str) -> None:
        self.data = open_data(name)
        self.shape, self.classes, self.labels = tuple(self.data.shape), self.data.classes, self.data.labels

    def __len__(self) -> int:
        return len(self.data)

    def load(self, indices: list[int]) -> dict[str, Tensor]:
        """x0 and labels."""
        x0, labels = self.data.batch(indices)
        return {"x0": x0, "labels": labels}


class Telling:
    """Data and generated samples in turn; the fewer of both are seen more often.

    Generated samples are rounded to the data's grey levels, or the levels alone would tell them apart.
    """

    def __init__(self, name: str, generated: str) -> None:
        self.real, self.generated = open_data(name), open_data(generated)
        if self.real.shape != self.generated.shape:
            raise ValueError(f"generated: expected images {list(self.real.shape)} as the data's, got {list(self.generated.shape)}")
        self.shape, self.classes = tuple(self.real.shape), self.real.classes
        self.labels = torch.cat([self.real.labels, self.generated.labels])
        if int(self.labels.max()) >= self.classes:
            raise ValueError(f"generated: expected the {self.classes} classes of the data, got one {int(self.labels.max())}")

    def __len__(self) -> int:
        return 2 * max(len(self.real), len(self.generated))

    def load(self, indices: list[int]) -> dict[str, Tensor]:
        """x0, labels and real."""
        where = torch.tensor(indices, dtype=torch.int64)
        real = where % 2 == 0
        x0, labels = torch.empty(len(where), *self.shape), torch.empty(len(where), dtype=torch.int64)
        for data, chosen in ((self.real, real), (self.generated, ~real)):
            x, y = data.batch(where[chosen] // 2 % len(data))
            if data is self.generated and self.real.levels:
                x = ((x + 1) / 2 * (self.real.levels - 1)).round() / (self.real.levels - 1) * 2 - 1
            x0[chosen], labels[chosen] = x, y
        return {"x0": x0, "labels": labels, "real": real.float()}


def source_of(config: TrainConfig) -> Source:
    """The data that a configuration names.

    Raises:
        ValueError, FileNotFoundError: there are none, or they do not fit.
    """
    if config.task == "discriminate":
        if not config.generated:
            raise ValueError("generated: expected the path of generated samples, got none; make them by `fastdiff sample --npz`")
        return Telling(config.data, config.generated)
    return Plain(config.data)


def batches(source: Source, config: TrainConfig, world: World, images: int) -> Iterator[Batch]:
    """The parts of this process, from `images` already seen to the end of the training."""
    share = world.share(config.batch)
    positions = Positions(Order(len(source), config.seed), images, config.images, config.batch, share, config.accumulate)
    loader: DataLoader | None = None
    if config.workers:
        loader = DataLoader(
            _Loading(source), sampler=positions, batch_size=None, num_workers=config.workers, pin_memory=world.device.type == "cuda"
        )  # type: ignore[arg-type]
    loaded = iter(loader) if loader is not None else (source.load(indices) for indices in positions)
    image = len(source.shape) == 3 and config.channels_last
    for where, tensors in zip(positions.ranges(), loaded, strict=True):
        tensors["key"] = keys(config.seed, len(where), first=where.start)
        pinned = {name: t.pin_memory() if world.device.type == "cuda" else t for name, t in tensors.items()}
        moved = {name: t.to(world.device, non_blocking=True) for name, t in pinned.items()}
        x0, labels, key = (moved.pop(name) for name in ("x0", "labels", "key"))
        if config.augment:
            x0, moved["augment_labels"] = augment(x0, key, config.augment)
        if image:
            x0 = x0.contiguous(memory_format=torch.channels_last)
        yield Batch(x0, labels, key, moved)


class _Loading(torch.utils.data.Dataset):
    """A source for the workers of a DataLoader: one item is a whole part."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, indices: list[int]) -> dict[str, Tensor]:  # type: ignore[override]
        return self.source.load(indices)
