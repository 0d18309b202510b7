"""The state of a run on disk: all that a resumed run needs to end with the same bits as one that was never killed."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..files import write_atomically
from .config import TrainConfig

#: Fields that may differ between a run and its continuation.
_FREE = {"log_every", "sample_every", "save_every", "workers"}


def open_run(folder: Path, config: TrainConfig) -> None:
    """Make a run directory, or check that it holds the same run.

    Raises:
        ValueError: it holds another run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    wanted = asdict(config)
    if path.exists():
        found = json.loads(path.read_text())
        differ = [name for name in wanted if name not in _FREE and _plain(wanted[name]) != found.get(name)]
        if differ:
            changes = ", ".join(f"{name}: {found.get(name)!r} there, {wanted[name]!r} here" for name in differ)
            raise ValueError(f"run directory: expected a new one or the same run, got {folder} with another ({changes})")
    text = json.dumps(wanted, indent=2) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value))


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write the state, whole or not at all, and drop what killed writes have left."""
    write_atomically(folder / "state.pt", lambda file: torch.save(state, file))
    for left in folder.glob(".state.pt.*"):
        left.unlink(missing_ok=True)


def load_state(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The state that was saved last; None in a new run. Nothing in the file is executed.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / "state.pt"
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(f"state: expected what a training run wrote, got a damaged {path} ({str(error).splitlines()[0]})") from error
