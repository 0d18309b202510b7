"""models: what of the original's package is not a network."""

from . import ema, utils

__all__ = ["ema", "utils"]
