"""Images that stay in a folder or a zip until they are asked for: classes from dataset.json (EDM's) or from subfolders.

dataset.json is {"labels": [[name, class], ...]} or {"labels": null}, as NVlabs/edm and StyleGAN2 write it.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .errors import wrong
from .image_data import ImageData, unlabelled
from .resize import square

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
RAW_SUFFIX = ".npy"
LABELS_FILE = "dataset.json"
_BYTES_LIMIT = 512 << 20
#: How many files are looked at when a folder or a zip is opened; all of them are when they are read.
_LOOKED_AT = 1000
_GREY, _COLOR = ("L", "1"), ("RGB", "P")


class Source(Protocol):
    """Files by name."""

    path: Path

    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...


class Folder:
    """The files below a folder, hidden ones left out."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        """Relative names with slashes."""
        found = []
        for root, folders, files in os.walk(self.path):
            folders[:] = [folder for folder in folders if not folder.startswith(".")]
            found += [(Path(root) / file).relative_to(self.path).as_posix() for file in files if not file.startswith(".")]
        return found

    def read(self, name: str) -> bytes:
        """The contents of one file."""
        file = self.path / name
        if file.stat().st_size > _BYTES_LIMIT:
            raise wrong(file, f"at most {_BYTES_LIMIT} bytes", str(file.stat().st_size), "leave it out")
        return file.read_bytes()


class Zip:
    """The members of a zip. Each process opens it for itself: a handle that a fork shares has one position for both."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, zipfile.ZipFile] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_opened": None}

    def _zip(self) -> zipfile.ZipFile:
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                self._opened = os.getpid(), zipfile.ZipFile(self.path)
            except zipfile.BadZipFile as error:
                raise wrong(self.path, "a whole zip archive", f"a corrupt or truncated one ({error})", "copy it again") from error
        return self._opened[1]

    def names(self) -> list[str]:
        """Names of members that are files and not hidden; all members are safe and within limits."""
        names = []
        for member in self._zip().infolist():
            inside = PurePosixPath(member.filename.replace("\\", "/"))
            if inside.is_absolute() or ".." in inside.parts:
                raise wrong(self.path, "members inside the archive's own folder", repr(member.filename), "make the zip again")
            if member.flag_bits & 1:
                raise wrong(self.path, "members without a password", repr(member.filename), "make the zip again without one")
            if member.file_size > _BYTES_LIMIT:
                got = f"{member.file_size} in {member.filename}"
                raise wrong(self.path, f"members of at most {_BYTES_LIMIT} bytes", got, "leave it out")
            if not member.is_dir() and not any(part.startswith((".", "__MACOSX")) for part in inside.parts):
                names.append(member.filename)
        if len(set(names)) != len(names):
            twice = next(name for name, following in pairwise(sorted(names)) if name == following)
            raise wrong(self.path, "each name once", f"{twice} twice", "make the zip again")
        return names

    def read(self, name: str) -> bytes:
        """The contents of one member, its checksum compared."""
        try:
            return self._zip().read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise wrong(f"{self.path}: {name}", "a whole member", f"a corrupt one ({error})", "make or copy the zip again") from error


@dataclass(frozen=True)
class ImageFiles:
    """A `Store` of image files of one size, decoded when they are read; greys among colors become colors.

    Args:
        source: where they are; names: which, in order; shape: (C, H, W); dtype: uint8, or float32 for raw .npy files.
        resolution: side of the square that each is brought to (`resize`); None for files of equal sizes.
    """

    source: Source
    names: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.uint8
    resolution: int | None = None
    resize: str = "lanczos"

    def __len__(self) -> int:
        return len(self.names)

    def read(self, indices: Sequence[int]) -> Tensor:
        """[B, C, H, W] of these files."""
        if not indices:
            return torch.empty(0, *self.shape, dtype=self.dtype)
        return torch.from_numpy(np.stack([self._decoded(self.names[i]) for i in indices]))

    def _decoded(self, name: str) -> np.ndarray:
        where = f"{self.source.path}: {name}"
        if name.endswith(RAW_SUFFIX):
            pixels = _raw(self.source, name)
        else:
            image = _image(self.source, name)
            if image.mode not in _GREY and self.shape[0] == 1:
                raise wrong(where, "a grey image like the others", f"mode {image.mode}", "convert all to RGB, or all to grey")
            image = image.convert("L" if self.shape[0] == 1 else "RGB")
            if self.resolution is not None:
                image = square(image, self.resolution, self.resize)
            array = np.asarray(image)
            pixels = np.array(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))
        found = torch.uint8 if pixels.dtype == np.uint8 else torch.float32
        if pixels.shape != self.shape or found != self.dtype:
            raise _mismatch(where, self.shape, pixels.shape, f"of {self.dtype}".replace("torch.", ""), str(pixels.dtype))
        return pixels


