"""open_data: what a name or a path holds, found from what is there."""

from __future__ import annotations

from pathlib import Path

import torch

from ..models.digits.data import GREY_LEVELS, load_digits
from . import cifar, mnist
from .errors import CIFAR10, MNIST, listed, missing, wrong
from .files import open_image_folder, open_zip
from .image_data import ImageData
from .npz import open_npz
from .resize import check_resize, resized
from .toys import TOYS, open_toy

SPLITS = ("train", "test")
BUILT_IN = {"digits": f"8x8 digits of scikit-learn, {GREY_LEVELS} grey levels"} | {toy.name: toy.about for toy in TOYS.values()}
FORMATS = {
    "cifar-10-python.tar.gz": "CIFAR-10 as published, or cifar-10-binary.tar.gz, or the folder that either extracts to",
    "FOLDER (MNIST)": "train-images-idx3-ubyte, train-labels-idx1-ubyte and t10k-..., gzipped or not",
    "FOLDER (images)": "a class for each subfolder, or no classes; dataset.json, if there is one, says the classes instead",
    "FILE.zip": "EDM's format: images (or raw .npy) and dataset.json",
    "FILE.npz": "images, arr_0 or samples: uint8 [N, H, W, C] or floats in [-1, 1]; labels",
}
_KINDS = f"one of {', '.join(BUILT_IN)}, or the path of a CIFAR-10 archive, an MNIST or image folder, a .zip or an .npz"


def open_data(source: str | Path, *, resolution: int | None = None, resize: str = "lanczos") -> ImageData:
    """Open a data set.

    Args:
        source: a name of `BUILT_IN` or a path (`FORMATS` lists which); with ":train" or ":test" behind it where there are splits,
            "train" being the default. A name comes before a path of that name: write ./digits for the path.
        resolution: side to which images are brought, cut square in the middle; resize: "lanczos" or "box".

    Returns:
        The data. Arrays are in memory, 8-bit ones as 8 bits; folders of images and zips are read when a batch is asked for, after a
        look at up to 1000 of their headers.

    Raises:
        FileNotFoundError: a file is missing; ValueError: one is corrupt, mismatched, or of another kind. Both say what was
            expected, what came, in which file, and what to do. ImportError: the digits without scikit-learn.
    """
    check_resize(resolution, resize)
    name, split = _split_of(str(source))
    if name in BUILT_IN:
        data = _digits(split) if name == "digits" else open_toy(name, split)
        return data if resolution is None else resized(data, resolution, resize)
    path = Path(name)
    if not path.exists():
        raise _missing(path)
    shown = path.name + (f":{split}" if split else "") or str(path)
    if path.is_dir() and cifar.find_folder(path) is None and not mnist.is_folder(path):
        return open_image_folder(_split_folder(path, split), shown, resolution, resize)
    if path.suffix.lower() == ".zip":
        _no_split(path, split)
        return open_zip(path, shown, resolution, resize)
    data = _arrays(path, split, shown)
    return data if resolution is None else resized(data, resolution, resize)


def _arrays(path: Path, split: str | None, shown: str) -> ImageData:
    """What is read into memory."""
    if path.is_dir():
        batches = cifar.find_folder(path)
        return cifar.open_cifar10(batches, split, shown) if batches is not None else mnist.open_mnist(path, split, shown)
    if cifar.is_archive(path):
        return cifar.open_cifar10(path, split, shown)
    if mnist.is_idx(path):
        return mnist.open_mnist(path.parent, split or mnist.split_of(path), shown)
    if path.suffix.lower() == ".npz":
        _no_split(path, split)
        return open_npz(path, shown)
    raise wrong(path, _KINDS, f"a file that ends with {path.suffix!r}", "`fastdiff data` without arguments lists what can be opened")


def _digits(split: str | None) -> ImageData:
    digits = load_digits(split or "train")
    about = f"8x8 digits of scikit-learn, {'test' if split == 'test' else 'training'} split"
    names = tuple(str(i) for i in range(10))
    name = "digits:test" if split == "test" else "digits"
    return ImageData(name, about, digits.images, digits.labels.to(torch.int64), 10, GREY_LEVELS, names)


def _split_of(source: str) -> tuple[str, str | None]:
    """(name, split): a file that is really called so comes first."""
    name, colon, split = source.rpartition(":")
    if not colon or Path(source).exists():
        return source, None
    if split in SPLITS:
        return name, split
    if name in BUILT_IN or Path(name).exists():
        raise ValueError(f"data: expected {name}:train or {name}:test, got {source}; name one of the two splits")
    return source, None


def _split_folder(path: Path, split: str | None) -> Path:
    """The subfolder of a split; the folder itself where its subfolders are no splits."""
    subfolders = {entry.name for entry in path.iterdir() if entry.is_dir()}
    if split is not None:
        if split not in subfolders:
            raise missing(path / split, f"a folder {split} for {path}:{split}", f"leave :{split} out to open the whole folder")
        return path / split
    return path / "train" if "train" in subfolders and len(subfolders) > 1 and subfolders <= {"train", "test", "val"} else path


def _no_split(path: Path, split: str | None) -> None:
    if split is not None:
        raise ValueError(f"data: expected {path} without a split, got {path}:{split}; a {path.suffix} holds one set of images")


def _missing(path: Path) -> FileNotFoundError:
    text = str(path).lower()
    if "cifar" in text or "data_batch" in text:
        then = f"the published files are {listed(CIFAR10)}; give the path of one of them, or of the folder that it extracts to"
        return missing(path, "a CIFAR-10 archive or its folder", then)
    if "mnist" in text or "ubyte" in text:
        return missing(path, "a folder with MNIST's files", f"the published files are {listed(MNIST)}; give the folder that holds them")
    return missing(path, _KINDS, "check the name or the path; `fastdiff data` without arguments lists what can be opened")
