"""CIFAR-10 as published: the python and the binary archive, or the folder that either extracts to.

Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images". Each of data_batch_1 .. 5 and test_batch holds
10000 images as rows of 3072 = 3 x 32 x 32 bytes, red first: pickled with their labels, or each after a byte with its label.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import numpy as np
import torch

from .errors import CIFAR10, download_again, listed, missing, wrong
from .image_data import ImageData
from .pickles import load_numeric

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar")
_FOLDERS = ("cifar-10-batches-py", "cifar-10-batches-bin")
#: The published batches have 31 MB, and the archives 8 and 9 files.
_MEMBER_LIMIT, _MEMBERS_LIMIT = 64 << 20, 64


def is_archive(path: Path) -> bool:
    """Whether a file is named like a tar archive."""
    return path.name.lower().endswith(_TAR_SUFFIXES)


def find_folder(path: Path) -> Path | None:
    """The folder with the batches, at or in `path`; None where there is none."""
    if path.name in _FOLDERS:
        return path
    for folder in (path, *(path / name for name in _FOLDERS)):
        batches = any((folder / f"data_batch_1{ending}").is_file() for ending in ("", ".bin"))
        if batches or (folder != path and folder.is_dir()):
            return folder
    return None


def open_cifar10(path: Path, split: str | None, name: str) -> ImageData:
    """The "train" (default) or "test" images of an archive or a folder of batches.

    Raises:
        FileNotFoundError: a batch is missing in the folder; ValueError: the archive or a batch is not as published, or not safe.
    """
    wanted = ["test_batch"] if split == "test" else [f"data_batch_{i}" for i in range(1, 6)]
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for where, stem, binary, data in _in_folder(path, wanted) if path.is_dir() else _in_archive(path, wanted):
        found[stem] = _binary(data, where, path) if binary else _pickled(data, where, path)
    absent = [stem for stem in wanted if stem not in found]
    if absent:
        raise wrong(path, f"the batches {', '.join(wanted)}", f"none called {', '.join(absent)}", download_again(path))
    sizes = {stem: len(found[stem][1]) for stem in wanted}
    if len(set(sizes.values())) != 1:
        raise wrong(path, f"as many images in each batch as in {wanted[0]}, {sizes[wanted[0]]}", str(sizes), download_again(path))
    pixels = np.concatenate([found[stem][0] for stem in wanted])
    labels = np.concatenate([found[stem][1] for stem in wanted])
    about = f"CIFAR-10, {'test' if split == 'test' else 'training'} split"
    return ImageData(name, about, torch.from_numpy(pixels).reshape(-1, *SHAPE), torch.from_numpy(labels), len(CLASSES), 256, CLASSES)


def _in_folder(path: Path, wanted: list[str]) -> Iterator[tuple[str, str, bool, bytes]]:
    """(where, stem, whether binary, contents) of each wanted batch in a folder."""
    for stem in wanted:
        file = next((path / name for name in (stem, f"{stem}.bin") if (path / name).is_file()), None)
        if file is None:
            raise missing(path / stem, f"the batch {stem} (python version) or {stem}.bin", f"extract one of {listed(CIFAR10)} again")
        if file.stat().st_size > _MEMBER_LIMIT:
            raise wrong(file, f"at most {_MEMBER_LIMIT} bytes", str(file.stat().st_size), f"extract one of {listed(CIFAR10)} again")
        yield str(file), stem, file.suffix == ".bin", file.read_bytes()


def _in_archive(path: Path, wanted: list[str]) -> Iterator[tuple[str, str, bool, bytes]]:
    """The same from a tar archive, read in one pass; nothing is written to the disk, and nothing outside its limits is unpacked."""
    try:
        with _decompressed(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for number, member in enumerate(archive):
                inside = PurePosixPath(member.name)
                if inside.is_absolute() or ".." in inside.parts:
                    raise wrong(path, "members inside the archive's own folder", repr(member.name), f"use one of {listed(CIFAR10)}")
                if number >= _MEMBERS_LIMIT or member.size > _MEMBER_LIMIT:
                    got = f"{number + 1} or more" if number >= _MEMBERS_LIMIT else f"{member.size} bytes in {member.name}"
                    limits = f"at most {_MEMBERS_LIMIT} members of {_MEMBER_LIMIT} bytes"
                    raise wrong(path, limits, got, f"use one of {listed(CIFAR10)}")
                stem = inside.name.removesuffix(".bin")
                file = archive.extractfile(member) if member.isreg() and stem in wanted else None
                if file is not None:
                    yield f"{path}: {member.name}", stem, inside.suffix == ".bin", file.read()
            if len(stream.read(_MEMBER_LIMIT)) == _MEMBER_LIMIT:  # reading to the end compares the checksum
                raise wrong(path, "an end of the archive", f"{_MEMBER_LIMIT} bytes or more behind it", f"use one of {listed(CIFAR10)}")
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise wrong(path, "a whole tar archive", f"a corrupt or truncated one ({error})", download_again(path)) from error


def _decompressed(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path)) if zipped else path.open("rb")


def _binary(data: bytes, where: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Records of one byte for the label and 3072 for the pixels."""
    record = 1 + _PIXELS
    if not data or len(data) % record:
        raise wrong(where, f"records of {record} bytes", f"{len(data)} bytes", download_again(path))
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    return records[:, 1:], _labels(records[:, 0], where, path)


def _pickled(data: bytes, where: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A dictionary with data [N, 3072] uint8 and a list of N labels."""
    try:
        batch: Any = load_numeric(data, where)
    except ValueError as error:
        raise ValueError(f"data: {error} ({where}); {download_again(path)}") from error
    if not isinstance(batch, dict):
        raise wrong(where, "a dictionary with data and labels", type(batch).__name__, download_again(path))
    pixels, labels = batch.get("data"), batch.get("labels")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != _PIXELS or not len(pixels):
        got = f"{list(pixels.shape)} {pixels.dtype}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise wrong(where, f"data [N, {_PIXELS}] uint8", got, download_again(path))
    if not isinstance(labels, list) or len(labels) != len(pixels) or not all(type(label) is int for label in labels):
        got = f"{len(labels)}" if isinstance(labels, list) else type(labels).__name__
        raise wrong(where, f"{len(pixels)} integer labels, one for each image", got, download_again(path))
    return pixels, _labels(labels, where, path)


def _labels(labels: Any, where: str, path: Path) -> np.ndarray:
    array = np.asarray(labels, dtype=np.int64)
    if len(array) and not 0 <= array.min() <= array.max() < len(CLASSES):
        raise wrong(where, f"labels 0 .. {len(CLASSES) - 1}", f"{array.min()} .. {array.max()}", download_again(path))
    return array
