"""What must fit together before anything is written: the configuration, the data and the network."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .augment import LABELS
from .config import TrainConfig


def expect(name: str, holds: bool, wanted: str, got: object) -> None:
    """Raise ValueError where something does not hold."""
    if not holds:
        raise ValueError(f"{name}: expected {wanted}, got {got}")


def check_fit(config: TrainConfig, shape: tuple[int, ...], classes: int, labels: Tensor) -> None:
    """Compare a configuration with the data.

    Args:
        shape: of a sample of the data; classes: how many they have, 0 for none; labels: [N] int64, -1 where there is none.

    Raises:
        ValueError: names the field, what it must be for these data, and what it is.
    """
    c, a = config, config.arguments
    wanted = input_shape(c)
    expect("data", wanted is None or wanted == shape, f"samples of the network's shape {list(wanted or ())}", list(shape))
    labelled = classes > 0 and bool((labels >= 0).all())
    if c.task == "denoise":
        expect("conditional", not c.conditional or labelled, "data with a class for each image", "data without" if not labelled else "none")
        dim = a.get("label_dim", 0)
        needed = classes if c.conditional else 0
        expect("arguments.label_dim", dim == needed, f"{needed} ({'the classes' if c.conditional else 'conditional is false'})", dim)
    else:
        expect("data", (c.task == "discriminate" and not c.conditional) or labelled, "a class for each image", "images without")
    if c.task == "classify":
        outputs = a.get("out_channels", classes)
        expect("arguments.out_channels", outputs == classes, f"{classes}, the classes of the data", outputs)
    if c.augment:
        expect("augment", c.task == "denoise" and len(shape) == 3, "0 but for denoisers of images", c.augment)
        dim = a.get("augment_dim", 0)
        expect("arguments.augment_dim", dim == LABELS, f"{LABELS} with augmentation, or the network generates what it shows", dim)


def input_shape(config: TrainConfig) -> tuple[int, ...] | None:
    """The shape of a sample that a configuration's network takes; None where its arguments do not say."""
    a: dict[str, Any] = config.arguments
    if config.network == "Discriminator":
        a = a.get("extractor", {})
    if config.network == "MLP":
        return (a.get("dim", 2),)
    side = a.get("img_resolution", a.get("image_size"))
    channels = a.get("img_channels", a.get("in_channels"))
    return None if side is None or channels is None else (channels, side, side)
