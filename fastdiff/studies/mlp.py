"""A score network for a few dimensions, and its training by denoising score matching."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..noise import Stream, keys
from ..ops import perturb, uniform
from ..parametrizations import EDM

#: Fourier features of the noise label, ln(sigma)/4: sines and cosines of these multiples of it.
_FREQUENCIES = (1.0, 2.0, 4.0, 8.0)


class ScoreMLP(nn.Module):
    """The raw network F of EDM preconditioning (Karras et al. 2022, table 1), for x [B, dim].

    It is called as net(c_in*x, ln(sigma)/4); run it with `parametrization`.

    Args:
        dim: of the data; hidden: width; depth: hidden layers; sigma_data: standard deviation of the data; seed: of the weights.
    """

    def __init__(self, dim: int, *, hidden: int = 128, depth: int = 3, sigma_data: float = 0.5, seed: int = 0) -> None:
        super().__init__()
        self.parametrization = EDM(sigma_data=sigma_data)
        widths = [dim + 2 * len(_FREQUENCIES), *[hidden] * depth]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed % 2**63)
            layers = [part for i, o in itertools.pairwise(widths) for part in (nn.Linear(i, o), nn.SiLU())]
            self.layers = nn.Sequential(*layers, nn.Linear(hidden, dim))

    def forward(self, x_in: Tensor, label: Tensor) -> Tensor:
        angles = label[:, None] * label.new_tensor(_FREQUENCIES)
        return self.layers(torch.cat([x_in, angles.sin(), angles.cos()], dim=1))

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x; sigma) [B, dim] for sigma [B]."""
        net = self.parametrization
        a, b = net.denoiser(sigma)
        return a[:, None] * x + b[:, None] * self(net.c_in(sigma)[:, None] * x, net.label(sigma))

    @torch.no_grad()
    def score(self, x: Tensor, sigma: float) -> Tensor:
        """The learned score (D - x)/sigma^2 [B, dim] at one noise level, data units."""
        return (self.denoise(x, x.new_full((len(x),), sigma)) - x) / sigma**2


def train(
    net: ScoreMLP, data: Tensor, *, steps: int, seed: int, sigma_min: float, sigma_max: float, batch: int = 512, lr: float = 3e-3
) -> ScoreMLP:
    """Denoising score matching: minimize E lambda(sigma) |s(x0 + sigma*z; sigma) + z/sigma|^2, ln sigma uniform.

    Its minimum is the score of the noisy data. lambda = sigma^4/b^2 with the b of EDM's preconditioning, so that the loss of the
    raw output, |F - (x0 - a*x)/b|^2, has the same size at every level.

    Args:
        net: trained in place, and returned; data: [N, dim].
        steps, batch, lr: of Adam, its rate decaying to 0 with a cosine.
        seed: of the choice of data and noise; sigma_min, sigma_max: noise levels, data units; equal for one level.

    Source: Vincent 2011, "A connection between score matching and denoising autoencoders"; the weighting is Karras et al. 2022's.
    """
    data, key = data.float(), keys(seed, batch)
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    parametrization, shape, running = net.parametrization, torch.empty(batch, 2, dtype=torch.float64), math.nan
    with tqdm(range(steps), unit="step", desc="training", leave=False, disable=None) as bar:
        for step in bar:
            u = uniform(shape, key, 2 * step, int(Stream.DATA))
            x0 = data[(u[:, 0] * len(data)).long()]
            sigma = sigma_min * (sigma_max / sigma_min) ** u[:, 1]
            x = perturb(x0, 1.0, sigma, key, 2 * step + 1, int(Stream.DATA))
            a, b = (v.float()[:, None] for v in parametrization.denoiser(sigma))
            F = net(parametrization.c_in(sigma).float()[:, None] * x, parametrization.label(sigma).float())
            loss = (F - (x0 - a * x) / b).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            if step % 50 == 0:
                running = loss.item() if math.isnan(running) else 0.7 * running + 0.3 * loss.item()
                bar.set_postfix(loss=f"{running:.4f}")
    return net.eval().requires_grad_(False)
