"""Train the digits classifier: python -m fastdiff.models.digits.train_classifier --out classifier.safetensors

Cross-entropy on the training split at noise levels uniform in ln sigma, with an exponential moving average of the weights and without
augmentation: shifted digits would make the class probabilities those of another distribution than the denoiser's.
Seed 0 and the defaults made the weights in this folder, on one CPU thread.
"""

from __future__ import annotations

import math
from pathlib import Path

import click
import torch
from torch import Tensor, nn

from ...files import write_atomically
from ...noise import Stream, keys
from ...ops import perturb
from .classifier import DigitsClassifier, build_classifier
from .data import Digits, load_digits
from .fit import fit

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0


def classifier_loss(net: nn.Module, images: Tensor, labels: Tensor, key: Tensor, draw: int) -> Tensor:
    """mean of -ln p(label | x0 + sigma*z; sigma), z the noise of `key` and `draw`, ln sigma uniform from SIGMA_MIN to SIGMA_MAX.

    Args:
        images: x0 [B, 1, 8, 8]; labels: [B] int64; key: [B] noise keys; draw: a new one for each step.
    """
    # One sigma in each B-th of the range: every batch covers it.
    fraction = (torch.arange(len(images)) + torch.rand(len(images))) / len(images)
    sigma = SIGMA_MIN * (SIGMA_MAX / SIGMA_MIN) ** fraction
    return nn.functional.cross_entropy(net(perturb(images, 1.0, sigma, key, draw, Stream.DATA), sigma), labels)


def train(data: Digits, *, steps: int, batch: int, lr: float, half_life: float, seed: int) -> DigitsClassifier:
    """Train on `data` and return the averaged network."""
    torch.manual_seed(seed)
    net = build_classifier().train()
    optimizer = torch.optim.Adam(net.parameters(), lr=lr, betas=(0.9, 0.99))
    key = keys(seed, batch)

    def loss_of(picked: Tensor, step: int) -> Tensor:
        return classifier_loss(net, data.images[picked], data.labels[picked], key, draw=step)

    return fit(net, optimizer, loss_of, size=len(data.images), steps=steps, batch=batch, half_life=half_life, expected=math.log(10))


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("classifier.safetensors"), show_default=True, help="Where to write the weights."
)
@click.option("--steps", type=click.IntRange(min=1), default=4000, show_default=True, help="Training steps.")
@click.option("--batch", type=click.IntRange(min=1), default=128, show_default=True, help="Images a step.")
@click.option("--lr", type=float, default=2e-3, show_default=True, help="Peak learning rate of Adam; decays with a cosine.")
@click.option("--half-life", type=float, default=200.0, show_default=True, help="Half-life of the weight average, in steps.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the initial weights, the data order and the noise.")
def main(out: Path, steps: int, batch: int, lr: float, half_life: float, seed: int) -> None:
    """Train the digits classifier on scikit-learn's 8x8 digits (about 2 minutes on one core)."""
    from safetensors.torch import save

    net = train(load_digits("train"), steps=steps, batch=batch, lr=lr, half_life=half_life, seed=seed)
    weights = save(net.state_dict())
    write_atomically(out, lambda file: file.write(weights))
    click.echo(f"wrote {out}")


if __name__ == "__main__":
    main()
