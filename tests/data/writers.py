"""Small files in the published formats, written byte by byte."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

CIFAR_TRAIN = [f"data_batch_{i}" for i in range(1, 6)]


def random_images(count: int, channels: int = 3, side: int = 32, seed: int = 0) -> np.ndarray:
    """[count, channels, side, side] uint8."""
    return np.random.RandomState(seed).randint(0, 256, (count, channels, side, side), dtype=np.uint8)


def python2_pickle(pixels: np.ndarray, labels: list[int], code: bytes = b"u1") -> bytes:
    """The pickle that Python 2 and the NumPy of 2009 write, protocol 2: strings are bytes, the array is rebuilt from two globals."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    contents = np.ascontiguousarray(pixels).tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"\x87R"
        + b"(" + number(1) + b"".join(number(n) for n in pixels.shape) + (b"\x86" if pixels.ndim == 2 else b"\x85")
        + b"cnumpy\ndtype\n" + text(code) + number(0) + number(1) + b"\x87R"
        + b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
        + b"\x89" + b"T" + struct.pack("<i", len(contents)) + contents + b"tb"
    )  # fmt: skip
    listed = b"](" + b"".join(number(label) for label in labels) + b"e"
    names = b"](" + b"".join(text(b"image_%05d.png" % i) for i in range(len(labels))) + b"e"
    batch = text(b"batch_label") + text(b"a batch") + text(b"labels") + listed + text(b"data") + array + text(b"filenames") + names
    return b"\x80\x02}(" + batch + b"u."


def cifar_members(images: dict[str, tuple[np.ndarray, list[int]]], binary: bool = False) -> dict[str, bytes]:
    """Contents of the batches by their name in the archive."""
    folder = "cifar-10-batches-bin" if binary else "cifar-10-batches-py"
    if binary:
        return {
            f"{folder}/{name}.bin": b"".join(bytes([label]) + image.tobytes() for image, label in zip(pixels, labels, strict=True))
            for name, (pixels, labels) in images.items()
        }
    return {f"{folder}/{name}": python2_pickle(pixels.reshape(len(pixels), -1), labels) for name, (pixels, labels) in images.items()}


def cifar_batches(per_batch: int = 2) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Five training batches and the test batch."""
    return {
        name: (random_images(per_batch, seed=i), [(3 * i + k) % 10 for k in range(per_batch)])
        for i, name in enumerate([*CIFAR_TRAIN, "test_batch"])
    }


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """A .tar.gz with a README beside the members, as the published ones have."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in {"cifar-10-batches-py/readme.html": b"<html>", **members}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_files(folder: Path, members: dict[str, bytes]) -> Path:
    """The members as files."""
    for name, data in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def idx(array: np.ndarray, magic: int | None = None) -> bytes:
    """An idx file of unsigned bytes."""
    header = struct.pack(">I", 0x800 + array.ndim if magic is None else magic) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, counts: dict[str, int], zipped: bool = True) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Idx files of random images; returns images and labels of each prefix."""
    written = {}
    for prefix, count in counts.items():
        images, labels = random_images(count, 1, 28, seed=count)[:, 0], np.arange(count) % 10
        for name, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            data = idx(array)
            (folder / f"{name}{'.gz' if zipped else ''}").write_bytes(gzip.compress(data) if zipped else data)
        written[prefix] = images, labels
    return written


def png(pixels: np.ndarray, mode: str | None = None, format: str = "PNG") -> bytes:
    """A picture of [C, H, W] uint8."""
    out = io.BytesIO()
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    (image.convert(mode) if mode else image).save(out, format=format)
    return out.getvalue()


def npy(array: np.ndarray) -> bytes:
    """A .npy file."""
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def write_zip(path: Path, members: dict[str, bytes], labels: object = ...) -> Path:
    """A stored zip, with dataset.json where there are labels (or null)."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        if labels is not ...:
            archive.writestr("dataset.json", json.dumps({"labels": labels}))
    return path
