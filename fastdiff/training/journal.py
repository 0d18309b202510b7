"""What people see of a training run: a progress bar, lines of JSON, tensorboard scalars and pictures."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from ..files import write_atomically
from ..images import grid, save_grid, save_scatter, to_uint8
from ..progress import wanted


class Journal:
    """The log of a run directory, continued from the number of images that the resumed state has seen.

    Args:
        folder: run directory; images: seen so far, of total; progress: show a bar; default: only on a terminal.
    """

    def __init__(self, folder: Path, images: int, total: int, progress: bool | None) -> None:
        from tqdm import tqdm

        self.folder = folder
        self.lines = folder / "log.jsonl"
        self.bar = tqdm(
            total=total, initial=images, unit="img", unit_scale=True, desc="training", disable=not wanted(progress), smoothing=0.05
        )
        self._forget(images)
        self.writer = self._tensorboard(images)

    def _forget(self, images: int) -> None:
        """Drop the lines that a killed run wrote after its last checkpoint: they will be written again."""
        if self.lines.exists():
            kept = [line for line in self.lines.read_text().splitlines() if _seen(line) <= images]
            text = "".join(f"{line}\n" for line in kept)
            write_atomically(self.lines, lambda file: file.write(text.encode()))

    def _tensorboard(self, images: int) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.bar.write(
                "tensorboard is not installed, so scalars go to log.jsonl alone: pip install 'fastdiff-torch[train]'", sys.stderr
            )
            return None
        return SummaryWriter(str(self.folder), purge_step=images + 1)

    def advance(self, count: int) -> None:
        """So many images more."""
        self.bar.update(count)

    def scalars(self, images: int, **values: float) -> None:
        """A line of the log."""
        with self.lines.open("a") as file:
            file.write(json.dumps({"images": images, **values}) + "\n")
        self.bar.set_postfix({name: f"{value:.4g}" for name, value in values.items() if name in ("loss", "lr")})
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, images)

    def picture(self, images: int, samples: Tensor) -> None:
        """Samples [N, C, H, W] as a grid, or points [N, 2] scattered."""
        path = self.folder / f"samples-{images:09d}.png"
        if samples.dim() == 4:
            save_grid(samples, path)
            if self.writer is not None:
                self.writer.add_image("samples", grid(to_uint8(samples)), images, dataformats="HWC")
        elif samples.shape[1:] == (2,):
            save_scatter(samples, path)

    def close(self) -> None:
        """Write what is left."""
        self.bar.close()
        if self.writer is not None:
            self.writer.close()


def _seen(line: str) -> float:
    """The images that a line of the log was written after; infinite for one that a kill has torn."""
    try:
        return float(json.loads(line)["images"])
    except (ValueError, KeyError, TypeError):
        return math.inf
