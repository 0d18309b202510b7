"""Means and covariances of features, and the Frechet distance of two of them (Heusel et al. 2017, arXiv:1706.08500):

    d^2 = |mu_a - mu_b|^2 + tr(S_a) + tr(S_b) - 2 tr (S_a S_b)^(1/2)

The last trace is the sum of the singular values of S_a^(1/2) S_b^(1/2), which is symmetric in a and b, needs no complex square root, and
keeps its accuracy where the covariances are singular, as those of fewer samples than features are.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..distributed import World, world
from ..files import write_atomically


@dataclass(frozen=True)
class Statistics:
    """What FID knows of a set of images.

    Attributes:
        mu: [D] float64 mean; sigma: [D, D] float64 covariance (divided by count - 1).
        count: number of images; None where a file does not say.
        features: name of the extractor; None where a file does not say.
    """

    mu: Tensor
    sigma: Tensor
    count: int | None = None
    features: str | None = None

    def __post_init__(self) -> None:
        if self.mu.dim() != 1 or self.sigma.shape != (len(self.mu), len(self.mu)):
            raise ValueError(f"mu, sigma: expected [D] and [D, D], got {list(self.mu.shape)} and {list(self.sigma.shape)}")
        if self.mu.dtype != torch.float64 or self.sigma.dtype != torch.float64:
            raise ValueError(f"mu, sigma: expected float64, got {self.mu.dtype} and {self.sigma.dtype}")
        if not (torch.isfinite(self.mu).all() and torch.isfinite(self.sigma).all()):
            raise ValueError("mu, sigma: expected finite numbers, got others")

    @classmethod
    def of(cls, features: Tensor, name: str | None = None) -> Statistics:
        """Of features [N, D], N >= 2."""
        moments = Moments(features.shape[1], features.device)
        moments.add(features)
        return moments.statistics(name, World(0, 1, features.device))

    def save(self, path: Path | str) -> None:
        """Write NVlabs/edm's .npz (`mu`, `sigma`) with `count` and `features` beside, whole or not at all."""
        arrays: dict[str, Any] = {"mu": self.mu.cpu().numpy(), "sigma": self.sigma.cpu().numpy()}
        if self.count is not None:
            arrays["count"] = np.int64(self.count)
        if self.features is not None:
            arrays["features"] = np.str_(self.features)
        write_atomically(path, lambda file: np.savez(file, **arrays))

    @classmethod
    def load(cls, path: Path | str) -> Statistics:
        """Read a file of `save` or of NVlabs/edm's fid.py.

        Raises:
            OSError: it cannot be read; ValueError: it is no such file.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                if not isinstance(file, np.lib.npyio.NpzFile) or not {"mu", "sigma"} <= set(file.files):
                    raise ValueError("no arrays mu and sigma")
                mu, sigma = (torch.from_numpy(np.asarray(file[name], dtype=np.float64)) for name in ("mu", "sigma"))
                count = int(file["count"]) if "count" in file.files else None
                return cls(mu, sigma, count, str(file["features"]) if "features" in file.files else None)
        except (ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"reference: expected an .npz with mu [D] and sigma [D, D], got {path} ({error})") from error


class Moments:
    """Sums in float64, to which batches are added on each process.

    Args:
        dim: D; device: where the sums are kept.
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        place = "cpu" if torch.device(device).type == "mps" else device  # Apple's GPUs know no float64
        self.count = 0
        self.first = torch.zeros(dim, dtype=torch.float64, device=place)
        self.second = torch.zeros(dim, dim, dtype=torch.float64, device=place)

    def add(self, features: Tensor) -> None:
        """One more batch [B, D]."""
        features = features.to(self.first.device, torch.float64)
        self.count += len(features)
        self.first += features.sum(0)
        self.second += features.T @ features

    def statistics(self, name: str | None = None, among: World | None = None) -> Statistics:
        """Of the batches of all processes, the same on each of them.

        Raises:
            ValueError: fewer than two samples.
        """
        among = among or world()
        count = int(among.sum(torch.tensor([self.count])))
        if count < 2:
            raise ValueError(f"features: expected those of at least 2 images, got {count}")
        mu = among.sum(self.first) / count
        sigma = (among.sum(self.second) - count * torch.outer(mu, mu)) / (count - 1)
        return Statistics(mu.cpu(), sigma.cpu(), count, name)


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """d^2, known as FID where the features are Inception's.

    Raises:
        ValueError: different numbers of features, or features of different extractors.
    """
    expect_same_features(a.features, b.features)
    if len(a.mu) != len(b.mu):
        raise ValueError(f"statistics: expected the same number of features, got {len(a.mu)} and {len(b.mu)}")
    overlap = torch.linalg.svdvals(_root(a.sigma) @ _root(b.sigma)).sum()
    distance = (a.mu - b.mu).square().sum() + a.sigma.trace() + b.sigma.trace() - 2 * overlap
    return max(distance.item(), 0.0)


def expect_same_features(a: str | None, b: str | None) -> None:
    """Raise where both names are known and differ: numbers of different extractors mean different things."""
    if a is not None and b is not None and a != b:
        raise ValueError(f"statistics: expected those of one extractor, got {a} and {b}")


def _root(sigma: Tensor) -> Tensor:
    """sigma^(1/2); eigenvalues that are rounding noise count as 0, since their roots would not be small."""
    values, vectors = torch.linalg.eigh((sigma + sigma.T) / 2)
    floor = len(values) * torch.finfo(torch.float64).eps * values.abs().max()
    return (vectors * torch.where(values > floor, values, 0).sqrt()) @ vectors.T
