"""Writing files: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO


def check_writable(path: Path) -> None:
    """Raise OSError where a file cannot be written, or where it would replace something that is no regular file."""
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a file to write, got a folder")
    if path.exists() and not path.is_file():
        raise OSError(f"{path}: expected a regular file to write")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path}: the folder {path.parent} cannot be written to")


def write_atomically(path: Path | str, write: Callable[[IO[bytes]], object]) -> None:
    """Call write(file) on a temporary file beside `path`, then move it there; on any error nothing is left behind.

    Raises:
        OSError: the folder is missing or cannot be written to.
    """
    path = Path(path)
    check_writable(path)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
