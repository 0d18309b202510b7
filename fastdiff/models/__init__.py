"""Networks, and the models and classifiers that are shipped with their weights."""

from .adm_encoder import ADMEncoder
from .dhariwal_unet import DhariwalUNet
from .discriminator import Discriminator, discriminator_guidance
from .hub import (
    CLASSIFIERS,
    DISCRIMINATORS,
    EXTRACTORS,
    MODELS,
    Classifier,
    Model,
    load_classifier,
    load_discriminator,
    load_extractor,
    load_model,
)
from .mlp import MLP
from .precond import EDMPrecond, VEPrecond, VPPrecond, iDDPMPrecond
from .registry import NETWORKS, Spec, build
from .song_unet import SongUNet

__all__ = [
    "CLASSIFIERS", "DISCRIMINATORS", "EXTRACTORS", "MLP", "MODELS", "NETWORKS", "ADMEncoder", "Classifier",
    "DhariwalUNet", "Discriminator", "EDMPrecond", "Model",
    "SongUNet", "Spec", "VEPrecond", "VPPrecond", "build", "discriminator_guidance", "iDDPMPrecond", "load_classifier",
    "load_discriminator", "load_extractor", "load_model",
]  # fmt: skip
