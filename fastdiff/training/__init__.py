"""Training: configurations, presets, and the loop that can be killed at any moment."""

from .config import TrainConfig
from .loop import TrainingError, train
from .presets import PRESETS

__all__ = ["PRESETS", "TrainConfig", "TrainingError", "train"]
