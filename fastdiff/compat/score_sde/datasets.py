"""datasets: the scaling of data by its configuration; the data themselves are fastdiff.data's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def get_data_scaler(config: Any) -> Callable:
    """Maps [0, 1] to [-1, 1] where config.data.centered, else to itself."""
    return (lambda x: 2.0 * x - 1.0) if config.data.centered else _same


def get_data_inverse_scaler(config: Any) -> Callable:
    """Maps [-1, 1] to [0, 1] where config.data.centered, else to itself."""
    return (lambda x: (x + 1.0) / 2.0) if config.data.centered else _same


def _same(x: Any) -> Any:
    return x
