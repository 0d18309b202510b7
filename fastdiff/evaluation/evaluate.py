"""Metrics of a model's samples over blocks of seeds, with any sampler, any feature extractor, and any number of processes.

Block k holds samples k*n .. (k + 1)*n - 1 of a seed, as EDM's tables take the least FID of seeds 0-49999, 50000-99999 and
100000-149999. FID of a finite block is biased upwards and scatters: compare equal n, and look at the spread.
"""

from __future__ import annotations

import math
import statistics as stdlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from ..distributed import World, world
from ..noise import keys
from ..sampling import sample
from .features import FeatureExtractor, eight_bit
from .metrics import inception_score, kernel_distance, precision_recall, require_torchmetrics
from .statistics import Moments, Statistics, expect_same_features, frechet_distance

#: name: what `values` of a block then hold; the first is the metric itself.
METRICS: dict[str, tuple[str, ...]] = {
    "fid": ("fid",), "is": ("is", "is_std"), "kid": ("kid", "kid_std"), "pr": ("precision", "recall"),
}  # fmt: skip

#: Called with indices [B] int64 of samples; returns images [B, C, H, W] in [-1, 1]. The same index must give the same image.
Draw = Callable[[Tensor], Tensor]


class Images(Protocol):
    """What `fastdiff.data.open_data` returns."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Reference:
    """What samples are compared with.

    Attributes:
        statistics: for FID; features: [M, D], for KID and precision and recall, or None where only statistics are at hand.
    """

    statistics: Statistics
    features: Tensor | None = None


@dataclass(frozen=True)
class Block:
    """The metrics of samples first .. last of a seed."""

    first: int
    last: int
    values: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """Metrics of every block.

    Attributes:
        features: name of the extractor; reference: how many images the samples were compared with, None where its file does not say.
        blocks: see `Block`; shown: [S, C, H, W] the first few samples, for a picture.
    """

    features: str
    reference: int | None
    blocks: tuple[Block, ...]
    shown: Tensor

    @property
    def summary(self) -> dict[str, dict[str, float | None]]:
        """For each metric its mean, min, max, spread (max - min) and std (None with one block) over the blocks."""
        table: dict[str, dict[str, float | None]] = {}
        for name in self.blocks[0].values:
            if not name.endswith("_std"):
                values = [block.values[name] for block in self.blocks]
                std = stdlib.stdev(values) if len(values) > 1 else None
                low, high = min(values), max(values)
                table[name] = {"mean": stdlib.fmean(values), "min": low, "max": high, "spread": high - low, "std": std}
        return table

    def record(self) -> dict[str, Any]:
        """For JSON."""
        blocks = [{"first": block.first, "last": block.last, **block.values} for block in self.blocks]
        return {"features": self.features, "reference_images": self.reference, "summary": self.summary, "blocks": blocks}

    def __str__(self) -> str:
        """A line for each metric."""
        lines = [f"{'':10}{'mean':>10}{'min':>10}{'max':>10}{'spread':>10}{'std':>10}"]
        for name, row in self.summary.items():
            lines.append(f"{name:10}" + "".join(f"{'-' if value is None else f'{value:.4g}':>10}" for value in row.values()))
        return "\n".join(lines)


def reference_of(
    data: Images, extractor: FeatureExtractor, *, batch: int = 256, keep: bool = True, among: World | None = None, progress: bool = True
) -> Reference:
    """The statistics and features of a data set, read by all processes together.

    Args:
        data: images in [-1, 1]; keep: the features, too, which KID and precision and recall need (on the main process).
    """
    among = among or world()
    moments, kept, _, _ = _read(lambda index: data.batch(index)[0], extractor, 0, len(data), batch, keep, 0, among, progress, "reference")
    return Reference(moments.statistics(extractor.name, among), kept if keep else None)


def evaluate_images(
    draw: Draw, reference: Reference, extractor: FeatureExtractor, *, n: int, blocks: int = 3, batch: int = 256,
    metrics: Sequence[str] = ("fid",), shown: int = 64, among: World | None = None, progress: bool = True, seed: int = 0,
) -> Evaluation | None:  # fmt: skip
    """The metrics of images 0 .. blocks*n - 1 of any source.

    Args:
        draw: called with the indices of a batch; reference: what the images are compared with.
        n: images in a block; blocks: how many; batch: images at a time.
        metrics: of `METRICS`; shown: how many of the first images to keep for a picture; seed: of the subsets of KID and the splits of IS.
        among: the processes that share the work; whole batches go to each, so that their number changes nothing.

    Returns:
        Evaluation on the main process, None on the others.

    Raises:
        ValueError: an unknown metric; n, blocks or batch out of range; reference features of another extractor, or none for "kid" or "pr".
        ImportError: torchmetrics is missing, for "is" and "kid".
    """
    among = among or world()
    check_metrics(metrics, reference.features is not None or not among.is_main, extractor)
    for name, value, least in (("n", n, 2), ("blocks", blocks, 1), ("batch", batch, 1)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name}: expected an integer >= {least}, got {value!r}")
    expect_same_features(reference.statistics.features, extractor.name)
    results: list[Block] = []
    pictures = torch.empty(0)
    for k in range(blocks):
        title = f"block {k + 1} of {blocks}" if blocks > 1 else "samples"
        keep = "kid" in metrics or "pr" in metrics
        first = k * n
        moments, features, logits, seen = _read(draw, extractor, first, n, batch, keep, 0 if k else shown, among, progress, title)
        statistics = moments.statistics(extractor.name, among)
        if among.is_main:
            pictures = seen if k == 0 else pictures
            values = _values(metrics, statistics, features, logits, reference, extractor.device, seed)
            results.append(Block(first, first + n - 1, values))
    if not among.is_main:
        return None
    return Evaluation(extractor.name, reference.statistics.count, tuple(results), pictures)


def evaluate(
    net: Callable[..., Tensor], data: Images | Reference, *, extractor: FeatureExtractor, shape: Sequence[int] | None = None,
    n: int = 50_000, blocks: int = 3, seed: int = 0, batch: int = 256, metrics: Sequence[str] = ("fid",), classes: int = 0,
    condition: Callable[[Tensor], Mapping[str, Any]] | None = None, shown: int = 64, among: World | None = None, progress: bool = True,
    **options: Any,
) -> Evaluation | None:  # fmt: skip
    """The metrics of a model's samples.

    >>> evaluation = evaluate(net, open_data("digits"), extractor=digits_features(), n=1000, classes=10)
    >>> evaluation.summary["fid"]["mean"], evaluation.summary["fid"]["spread"]

    Args:
        net: see `fastdiff.sample`; data: what to compare with, images or a ready `Reference`.
        shape: (C, H, W) of a sample; default: that of the data.
        n, blocks, batch, metrics, shown, among, progress: see `evaluate_images`.
        seed: sample i has the key of (seed, i), as in `fastdiff sample`, whatever the batch and the number of processes.
        classes: of the network's class_labels, 0 for none: the class of a sample is uniform, by its key.
        condition: called with the indices of a batch; returns more arguments of `fastdiff.sample` for it, e.g. a guidance of its labels.
        options: further arguments of `fastdiff.sample`: sampler, guidance, cfg, eps_scale, parametrization, clip, net_dtype, ...

    Returns, raises:
        As `evaluate_images`.
    """
    among = among or world()
    if isinstance(data, Reference):
        reference = data
    else:
        check_metrics(metrics, True, extractor)
        reference = reference_of(data, extractor, batch=batch, keep="kid" in metrics or "pr" in metrics, among=among, progress=progress)
        shape = data.shape if shape is None else shape
    if shape is None:
        raise ValueError("shape: expected (C, H, W) of a sample beside a ready reference, got none")
    draw = sample_source(net, shape, seed=seed, classes=classes, condition=condition, **options)
    return evaluate_images(
        draw, reference, extractor, n=n, blocks=blocks, batch=batch, metrics=metrics, shown=shown, among=among, progress=progress, seed=seed
    )


def sample_source(
    net: Callable[..., Tensor], shape: Sequence[int], *, seed: int = 0, classes: int = 0,
    condition: Callable[[Tensor], Mapping[str, Any]] | None = None, **options: Any,
) -> Draw:  # fmt: skip
    """A source whose image i is the sample of key (seed, i); the arguments are those of `evaluate`."""
    device = next((p.device for p in net.parameters()), torch.device("cpu")) if isinstance(net, torch.nn.Module) else torch.device("cpu")
    device = torch.device(options.pop("device", None) or device)

    def draw(index: Tensor) -> Tensor:
        more: dict[str, Any] = {"progress": False, **options, **(condition(index) if condition else {})}
        key = keys(seed, len(index), first=int(index[0]), device=device)
        if classes:
            # Independent classes, as EDM draws them: a set with equally many of each is no random sample, and KID would be biased.
            more.setdefault("class_labels", torch.nn.functional.one_hot(key % classes, classes).to(torch.float32))
        return sample(net, (len(index), *shape), seeds=key, device=device, **more)

    return draw


def check_metrics(metrics: Sequence[str], has_features: bool, extractor: FeatureExtractor) -> None:
    """Raise where a metric is unknown, or cannot be had.

    Args:
        has_features: whether the reference's features are at hand, not its statistics alone.
    """
    for name in metrics:
        if name not in METRICS:
            raise ValueError(f"metrics: expected any of {', '.join(METRICS)}, got {name!r}")
        if name in ("kid", "pr") and not has_features:
            raise ValueError(f"metrics: expected data to compare with for {name}, got statistics alone")
        if name == "is" and not extractor.classes:
            raise ValueError(f"metrics: expected an extractor with class probabilities for is, got {extractor.name}")
    if not metrics:
        raise ValueError(f"metrics: expected any of {', '.join(METRICS)}, got none")
    if {"is", "kid"} & set(metrics):
        require_torchmetrics()


def _read(
    draw: Draw, extractor: FeatureExtractor, first: int, count: int, batch: int, keep: bool, shown: int, among: World, progress: bool,
    title: str,
) -> tuple[Moments, Tensor | None, Tensor | None, Tensor]:  # fmt: skip
    """(moments of this process; features and logits of all, on the main process; the first images that this one has)."""
    moments = Moments(extractor.dim, extractor.device)
    features, logits = [torch.empty(0, extractor.dim)], [torch.empty(0, extractor.classes)]
    pictures: list[Tensor] = []
    for index in _batches(first, count, batch, among, progress, title):
        images = eight_bit(draw(index))
        read, classes = extractor(images)
        moments.add(read)
        if keep:
            features.append(read.cpu())
        if classes is not None:
            logits.append(classes.cpu())
        pictures.append(images[index - first < shown].cpu())
    if shown and among.is_main and not pictures:  # fewer batches than processes
        pictures.append(eight_bit(draw(torch.arange(first, first + min(count, shown)))).cpu())
    return moments, among.gather(torch.cat(features)), among.gather(torch.cat(logits)), torch.cat(pictures or [torch.empty(0)])


def _batches(first: int, count: int, batch: int, among: World, progress: bool, title: str) -> Iterator[Tensor]:
    """Indices of this process's batches: whole ones, since a network's rounding depends on its batch."""
    batches = list(torch.arange(first, first + count).split(batch))
    mine = [batches[i] for i in among.share(len(batches))]
    with tqdm(total=sum(map(len, mine)), desc=title, unit="image", disable=not (progress and among.is_main)) as bar:
        for index in mine:
            yield index
            bar.update(len(index))


def _values(
    metrics: Sequence[str], statistics: Statistics, features: Tensor | None, logits: Tensor | None, reference: Reference,
    device: torch.device | str, seed: int,
) -> dict[str, float]:  # fmt: skip
    """The metrics of one block."""
    values: dict[str, float] = {}
    for name in metrics:
        found: tuple[float | None, ...]
        if name == "fid":
            found = (frechet_distance(statistics, reference.statistics),)
        elif name == "is":
            assert logits is not None
            found = inception_score(logits.to(device), seed=seed)
        else:
            assert features is not None
            assert reference.features is not None
            compare = kernel_distance(features.to(device), reference.features.to(device), seed=seed) if name == "kid" else None
            found = compare or precision_recall(features.to(device), reference.features.to(device))
        values |= {key: value for key, value in zip(METRICS[name], found, strict=True) if value is not None}
    if not all(math.isfinite(value) for value in values.values()):
        raise ValueError(f"metrics: expected finite values, got {values}")
    return values
