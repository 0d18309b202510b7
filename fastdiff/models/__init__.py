"""Networks, and the models and classifiers that are shipped with their weights."""

from .hub import CLASSIFIERS, MODELS, Classifier, Model, load_classifier, load_model
from .precond import EDMPrecond
from .song_unet import SongUNet

__all__ = ["CLASSIFIERS", "MODELS", "Classifier", "EDMPrecond", "Model", "SongUNet", "load_classifier", "load_model"]
