"""slow-mixing: Langevin dynamics does not find the weights of separated modes; annealed Langevin dynamics does.

The data are 0.1 N((-4, -4), I) + 0.9 N((4, 4), I). Far from both modes and at each of them the score knows nothing of the
weights, so chains of plain Langevin dynamics stay in the mode that they fell into: from a start between the modes, half of them
in each. Annealing begins with so much noise that the modes are one, and the weights follow as the noise shrinks.

Both run the same number of steps with the exact score, on chains that start from N(0, sigma_1^2 I). Annealing is not exact
either: a step size above 0 samples at slightly too high a temperature, and chains stop changing modes before the modes are fully
apart. With these levels both together are worth some thousandths of weight.

Source: Song and Ermon 2019 (arXiv:1907.05600), section 3.2.2, figure 3 and algorithm 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..discrete import geometric_sigmas
from ..figures import BLUE, RED, TRUTH
from ..loop import run
from ..noise import keys, randn
from ..parametrizations import Denoiser
from ..samplers import AnnealedLangevin, Langevin, Sampler
from ._common import Numbers, Part, Recorder, Study, scatter, seed_of
from .mixture import Mixture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WEIGHT = 0.1
DATA = Mixture([WEIGHT, 1 - WEIGHT], [[-4.0, -4.0], [4.0, 4.0]], 1.0)
SIGMA_MAX, SIGMA_MIN, EPS = 6.0, 0.5, 0.03


def small_weight(x: Tensor) -> float:
    """Share of samples nearer to the small mode."""
    return float((x.sum(1) < 0).double().mean())


def samplers(levels: int, steps_each: int) -> dict[str, Sampler]:
    """Plain Langevin dynamics at the lowest level, and annealed, with as many steps."""
    sigmas = [float(s) for s in geometric_sigmas(levels, SIGMA_MAX, SIGMA_MIN)]
    return {
        "Langevin": Langevin(sigma=SIGMA_MIN, step_size=EPS, steps=levels * steps_each, prior_std=SIGMA_MAX),
        "annealed Langevin": AnnealedLangevin(sigmas, steps_each=steps_each, eps=EPS, prior_std=SIGMA_MAX),
    }


def compute(seed: int, quick: bool) -> tuple[Numbers, Any]:
    """The weight of the small mode in both, along the run and at its end."""
    chains, levels, steps_each = (2000, 20, 30) if quick else (5000, 40, 60)
    net, seeds = Denoiser(), seed_of(seed, Part.LATENTS)
    latents = randn((chains, 2), seeds, dtype=torch.float64)
    exact = DATA.sample(chains, seed_of(seed, Part.DATA))
    numbers: Numbers = {"true_weight": WEIGHT, "chains": chains, "steps": levels * steps_each}
    numbers["exact samples"] = _estimate(exact)
    ends, paths = {"exact samples": exact}, {}
    for name, sampler in samplers(levels, steps_each).items():
        weights = Recorder(SIGMA_MAX * latents, small_weight, every=5)
        ends[name] = run(sampler.plan(net), DATA.network(net), latents, key=keys(seeds, chains), callback=weights)
        paths[name] = (np.array(weights.calls), np.array(weights.kept))
        numbers[name] = _estimate(ends[name])
    return numbers, (ends, paths)


def _estimate(x: Tensor) -> Numbers:
    """The recovered weight, its sampling error, and how many of those it is away from the true one."""
    weight = small_weight(x)
    error = math.sqrt(max(weight * (1 - weight), 1e-12) / len(x))
    return {"weight": weight, "sampling_error": error, "errors_from_truth": (weight - WEIGHT) / math.sqrt(WEIGHT * (1 - WEIGHT) / len(x))}


def finding(numbers: Numbers) -> str:
    """In one sentence."""
    plain, annealed = (numbers[name] for name in ("Langevin", "annealed Langevin"))
    return (
        f"A mode of weight {WEIGHT:g}: Langevin finds {plain['weight']:.3f}, annealed Langevin "
        f"{annealed['weight']:.3f} ± {annealed['sampling_error']:.3f}"
    )


def draw(figure: Figure, numbers: Numbers, rest: Any) -> None:
    """Samples of all three, and the weight along the run."""
    ends, paths = rest
    colors = {"exact samples": TRUTH, "Langevin": RED, "annealed Langevin": BLUE}
    axes = figure.subplots(1, 4)
    for ax, (name, x) in zip(axes, ends.items(), strict=False):
        scatter(ax, x[:3000], colors[name], limit=10)
        ax.set_title(f"{name[0].upper()}{name[1:]}")
        weight = numbers[name]["weight"]
        for share, place in ((weight, -4), (1 - weight, 4)):
            ax.text(place, 2.15 * place, f"{share:.3f}", color=colors[name], fontweight="bold", ha="center", va="center")
    ax = axes[-1]
    spread = 2 * math.sqrt(WEIGHT * (1 - WEIGHT) / numbers["chains"])
    ax.axhspan(WEIGHT - spread, WEIGHT + spread, color="#cccccc", lw=0, label=r"true weight $\pm$ 2 sampling errors")
    for name, (calls, weights) in paths.items():
        ax.plot(calls, weights, color=colors[name], label=name)
    ax.set(title="Weight of the small mode", xlabel="network calls", ylabel="share of chains", ylim=(0, 0.62), xlim=(0, numbers["steps"]))
    ax.set_box_aspect(1)
    ax.legend(loc="center right", bbox_to_anchor=(1.02, 0.62), fontsize=9)


STUDY = Study(
    name="slow-mixing",
    about="Langevin dynamics misses the weights of separated modes, annealed Langevin recovers them",
    source="Song and Ermon 2019 (arXiv:1907.05600), section 3.2.2 and figure 3",
    compute=compute, finding=finding, draw=draw, size=(14.0, 3.8),
)  # fmt: skip
