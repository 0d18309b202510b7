"""What every study shares: seeds, distances between samples, one look for all pictures, and writing both files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._version import __version__
from ..figures import DPI, picture, require_matplotlib
from ..files import check_writable, write_atomically
from ..loop import StepInfo
from ..noise import Seeds, Stream, randn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: The result of a study, as it goes into JSON: names to numbers, or to lists and dictionaries of them.
Numbers = dict[str, Any]


class Part(IntEnum):
    """Parts of a study that must not share noise: a seed of the study has one seed for each."""

    LATENTS = 0
    DATA = 1
    HELD_OUT = 2
    FLOOR = 3
    TRAINING = 4
    DIRECTIONS = 5


def seed_of(seed: int, part: Part) -> int:
    """The seed of one part of a study."""
    return seed * len(Part) + int(part)


# ---- Distances ---------------------------------------------------------------------------------------------------------


def sliced_wasserstein(x: Tensor, y: Tensor, *, directions: int = 128, seeds: Seeds = 0) -> float:
    """sqrt(mean over directions u of W_2(u.x, u.y)^2), data units.

    In one dimension the optimal transport of equally many points pairs them in order: W_2^2 is the mean squared difference of
    the sorted projections.

    Args:
        x, y: [N, D] samples, as many of each.
        directions: how many, uniform on the sphere; seeds: of the directions.

    Raises:
        ValueError: the shapes differ.

    Source: Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters of measures".
    """
    if x.dim() != 2 or x.shape != y.shape:
        raise ValueError(f"x, y: expected two [N, D] of the same shape, got {list(x.shape)} and {list(y.shape)}")
    u = randn((directions, x.shape[1]), seeds, stream=int(Stream.PROBE), dtype=torch.float64)
    u = u / u.norm(dim=1, keepdim=True)
    projected = [(v.double() @ u.T).sort(dim=0).values for v in (x, y)]
    return math.sqrt((projected[0] - projected[1]).square().mean().item())


# ---- Sampling ----------------------------------------------------------------------------------------------------------


class Recorder:
    """A callback of `fastdiff.run` that keeps what `of(state)` returns after some of the calls, beside the start.

    Args:
        first: the first state, before any call; of: what to keep of a state; every: keep each so manieth state.
    """

    def __init__(self, first: Tensor, of: Callable[[Tensor], Any] = lambda x: x, every: int = 1) -> None:
        self.of, self.every = of, every
        self.calls = [0]  #: network calls before each kept state
        self.kept = [of(first)]

    def __call__(self, info: StepInfo) -> None:
        if (info.call + 1) % self.every == 0 or info.call + 1 == info.calls:
            self.calls.append(info.call + 1)
            self.kept.append(self.of(info.x))


# ---- Studies -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Study:
    """A figure of the literature, computed again.

    Attributes:
        name: on the command line; about: one line; source: whose figure it is.
        compute: called as compute(seed, quick); returns the numbers, and what `draw` needs beside them.
        finding: the numbers in one sentence, the title of the picture.
        draw: called as draw(figure, numbers, rest).
        size: of the picture in inches; one_thread: whether it computes on one.
    """

    name: str
    about: str
    source: str
    compute: Callable[[int, bool], tuple[Numbers, Any]]
    finding: Callable[[Numbers], str]
    draw: Callable[[Figure, Numbers, Any], None]
    size: tuple[float, float] = (11.0, 4.2)
    one_thread: bool = True

    def run(self, out: Path, seed: int = 0, quick: bool = False) -> Numbers:
        """Compute the study, write OUT.png and OUT.json (each whole or not at all), and return the numbers.

        Args:
            out: path of both files without their endings.
            seed: of everything random: the same seed gives the same numbers.
            quick: fewer samples, steps and calls, for tests.

        Raises:
            ImportError: matplotlib is missing; OSError: the files cannot be written. Both before anything is computed.
        """
        require_matplotlib()
        png, data = (out.with_name(f"{out.name}.{ending}") for ending in ("png", "json"))
        for path in (png, data):
            check_writable(path)
        with one_thread() if self.one_thread else nullcontext():
            numbers, rest = self.compute(seed, quick)
        with picture(self.size) as figure:
            figure.suptitle(self.finding(numbers), x=0.01, ha="left", fontweight="bold")
            self.draw(figure, numbers, rest)
            write_atomically(png, lambda file: figure.savefig(file, format="png", dpi=DPI))
        record = {
            "study": self.name, "about": self.about, "source": self.source, "finding": self.finding(numbers), "seed": seed,
            "quick": quick, "fastdiff": __version__, "torch": torch.__version__, "numbers": numbers,
        }  # fmt: skip
        text = json.dumps(record, indent=2, allow_nan=False) + "\n"
        write_atomically(data, lambda file: file.write(text.encode()))
        return numbers


@contextmanager
def one_thread() -> Iterator[None]:
    """Points of a plane are too little work for several threads, and with one the sums have one order: the same numbers everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def scatter(axes: Axes, x: Tensor, color: Any, *, limit: float, label: str | None = None, size: float = 3.0, **more: Any) -> None:
    """Points [N, 2] in a square of side 2*limit around 0."""
    axes.scatter(x[:, 0].numpy(), x[:, 1].numpy(), s=size, c=color, alpha=0.6, linewidths=0, rasterized=True, label=label, **more)
    square(axes, limit)


def square(axes: Axes, limit: float) -> None:
    """Equal scales, from -limit to limit."""
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
    axes.locator_params(nbins=6, steps=[1, 2, 5, 10])
