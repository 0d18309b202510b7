"""The native format: NAME.safetensors with the weights, and NAME.json beside it with what network they belong to.

The configuration holds the weights' sha256 and is written last, so a pair that was interrupted half-way is recognized.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..files import check_writable, write_atomically

if TYPE_CHECKING:
    from ..models.registry import Spec

FORMAT = "fastdiff-network-1"
MAX_VALUES = 10_000  #: numbers and texts of a configuration
MAX_LEVELS = 100_000  #: discrete noise levels of a network, each of which costs a loop's turn when it is built


@dataclass(frozen=True)
class Native:
    """The two files of a checkpoint."""

    weights: Path
    config: Path

    @classmethod
    def of(cls, path: Path | str) -> Native:
        """From either file's path, or from what both have in common."""
        path = Path(path)
        stem = path.with_suffix("") if path.suffix in (".safetensors", ".json") else path
        return cls(stem.with_name(f"{stem.name}.safetensors"), stem.with_name(f"{stem.name}.json"))


def save_network(path: Path | str, spec: Spec | None, state_dict: Mapping[str, Tensor], about: Mapping[str, Any] | None = None) -> Native:
    """Write a network's weights, then its configuration, each whole or not at all.

    Args:
        path: NAME, NAME.safetensors or NAME.json; spec: the network, None for one that has no class here.
        state_dict: its tensors; about: metadata that JSON can say.

    Returns:
        The two paths.

    Raises:
        ValueError: a tensor or an argument that the format cannot hold; OSError: the folder cannot be written to.
    """
    from safetensors.torch import save

    files = Native.of(path)
    config = {
        "format": FORMAT,
        "network": None if spec is None else spec.network,
        "arguments": {} if spec is None else plain(spec.arguments),
        "about": plain(about or {}),
    }
    check_writable(files.weights)
    check_writable(files.config)
    try:
        data = save({name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state_dict.items()})
    except (KeyError, RuntimeError, AttributeError) as error:
        raise ValueError(f"state_dict: expected names and tensors of common dtypes, got others ({str(error)[:200]})") from error
    config["sha256"] = hashlib.sha256(data).hexdigest()
    text = json.dumps(config, indent=1, allow_nan=False) + "\n"
    write_atomically(files.weights, lambda file: file.write(data))
    write_atomically(files.config, lambda file: file.write(text.encode()))
    return files


