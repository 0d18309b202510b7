"""Networks, and the models that are shipped with their weights."""

from .hub import MODELS, Model, load_model
from .precond import EDMPrecond
from .song_unet import SongUNet

__all__ = ["MODELS", "EDMPrecond", "Model", "SongUNet", "load_model"]
