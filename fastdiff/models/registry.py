"""Networks by name and arguments, as configurations and checkpoints say them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from .adm_encoder import ADMEncoder
from .dhariwal_unet import DhariwalUNet
from .digits.classifier import DigitsClassifier
from .discriminator import Discriminator
from .mlp import MLP
from .precond import EDMPrecond, VEPrecond, VPPrecond, iDDPMPrecond
from .song_unet import SongUNet

#: Every class that a configuration or a checkpoint may name.
NETWORKS: dict[str, type[nn.Module]] = {
    network.__name__: network
    for network in (
        EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond, SongUNet, DhariwalUNet, ADMEncoder, Discriminator, DigitsClassifier, MLP,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Spec:
    """A network by the name of its class and the arguments of its constructor, all of which JSON can say."""

    network: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def build(spec: Spec) -> nn.Module:
    """The untrained network.

    Raises:
        ValueError: an unknown name or argument, or one that is missing.
    """
    if spec.network not in NETWORKS:
        raise ValueError(f"network: expected one of {', '.join(NETWORKS)}, got {spec.network!r}")
    network = NETWORKS[spec.network]
    try:
        inspect.signature(network).bind(**spec.arguments)
        return network(**spec.arguments)
    except TypeError as error:
        raise ValueError(f"arguments: expected those of {spec.network}, got {dict(spec.arguments)} ({error})") from error
