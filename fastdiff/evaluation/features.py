"""Feature extractors: what a distance between two sets of images looks at."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..models.digits.classifier import CLASSES
from ..models.digits.features import FEATURES, build_features
from ..models.hub import HERE, load_weights
from . import inception


@dataclass(frozen=True)
class FeatureExtractor:
    """A network that reads images, and its name, without which a distance means nothing.

    Attributes:
        name: says the network and its weights: statistics of different names are never compared.
        dim: D, number of features; classes: K, number of logits, 0 for none.
        read: images [B, C, H, W] in [-1, 1] to (features [B, D], logits [B, K] or None); logits are for the inception score.
        device: where `read` wants the images.

    Called with images on any device. Returns (features [B, D] float32, logits [B, K] float32 or None) on `device`.
    """

    name: str
    dim: int
    read: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    classes: int = 0
    device: torch.device | str = "cpu"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        features, logits = self.read(images.to(self.device))
        if features.shape != (len(images), self.dim):
            raise ValueError(f"{self.name}: expected features [{len(images)}, {self.dim}], got {list(features.shape)}")
        if (0 if logits is None else logits.shape[1]) != self.classes:
            raise ValueError(f"{self.name}: expected {self.classes} logits, got {0 if logits is None else logits.shape[1]}")
        return features.float(), None if logits is None else logits.float()


def eight_bit(images: Tensor) -> Tensor:
    """Images in [-1, 1] as a file with 8 bits holds them: a metric must not tell pictures from their files."""
    return (images.float() * 127.5 + 128).clip(0, 255).floor() / 127.5 - 1


def digits_features(device: torch.device | str = "cpu") -> FeatureExtractor:
    """The small classifier that fastdiff ships, for [B, 1, 8, 8] digits. It is no Inception: its distances compare with its own alone."""
    net = build_features()
    load_weights(net, HERE / "digits" / "features.safetensors")

    def read(images: Tensor) -> tuple[Tensor, Tensor]:
        if images.shape[1:] != (1, 8, 8):
            raise ValueError(f"digits-features: expected images [B, 1, 8, 8], got {list(images.shape)}")
        return net(images)

    net.eval().requires_grad_(False)
    return FeatureExtractor(f"digits-features-{digest(net)}", FEATURES, read, CLASSES, _place(net, device))


def inception_features(path: Path | str, device: torch.device | str = "cpu") -> FeatureExtractor:
    """FID's Inception, with weights from a local file; see `load_inception` for which, and for what is raised."""
    net = inception.load_inception(path)

    def read(images: Tensor) -> tuple[Tensor, Tensor]:
        if images.dim() != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"inception: expected images [B, 1 or 3, H, W], got {list(images.shape)}")
        return net(images)

    return FeatureExtractor(f"inception-v3-{digest(net)}", inception.FEATURES, read, inception.LOGITS, _place(net, device))


def open_features(name: str, device: torch.device | str = "cpu") -> FeatureExtractor:
    """The extractor of a name on the command line: "digits", or "inception:FILE".

    Raises:
        ValueError: another name. As `inception_features`.
    """
    kind, _, path = name.partition(":")
    if name == "digits":
        return digits_features(device)
    if kind == "inception" and path:
        return inception_features(path, device)
    raise ValueError(f"features: expected digits, or inception:FILE with FID's Inception weights in a local file, got {name!r}")


def digest(net: nn.Module) -> str:
    """Eight hexadecimal digits of the SHA-256 of a network's tensors, whatever file they came from."""
    state = {name: tensor for name, tensor in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    sha = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()[:8]


def _place(net: nn.Module, device: torch.device | str) -> torch.device:
    net.to(device)
    return torch.device(device)
