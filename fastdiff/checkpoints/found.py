"""What a reader of a foreign format makes of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from ..models.registry import Spec


@dataclass(frozen=True)
class Found:
    """A network in a file.

    Attributes:
        spec: the network, None where there is no class for it here.
        state: its tensors, under our names where there is a spec.
        about: metadata for the native configuration; note: what a person should know, empty for nothing.
    """

    spec: Spec | None
    state: dict[str, Tensor]
    about: dict[str, Any] = field(default_factory=dict)
    note: str = ""


def tensors(content: Any, what: str) -> dict[str, Tensor]:
    """The content as a state_dict.

    Raises:
        ValueError: it is not one.
    """
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"checkpoint: expected {what}, got {type(content).__name__}")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ValueError(f"checkpoint: expected {what}, got {str(name)[:50]!r} of type {type(tensor).__name__}")
    return dict(content)
