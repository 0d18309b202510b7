"""MNIST as published: idx files, gzipped or not, of images and labels.

An idx file is big-endian: two zero bytes, the type (8: unsigned byte), the number of dimensions, their sizes as uint32, the values.
Source: LeCun, Cortes and Burges 1998, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import torch

from .errors import MNIST, download_again, listed, missing, wrong
from .image_data import ImageData

CLASSES = 10
_NAME = re.compile(r"(t10k|train)-(images|labels)[-.]idx\d-ubyte(\.gz)?")
_PREFIX = {"train": "train", "test": "t10k"}
#: The published images have 47 MB.
_BYTES_LIMIT = 1 << 30


def is_idx(path: Path) -> bool:
    """Whether a file is named like one of MNIST's."""
    return _NAME.fullmatch(path.name) is not None


def is_folder(path: Path) -> bool:
    """Whether a folder holds files of MNIST's names."""
    return any(is_idx(file) for file in path.iterdir())


def split_of(path: Path) -> str:
    """The split that an idx file belongs to."""
    return "train" if path.name.startswith("train") else "test"


def open_mnist(folder: Path, split: str | None, name: str) -> ImageData:
    """The "train" (default) or "test" images of a folder of idx files.

    Raises:
        FileNotFoundError: images or labels are missing; ValueError: wrong magic, sizes or counts, truncated, or too large.
    """
    prefix = _PREFIX[split or "train"]
    images_path, labels_path = (_find(folder, f"{prefix}-{part}") for part in ("images", "labels"))
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        expected = f"{len(images)} labels, one for each image of {images_path.name}"
        raise wrong(labels_path, expected, str(len(labels)), download_again(labels_path))
    if not images.size:
        raise wrong(images_path, "images", f"{list(images.shape)}", download_again(images_path))
    if labels.max() >= CLASSES:
        raise wrong(labels_path, f"labels 0 .. {CLASSES - 1}", f"{labels.min()} .. {labels.max()}", download_again(labels_path))
    about = f"MNIST's format, {'test' if split == 'test' else 'training'} split"
    return ImageData(name, about, torch.from_numpy(images)[:, None], torch.from_numpy(labels.astype(np.int64)), CLASSES, 256)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The uint8 array of an idx file with so many dimensions.

    Raises:
        ValueError: wrong magic, or another size than the header says.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 + 4 * dimensions)
            magic = bytes([0, 0, 8, dimensions])
            if len(header) < 4 + 4 * dimensions or header[:4] != magic:
                raise wrong(path, f"an idx file that starts with {magic.hex()}", header[:4].hex() or "nothing", download_again(path))
            shape = struct.unpack(f">{dimensions}I", header[4:])
            size = math.prod(shape)
            if size > _BYTES_LIMIT:
                raise wrong(path, f"at most {_BYTES_LIMIT} values", f"{list(shape)}", download_again(path))
            data = file.read(size + 1)  # one more, to see that the file ends there
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise wrong(path, "a whole gzip file", f"a corrupt or truncated one ({error})", download_again(path)) from error
    if len(data) != size:
        got = f"{len(data)}" if len(data) < size else "more"
        raise wrong(path, f"{size} values for {list(shape)}", got, download_again(path))
    return np.frombuffer(bytearray(data), np.uint8).reshape(shape)


def _find(folder: Path, start: str) -> Path:
    files = sorted(file for file in folder.iterdir() if is_idx(file) and file.name.startswith(start))
    if not files:
        number = 3 if start.endswith("images") else 1
        file = f"{start}-idx{number}-ubyte"
        raise missing(folder / f"{file}.gz", f"{file} or {file}.gz", f"MNIST's published files are {listed(MNIST)}")
    return files[0]
