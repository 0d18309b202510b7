"""Pickles and torch files (.pkl, .pt, .pth; zip archives and the format before torch 1.6) as tensors and plain containers."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch

from .allowed import Allowed, Storage, StorageType
from .unpickle import Budget, UntrustedPickle, unpickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
MAX_DEPTH = 1  #: torch files within a pickle; real ones hold one storage each


def read(path: Path | str) -> Any:
    """The content of a checkpoint of any of the three formats, recognized by its first bytes.

    Returns:
        Nested dicts, lists, tuples, texts and numbers with tensors on the CPU; records stand for objects (see `unpickle`).

    Raises:
        UntrustedPickle: a ValueError; the file names anything else, which the message says, is damaged, or claims more than it holds.
        OSError: it cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: no such file: {path}")
    return loads(path.read_bytes(), str(path))


def loads(data: bytes, file: str) -> Any:
    """As `read`, of bytes in memory; `file` is their name in messages."""
    return _Reader(data, Budget(file, len(data)), 0).read()


class _Reader:
    """One file, perhaps within another: the depth says how many lie around it."""

    def __init__(self, data: bytes, budget: Budget, depth: int):
        self.data = data
        self.budget = budget
        self.depth = depth
        self.allowed = Allowed(budget, self._nested)

    def read(self) -> Any:
        if self.data[:4] == b"PK\x03\x04":
            return self._zip()
        stream = io.BytesIO(self.data)
        first = unpickle(stream, self.budget, self.allowed)
        return self._legacy(stream) if first == LEGACY_MAGIC else self._only(first, stream)

    def _only(self, value: Any, stream: io.BytesIO) -> Any:
        if stream.tell() != len(self.data):
            self._refuse(f"{len(self.data) - stream.tell()} bytes after the pickle")
        return value

    def _refuse(self, what: str) -> NoReturn:
        raise UntrustedPickle(f"checkpoint: expected a whole torch file, got {what} in {self.budget.file}")

    def _nested(self, data: bytes) -> Any:
        if self.depth >= MAX_DEPTH:
            self._refuse(f"torch files nested more than {MAX_DEPTH} deep")
        if not isinstance(data, bytes):
            raise TypeError("expected bytes")
        return _Reader(data, self.budget, self.depth + 1).read()

    def _legacy(self, stream: io.BytesIO) -> Any:
        protocol = unpickle(stream, self.budget, self.allowed)
        if protocol != LEGACY_PROTOCOL:
            self._refuse(f"another protocol than {LEGACY_PROTOCOL}")
        system = unpickle(stream, self.budget, self.allowed)
        if not isinstance(system, dict):
            self._refuse("no description of the system")
        storages: dict[str, Storage] = {}

        def persistent(identity: Any) -> Storage:
            kind, key, size = _identity(identity)
            if len(identity) == 6 and identity[5] is not None:
                raise ValueError("a view of a storage")
            if key not in storages:
                storages[key] = self._storage(kind, size)
            return _typed(storages[key], kind, size)

        value = unpickle(stream, self.budget, self.allowed, persistent)
        keys = unpickle(stream, self.budget, self.allowed)
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
            self._refuse("other storages than its tensors need")
        order: Literal["little", "big"] = "little" if system.get("little_endian", True) else "big"
        for key in keys:
            storage = storages[key]
            count = int.from_bytes(stream.read(8), order, signed=True)
            size = storage.data.numel()
            if count * storage.dtype.itemsize != size:
                self._refuse(f"a storage of {count} elements where {size // storage.dtype.itemsize} were declared")
            self._fill(storage, stream.read(size), order)
        return self._only(value, stream)

    def _zip(self) -> Any:
        try:
            with zipfile.ZipFile(io.BytesIO(self.data)) as archive:
                return self._archive(archive)
        except UntrustedPickle:
            raise
        except Exception as error:  # zipfile has a dozen ways to say that bytes are wrong
            reason = f"{type(error).__name__}: {error}"[:200]
            raise UntrustedPickle(f"checkpoint: expected a whole torch file, got a damaged one: {self.budget.file} ({reason})") from error

    def _archive(self, archive: zipfile.ZipFile) -> Any:
        members = {info.filename: info for info in archive.infolist()}
        total = 0
        for name, info in members.items():
            total += info.file_size
            if info.compress_type != zipfile.ZIP_STORED:
                self._refuse(f"the compressed member {name[:100]!r}")
            if total > len(self.data):
                self._refuse(f"members that are larger than the file, at {name[:100]!r},")
        roots = [name[: -len("data.pkl")] for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(roots) != 1:
            self._refuse(f"{len(roots)} members called data.pkl")
        (root,) = roots
        order = archive.read(f"{root}byteorder").decode() if f"{root}byteorder" in members else "little"
        if order not in ("little", "big"):
            self._refuse(f"the byte order {order[:20]!r}")
        storages: dict[str, Storage] = {}

        def persistent(identity: Any) -> Storage:
            kind, key, size = _identity(identity)
            if key not in storages:
                storages[key] = self._storage(kind, size)
                self._fill(storages[key], archive.read(f"{root}data/{key}"), order)
            return _typed(storages[key], kind, size)

        stream = io.BytesIO(archive.read(f"{root}data.pkl"))
        return unpickle(stream, self.budget, self.allowed, persistent)

    def _storage(self, kind: StorageType, size: int) -> Storage:
        nbytes = size * kind.dtype.itemsize
        self.budget.allocate(nbytes)
        return Storage(torch.empty(nbytes, dtype=torch.uint8), kind.dtype)

    def _fill(self, storage: Storage, data: bytes, order: str) -> None:
        if len(data) != storage.data.numel():
            self._refuse(f"{len(data)} bytes of a storage of {storage.data.numel()}")
        if not data:
            return
        storage.data.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        width = storage.dtype.itemsize // (2 if storage.dtype.is_complex else 1)
        if order == "big" and width > 1:
            storage.data.copy_(storage.data.reshape(-1, width).flip(1).flatten())


def _typed(storage: Storage, kind: StorageType, size: int) -> Storage:
    """The same bytes as elements of the type that this use names."""
    if size * kind.dtype.itemsize != storage.data.numel():
        raise ValueError("two sizes of one storage")
    return Storage(storage.data, kind.dtype)


def _identity(identity: Any) -> tuple[StorageType, str, int]:
    """(type, key, number of elements) of ("storage", type, key, device, number of elements)."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        what = identity[0] if isinstance(identity, tuple) and identity and isinstance(identity[0], str) else type(identity).__name__
        raise ValueError(f"expected the persistent id of a storage, got {str(what)[:50]}")
    kind, key, size = identity[1], identity[2], identity[4]
    if not isinstance(kind, StorageType) or not isinstance(key, str) or type(size) is not int or size < 0:
        raise ValueError("expected a storage's type, key and size")
    return kind, key, size
