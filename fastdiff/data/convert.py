"""Writing data sets: EDM's zip with dataset.json, or an .npz; whole or not at all.

Grey levels become 8 bits by rounding, k = floor(127.5*x + 128): images of 256 levels keep their values, others move by at most
1/255. Continuous values are never rounded: they go into the zip as raw .npy files, and into an .npz as floats.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image

from ..files import check_writable, write_atomically
from ..images import to_uint8
from .describe import batches
from .errors import wrong
from .files import LABELS_FILE
from .image_data import ImageData
from .npz import LEVELS_KEY

ENDINGS = (".zip", ".npz")
_DATE = (1980, 1, 1, 0, 0, 0)  # fixed: the same data give the same bytes


def convert(data: ImageData, path: Path | str, progress: bool | None = None) -> None:
    """Write a data set as EDM's .zip (images only) or as an .npz.

    Args:
        data: what `open_data` returned; path: ends with .zip or .npz; progress: show a bar; None: on a terminal.

    Raises:
        ValueError: another ending, points into a .zip, values outside [-1, 1] into an .npz, or a corrupt image (it is named).
        OSError: the file cannot be written.
    """
    path = Path(path)
    check_target(data, path)
    write = _write_zip if path.suffix.lower() == ".zip" else _write_npz
    write_atomically(path, lambda file: write(data, file, progress))


def check_target(data: ImageData, path: Path) -> None:
    """Raise, before anything is read, what `convert` would raise for a file that cannot be written from these data."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(f"data: expected a file to write that ends with {' or '.join(ENDINGS)}, got {path}; name it so")
    if ending == ".zip" and data.is_points:
        raise ValueError(f"data: expected images for a .zip, got points {list(data.shape)} ({data.name}); write an .npz")
    check_writable(path)


def _write_zip(data: ImageData, file: IO[bytes], progress: bool | None) -> None:
    """00000/img00000000.png, ... stored without compression, in the archive and in the PNG: fast to decode while training."""
    as_png = data.levels > 0 and data.shape[0] in (1, 3)
    labels: list[list[Any]] = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for index in batches(data, progress, "writing"):
            raw = data.raw(index)
            for i, pixels in zip(index.tolist(), _eight_bits(raw) if as_png else raw.numpy(), strict=True):
                name = f"{i // 1000:05d}/img{i:08d}.{'png' if as_png else 'npy'}"
                archive.writestr(zipfile.ZipInfo(name, _DATE), _png(pixels) if as_png else _npy(pixels))
                labels.append([name, int(data.labels[i])])
        content = json.dumps({"labels": labels if data.classes and (data.labels >= 0).all() else None})
        archive.writestr(zipfile.ZipInfo(LABELS_FILE, _DATE), content)


def _write_npz(data: ImageData, file: IO[bytes], progress: bool | None) -> None:
    """images [N, H, W, C] uint8, or float32 as they are with their grey levels; labels where there are classes."""
    raw = torch.cat([data.raw(index) for index in batches(data, progress, "reading")])
    if not data.is_points and raw.dtype != torch.uint8 and (raw.min() < -1 or raw.max() > 1):
        raise wrong(data.name, "values in [-1, 1] for an .npz", f"{raw.min():g} .. {raw.max():g}", "write a .zip, which keeps raw values")
    arrays: dict[str, np.ndarray] = {"images": raw.numpy() if data.is_points else raw.permute(0, 2, 3, 1).numpy()}
    if data.classes:
        arrays["labels"] = data.labels.numpy()
    if data.levels and raw.dtype != torch.uint8:
        arrays[LEVELS_KEY] = np.array(data.levels)
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _eight_bits(raw: torch.Tensor) -> np.ndarray:
    return raw.permute(0, 2, 3, 1).numpy() if raw.dtype == torch.uint8 else to_uint8(raw)


def _png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(out, format="PNG", compress_level=0)
    return out.getvalue()


def _npy(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, pixels)
    return out.getvalue()
