"""Options and checks that commands share."""

from __future__ import annotations

from pathlib import Path

import click

MODEL = click.option("--model", default="digits", show_default=True, help="A name that `fastdiff models` lists, or a checkpoint's path.")
WEIGHTS = click.option("--weights", type=click.Path(path_type=Path), help="Other weights for that model, a safetensors file.")
SEED = click.option("--seed", type=int, default=0, show_default=True, help="Everything random depends on this alone.")
DEVICE = click.option("--device", default=None, help="Where to compute; default: a GPU if there is one.")


def out(default: str):
    """--out, the picture."""
    return click.option("--out", type=click.Path(path_type=Path), default=Path(default), show_default=True, help="The picture, a PNG.")


def expect_range(name: str, value: int, low: int, high: int) -> None:
    """Raise where an integer option is out of its range."""
    if not low <= value <= high:
        raise ValueError(f"{name}: expected an integer from {low} to {high}, got {value}")
