"""Samples as pictures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .files import write_atomically


def to_uint8(images: Tensor) -> np.ndarray:
    """[B, C, H, W] in [-1, 1] to [B, H, W, C] in 0..255, as NVlabs/edm rounds: trunc(127.5*x + 128)."""
    return (images.float() * 127.5 + 128).clip(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def grid(pixels: np.ndarray, columns: int | None = None, gap: int = 1, shade: int = 64) -> np.ndarray:
    """[B, H, W, C] tiled into one picture, rows first, with a gap between tiles."""
    count, height, width, channels = pixels.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    picture = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), shade, np.uint8)
    for i, tile in enumerate(pixels):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        picture[top : top + height, left : left + width] = tile
    return picture


def save_grid(images: Tensor, path: Path | str, columns: int | None = None, min_tile: int = 48) -> None:
    """Write samples as one PNG; small images are enlarged by a whole factor, so that people can see them.

    Args:
        images: [B, C, H, W] in [-1, 1], C = 1 or 3.
        path: of the PNG, written whole or not at all.
        columns: tiles in a row; default: a square.
        min_tile: least side of a tile in pixels.
    """
    from PIL import Image

    pixels = to_uint8(images)
    factor = max(1, math.ceil(min_tile / max(pixels.shape[1:3])))
    pixels = pixels.repeat(factor, axis=1).repeat(factor, axis=2)
    picture = grid(pixels, columns, gap=2)
    image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
    write_atomically(path, lambda file: image.save(file, format="PNG"))


def save_npz(path: Path | str, **arrays: np.ndarray) -> None:
    """Write arrays as a compressed .npz, whole or not at all."""
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]


def save_scatter(points: Tensor, path: Path | str, size: int = 480) -> None:
    """Write points [N, 2] as one PNG: how many lie in each pixel, dark where there are many.

    Args:
        points: data units; path: of the PNG, written whole or not at all; size: of its side in pixels.
    """
    from PIL import Image

    limit = 1.05 * float(points.abs().max()) or 1.0
    x, y = points.double().cpu().numpy().T
    counts, _, _ = np.histogram2d(-y, x, bins=size // 4, range=[[-limit, limit], [-limit, limit]])
    shade = 255 - np.clip(counts / max(np.percentile(counts[counts > 0], 95), 1) * 255, 0, 255)
    image = Image.fromarray(shade.astype(np.uint8)).resize((size, size), Image.Resampling.NEAREST)
    write_atomically(path, lambda file: image.save(file, format="PNG"))
