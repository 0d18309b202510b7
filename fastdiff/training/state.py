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


def check_run(folder: Path, config: TrainConfig) -> None:
    """Check that a run directory holds nothing yet, or a state of the same run.

    Raises:
        ValueError: it holds another run.
    """
    path = folder / "config.json"
    if not path.exists() or not (folder / "state.pt").exists():
        return
    wanted, found = _plain(asdict(config)), json.loads(path.read_text())
    differ = [name for name in wanted if name not in _FREE and name in found and wanted[name] != found[name]]
    if differ:
        changes = ", ".join(f"{name}: {found[name]!r} there, {wanted[name]!r} here" for name in differ)
        raise ValueError(f"run directory: expected a new one or the same run, got {folder} with another ({changes})")


def write_config(folder: Path, config: TrainConfig) -> None:
    """Make a run directory, with the configuration as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted, path = asdict(config), folder / "config.json"
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


def load_state(folder: Path) -> dict[str, Any] | None:
    """The state that was saved last, on the CPU; None in a new run. Nothing in the file is executed.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / "state.pt"
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(f"state: expected what a training run wrote, got a damaged {path} ({str(error).splitlines()[0]})") from error
