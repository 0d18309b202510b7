"""sde-ode: the reverse SDE and the probability-flow ODE, from the same latents to the same distribution.

    dx = (f x - g^2 score) dt + g dw          dx = (f x - g^2 score / 2) dt

Both have the marginals p_t of the forward process. In one dimension paths of the ODE cannot cross: it maps the quantiles of the
prior to those of the data, while the SDE forgets where a path began. The score is exact; both are Euler's method with the same times.

Source: Song et al. 2021 (arXiv:2011.13456), figure 2, eq. 6 and 13.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..figures import BLUE, RED, TRUTH
from ..loop import run
from ..noise import keys, randn
from ..parametrizations import Score
from ..samplers import PCSampler
from ..schedules import Float
from ..sdes import VPSDE
from ._common import Numbers, Part, Recorder, Study, seed_of
from .mixture import Mixture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DATA = Mixture([0.25, 0.45, 0.3], [[-1.5], [0.2], [1.6]], [0.15**2, 0.2**2, 0.1**2])
GRID = np.linspace(-3.2, 3.2, 1281)
SHOWN = 16


def density(t: float, sde: VPSDE) -> Float:
    """p_t on the grid: that of s*(x0 + sigma*z)."""
    s, sigma = (sde.scale(t), sde.sigma(t)) if t > 0 else (1.0, 0.0)
    return DATA.log_density(torch.from_numpy(GRID)[:, None] / s, sigma).exp().numpy() / s


def quantiles(count: int) -> Tensor:
    """[count] exact quantiles of the data at (i + 1/2)/count."""
    values = density(0.0, VPSDE())
    cdf = np.concatenate([[0.0], np.cumsum((values[1:] + values[:-1]) / 2 * np.diff(GRID))])
    return torch.from_numpy(np.interp((np.arange(count) + 0.5) / count, cdf / cdf[-1], GRID))


def wasserstein(x: Tensor, quantiles: Tensor) -> float:
    """W_1: mean distance of the sorted samples from the quantiles, data units."""
    return float((x.flatten().sort().values - quantiles).abs().mean())


def rank_correlation(x: Tensor, y: Tensor) -> float:
    """Spearman's: 1 where y is a growing function of x."""
    ranks = torch.stack([v.flatten().argsort().argsort().double() for v in (x, y)])
    return float(ranks.corrcoef()[0, 1])


def compute(seed: int, quick: bool) -> tuple[Numbers, Any]:
    """Both runs from the same latents, their ends against the exact distribution."""
    count, steps = (2000, 100) if quick else (50_000, 300)
    sde, net, seeds = VPSDE(), Score(schedule=VPSDE(), label_scale=1.0), seed_of(seed, Part.LATENTS)
    times = [float(t) for t in np.linspace(1, 0, steps + 1) ** 2]
    latents = randn((count, 1), seeds, dtype=torch.float64)
    exact = quantiles(count)
    paths, ends = {}, {}
    for name, ode in (("reverse SDE", False), ("probability-flow ODE", True)):
        sampler = PCSampler(sde, predictor="euler_maruyama", corrector="none", times=times, probability_flow=ode)
        kept = Recorder(latents, lambda x: x[:SHOWN, 0].clone())
        ends[name] = run(sampler.plan(net), DATA.network(net), latents, key=keys(seeds, count), callback=kept)
        paths[name] = torch.stack(kept.kept).numpy()
    sampled = DATA.sample(count, seed_of(seed, Part.FLOOR))
    numbers: Numbers = {
        "samples": count,
        "network_calls": steps,
        "wasserstein_to_data": {name: wasserstein(x, exact) for name, x in ends.items()},
        "wasserstein_of_exact_samples": wasserstein(sampled, exact),
        "wasserstein_between": wasserstein(ends["reverse SDE"], ends["probability-flow ODE"].flatten().sort().values),
        "wasserstein_of_prior": wasserstein(latents, exact),
        "rank_correlation_with_latents": {name: rank_correlation(latents, x) for name, x in ends.items()},
    }
    return numbers, (np.array(times), paths, ends, sde)


def finding(numbers: Numbers) -> str:
    """In one sentence."""
    sde, ode = numbers["wasserstein_to_data"].values()
    return (
        f"SDE and ODE take different paths to the same marginal: W1 to the data {sde:.4f} and {ode:.4f} "
        f"(exact samples {numbers['wasserstein_of_exact_samples']:.4f})"
    )


def draw(figure: Figure, numbers: Numbers, rest: Any) -> None:
    """Paths over the density of each time, and the ends."""
    times, paths, ends, sde = rest
    colors = {"reverse SDE": RED, "probability-flow ODE": BLUE}
    axes = figure.subplots(1, 3, sharey=True, width_ratios=(1, 1, 0.55))
    shown = np.linspace(0, 1, 200)
    field = np.stack([density(float(t), sde) for t in shown**2], axis=1)
    field = np.sqrt(field / field.max(axis=0))  # scaled to the largest at each t, else the last times hide the others
    for ax, (name, path) in zip(axes, paths.items(), strict=False):
        ax.imshow(
            field, extent=(0, 1, GRID[0], GRID[-1]), origin="lower", aspect="auto", interpolation="bilinear", vmin=0, vmax=1.6, zorder=0
        )
        ax.plot(np.sqrt(times), path, color=colors[name], lw=0.9, alpha=0.85)
        ax.set(title=f"{name[0].upper()}{name[1:]}", xlabel="time t (noise at 1, data at 0)", xlim=(1, 0), ylim=(-2.9, 2.9))
        ticks = (1, 0.5, 0.2, 0.05, 0)
        ax.set_xticks(np.sqrt(ticks), [f"{t:g}" for t in ticks])
    axes[0].set_ylabel("x")
    ax = axes[2]
    for name, x in ends.items():
        ax.hist(x.flatten().numpy(), bins=120, range=(-2.9, 2.9), density=True, histtype="step", orientation="horizontal",
                color=colors[name], lw=1.3, label=name)  # fmt: skip
    ax.plot(density(0.0, sde), GRID, color=TRUTH, lw=1.3, ls="--", label="data")
    ax.set(title="Ends, all samples", xlabel="density")
    ax.legend(loc="lower right", fontsize=9)


STUDY = Study(
    name="sde-ode",
    about="reverse-SDE and probability-flow ODE paths from the same latents to the same marginal",
    source="Song et al. 2021 (arXiv:2011.13456), figure 2",
    compute=compute, finding=finding, draw=draw, size=(14.0, 4.8),
)  # fmt: skip
