"""Train the built-in digits model: python -m fastdiff.models.digits.train --out digits.safetensors

EDM's objective (Karras et al. 2022, table 1) on the training split, with an exponential moving average of the weights.
Seed 0 and the defaults made the weights in this folder, on two CPU threads (9000 steps at 6 to 9 a second).
"""

from __future__ import annotations

import copy
import math
from pathlib import Path

import click
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ...files import write_atomically
from ..precond import EDMPrecond
from .data import Digits, load_digits
from .network import build

P_MEAN, P_STD = -0.8, 1.2
EMA_RAMP = 0.05


def edm_loss(net: EDMPrecond, images: Tensor, class_labels: Tensor) -> Tensor:
    """mean of (sigma^2 + sigma_data^2)/(sigma*sigma_data)^2 * (D(x0 + sigma*z, sigma) - x0)^2, ln sigma ~ N(P_MEAN, P_STD^2)."""
    sigma = (torch.randn(len(images), 1, 1, 1) * P_STD + P_MEAN).exp()
    weight = (sigma**2 + net.sigma_data**2) / (sigma * net.sigma_data) ** 2
    denoised = net(images + sigma * torch.randn_like(images), sigma.flatten(), class_labels)
    return (weight * (denoised - images) ** 2).mean()


@torch.no_grad()
def update_average(average: nn.Module, net: nn.Module, step: int, half_life: float) -> None:
    """average <- beta*average + (1 - beta)*net, with the half-life (in steps) ramped up from the start of training."""
    beta = 0.5 ** (1 / max(min(half_life, step * EMA_RAMP), 1e-8))
    for kept, new in zip(average.parameters(), net.parameters(), strict=True):
        kept.lerp_(new, 1 - beta)


def train(data: Digits, *, steps: int, batch: int, lr: float, half_life: float, seed: int) -> EDMPrecond:
    """Train on `data` and return the averaged network."""
    torch.manual_seed(seed)
    net = build().train()
    average = copy.deepcopy(net).eval()
    optimizer = torch.optim.Adam(net.parameters(), lr=lr, betas=(0.9, 0.99))
    one_hot = nn.functional.one_hot(data.labels, 10).to(torch.float32)
    warm_up, running = max(steps // 50, 1), 1.0
    with tqdm(range(1, steps + 1), unit="step", desc="training") as bar:
        for step in bar:
            decay = 0.5 * (1 + math.cos(math.pi * step / steps))
            for group in optimizer.param_groups:
                group["lr"] = lr * min(step / warm_up, 1) * decay
            picked = torch.randint(len(data.images), (batch,))
            loss = edm_loss(net, data.images[picked], one_hot[picked])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            update_average(average, net, step, half_life)
            running += 0.01 * (loss.item() - running)
            if step % 20 == 0:
                bar.set_postfix(loss=f"{running:.4f}")
    return average


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
