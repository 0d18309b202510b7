"""Models by name or by the path of a checkpoint, with what a sampler must know of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .checkpoints import load_network, read_network
from .checkpoints.native import Native
from .models import DISCRIMINATORS, MODELS, Discriminator, load_discriminator, load_model
from .models.precond import Precond
from .parametrizations import Parametrization, parametrization_of
from .samplers import EDMSampler, Sampler
from .training import TrainConfig
from .training.objectives import parametrization_for, sampler_for


@dataclass(frozen=True)
class Opened:
    """A network ready to be sampled.

    Attributes:
        net: in evaluation mode; parametrization: what it returns.
        shape: of a sample; classes: number of classes, 0 for none.
        sampler: how the literature samples from what this was trained as.
    """

    net: nn.Module
    parametrization: Parametrization
    shape: tuple[int, ...]
    classes: int
    sampler: Sampler


def is_checkpoint(source: str) -> bool:
    """Whether a model is meant by its path and not by its name."""
    return source not in MODELS and (source.endswith((".safetensors", ".json")) or Native.of(source).config.is_file())


def open_model(source: str, weights: Path | None = None, device: torch.device | str = "cpu") -> Opened:
    """A shipped model by name, or what `fastdiff train` and `fastdiff convert` wrote, by its path.

    Raises:
        ValueError: unknown name; a checkpoint that is no denoiser; OSError: the file cannot be read.
    """
    if not is_checkpoint(source):
        net = load_model(source, weights, device)
        return Opened(net, parametrization_of(net, "D"), MODELS[source].shape, MODELS[source].classes, EDMSampler())
    if weights is not None:
        raise ValueError("--weights: expected none beside a checkpoint, which has its own, got some")
    spec, _, about = read_network(source)
    net = load_network(source, device)
    if isinstance(net, Precond):
        config = _config(about)
        shape = (net.img_channels, net.img_resolution, net.img_resolution)
        return Opened(net, parametrization_of(net, "D"), shape, net.label_dim, sampler_for(config) if config else EDMSampler())
    config = _config(about)
    if config is None or config.task != "denoise":
        name = "a network without a class" if spec is None else spec.network
        raise ValueError(f"--model: expected a denoiser that `fastdiff train` or `fastdiff convert` wrote, got {name} in {source}")
    shape = tuple(about["shape"])
    classes = config.arguments.get("label_dim", 0)
    return Opened(net, parametrization_for(config, net), shape, classes, sampler_for(config))


def open_discriminator(source: str, model: Opened, device: torch.device | str = "cpu") -> Discriminator:
    """A shipped discriminator by name, or one by the path of its checkpoint, for a model's samples.

    Raises:
        ValueError: it does not fit the model; ValueError, OSError: as `open_model`.
    """
    net = _discriminator(source, device)
    wanted = (net.extractor.in_channels, net.extractor.image_size, net.extractor.image_size)
    if model.shape != wanted:
        raise ValueError(f"--discriminator: expected one for samples {list(model.shape)}, got one for {list(wanted)}")
    if net.head.condition and not model.classes:
        raise ValueError("--discriminator: expected an unconditional one for a model without classes, got a conditional one")
    return net


def _discriminator(source: str, device: torch.device | str) -> Discriminator:
    if source in DISCRIMINATORS:
        return load_discriminator(source, device=device)
    if not is_checkpoint(source):
        raise ValueError(f"--discriminator: expected a checkpoint or one of {', '.join(DISCRIMINATORS)}, got {source!r}")
    net = load_network(source, device)
    if not isinstance(net, Discriminator):
        raise ValueError(f"--discriminator: expected the checkpoint of a Discriminator, got a {type(net).__name__} in {source}")
    return net


def _config(about: dict[str, Any]) -> TrainConfig | None:
    """The configuration that a training run left in a checkpoint."""
    known = {f.name for f in fields(TrainConfig)}
    found = about.get("config")
    return TrainConfig(**{name: value for name, value in found.items() if name in known}) if isinstance(found, dict) else None
