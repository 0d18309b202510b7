"""Squares of another size: cut from the middle, then resampled.

The square of side min(W, H) in the middle, then Pillow's box filter (means of whole pixels where the factor is whole) or Lanczos',
which is EDM's. Both blur before they reduce, so that nothing aliases.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..images import to_uint8
from .image_data import ImageData

FILTERS = {"lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX}
_SIDES = (1, 8192)


def check_resize(resolution: int | None, resize: str) -> None:
    """Raise ValueError for a side or a filter that does not exist."""
    if resize not in FILTERS:
        raise ValueError(f"resize: expected one of {', '.join(FILTERS)}, got {resize!r}")
    if resolution is not None and not _SIDES[0] <= resolution <= _SIDES[1]:
        raise ValueError(f"resolution: expected {_SIDES[0]} .. {_SIDES[1]} pixels, got {resolution}")


def square(image: Image.Image, side: int, resize: str) -> Image.Image:
    """The middle of an image as side x side pixels."""
    crop = min(image.size)
    left, top = ((length - crop) // 2 for length in image.size)
    return image.crop((left, top, left + crop, top + crop)).resize((side, side), FILTERS[resize])


def resized(data: ImageData, side: int, resize: str) -> ImageData:
    """Images in memory at another size: grey levels become 8 bits, continuous values are kept within [-1, 1].

    Raises:
        ValueError: the data are points.
    """
    if data.is_points or not isinstance(data.pixels, Tensor):
        raise ValueError(f"resolution: expected images, got points {list(data.shape)} of {data.name}; leave it out")
    if data.shape[1:] == (side, side):
        return data
    channels = [np.asarray(square(Image.fromarray(channel), side, resize)) for channel in data.pixels.flatten(0, 1).numpy()]
    pixels = torch.from_numpy(np.stack(channels)).reshape(len(data), -1, side, side)
    if pixels.dtype != torch.uint8:
        pixels = pixels.clamp_(-1, 1)
        if data.levels:
            pixels = torch.from_numpy(to_uint8(pixels)).permute(0, 3, 1, 2).contiguous()
    return replace(data, pixels=pixels, levels=256 if pixels.dtype == torch.uint8 else 0)
