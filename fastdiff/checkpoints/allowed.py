"""What a checkpoint's pickle may name, and the builders of ours that stand for it: nothing real is ever called."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .unpickle import Budget, Global, Record, Settable, mapping, plain_key

MAX_DIMENSIONS = 32

_STORAGES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16, "Long": torch.int64,
    "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool,
    "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64,
}  # fmt: skip
_DTYPES = {str(dtype): dtype for dtype in _STORAGES.values()}
_MODULE = re.compile(r"torch\.nn\.modules\.[a-z_]+\.[A-Z][A-Za-z0-9]*")
_NUMERIC = re.compile(r"[<>|=]?(?:[iufc](?:1|2|4|8|16)|b1|\?)")
_PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"


@dataclass(eq=False)
class PersistentObject:
    """An object that NVlabs' `persistence` pickled with its source code, which is hashed and otherwise left alone."""

    class_name: str
    source_sha256: str
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class StorageType:
    """The class of a torch storage, as a persistent id names it."""

    dtype: torch.dtype


@dataclass(eq=False)
class Storage:
    """Bytes of a storage [nbytes] uint8, which its file fills, and the dtype of its elements."""

    data: Tensor
    dtype: torch.dtype


@dataclass(eq=False)
class NumpyType(Settable):
    """A numeric dtype of NumPy."""

    dtype: np.dtype

    def set_state(self, state: Any) -> None:
        """The byte order is the one thing that a numeric dtype's state says."""
        if state[1] not in ("<", ">", "|", "="):
            raise ValueError("the byte order of a dtype")
        self.dtype = self.dtype.newbyteorder(state[1])


@dataclass(eq=False)
class NumpyArray(Settable):
    """An array of numbers; its bytes stay as they are until asked for."""

    shape: tuple[int, ...] = (0,)
    dtype: np.dtype = field(default_factory=lambda: np.dtype("u1"))
    fortran: bool = False
    data: bytes = b""

    def set_state(self, state: Any) -> None:
        """(version, shape, dtype, fortran order, bytes)."""
        _, self.shape, kind, self.fortran, self.data = state
        self.dtype = kind.dtype
        _sizes(self.shape)
        if not isinstance(self.data, (bytes, bytearray)):
            raise TypeError("the bytes of an array")

    def value(self) -> np.ndarray:
        """The array."""
        return np.frombuffer(self.data, self.dtype).reshape(self.shape, order="F" if self.fortran else "C")


