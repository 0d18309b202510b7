"""Pickles of dictionaries, lists, numbers, text and numeric arrays, read by the machine that runs nothing of what they say."""

from __future__ import annotations

import io
import math
import re
from typing import Any

import numpy as np

from ..checkpoints.unpickle import Budget, Global, Settable, UntrustedPickle, unpickle

_NUMERIC = re.compile(r"[biuf](1|2|4|8)")


class _Type(Settable):
    """A NumPy dtype: its code, and its byte order once it is set."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = _text(code), "="
        if not _NUMERIC.fullmatch(self.code):
            raise UntrustedPickle(f"expected arrays of numbers, got one of dtype {self.code[:40]!r}")

    def set_state(self, state: Any) -> None:
        self.order = _text(state[1]).replace("|", "=")


class _Array(Settable):
    """A NumPy array, whose contents are set after it is made."""

    def __init__(self, *_: Any) -> None:
        self.array: np.ndarray | None = None

    def set_state(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        if not isinstance(kind, _Type) or type(shape) is not tuple or not all(type(n) is int and n >= 0 for n in shape):
            raise UntrustedPickle("expected arrays of numbers, got other contents")
        dtype, data = np.dtype(kind.order + kind.code), data.encode("latin1") if isinstance(data, str) else data
        if len(data) != math.prod(shape) * dtype.itemsize:
            raise UntrustedPickle(f"expected {math.prod(shape) * dtype.itemsize} bytes for an array {list(shape)}, got {len(data)}")
        self.array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def load_numeric(data: bytes, where: str) -> Any:
    """The object of a pickle; the strings of Python 2 become text, and so do the keys of a dictionary.

    Args:
        data: the pickle; where: for messages.

    Raises:
        ValueError: it names anything but a numeric array (the name is in the message), or it is damaged.
    """
    names = {
        "numpy.ndarray": Global("numpy.ndarray"),
        "numpy.dtype": Global("numpy.dtype", _Type),
        "_codecs.encode": Global("_codecs.encode", _encode),
        "numpy.core.multiarray._reconstruct": Global("_reconstruct", _Array),
        "numpy._core.multiarray._reconstruct": Global("_reconstruct", _Array),
    }

    def resolve(name: str) -> Global:
        if name not in names:
            raise UntrustedPickle(f"expected arrays of numbers only, got the global {name[:200]}, which could run code")
        return names[name]

    try:
        loaded = unpickle(io.BytesIO(data), Budget(where, len(data)), resolve)
    except UntrustedPickle as error:
        raise ValueError(str(error).removeprefix("checkpoint: ").replace("tensors and", "arrays and")) from error
    if not isinstance(loaded, dict):
        return loaded
    return {_text(key): value.array if isinstance(value, _Array) else value for key, value in loaded.items()}


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise UntrustedPickle(f"expected bytes written as latin1, got {encoding[:40]!r}")
    return text.encode("latin1")


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
