"""Train the digits features: python -m fastdiff.models.digits.train_features --out features.safetensors

Cross-entropy on the clean training split, shifted by up to a pixel, with an exponential moving average of the weights.
Seed 0 and the defaults made the weights in this folder, on one CPU thread.
"""

from __future__ import annotations

import math
from pathlib import Path

import click
import torch
from torch import Tensor, nn

from ...files import write_atomically
from .data import Digits, load_digits
from .features import DigitsFeatures, build_features
from .fit import fit


def shifted(images: Tensor) -> Tensor:
    """Each image moved by -1, 0 or 1 pixels along both axes, black where nothing was."""
    height, width = images.shape[2:]
    wide = nn.functional.pad(images, (1, 1, 1, 1), value=-1.0)
    rows, columns = (torch.randint(3, (len(images), 1)) + torch.arange(size) for size in (height, width))
    return wide[torch.arange(len(images))[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]


def train(data: Digits, *, steps: int, batch: int, lr: float, half_life: float, seed: int) -> DigitsFeatures:
    """Train on `data` and return the averaged network."""
    torch.manual_seed(seed)
    net = build_features().train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=0.05)

    def loss_of(picked: Tensor, step: int) -> Tensor:
        return nn.functional.cross_entropy(net(shifted(data.images[picked])).logits, data.labels[picked])

    return fit(net, optimizer, loss_of, size=len(data.images), steps=steps, batch=batch, half_life=half_life, expected=math.log(10))


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("features.safetensors"), show_default=True, help="Where to write the weights."
)
@click.option("--steps", type=click.IntRange(min=1), default=2500, show_default=True, help="Training steps.")
@click.option("--batch", type=click.IntRange(min=1), default=128, show_default=True, help="Images a step.")
@click.option("--lr", type=float, default=2e-3, show_default=True, help="Peak learning rate of AdamW; decays with a cosine.")
@click.option("--half-life", type=float, default=100.0, show_default=True, help="Half-life of the weight average, in steps.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the initial weights, the data order and the shifts.")
def main(out: Path, steps: int, batch: int, lr: float, half_life: float, seed: int) -> None:
    """Train the digits features on scikit-learn's 8x8 digits (about 2 minutes on one core)."""
    from safetensors.torch import save

    net = train(load_digits("train"), steps=steps, batch=batch, lr=lr, half_life=half_life, seed=seed)
    weights = save(net.state_dict())
    write_atomically(out, lambda file: file.write(weights))
    click.echo(f"wrote {out}")


if __name__ == "__main__":
    main()
