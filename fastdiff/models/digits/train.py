"""Train the built-in digits model: python -m fastdiff.models.digits.train --out digits.safetensors

EDM's objective (Karras et al. 2022, table 1) on the training split, with an exponential moving average of the weights.
Seed 0 and the defaults made the weights in this folder, on two CPU threads (9000 steps at 6 to 9 a second).
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from torch import Tensor, nn

from ...files import write_atomically
from ..precond import EDMPrecond
from .data import Digits, load_digits
from .fit import fit
from .network import build

P_MEAN, P_STD = -0.8, 1.2


def edm_loss(net: EDMPrecond, images: Tensor, class_labels: Tensor) -> Tensor:
    """mean of (sigma^2 + sigma_data^2)/(sigma*sigma_data)^2 * (D(x0 + sigma*z, sigma) - x0)^2, ln sigma ~ N(P_MEAN, P_STD^2)."""
    sigma = (torch.randn(len(images), 1, 1, 1) * P_STD + P_MEAN).exp()
    weight = (sigma**2 + net.sigma_data**2) / (sigma * net.sigma_data) ** 2
    denoised = net(images + sigma * torch.randn_like(images), sigma.flatten(), class_labels)
    return (weight * (denoised - images) ** 2).mean()


def train(data: Digits, *, steps: int, batch: int, lr: float, half_life: float, seed: int) -> EDMPrecond:
    """Train on `data` and return the averaged network."""
    torch.manual_seed(seed)
    net = build().train()
    optimizer = torch.optim.Adam(net.parameters(), lr=lr, betas=(0.9, 0.99))
    one_hot = nn.functional.one_hot(data.labels, 10).to(torch.float32)

    def loss_of(picked: Tensor, step: int) -> Tensor:
        return edm_loss(net, data.images[picked], one_hot[picked])

    return fit(net, optimizer, loss_of, size=len(data.images), steps=steps, batch=batch, half_life=half_life, expected=1.0)


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("digits.safetensors"), show_default=True, help="Where to write the weights."
)
@click.option("--steps", type=click.IntRange(min=1), default=9000, show_default=True, help="Training steps.")
@click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True, help="Images a step.")
@click.option("--lr", type=float, default=2e-3, show_default=True, help="Peak learning rate of Adam; decays with a cosine.")
@click.option("--half-life", type=float, default=300.0, show_default=True, help="Half-life of the weight average, in steps.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the initial weights, the data order and the noise.")
def main(out: Path, steps: int, batch: int, lr: float, half_life: float, seed: int) -> None:
    """Train the digits model on scikit-learn's 8x8 digits (about 20 minutes on two cores)."""
    from safetensors.torch import save

    net = train(load_digits("train"), steps=steps, batch=batch, lr=lr, half_life=half_life, seed=seed)
    weights = save(net.state_dict())
    write_atomically(out, lambda file: file.write(weights))
    click.echo(f"wrote {out}")


if __name__ == "__main__":
    main()
