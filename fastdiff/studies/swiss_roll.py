"""swiss-roll: noise dissolves a swiss roll, and the reverse SDE with a learned score rolls it up again.

Forward: dx = f x dt + g dw of the VP SDE, snapshots drawn from its perturbation kernel in one launch each. Reverse: the
ancestral predictor from t = 1 to 0 with the network's score, dx = (f x - g^2 score) dt + g dw discretized with the posterior of
each step. Both rows show the same times.

Source: Sohl-Dickstein et al. 2015 (arXiv:1503.03585), figure 1; Song et al. 2021 (arXiv:2011.13456), eq. 5 and 6.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..loop import run
from ..noise import Seeds, Stream, keys, randn
from ..ops import normal, perturb, uniform
from ..samplers import PCSampler
from ..sdes import VPSDE
from ._common import Numbers, Part, Recorder, Study, scatter, seed_of, sliced_wasserstein
from .mlp import ScoreMLP, train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TURNS, JITTER, SCALE = (0.75, 2.25), 0.02, 11.0
SNAPSHOTS = (1.0, 0.25, 0.1, 0.03, 0.0)


def swiss_roll(count: int, seeds: Seeds) -> Tensor:
    """[count, 2] points (a cos a, a sin a)/11 + 0.02 z with the angle a uniform from 1.5 pi to 4.5 pi; they fill about [-1.3, 1.3]^2."""
    key = keys(seeds, count)
    u = uniform(torch.empty(count, dtype=torch.float64), key, 0, int(Stream.DATA))
    angle = 2 * math.pi * (TURNS[0] + (TURNS[1] - TURNS[0]) * u)
    z = normal(torch.empty(count, 2, dtype=torch.float64), key, 1, int(Stream.DATA))
    return torch.stack([angle * angle.cos(), angle * angle.sin()], dim=1) / SCALE + JITTER * z


def times(steps: int) -> list[float]:
    """t from 1 to 0, closer together where the roll gets its shape."""
    return [float(t) for t in np.linspace(1, 0, steps + 1) ** 2]


def compute(seed: int, quick: bool) -> tuple[Numbers, Any]:
    """Train, run forwards and backwards, and measure how far the generated roll is from the data."""
    count, training, steps = (1500, 1500, 50) if quick else (5000, 4500, 250)
    data, fresh, again = (swiss_roll(count, seed_of(seed, part)) for part in (Part.DATA, Part.HELD_OUT, Part.FLOOR))
    net = ScoreMLP(2, sigma_data=float(data.std()), seed=seed)
    train(net, data, steps=training, seed=seed_of(seed, Part.TRAINING), sigma_min=0.01, sigma_max=100.0)

    sde, seeds = VPSDE(), seed_of(seed, Part.LATENTS)
    sampler = PCSampler(sde, predictor="ancestral_sampling", corrector="none", times=times(steps))
    latents = randn((count, 2), seeds)
    states = Recorder(latents)
    made = run(sampler.plan(net.parametrization), net, latents, key=keys(seeds, count), callback=states).double()

    def distance(x: Tensor, y: Tensor) -> float:
        return sliced_wasserstein(x, y, seeds=seed_of(seed, Part.DIRECTIONS))

    nearest = [int(np.abs(np.array(times(steps)) - t).argmin()) for t in SNAPSHOTS]
    reverse = [(times(steps)[i], states.kept[i].double()) for i in nearest]
    forward = [(t, _forward(sde, data, t, seed_of(seed, Part.FLOOR))) for t, _ in reverse]
    numbers: Numbers = {
        "samples": count,
        "training_steps": training,
        "network_calls": steps,
        "data_std": float(data.std()),
        "sliced_wasserstein_of_prior": distance(latents, fresh),
        "sliced_wasserstein": distance(made, fresh),
        "sliced_wasserstein_of_data": distance(again, fresh),
        "snapshots": [{"t": t, "forward_to_reverse": distance(x, y)} for (t, x), (_, y) in zip(forward, reverse, strict=True)],
    }
    return numbers, (forward, reverse)


def _forward(sde: VPSDE, data: Tensor, t: float, seeds: int) -> Tensor:
    return data if t == 0 else perturb(data, sde.scale(t), sde.std(t), keys(seeds, len(data)))


def finding(numbers: Numbers) -> str:
    """In one sentence."""
    return (
        f"A swiss roll from noise: sliced Wasserstein distance to the data {numbers['sliced_wasserstein']:.3f} "
        f"(prior {numbers['sliced_wasserstein_of_prior']:.2f}, fresh data {numbers['sliced_wasserstein_of_data']:.3f})"
    )


def draw(figure: Figure, numbers: Numbers, rest: Any) -> None:
    """Forward above, from data to noise; reverse below, the same times."""
    forward, reverse = rest
    axes = figure.subplots(2, len(forward), sharex=True, sharey=True)
    radius = forward[-1][1].norm(dim=1), reverse[-1][1].norm(dim=1)  # along the roll: the color of a point is where it is at t = 0
    for row, snapshots, r, (low, high) in zip(axes, (forward, reverse), radius, ((0.4, 1.3),) * 2, strict=True):
        for ax, (t, x) in zip(row, reversed(snapshots), strict=True):
            scatter(ax, x, r.clamp(low, high).numpy(), limit=2.4, size=4, cmap="viridis")
            ax.set_title(f"t = {t:.2g}", loc="center")
            ax.label_outer()
    axes[0, 0].set_ylabel("forward SDE\n(data to noise)\n\n$x_2$")
    axes[1, 0].set_ylabel("reverse SDE, learned score\n(noise to data, from right to left)\n\n$x_2$")


STUDY = Study(
    name="swiss-roll",
    about="forward diffusion of a swiss roll, and the reverse SDE with a learned score",
    source="Sohl-Dickstein et al. 2015 (arXiv:1503.03585), figure 1",
    compute=compute, finding=finding, draw=draw, size=(14.0, 6.2),
)  # fmt: skip