def open_image_folder(path: Path, name: str, resolution: int | None, resize: str) -> ImageData:
    """A folder of images: classes from dataset.json, else one for each of two or more subfolders, else none.

    Raises:
        ValueError: no images, images beside subfolders, several sizes, a mode that is not grey or RGB, or a corrupt file (named).
    """
    source = Folder(path)
    names, files = _image_names(source)
    if LABELS_FILE in files:
        return _open(source, names, _json_labels(source, names), (), name, "image folder with dataset.json", resolution, resize)
    tops = sorted({top for top, inside, _ in (image.partition("/") for image in names) if inside})
    if len(tops) < 2:
        return _open(source, names, None, (), name, "image folder", resolution, resize)
    loose = [image for image in names if "/" not in image]
    if loose:
        got = f"{len(tops)} subfolders and {loose[0]} beside them"
        raise wrong(path, "either a subfolder for each class or images only", got, "move the images into the subfolders")
    labels = [tops.index(image.partition("/")[0]) for image in names]
    return _open(source, names, labels, tuple(tops), name, "image folder, a class for each subfolder", resolution, resize)


def open_zip(path: Path, name: str, resolution: int | None, resize: str) -> ImageData:
    """A zip of images: classes from dataset.json, else none.

    Raises:
        ValueError: as `open_image_folder`, or the zip is corrupt, has a password, or has members outside of it.
    """
    source = Zip(path)
    names, files = _image_names(source)
    labels = _json_labels(source, names) if LABELS_FILE in files else None
    return _open(source, names, labels, (), name, "zip in EDM's format" if LABELS_FILE in files else "zip of images", resolution, resize)


def _image_names(source: Source) -> tuple[list[str], list[str]]:
    """(images in order, all files)."""
    files = source.names()
    names = sorted(name for name in files if PurePosixPath(name).suffix.lower() in (*IMAGE_SUFFIXES, RAW_SUFFIX))
    if not names:
        got = f"{len(files)} files of other kinds" if files else "nothing"
        raise wrong(source.path, f"images ({', '.join((*IMAGE_SUFFIXES, RAW_SUFFIX))})", got, "see `fastdiff data` for what can be opened")
    return names, files


def _open(
    source: Source, names: list[str], labels: list[int] | None, class_names: tuple[str, ...], name: str, about: str,
    resolution: int | None, resize: str,
) -> ImageData:  # fmt: skip
    looked_at = sorted({round(i) for i in np.linspace(0, len(names) - 1, min(len(names), _LOOKED_AT))})
    shapes = {names[i]: _header(source, names[i]) for i in looked_at}
    raw = [one for one in shapes if one.endswith(RAW_SUFFIX)]
    if raw and (len(raw) < len(shapes) or resolution is not None):
        then = "give only one of the two kinds, and no resolution with .npy"
        raise wrong(source.path, "images only, or raw .npy files only and as they are", f"{raw[0]} among {names[0]}, ...", then)
    channels = max(shape[0] for shape, _ in shapes.values())
    first, (shape, dtype) = next(iter(shapes.items()))
    for other, (size, kind) in shapes.items():
        if (resolution is None and size[1:] != shape[1:]) or (raw and size[0] != channels) or kind != dtype:
            raise _mismatch(f"{source.path}: {other}", shape, size, f"like {first}", str(kind).replace("torch.", ""))
    shape = (channels, *shape[1:]) if resolution is None else (channels, resolution, resolution)
    files = ImageFiles(source, tuple(names), shape, dtype, resolution, resize)
    found = unlabelled(len(names)) if labels is None else torch.tensor(labels, dtype=torch.int64)
    classes = 0 if labels is None else max(len(class_names), int(found.max()) + 1)
    return ImageData(name, about, files, found, classes, 256 if dtype == torch.uint8 else 0, class_names)