class Allowed:
    """The names that a checkpoint may hold; call it with one, and it gives a Global, an inert value, or None for a refusal.

    Args:
        budget: what the file may cost; read_nested: reads the bytes of a torch file within a pickle.
    """

    def __init__(self, budget: Budget, read_nested: Callable[[bytes], Any]):
        self.budget = budget
        self.hashes: dict[str, str] = {}
        self.known = self._table(read_nested)

    def __call__(self, name: str) -> Any:
        if name in self.known:
            return self.known[name]
        if _MODULE.fullmatch(name):
            return Global(name, lambda: Record(name))
        return None

    def _table(self, read_nested: Callable[[bytes], Any]) -> dict[str, Any]:
        builders: dict[str, Callable[..., Any] | None] = {
            "collections.OrderedDict": self._mapping, "dnnlib.util.EasyDict": self._mapping,
            "torch._utils._rebuild_tensor": self._tensor, "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": _parameter, "torch._utils._rebuild_parameter_with_state": _parameter,
            "torch._tensor._rebuild_from_type_v2": self._tensor_of_type, "torch.Tensor": None, "torch.nn.parameter.Parameter": None,
            "torch.storage._load_from_bytes": read_nested, "torch.Size": self._size, "torch.device": _device,
            "numpy.dtype": _numpy_type, "numpy.ndarray": None, "_codecs.encode": self._encode,
            "builtins.int": None, "builtins.float": None, "builtins.bool": None, "builtins.str": None, "builtins.slice": None,
            _PERSISTENT: self._persistent,
        }  # fmt: skip
        for kind, build in (("set", set), ("frozenset", frozenset)):
            builders |= {f"{module}.{kind}": self._set_builder(build) for module in ("builtins", "__builtin__")}
        for core in ("numpy.core", "numpy._core"):
            builders[f"{core}.multiarray._reconstruct"] = lambda *_: NumpyArray()
            builders[f"{core}.multiarray.scalar"] = _numpy_scalar
            builders[f"{core}.numeric._frombuffer"] = _numpy_buffer
        table: dict[str, Any] = {name: Global(name, build) for name, build in builders.items()}
        table |= {f"torch.{name}Storage": StorageType(dtype) for name, dtype in _STORAGES.items()}
        return table | _DTYPES | {"torch.storage.UntypedStorage": StorageType(torch.uint8)}

    def _mapping(self, pairs: Any = ()) -> dict[Any, Any]:
        self.budget.spend(len(pairs))
        return mapping(pairs)

    def _set_builder(self, build: Callable[[Any], Any]) -> Callable[..., Any]:
        def make(values: Any = ()) -> Any:
            self.budget.spend(len(values))
            return build(map(plain_key, values))

        return make

    def _size(self, sizes: Any = ()) -> tuple[int, ...]:
        return _sizes(sizes)

    def _encode(self, text: str, encoding: str = "latin1") -> bytes:
        if encoding not in ("latin1", "latin-1"):
            raise ValueError("an encoding other than latin1")
        self.budget.spend(len(text))
        return text.encode("latin1")

    def _persistent(self, meta: Any) -> PersistentObject:
        if meta["type"] != "class":
            raise ValueError("a persistent object that is no instance of a class")
        name, source, state = meta["class_name"], meta["module_src"], meta["state"]
        if not isinstance(name, str) or not isinstance(source, str) or not isinstance(state, (dict, type(None))):
            raise TypeError("the class name, source and state of a persistent object")
        if source not in self.hashes:  # a file's modules share a few sources
            self.budget.spend(len(source) // 64)
            self.hashes[source] = hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()
        return PersistentObject(name, self.hashes[source], {} if state is None else state)

    def _tensor(self, storage: Storage, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
        return view(storage, offset, size, stride)

    def _tensor_of_type(self, function: Any, kind: Any, arguments: Any, state: Any) -> Tensor:
        if not isinstance(function, Global) or function.build not in (self._tensor, _parameter):
            raise TypeError("how a tensor is rebuilt")
        return function.build(*arguments)


def view(storage: Storage, offset: int, size: Any, stride: Any) -> Tensor:
    """A strided tensor on a storage, once its every element is known to lie within, and none to be there more than the storage holds.

    Raises:
        ValueError, TypeError: it does not fit.
    """
    if not isinstance(storage, Storage):
        raise TypeError(f"expected a storage, got {type(storage).__name__}")
    size, stride = _sizes(size), _sizes(stride)
    if len(size) != len(stride) or type(offset) is not int or offset < 0:
        raise ValueError(f"size {size}, stride {stride} or the offset of a tensor")
    held = storage.data.numel() // storage.dtype.itemsize
    count = 1
    for length in size:
        count *= length
    if count == 0:
        return torch.empty(size, dtype=storage.dtype)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if last >= held or count > held:
        raise ValueError(f"a tensor of size {size}, stride {stride} and offset {offset} on a storage of {held} elements")
    return storage.data.view(storage.dtype).as_strided(size, stride, offset)


def _sizes(values: Any) -> tuple[int, ...]:
    sizes = tuple(values) if isinstance(values, (tuple, list)) and len(values) <= MAX_DIMENSIONS else None
    if sizes is None or any(type(value) is not int or not 0 <= value < 2**40 for value in sizes):
        raise ValueError(f"expected at most {MAX_DIMENSIONS} sizes, none negative")
    return sizes


def _parameter(data: Tensor, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise TypeError(f"expected a tensor, got {type(data).__name__}")
    return data


def _device(kind: str = "cpu", index: int | None = None) -> str:
    if not isinstance(kind, str):
        raise TypeError("the kind of a device")
    return kind if index is None else f"{kind[:20]}:{int(index)}"


def _numpy_type(code: str, *_: Any) -> NumpyType:
    if not isinstance(code, str) or not _NUMERIC.fullmatch(code):
        raise TypeError(f"expected a dtype of numbers, got {code[:20] if isinstance(code, str) else type(code).__name__}")
    return NumpyType(np.dtype(code))


def _numpy_scalar(kind: NumpyType, data: bytes) -> Any:
    if not isinstance(data, bytes) or len(data) != kind.dtype.itemsize:
        raise ValueError("the bytes of a number")
    return np.frombuffer(data, kind.dtype)[0].item()


def _numpy_buffer(data: bytes, kind: NumpyType, shape: Any, order: str) -> NumpyArray:
    array = NumpyArray()
    array.set_state((1, shape, kind, order == "F", data))
    return array
