"""fid.py: the Frechet distance of images to reference statistics, and such statistics of a data set.

python -m fastdiff.compat.edm.fid calc --images=out --ref=cifar10-32x32.npz --features=inception:pt_inception-2015-12-05-6726825d.pth
python -m fastdiff.compat.edm.fid ref --data=cifar10.zip --dest=cifar10-32x32.npz --features=inception:...
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from ...data import ImageData, open_data
from ...distributed import world
from ...evaluation import FeatureExtractor, Statistics, frechet_distance, open_features, reference_of
from ...files import check_writable
from ._command import run

#: Upstream downloads its Inception; here it is a local file.
NO_FEATURES = "features: expected inception:FILE with FID's Inception weights in a local file (nothing is downloaded), or digits, got none"


@dataclass(frozen=True)
class Chosen:
    """Some images of a data set."""

    data: ImageData
    index: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    def __len__(self) -> int:
        return len(self.index)

    def batch(self, indices: Any) -> tuple[Tensor, Tensor]:
        return self.data.batch(self.index[np.asarray(indices)])


def choose(data: ImageData, count: int | None, seed: int = 0) -> Chosen:
    """The `count` images of a data set that upstream chooses by a seed, in their order; None for all.

    Raises:
        ValueError: fewer than `count`, or than two.
    """
    if count is not None and len(data) < count:
        raise ValueError(f"images: expected at least {count}, got {len(data)} in {data.name}; --num={len(data)} takes what is there")
    if len(data) < 2:
        raise ValueError(f"images: expected at least 2 to have statistics, got {len(data)} in {data.name}")
    index = np.arange(len(data))
    if count is not None and count < len(data):
        np.random.RandomState(seed % 2**31).shuffle(index)
        index = np.sort(index[:count])
    return Chosen(data, index)


def image_statistics(
    image_path: Path | str, extractor: FeatureExtractor, num_expected: int | None = None, seed: int = 0, max_batch_size: int = 64
) -> Statistics:
    """Mean and covariance of the features of a folder, zip or other data set, read by all processes together."""
    chosen = choose(open_data(image_path), num_expected, seed)
    return reference_of(chosen, extractor, batch=max_batch_size, keep=False).statistics


def calculate_inception_stats(
    image_path: Path | str, num_expected: int | None = None, seed: int = 0, max_batch_size: int = 64, num_workers: int = 3,
    prefetch_factor: int = 2, device: torch.device | str | None = None, *, features: str | FeatureExtractor | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """(mu [D], sigma [D, D]) of the features of images.

    Args:
        image_path: a folder or a zip, or whatever `fastdiff.data.open_data` opens; num_expected: images that `seed` chooses, None for all.
        max_batch_size: images at a time; num_workers, prefetch_factor: for upstream's signature alone, files are read here.
        device: where the features are computed, None for a GPU if there is one.
        features: "inception:FILE", or "digits" for the shipped extractor, which is no Inception; or a FeatureExtractor.

    Raises:
        ValueError: too few images, no features or unknown ones; FileNotFoundError: nothing is there.
    """
    if features is None:
        raise ValueError(NO_FEATURES)
    place = world().device if device is None else device
    extractor = open_features(features, place) if isinstance(features, str) else features
    statistics = image_statistics(image_path, extractor, num_expected, seed, max_batch_size)
    return statistics.mu.numpy(), statistics.sigma.numpy()


def calculate_fid_from_inception_stats(mu: np.ndarray, sigma: np.ndarray, mu_ref: np.ndarray, sigma_ref: np.ndarray) -> float:
    """The Frechet distance of two Gaussians of given means and covariances."""
    own = Statistics(torch.as_tensor(mu, dtype=torch.float64), torch.as_tensor(sigma, dtype=torch.float64))
    return frechet_distance(own, Statistics(torch.as_tensor(mu_ref, dtype=torch.float64), torch.as_tensor(sigma_ref, dtype=torch.float64)))


BATCH = click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True, metavar="INT", help="Images at a time.")
DEVICE = click.option("--device", default=None, help="Where to compute; default: a GPU if there is one.")
FEATURES = click.option(
    "--features", metavar="inception:FILE|digits",
    help="FID's Inception from a local file, or the shipped digits extractor.  [default: that of --ref, where it is digits]",
)  # fmt: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Calculate the Frechet Inception Distance (FID).

    \b
    # Calculate FID
    torchrun --standalone --nproc_per_node=1 -m fastdiff.compat.edm.fid calc --images=out --ref=cifar10-32x32.npz \\
        --features=inception:pt_inception-2015-12-05-6726825d.pth

    \b
    # Statistics of a data set, and a distance to them
    python -m fastdiff.compat.edm.fid ref --data=digits --dest=digits.npz --features=digits
    python -m fastdiff.compat.edm.fid calc --images=out --ref=digits.npz --num=64
    """


@main.command()
@click.option("--images", "image_path", required=True, metavar="PATH|ZIP", help="The images.")
@click.option("--ref", "ref_path", required=True, metavar="NPZ", help="Reference statistics, of `ref` or of NVlabs/edm.")
@click.option(  # torchrun takes --num for one of its own
    "--num", "--num_expected", "num_expected", type=click.IntRange(min=2), default=50000, show_default=True, metavar="INT", help="How many."
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="INT", help="Which of them.")
@BATCH
@FEATURES
@DEVICE
def calc(image_path: str, ref_path: str, num_expected: int, seed: int, batch: int, features: str | None, device: str | None) -> None:
    """Calculate FID for a given set of images; the last line is the number alone."""
    among = world(device)
    reference = Statistics.load(ref_path)
    extractor = _extractor(features or _features_of(reference), among.device)
    found = image_statistics(image_path, extractor, num_expected, seed, batch)
    if among.is_main:
        distance = frechet_distance(found, reference)
        if not extractor.name.startswith("inception"):
            click.echo(f"Frechet distance of {extractor.name}: not FID, whose features are Inception's", err=True)
        click.echo(f"{distance:g}")
    among.wait()


@main.command()
@click.option("--data", "dataset_path", required=True, metavar="PATH|ZIP", help="The data set.")
@click.option("--dest", "dest_path", required=True, type=click.Path(path_type=Path), metavar="NPZ", help="The file to write.")
@BATCH
@FEATURES
@DEVICE
def ref(dataset_path: str, dest_path: Path, batch: int, features: str | None, device: str | None) -> None:
    """Calculate the statistics of a data set that `calc` compares with."""
    among = world(device)
    extractor = _extractor(features, among.device)
    if among.is_main:
        dest_path.parent.mkdir(parents=True, exist_ok=True)
        check_writable(dest_path)
    statistics = image_statistics(dataset_path, extractor, max_batch_size=batch)
    if among.is_main:
        statistics.save(dest_path)
        click.echo(f'Saved the statistics of {statistics.count} images to "{dest_path}".')
    among.wait()


def _extractor(features: str | None, device: torch.device) -> FeatureExtractor:
    if features is None:
        raise ValueError(f"--{NO_FEATURES}")
    return open_features(features, device)


def _features_of(reference: Statistics) -> str | None:
    """The option that makes the features of a reference, where that needs no file."""
    return "digits" if (reference.features or "").startswith("digits-") else None


if __name__ == "__main__":
    run(main, "fastdiff.compat.edm.fid")