def _mismatch(where: str, expected: Sequence[int], got: Sequence[int], like: str, dtype: str) -> ValueError:
    then = "give all images one size, or a resolution (--resolution of `fastdiff data --to`)"
    return wrong(where, f"{list(expected)} {like}", f"{list(got)} {dtype}", then)


def _header(source: Source, name: str) -> tuple[tuple[int, ...], torch.dtype]:
    """((C, H, W), dtype) of a file; of an image without decoding its pixels."""
    if name.endswith(RAW_SUFFIX):
        pixels = _raw(source, name)
        return pixels.shape, torch.uint8 if pixels.dtype == np.uint8 else torch.float32
    image = _image(source, name, load=False)
    return (1 if image.mode in _GREY else 3, image.height, image.width), torch.uint8


def _image(source: Source, name: str, load: bool = True) -> Image.Image:
    where, data = f"{source.path}: {name}", source.read(name)
    try:
        image: Image.Image = Image.open(io.BytesIO(data))
        if load:
            image.load()
    except Exception as error:  # decoders raise whatever the bytes happen to break
        reason = str(error).partition(" <_io")[0] or type(error).__name__
        raise wrong(where, "a whole image", f"a corrupt one ({reason})", "replace the file, or leave it out") from error
    if image.mode not in (*_GREY, *_COLOR) or "transparency" in image.info:
        got = f"mode {image.mode}" + " with transparency" * ("transparency" in image.info)
        raise wrong(where, f"an image of mode {', '.join((*_GREY, *_COLOR))}", got, "convert it to L or RGB")
    return image


def _raw(source: Source, name: str) -> np.ndarray:
    where, data = f"{source.path}: {name}", source.read(name)
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:
        raise wrong(where, "a whole .npy file of numbers", f"another ({error})", "replace the file, or leave it out") from error
    array = array[None] if getattr(array, "ndim", 0) == 2 else array
    if not isinstance(array, np.ndarray) or array.ndim != 3 or (array.dtype != np.uint8 and array.dtype.kind != "f"):
        got = f"{list(array.shape)} {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        raise wrong(where, "[C, H, W] or [H, W], uint8 or floating", got, "write it again so")
    return array if array.dtype == np.uint8 else array.astype(np.float32)


def _json_labels(source: Source, names: list[str]) -> list[int] | None:
    """Classes in the order of `names`, None where dataset.json has none."""
    where = f"{source.path}: {LABELS_FILE}"
    then = 'write {"labels": [[name, class], ...]} with each image, or {"labels": null}'
    try:
        content = json.loads(source.read(LABELS_FILE))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise wrong(where, "JSON", f"something else ({error})", then) from error
    if not isinstance(content, dict) or not isinstance(content.get("labels"), list | dict | None):
        raise wrong(where, 'an object with "labels"', type(content).__name__, then)
    if content.get("labels") is None:
        return None
    pairs = list(content["labels"].items()) if isinstance(content["labels"], dict) else content["labels"]
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or type(pair[1]) is not int or pair[1] < 0 or not isinstance(pair[0], str):
            raise wrong(where, "labels [name, class >= 0]", json.dumps(pair)[:80], then)
    of = dict(pairs)
    absent = [name for name in names if name.replace("\\", "/") not in of and name not in of]
    if absent or len(of) != len(names):
        got = f"{len(of)} ({absent[0]} has none)" if absent else f"{len(of)} ({sorted(set(of) - set(names))[0]} is not there)"
        raise wrong(where, f"{len(names)} labels, one for each image", got, then)
    return [of[name] if name in of else of[name.replace("\\", "/")] for name in names]