def read_network(path: Path | str) -> tuple[Spec | None, dict[str, Tensor], dict[str, Any]]:
    """(spec, state_dict, about) of a checkpoint; spec is None for a network that has no class here.

    Raises:
        ValueError: a file of the two is missing or damaged, or they do not belong together; the message says which.
        OSError: a file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from ..models.registry import Spec

    files = Native.of(path)
    config = _read_config(files)
    data = files.weights.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != config["sha256"]:
        raise ValueError(f"checkpoint: expected {files.weights} with the sha256 that {files.config} says, got {found[:16]}...")
    try:
        state = load(data)
    except SafetensorError as error:
        raise ValueError(f"checkpoint: expected a safetensors file, got {files.weights} ({error})") from error
    spec = None if config["network"] is None else Spec(config["network"], config["arguments"])
    return spec, state, config["about"]


def load_network(path: Path | str, device: torch.device | str = "cpu") -> nn.Module:
    """The network of a checkpoint, in evaluation mode and without gradients of its parameters.

    Raises:
        ValueError: as read_network; a checkpoint without a network's name; tensors that are not the network's.
        OSError: a file cannot be read.
    """
    from ..models.registry import build

    files = Native.of(path)
    spec, state, _ = read_network(path)
    if spec is None:
        raise ValueError(f"checkpoint: expected the name of a network, got none in {files.config}: read_network gives its tensors")
    check_state(spec, state, str(files.weights))
    net = build(spec)
    net.load_state_dict(state)
    return net.eval().requires_grad_(False).to(device)


def _read_config(files: Native) -> dict[str, Any]:
    for file, partner in ((files.weights, files.config), (files.config, files.weights)):
        if not file.is_file():
            if partner.is_file():
                raise ValueError(f"checkpoint: expected {file} beside {partner}, got no such file")
            raise FileNotFoundError(f"checkpoint: no such file: {file}")
    try:
        config = json.loads(files.config.read_text(encoding="utf-8"))
        missing = {"format", "network", "arguments", "sha256", "about"} - set(config)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"checkpoint: expected a JSON configuration, got {files.config} ({error})") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT or missing:
        raise ValueError(f"checkpoint: expected the format {FORMAT}, got {files.config}, which is not of it")
    if not isinstance(config["network"], (str, type(None))) or not isinstance(config["arguments"], dict):
        raise ValueError(f"checkpoint: expected a network's name and its arguments, got others in {files.config}")
    return config | {"arguments": _restored(config["arguments"]), "about": _restored(config["about"])}


def plain(value: Any) -> Any:
    """The value as JSON holds it: tuples as lists, numbers that are not finite as {"float": text}.

    Raises:
        ValueError: something that JSON cannot say, or too much of it.
    """
    left = [MAX_VALUES]

    def walk(value: Any, depth: int) -> Any:
        left[0] -= 1
        if depth > 16 or left[0] < 0:
            raise ValueError(f"arguments: expected at most {MAX_VALUES} values in 16 levels, got more")
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {key: walk(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [walk(item, depth + 1) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            return {"float": str(float(value))}
        if isinstance(value, float):
            return float(value)
        if value is None or isinstance(value, (bool, int, str)):
            return value
        raise ValueError(f"arguments: expected numbers, texts, lists and dicts, got {type(value).__name__}")

    return walk(value, 0)


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"float"} and value["float"] in ("inf", "-inf", "nan"):
            return float(value["float"])
        return {key: _restored(item) for key, item in value.items()}
    return [_restored(item) for item in value] if isinstance(value, list) else value


class _ShapesOnly(torch.overrides.TorchFunctionMode):
    """Large parameters are made without memory, so that a network can be compared with tensors before it is built."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.randn, torch.rand, torch.empty, torch.ones, torch.arange):
            kwargs = {"device": "meta"} | kwargs
        return func(*args, **kwargs)


def check_state(spec: Spec, state: Mapping[str, Tensor], file: str) -> None:
    """Raise ValueError where the tensors' names or shapes are not those of the network, at no cost of its size."""
    from ..models.registry import build

    if _turns(spec.arguments) > max(len(state), 16):
        raise ValueError(f"arguments: expected a {spec.network} of {len(state)} tensors, got arguments of a much deeper one in {file}")
    try:
        with _ShapesOnly():
            expected = build(spec).state_dict()
    except (TypeError, RuntimeError, ArithmeticError, IndexError, AttributeError, LookupError) as error:
        raise ValueError(f"arguments: expected those of {spec.network}, got others in {file} ({str(error)[:200]})") from error
    for name in sorted(set(expected) ^ set(state)):
        what = "without" if name in expected else "with"
        raise ValueError(
            f"checkpoint: expected the {len(expected)} tensors of {spec.network}, got {len(state)} in {file}, {what} {name[:100]}"
        )
    for name, tensor in expected.items():
        if tensor.shape != state[name].shape:
            raise ValueError(f"checkpoint: expected {name} of shape {list(tensor.shape)}, got {list(state[name].shape)} in {file}")


def _turns(value: Any) -> int:
    """How many blocks the arguments ask for, at least: building them takes time even without memory."""
    if not isinstance(value, Mapping):
        return 0
    if isinstance(value.get("M"), int) and value["M"] > MAX_LEVELS:
        raise ValueError(f"arguments: expected M of at most {MAX_LEVELS}, got {value['M']}")
    levels = value.get("channel_mult")
    turns = len(levels) if isinstance(levels, list | tuple) else 1
    for name in ("num_blocks", "num_res_blocks", "layers"):
        turns *= max(value[name], 1) if isinstance(value.get(name), int) else 1
    return turns + sum(_turns(item) for item in value.values())
