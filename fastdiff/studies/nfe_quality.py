"""nfe-quality: how many network calls each sampler needs.

The network is exact, so what is left is the sampler's own error: the sliced Wasserstein distance of its samples from exact
samples of the data, which is on average no less than that of two sets of exact samples. Every method starts from the same latents
and has its authors' choices:

    DDIM            eta = 0, times of DDPM's 1000 evenly spaced                         one call a step
    DPM-Solver++    2M, EDM's noise levels                                               one call a step
    EDM Heun        Karras et al. 2022, algorithm 1, EDM's noise levels                  two calls a step but the last
    PF Euler        Euler's method for the probability-flow ODE of the VP SDE, even t    one call a step
    PC              reverse diffusion and one Langevin corrector, same t, snr 0.16       two calls a step

Source: Karras et al. 2022 (arXiv:2206.00364), figure 2 and 3; Lu et al. 2022 (arXiv:2211.01095), figure 3; Song et al. 2021.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..discrete import Discrete
from ..figures import BLUE, GREEN, ORANGE, PURPLE, RED
from ..loop import run
from ..noise import keys, randn
from ..parametrizations import Denoiser
from ..samplers import DDIM, DPMSolver2M, EDMSampler, PCSampler, Sampler
from ..sdes import VPSDE
from ._common import Numbers, Part, Study, scatter, seed_of, sliced_wasserstein
from .mixture import Mixture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = {"DDIM": ORANGE, "DPM-Solver++ 2M": GREEN, "EDM Heun": BLUE, "probability-flow Euler": PURPLE, "PC": RED}
SHOWN = 20  #: network calls of the samples in the picture
PAIRS = 8  #: of sets of exact samples, for the distance that sampling alone leaves


def ring() -> Mixture:
    """Six narrow Gaussians on a circle, drawn out along it, of weights 1 to 6; standard deviation about 0.5, as EDM expects."""
    angle = torch.arange(6, dtype=torch.float64) * math.pi / 3
    radial = torch.stack([angle.cos(), angle.sin()], dim=1)
    along = torch.stack([-angle.sin(), angle.cos()], dim=1)
    covariances = 0.03**2 * torch.einsum("ki,kj->kij", radial, radial) + 0.15**2 * torch.einsum("ki,kj->kij", along, along)
    return Mixture(torch.arange(1, 7, dtype=torch.float64), 0.7 * radial, covariances)


def samplers(calls: int) -> dict[str, Sampler]:
    """The methods with at most so many network calls."""
    return {
        "DDIM": DDIM(Discrete(), steps=calls),
        "DPM-Solver++ 2M": DPMSolver2M(steps=calls),
        "EDM Heun": EDMSampler(steps=(calls + 1) // 2),
        "probability-flow Euler": PCSampler(
            VPSDE(), times=_even(calls), predictor="euler_maruyama", corrector="none", probability_flow=True
        ),
        "PC": PCSampler(VPSDE(), times=_even(calls // 2)),
    }


def _even(steps: int) -> list[float]:
    """Even times of the VP SDE from 1 to 0.001, and 0: given as such, since DDPM's kernel of PCSampler(steps=...) needs more than 20."""
    return [*(float(t) for t in np.linspace(1, 1e-3, steps)), 0.0]


def compute(seed: int, quick: bool) -> tuple[Numbers, Any]:
    """Distances for each method and number of calls."""
    count, budgets = (1500, (6, 20, 100)) if quick else (8000, (6, 8, 10, 14, 20, 30, 50, 100, 200))
    data, net, seeds = ring(), Denoiser(), seed_of(seed, Part.LATENTS)
    network, latents, key = data.network(net), randn((count, 2), seeds, dtype=torch.float64), keys(seeds, count)
    exact = data.sample(count, seed_of(seed, Part.DATA))

    def distance(x: torch.Tensor) -> float:
        return sliced_wasserstein(x, exact, seeds=seed_of(seed, Part.DIRECTIONS))

    methods: dict[str, dict[str, list]] = {name: {"network_calls": [], "sliced_wasserstein": []} for name in COLORS}
    shown = {"exact samples": (0, exact)}
    for budget in budgets:
        for name, sampler in samplers(budget).items():
            plan = sampler.plan(net)
            x = run(plan, network, latents, key=key)
            methods[name]["network_calls"].append(len(plan))
            methods[name]["sliced_wasserstein"].append(distance(x))
            if budget == SHOWN:
                shown[name] = (len(plan), x)
    others = data.sample(PAIRS * count, seed_of(seed, Part.FLOOR)).chunk(PAIRS)
    floors = sorted(distance(x) for x in others)
    numbers: Numbers = {
        "samples": count,
        "sliced_wasserstein_of_exact_samples": {"least": floors[0], "mean": sum(floors) / PAIRS, "most": floors[-1]},
        "methods": methods,
    }
    numbers["calls_to_exact_samples"] = {name: _first_below(floors[-1], **series) for name, series in methods.items()}
    return numbers, shown


def _first_below(bound: float, network_calls: list[int], sliced_wasserstein: list[float]) -> int | None:
    """The fewest calls from which on the distance stays below the bound."""
    best = None
    for calls, value in zip(reversed(network_calls), reversed(sliced_wasserstein), strict=True):
        if value > bound:
            break
        best = calls
    return best


def finding(numbers: Numbers) -> str:
    """In one sentence."""
    needed = numbers["calls_to_exact_samples"]
    order = sorted(needed, key=lambda name: needed[name] or math.inf)
    most = max(numbers["methods"][order[0]]["network_calls"])
    calls = ", ".join(f"{name} {needed[name] or f'> {most}'}" for name in order)
    return f"Calls to come within the scatter of exact samples: {calls}"


def draw(figure: Figure, numbers: Numbers, rest: Any) -> None:
    """Distance over calls, and samples of each method with the same number of calls."""
    halves: Any = figure.subfigures(1, 2, width_ratios=(1, 1.15))
    left, right = halves
    ax = left.subplots()
    for name, series in numbers["methods"].items():
        ax.loglog(series["network_calls"], series["sliced_wasserstein"], "o-", color=COLORS[name], ms=5, label=name)
    floor = numbers["sliced_wasserstein_of_exact_samples"]
    ax.axhspan(floor["least"], floor["most"], color="#cccccc", lw=0, label=f"two sets of exact samples, {PAIRS} pairs")
    ax.set(
        xlabel="network calls", ylabel="sliced Wasserstein distance, data units", title="Lower and further left is better", ylim=(None, 3)
    )
    ticks = (5, 10, 20, 50, 100, 200)
    ax.set_xticks(ticks, [str(n) for n in ticks])
    ax.minorticks_off()
    ax.legend(loc="upper right")
    panels = right.subplots(2, 3, sharex=True, sharey=True).flat
    for panel, (name, (calls, x)) in zip(panels, rest.items(), strict=True):
        scatter(panel, x[:3000], COLORS.get(name, "#444444"), limit=1.3)
        panel.set_title(f"{name}, {calls} calls" if name in COLORS else "Exact samples", fontsize=10)
        panel.label_outer()


STUDY = Study(
    name="nfe-quality",
    about="network calls against quality for DDIM, DPM-Solver++ 2M, EDM Heun, probability-flow Euler and PC",
    source="Karras et al. 2022 (arXiv:2206.00364), figure 2; Lu et al. 2022 (arXiv:2211.01095)",
    compute=compute, finding=finding, draw=draw, size=(15.0, 6.2),
)  # fmt: skip
