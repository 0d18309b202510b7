"""What is in a data set: counts, and the moments of its pixels. Every image is read, so every file is checked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..progress import wanted
from .image_data import ImageData

_VALUES_AT_A_TIME = 1 << 22
_CLASSES_SHOWN = 20


@dataclass(frozen=True)
class Summary:
    """The numbers of a data set.

    Attributes:
        name, about, shape, levels, class_names: of the data; count: how many; counts: of each class; without_label: how many have none.
        low, high: least and largest value; mean, std: of all values (std is EDM's sigma_data), all in data units.
        used: distinct 8-bit values that occur; 0 where pixels are not stored as 8 bits.
    """

    name: str
    about: str
    shape: tuple[int, ...]
    levels: int
    class_names: tuple[str, ...]
    count: int
    counts: tuple[int, ...]
    without_label: int
    low: float
    high: float
    mean: float
    std: float
    used: int

    def __str__(self) -> str:
        levels = f"{self.levels} grey levels" if self.levels else "continuous"
        rows = {
            "points" if len(self.shape) == 1 else "images": f"{self.count} of shape {list(self.shape)}",
            "classes": self._classes(),
            "values": f"{self.low:.6g} .. {self.high:.6g}, {levels}" + (f", {self.used} of them used" if self.used else ""),
            "mean": f"{self.mean:.6g}",
            "std": f"{self.std:.6g} (sigma_data)",
        }
        return "\n".join([f"{self.name}: {self.about}", *(f"{key:9}{value}" for key, value in rows.items())])

    def _classes(self) -> str:
        if not self.counts:
            return "none"
        names = self.class_names or tuple(str(i) for i in range(len(self.counts)))
        shown = ", ".join(f"{name} ({count})" for name, count in list(zip(names, self.counts, strict=True))[:_CLASSES_SHOWN])
        more = len(self.counts) - _CLASSES_SHOWN
        shown += f", and {more} more with {sum(self.counts[_CLASSES_SHOWN:])} together" if more > 0 else ""
        return f"{len(self.counts)}: {shown}" + (f"; {self.without_label} without" if self.without_label else "")


def batches(data: ImageData, progress: bool | None, what: str) -> Iterator[Tensor]:
    """Indices of all images in order, a few megabytes of them at a time, under a progress bar."""
    from tqdm import tqdm

    step = max(1, _VALUES_AT_A_TIME // max(math.prod(data.shape), 1))
    with tqdm(total=len(data), desc=what, unit="point" if data.is_points else "image", disable=not wanted(progress)) as bar:
        for first in range(0, len(data), step):
            index = torch.arange(first, min(first + step, len(data)))
            yield index
            bar.update(len(index))


def describe(data: ImageData, progress: bool | None = None) -> Summary:
    """Count the classes and compute the moments of all values, in float64; 8-bit pixels are counted, so theirs are exact.

    Args:
        data: what `open_data` returned; progress: show a bar; None: on a terminal.

    Raises:
        ValueError: a file is corrupt or differs from the others (it is named).
    """
    histogram, low, high = torch.zeros(256, dtype=torch.int64), math.inf, -math.inf
    total, squares, of_values = 0.0, 0.0, len(data) * math.prod(data.shape)
    for index in batches(data, progress, "reading"):
        raw = data.raw(index)
        if raw.dtype == torch.uint8:
            histogram += torch.bincount(raw.flatten(), minlength=256)
            continue
        x = raw.double()
        low, high = min(low, x.min().item()), max(high, x.max().item())
        total, squares = total + x.sum().item(), squares + x.square().sum().item()
    used = histogram.nonzero().flatten()
    if len(used):
        x = torch.arange(256, dtype=torch.float64) / 127.5 - 1
        low, high = x[used[0]].item(), x[used[-1]].item()
        total, squares = (histogram.double() @ x).item(), (histogram.double() @ x.square()).item()
    mean = total / of_values
    counts = torch.bincount(data.labels[data.labels >= 0], minlength=data.classes).tolist()
    return Summary(
        name=data.name, about=data.about, shape=data.shape, levels=data.levels, class_names=data.class_names, count=len(data),
        counts=tuple(counts), without_label=int((data.labels < 0).sum()), low=low, high=high, mean=mean,
        std=math.sqrt(max(squares / of_values - mean**2, 0.0)), used=len(used),
    )  # fmt: skip
