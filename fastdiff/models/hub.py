"""Models by name, with their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from .adm_encoder import ADMEncoder
from .digits.classifier import build_classifier as build_digits_classifier
from .digits.network import EXTRACTOR, HEAD, SMALL
from .digits.network import build as build_digits
from .discriminator import Discriminator
from .precond import EDMPrecond

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Model:
    """A named model.

    Attributes:
        build: makes the untrained network; weights: the safetensors file that it is shipped with.
        shape: [C, H, W] of a sample; classes: number of classes, 0 for none.
        about: one line for people.
    """

    name: str
    build: Callable[[], nn.Module]
    weights: Path
    shape: tuple[int, int, int]
    classes: int
    about: str


@dataclass(frozen=True)
class Classifier:
    """A named noise-conditional classifier, net(x, sigma) -> logits [B, classes].

    Attributes:
        build: makes the untrained network; weights: the safetensors file that it is shipped with.
        classes: number of classes; about: one line for people.
    """

    name: str
    build: Callable[[], nn.Module]
    weights: Path
    classes: int
    about: str


MODELS: dict[str, Model] = {
    "digits": Model(
        "digits", build_digits, HERE / "digits" / "digits.safetensors", (1, 8, 8), 10,
        "EDM on scikit-learn's 8x8 handwritten digits, class-conditional, 0.75 M parameters",
    ),
    "digits-small": Model(
        "digits-small", lambda: EDMPrecond(**SMALL), HERE / "digits" / "small.safetensors", (1, 8, 8), 10,
        "the same with 0.05 M parameters, which makes mistakes, for the studies of exposure bias and guidance",
    ),
    "digits-small-perturbed": Model(
        "digits-small-perturbed", lambda: EDMPrecond(**SMALL), HERE / "digits" / "small_perturbed.safetensors", (1, 8, 8), 10,
        "digits-small trained with input perturbation 0.1",
    ),
}  # fmt: skip

CLASSIFIERS: dict[str, Classifier] = {
    "digits": Classifier(
        "digits", build_digits_classifier, HERE / "digits" / "classifier.safetensors", 10,
        "scikit-learn's 8x8 handwritten digits at every noise level, 0.03 M parameters",
    ),
}  # fmt: skip


#: Frozen feature extractors of discriminators, and discriminators, each with the weights it is shipped with.
EXTRACTORS: dict[str, Classifier] = {
    "digits": Classifier(
        "digits", lambda: ADMEncoder(**EXTRACTOR), HERE / "digits" / "extractor.safetensors", 10,
        "ADM encoder, a classifier of noisy digits, 0.38 M parameters",
    ),
}  # fmt: skip
DISCRIMINATORS: dict[str, Classifier] = {
    "digits": Classifier(
        "digits", lambda: Discriminator(EXTRACTOR, HEAD), HERE / "digits" / "discriminator.safetensors", 10,
        "data against samples of digits-small, at every noise level, given the class",
    ),
}  # fmt: skip


def load_model(name: str, weights: Path | str | None = None, device: torch.device | str = "cpu") -> nn.Module:
    """A model in evaluation mode, with the weights it is shipped with or those of another safetensors file.

    Raises:
        ValueError: unknown name; a file that is no safetensors file, or whose tensors are not the network's.
        OSError: the file cannot be read.
    """
    return _load("model", MODELS, name, weights, device)


def load_classifier(name: str, weights: Path | str | None = None, device: torch.device | str = "cpu") -> nn.Module:
    """A noise-conditional classifier in evaluation mode: net(x, sigma) -> logits, x noisy and unscaled, sigma in data units.

    Raises:
        ValueError, OSError: as load_model.
    """
    return _load("classifier", CLASSIFIERS, name, weights, device)


def load_extractor(name: str, weights: Path | str | None = None, device: torch.device | str = "cpu") -> nn.Module:
    """A frozen ADMEncoder in evaluation mode, for a discriminator. Raises as load_model."""
    return _load("extractor", EXTRACTORS, name, weights, device)


def load_discriminator(name: str, weights: Path | str | None = None, device: torch.device | str = "cpu") -> Discriminator:
    """A Discriminator in evaluation mode, for `discriminator_guidance`. Raises as load_model."""
    return _load("discriminator", DISCRIMINATORS, name, weights, device)  # type: ignore[return-value]


def _load(
    what: str, known: Mapping[str, Model | Classifier], name: str, weights: Path | str | None, device: torch.device | str
) -> nn.Module:
    if name not in known:
        raise ValueError(f"{what}: expected one of {', '.join(known)}, got {name!r}")
    entry = known[name]
    net = entry.build()
    load_weights(net, Path(weights) if weights is not None else entry.weights)
    return net.eval().requires_grad_(False).to(device)


def load_weights(net: nn.Module, path: Path) -> None:
    """Load a safetensors file into a network, names and shapes exactly."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"weights: no such file: {path}")
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"weights: expected a safetensors file, got {path} ({error})") from error
    expected = net.state_dict()
    missing, unexpected = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    if missing or unexpected:
        detail = "; ".join(f"{what} {_some(names)}" for what, names in (("missing", missing), ("unexpected", unexpected)) if names)
        raise ValueError(f"weights: expected the {len(expected)} tensors of {type(net).__name__}, got {path}: {detail}")
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise ValueError(f"weights: expected {name} of shape {list(tensor.shape)}, got {list(state[name].shape)} in {path}")
    net.load_state_dict(state)


def _some(names: list[str], shown: int = 2) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
