"""ImageData: images or points with labels, held in memory or read file by file.

x = pixels/127.5 - 1   for 8-bit pixels (Karras et al. 2022), which stay 8-bit until a batch is asked for.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, SupportsIndex

import torch
from torch import Tensor
from torch.utils.data import Dataset


class Store(Protocol):
    """Where images are read from when they are asked for: picklable, and safe in forked and spawned workers."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> Tensor:
        """[B, *shape] uint8 grey levels, or float32 in data units."""


@dataclass(frozen=True, eq=False)
class ImageData(Dataset[tuple[Tensor, int]]):
    """A data set: x float32 [C, H, W] in [-1, 1], or points [D] in data units, and a class for each.

    Args:
        name: what it was opened as; about: one line for people.
        pixels: [N, *shape] uint8 or float32, or a `Store` that reads them.
        labels: [N] int64, -1 where there is none.
        classes: how many, 0 for none.
        levels: grey levels that a pixel can take: 256 for 8 bits, 17 for the digits, 0 for continuous values.
        class_names: one for each class, where the source has them.

    Raises:
        ValueError: no images, pixels and labels that differ in number, or a label out of range.
    """

    name: str
    about: str
    pixels: Tensor | Store
    labels: Tensor
    classes: int
    levels: int
    class_names: tuple[str, ...] = ()

    #: What is stored was never brought to mean 0 and standard deviation 1; `batch` maps grey levels to [-1, 1] and nothing else.
    normalized = False

    def __post_init__(self) -> None:
        if isinstance(self.pixels, Tensor) and self.pixels.dtype not in (torch.uint8, torch.float32):
            raise ValueError(f"pixels: expected uint8 or float32, got {str(self.pixels.dtype).removeprefix('torch.')}")
        if self.labels.dtype != torch.int64 or self.labels.shape != (len(self.pixels),):
            raise ValueError(f"labels: expected [{len(self.pixels)}] int64, got {list(self.labels.shape)} {self.labels.dtype}")
        if not len(self.labels):
            raise ValueError("pixels: expected at least one image, got none")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < -1 or high >= max(self.classes, 0):
            raise ValueError(f"labels: expected -1 .. {self.classes - 1}, got {low} .. {high}")

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W), or (D,) for points."""
        return tuple(self.pixels.shape[1:]) if isinstance(self.pixels, Tensor) else self.pixels.shape

    @property
    def is_points(self) -> bool:
        """Whether these are points instead of images."""
        return len(self.shape) == 1

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: SupportsIndex) -> tuple[Tensor, int]:
        """(x, label) of one image; label -1 where there is none."""
        i = operator.index(index)
        if not -len(self) <= i < len(self):
            raise IndexError(f"index: expected {-len(self)} .. {len(self) - 1}, got {i}")
        x, labels = self.batch([i % len(self)])
        return x[0], int(labels[0])

    def raw(self, indices: Tensor | Sequence[int]) -> Tensor:
        """[B, *shape] as stored: uint8 grey levels, or float32."""
        index = self._index(indices)
        return self.pixels[index] if isinstance(self.pixels, Tensor) else self.pixels.read(index.tolist())

    def batch(self, indices: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
        """The images and labels of a batch, on the CPU.

        Args:
            indices: [B] integers from 0 to len(self) - 1, in any order.

        Returns:
            float32 [B, *shape] in [-1, 1] (points and raw .npy files: data units), int64 [B].

        Raises:
            TypeError: the indices are no integers; IndexError: one is out of range; ValueError: a file is corrupt (it is named).
        """
        index = self._index(indices)
        raw = self.raw(index)
        x = raw.to(torch.float32).div_(127.5).sub_(1) if raw.dtype == torch.uint8 else raw
        return x, self.labels[index]

    def _index(self, indices: Tensor | Sequence[int]) -> Tensor:
        index = torch.as_tensor(indices, device="cpu")
        if not index.numel():
            return index.reshape(0).long()
        if index.dim() != 1 or index.dtype == torch.bool or index.is_floating_point() or index.is_complex():
            raise TypeError(f"indices: expected [B] integers, got {list(index.shape)} {str(index.dtype).removeprefix('torch.')}")
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= len(self):
            raise IndexError(f"indices: expected 0 .. {len(self) - 1}, got {low} .. {high}")
        return index.long()

    def __repr__(self) -> str:
        return f"ImageData({self.name!r}: {len(self)} of {list(self.shape)}, {self.classes} classes)"


def unlabelled(count: int) -> Tensor:
    """[count] labels of images without any."""
    return torch.full((count,), -1, dtype=torch.int64)
