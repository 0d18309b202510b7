"""The 8x8 digits that scikit-learn ships, scaled to [-1, 1] and split once and for all."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

TEST_FRACTION = 0.2
#: 0 .. 16, evenly spaced from -1 to 1.
GREY_LEVELS = 17
_SPLIT_SEED = 0


class Digits(NamedTuple):
    """images: [N, 1, 8, 8] float32 in [-1, 1] (17 grey levels, step 1/8); labels: [N] int64 in 0..9."""

    images: Tensor
    labels: Tensor


def load_digits(split: str = "train") -> Digits:
    """The "train" (80 %) or "test" (20 %) images of the digits, in an order that never changes.

    Raises:
        ValueError: unknown split.
        ImportError: scikit-learn is missing; it is in the extra fastdiff-torch[train].
    """
    if split not in ("train", "test"):
        raise ValueError(f"split: expected 'train' or 'test', got {split!r}")
    try:
        from sklearn.datasets import load_digits as sklearn_digits
    except ImportError as error:
        raise ImportError("the digits data need scikit-learn: pip install 'fastdiff-torch[train]'") from error
    pixels, labels = sklearn_digits(return_X_y=True)
    order = np.random.RandomState(_SPLIT_SEED).permutation(len(labels))
    cut = int(len(labels) * TEST_FRACTION)
    chosen = order[:cut] if split == "test" else order[cut:]
    images = torch.from_numpy(pixels[chosen]).to(torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    return Digits(images, torch.from_numpy(labels[chosen]))
