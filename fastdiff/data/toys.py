"""Points of the plane from laws that people know: counter-based, so that point i depends on (seed, i) alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..noise import Seeds, Stream, keys
from ..ops import normal, uniform
from .image_data import ImageData, unlabelled

TRAIN_COUNT, TEST_COUNT = 50_000, 10_000
#: The splits are different points of the same law.
_SEEDS = {"train": 0, "test": 1}
_MOON_JITTER = 0.05


def moons(count: int, seeds: Seeds) -> Tensor:
    """[count, 2] points on two half circles of radius 1 that reach into each other, centred, plus 0.05 z."""
    u = _uniform(count, seeds)
    angle, sign = math.pi * u[:, 0], 1 - 2 * (u[:, 1] < 0.5).double()
    upper = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], dim=1)
    return sign[:, None] * upper + _MOON_JITTER * _normal(count, seeds)


def checkerboard(count: int, seeds: Seeds) -> Tensor:
    """[count, 2] points uniform on every second square of a 4 x 4 board over [-1, 1]^2."""
    u = _uniform(count, seeds)
    column = (4 * u[:, 0]).floor()
    within = 2 * u[:, 1]
    row = 2 * within.floor() + column % 2
    return torch.stack([2 * u[:, 0] - 1, (row + within.frac()) / 2 - 1], dim=1)


def swiss_roll(count: int, seeds: Seeds) -> Tensor:
    """[count, 2] points of the study's swiss roll."""
    from ..studies.swiss_roll import swiss_roll as roll

    return roll(count, seeds)


def mixture(count: int, seeds: Seeds) -> Tensor:
    """[count, 2] points of the studies' mixture 0.3 N((1, 1), 0.1 I) + 0.7 N((-1, -1), 0.1 I), whose score is known exactly."""
    from ..studies.mixture_field import DATA

    return DATA.sample(count, seeds)


@dataclass(frozen=True)
class Toy:
    """A law of points: sample(count, seeds) returns [count, 2] float64."""

    name: str
    about: str
    sample: Callable[[int, Seeds], Tensor]


TOYS: dict[str, Toy] = {
    toy.name: toy
    for toy in (
        Toy("swiss-roll", "points on a spiral", swiss_roll),
        Toy("mixture", "two Gaussians with weights 0.3 and 0.7; the exact score is known", mixture),
        Toy("moons", "two half circles that reach into each other", moons),
        Toy("checkerboard", "every second square of a 4 x 4 board", checkerboard),
    )
}


def open_toy(name: str, split: str | None = None, count: int | None = None, seed: int | None = None) -> ImageData:
    """Points of a law of `TOYS`: 50000 for "train" (default), 10000 others for "test"; `count` and `seed` override both."""
    count = (TEST_COUNT if split == "test" else TRAIN_COUNT) if count is None else count
    points = TOYS[name].sample(count, _SEEDS[split or "train"] if seed is None else seed).to(torch.float32)
    return ImageData(f"{name}:test" if split == "test" else name, TOYS[name].about, points, unlabelled(count), 0, 0)


def _uniform(count: int, seeds: Seeds) -> Tensor:
    return uniform(torch.empty(count, 2, dtype=torch.float64), keys(seeds, count), 0, int(Stream.DATA))


def _normal(count: int, seeds: Seeds) -> Tensor:
    return normal(torch.empty(count, 2, dtype=torch.float64), keys(seeds, count), 1, int(Stream.DATA))
