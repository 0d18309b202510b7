"""Classes by name."""

from __future__ import annotations

from typing import Any


class Registry:
    """What a decorator registers and a name finds.

    Args:
        kind: what is registered, for messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.classes: dict[str, type] = {}

    def register(self, cls: Any = None, *, name: str | None = None) -> Any:
        """A decorator for classes, with or without `name=`; default: the class's own.

        Raises:
            ValueError: the name is taken.
        """
        if cls is None:
            return lambda cls: self.register(cls, name=name)
        local_name = cls.__name__ if name is None else name
        if local_name in self.classes:
            raise ValueError(f"name: expected one that no {self.kind} has yet, got {local_name!r}")
        self.classes[local_name] = cls
        return cls

    def __getitem__(self, name: str) -> Any:
        if name not in self.classes:
            raise ValueError(f"name: expected one of {', '.join(sorted(self.classes))}, got {name!r}")
        return self.classes[name]
