"""Network pickles of NVlabs/edm: dict(ema=..., ...) with objects that carry their source code, which stays unread."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .allowed import PersistentObject
from .found import Found
from .native import plain
from .unpickle import Record

NETWORKS = ("EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond")
MAX_TENSORS = 100_000
MAX_LEVELS = 32


def matches(content: Any) -> bool:
    """Whether this is the content of a network pickle."""
    return isinstance(content, dict) and isinstance(content.get("ema"), PersistentObject)


def convert(content: Any) -> Found:
    """The averaged network of a pickle.

    Raises:
        ValueError: there is none, or its parameters are not tensors.
    """
    from ..models.registry import Spec

    if not matches(content):
        raise ValueError(f"checkpoint: expected an NVlabs pickle with 'ema', got {type(content).__name__}")
    net = content["ema"]
    about = {"source": "edm", "class": net.class_name, "source_sha256": net.source_sha256}
    state = collect(net)
    positional, keywords = net.state.get("_init_args"), net.state.get("_init_kwargs")
    if net.class_name not in NETWORKS:
        return Found(None, state, about, f"there is no network {net.class_name} here; its tensors keep their names")
    if not isinstance(keywords, dict) or not isinstance(positional, (tuple, list)):
        raise ValueError(f"checkpoint: expected the arguments of {net.class_name}, got none")
    if len(positional) > 2:
        raise ValueError(f"checkpoint: expected at most 2 positional arguments of {net.class_name}, got {len(positional)}")
    arguments = dict(zip(("img_resolution", "img_channels"), positional, strict=False)) | keywords
    return Found(Spec(net.class_name, plain(arguments)), state, about)


def collect(module: Any) -> dict[str, Tensor]:
    """The state_dict of a recorded module.

    Raises:
        ValueError: something that is no module, or modules that contain themselves.
    """
    found: dict[str, Tensor] = {}
    left = [MAX_TENSORS]

    def walk(module: Any, prefix: str, level: int) -> None:
        left[0] -= 1
        if level > MAX_LEVELS or left[0] < 0:
            raise ValueError(f"checkpoint: expected at most {MAX_TENSORS} modules in {MAX_LEVELS} levels, got more")
        if not isinstance(module, (PersistentObject, Record)):
            raise ValueError(f"checkpoint: expected a module at {prefix[:100]!r}, got {type(module).__name__}")
        skipped = module.state.get("_non_persistent_buffers_set", ())
        own = _part(module, "_parameters") | {k: v for k, v in _part(module, "_buffers").items() if k not in skipped}
        for name, tensor in own.items():
            if tensor is not None:
                if not isinstance(tensor, Tensor):
                    raise ValueError(f"checkpoint: expected a tensor at {prefix[:100]}{name}, got {type(tensor).__name__}")
                found[f"{prefix}{name}"] = tensor
        for name, child in _part(module, "_modules").items():
            if child is not None:
                walk(child, f"{prefix}{name}.", level + 1)

    walk(module, "", 0)
    return found


def _part(module: PersistentObject | Record, name: str) -> dict[Any, Any]:
    part = module.state.get(name, {})
    if not isinstance(part, dict):
        raise ValueError(f"checkpoint: expected {name} of a module, got {type(part).__name__}")
    return part
