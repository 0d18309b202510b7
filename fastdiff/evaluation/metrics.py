"""Metrics of features: inception score and kernel distance by torchmetrics, precision and recall, which it lacks, here.

The Frechet distance is in `statistics`, since it needs means and covariances only.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class _AsGiven(nn.Module):
    """The feature network of metrics that are handed features."""

    def forward(self, features: Tensor) -> Tensor:
        return features


def require_torchmetrics() -> None:
    """Raise ImportError, saying what to install, where torchmetrics is missing."""
    try:
        import torchmetrics  # noqa: F401
    except ImportError as error:
        raise ImportError("these metrics need torchmetrics: pip install 'fastdiff-torch[eval]'") from error


def inception_score(logits: Tensor, *, splits: int = 10, seed: int = 0) -> tuple[float, float | None]:
    """exp(mean KL(p(y | x) || p(y))), the mean over splits and its standard deviation (None with one split).

    Args:
        logits: [N, K] of a classifier; splits: parts with a p(y) of their own, at most N of them; seed: of the parts.

    Source: Salimans et al. 2016 (arXiv:1606.03498), by torchmetrics.
    """
    _expect("logits", logits)
    require_torchmetrics()
    from torchmetrics.image.inception import InceptionScore

    splits = max(1, min(splits, len(logits) // 2))
    with _quiet(seed):
        metric = InceptionScore(feature=_AsGiven(), splits=splits, sync_on_compute=False)
        metric.to(logits.device)
        metric.update(logits.double())
        mean, std = (float(value) for value in metric.compute())
    return mean, std if math.isfinite(std) else None


def kernel_distance(
    features: Tensor, reference: Tensor, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Squared MMD with the kernel (x.y/D + 1)^3, known as KID; its mean and standard deviation over subsets.

    Args:
        features: [N, D] of samples; reference: [M, D] of data; seed: of the subsets.
        subset_size: at most, and at most half of each set: subsets that are the whole set would all be one.

    Source: Binkowski et al. 2018 (arXiv:1801.01401), by torchmetrics.
    """
    _expect("features", features)
    _expect("reference", reference, features.shape[1])
    require_torchmetrics()
    from torchmetrics.image.kid import KernelInceptionDistance

    with _quiet(seed):
        size = max(2, min(subset_size, len(features) // 2, len(reference) // 2))
        metric = KernelInceptionDistance(feature=_AsGiven(), subsets=subsets, subset_size=size, sync_on_compute=False)
        metric.to(features.device)
        metric.update(reference.to(features.device, torch.float64), real=True)
        metric.update(features.double(), real=False)
        mean, std = (float(value) for value in metric.compute())
    return mean, std


def precision_recall(features: Tensor, reference: Tensor, *, neighbours: int = 3, chunk: int = 4096) -> tuple[float, float]:
    """(precision, recall): the share of samples within the data's manifold, and of data within the samples' manifold.

    A manifold is the union of the balls around its points that reach their k-th nearest neighbour.

    Args:
        features: [N, D] of samples; reference: [M, D] of data; both more than `neighbours`.
        neighbours: k; chunk: rows and columns of the distances that are in memory at a time.

    Source: Kynkaanniemi et al. 2019 (arXiv:1904.06991), section 2.
    """
    _expect("features", features)
    _expect("reference", reference, features.shape[1])
    fewest = min(len(features), len(reference))
    if not 1 <= neighbours < fewest:
        raise ValueError(f"neighbours: expected 1 .. {fewest - 1} with {fewest} points, got {neighbours}")
    samples, data = features.float(), reference.to(features.device, torch.float32)
    precision = _within(samples, data, _radii(data, neighbours, chunk), chunk)
    recall = _within(data, samples, _radii(samples, neighbours, chunk), chunk)
    return precision, recall


def _radii(points: Tensor, neighbours: int, chunk: int) -> Tensor:
    """[N] distance of each point to its k-th nearest other point."""
    radii = []
    for rows in points.split(chunk):
        nearest = torch.empty(len(rows), 0, device=points.device)
        for columns in points.split(chunk):
            both = torch.cat([nearest, torch.cdist(rows, columns)], 1)
            # The point itself is among its neighbours, at distance 0.
            nearest = both.topk(min(neighbours + 1, both.shape[1]), largest=False).values
        radii.append(nearest.amax(1))
    return torch.cat(radii)


def _within(points: Tensor, centres: Tensor, radii: Tensor, chunk: int) -> float:
    """The share of points that lie in a ball."""
    inside = 0
    for rows in points.split(chunk):
        hit = torch.zeros(len(rows), dtype=torch.bool, device=points.device)
        for columns, reach in zip(centres.split(chunk), radii.split(chunk), strict=True):
            hit |= (torch.cdist(rows, columns) <= reach).any(1)
        inside += int(hit.sum())
    return inside / len(points)


@contextmanager
def _quiet(seed: int) -> Iterator[None]:
    """torchmetrics draws from the global generator, and warns of the memory that it needs."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(seed)
        yield


def _expect(name: str, value: Any, columns: int | None = None) -> None:
    wanted = "N" if columns is None else f"N, {columns}"
    if not isinstance(value, Tensor) or value.dim() != 2 or len(value) < 2 or columns not in (None, value.shape[1]):
        got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name}: expected [{wanted}{'' if columns else ', D'}] with N >= 2, got {got}")
