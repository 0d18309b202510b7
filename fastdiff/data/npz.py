"""Arrays in an .npz: images [N, H, W, C] (what `fastdiff sample --npz` and guided-diffusion write), or points [N, D]."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import wrong
from .image_data import ImageData, unlabelled

IMAGE_KEYS, LABEL_KEYS, LEVELS_KEY = ("images", "arr_0", "samples"), ("labels", "label"), "levels"
_MOST_CHANNELS = 4
_THEN = f"save images as one of {', '.join(IMAGE_KEYS)}: uint8 [N, H, W, C], or floats in [-1, 1]"


def open_npz(path: Path, name: str) -> ImageData:
    """The images or points of an .npz; grey levels from its entry "levels", if there is one.

    Raises:
        ValueError: no images, another dtype or shape, floats outside [-1, 1], labels of another number, or a corrupt file.
    """
    arrays = _load(path)
    key = next((key for key in IMAGE_KEYS if key in arrays), None)
    if key is None:
        raise wrong(path, f"an entry called {', '.join(IMAGE_KEYS)}", ", ".join(arrays) or "none", _THEN)
    pixels, levels = _pixels(arrays[key], f"{path}: {key}")
    if levels == 0 and LEVELS_KEY in arrays and arrays[LEVELS_KEY].ndim == 0 and arrays[LEVELS_KEY].dtype.kind in "iu":
        levels = max(int(arrays[LEVELS_KEY]), 0)
    label_key = next((key for key in LABEL_KEYS if key in arrays), None)
    labels = unlabelled(len(pixels)) if label_key is None else _labels(arrays[label_key], len(pixels), f"{path}: {label_key}")
    about = "points in an .npz" if pixels.dim() == 2 else "images in an .npz"
    return ImageData(name, about, pixels, labels, int(labels.max()) + 1, levels)


def _load(path: Path) -> dict[str, np.ndarray]:
    keys = (*IMAGE_KEYS, *LABEL_KEYS, LEVELS_KEY)
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise wrong(path, "an .npz", "a single array", _THEN)
        with file:
            return {key: file[key] if key in keys else np.empty(0) for key in file.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, MemoryError, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError) or str(error).startswith("data: "):
            raise
        raise wrong(path, "a whole .npz of numbers", f"another file ({error})", "copy or write the file again") from error


def _pixels(array: np.ndarray, where: str) -> tuple[Tensor, int]:
    """([N, C, H, W] or [N, D], grey levels)."""
    if array.ndim not in (2, 4) or not array.size or (array.dtype != np.uint8 and array.dtype.kind != "f"):
        raise wrong(where, "uint8 or floats [N, H, W, C], or points [N, D]", f"{list(array.shape)} {array.dtype}", _THEN)
    if array.ndim == 2 and array.dtype == np.uint8:
        raise wrong(where, "floats for points [N, D]", f"{list(array.shape)} uint8", _THEN)
    if array.dtype != np.uint8 and not np.isfinite(array).all():
        raise wrong(where, "finite numbers", "NaN or infinity", _THEN)
    if array.ndim == 2:
        return torch.from_numpy(array.astype(np.float32)), 0
    if array.shape[3] <= _MOST_CHANNELS:
        array = array.transpose(0, 3, 1, 2)
    elif array.shape[1] > _MOST_CHANNELS:
        raise wrong(where, f"[N, H, W, C] with at most {_MOST_CHANNELS} channels", f"{list(array.shape)}", _THEN)
    if array.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(array)), 256
    low, high = float(array.min()), float(array.max())
    if low < -1 or high > 1 or (low >= 0 and high > low):
        hint = "images in [0, 1] become 2*x - 1" if low >= 0 and high <= 1 else _THEN
        raise wrong(where, "floats from -1 to 1", f"{low:g} .. {high:g}", hint)
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)), 0


def _labels(array: np.ndarray, count: int, where: str) -> Tensor:
    then = "save one integer for each image, or leave the labels out"
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise wrong(where, f"[{count}] integer labels, one for each image", f"{list(array.shape)} {array.dtype}", then)
    labels = array.astype(np.int64)
    if labels.min() < -1:
        raise wrong(where, "labels from 0 (-1 for none)", str(labels.min()), then)
    return torch.from_numpy(labels)
