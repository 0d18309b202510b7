"""One form for everything that can be wrong with a file: what was expected, what came, where, and what to do."""

from __future__ import annotations

import hashlib
from pathlib import Path

#: Files as they were published, with their MD5.
CIFAR10 = {
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
}
MNIST = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
_PUBLISHED = CIFAR10 | MNIST


def wrong(where: Path | str, expected: str, got: str, then: str) -> ValueError:
    """The error of a file that is there but not what it should be."""
    return ValueError(f"data: expected {expected}, got {got} ({where}); {then}")


def missing(where: Path | str, expected: str, then: str) -> FileNotFoundError:
    """The error of a file or folder that is not there."""
    return FileNotFoundError(f"data: expected {expected}, got nothing ({where} does not exist); {then}")


def download_again(path: Path) -> str:
    """What to do about a corrupt file; for a published one, its MD5 beside that of the published file."""
    if path.name not in _PUBLISHED or not path.is_file():
        return "copy or download the file again"
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return f"download it again: its md5 is {digest.hexdigest()}, that of the published file {_PUBLISHED[path.name]}"


def listed(files: dict[str, str]) -> str:
    """Names and MD5 sums of published files."""
    return ", ".join(f"{name} (md5 {md5})" for name, md5 in files.items())
