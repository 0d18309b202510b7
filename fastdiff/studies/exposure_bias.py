"""Exposure bias: the network's eps while sampling is larger than it was while training, and what each remedy does about it.

While training, the network sees x0 + sigma*z; while sampling, what its own errors have left. The L2 norm of its eps over the noise
levels shows the difference (Ning et al. 2024, figure 3). The norm comes from the step kernel, in the launch that makes the step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..figures import BLUE, GREEN, ORANGE, PURPLE, RED, TRUTH
from ..loop import StepInfo
from ..models import discriminator_guidance, load_discriminator, load_model
from ..models.digits.data import load_digits
from ..noise import Stream, keys
from ..ops import perturb
from ..samplers import EDMSampler
from ..sampling import sample
from ..time_shift import TimeShift, variance_within
from ._common import Numbers, Part, Study, seed_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLERS = {"Euler, 21 calls": EDMSampler(21, solver="euler"), "Heun, 35 calls": EDMSampler(18)}
WEIGHT = 1.0  #: of the discriminator's guidance
LAMBDA = 1.005  #: of epsilon scaling
WINDOW = 1.05  #: of time-shift sampling
GREY = 0.03  #: below this sigma the network sees the grey levels of its training images (1/8 apart), which samples have not yet
COLORS = {
    "plain": RED, "epsilon scaling": BLUE, "discriminator guidance": GREEN, "both": PURPLE, "input perturbation": ORANGE,
    "time shift": "#56B4E9",
}  # fmt: skip


def compute(seed: int, quick: bool) -> tuple[Numbers, Any]:
    """Mean norms of eps at every call of every method, beside those of training at the same levels."""
    count, batch = (64, 64) if quick else (1000, 250)
    net, perturbed = load_model("digits-small"), load_model("digits-small-perturbed")
    guidance = discriminator_guidance(load_discriminator("digits"), WEIGHT)
    data = load_digits("train")
    shifted = TimeShift(net, variance_within(data.images), WINDOW)
    methods: dict[str, tuple[Callable[..., Tensor], dict[str, Any]]] = {
        "plain": (net, {}),
        "epsilon scaling": (net, {"eps_scale": LAMBDA}),
        "discriminator guidance": (net, {"guidance": guidance}),
        "both": (net, {"eps_scale": LAMBDA, "guidance": guidance}),
        "input perturbation": (perturbed, {}),
        "time shift": (shifted, {}),
    }
    results: dict[str, Any] = {}
    for name, sampler in SAMPLERS.items():
        sampled = {}
        for method, (model, options) in methods.items():
            sigmas, norms = _sampled(model, sampler, count, batch, seed_of(seed, Part.LATENTS), options)
            sampled[method] = _series(norms)
        trained = {
            "training": _trained(net, data, sigmas, count, batch, seed_of(seed, Part.DATA)),
            "training, input perturbation": _trained(perturbed, data, sigmas, count, batch, seed_of(seed, Part.DATA)),
        }
        series = trained | sampled
        results[name] = {"sigma": sigmas, "eps_norm": series, "bias": {m: _bias(series, m, sigmas) for m in methods}}
    numbers = {
        "samples": count, "dimensions": data.images[0].numel(), "weight": WEIGHT, "lambda": LAMBDA, "window": WINDOW, "samplers": results
    }  # fmt: skip
    return numbers, None


def _sampled(net, sampler, count: int, batch: int, seed: int, options: dict[str, Any]) -> tuple[list[float], Tensor]:
    """(sigma of each call, [calls, samples] norms of the network's own eps)."""
    sigmas: list[float] = []
    batches = []
    for first in range(0, count, batch):
        norms: list[Tensor] = []
        sigmas.clear()

        def note(info: StepInfo, norms: list[Tensor] = norms) -> None:
            sigmas.append(info.sigma)
            norms.append(info.eps_norm)

        key = keys(seed, batch, first=first)
        labels = torch.nn.functional.one_hot(key % 10, 10).float()
        sample(net, (batch, 1, 8, 8), seeds=key, sampler=sampler, callback=note, class_labels=labels, progress=False, **options)
        batches.append(torch.stack(norms))
    return list(sigmas), torch.cat(batches, 1)


@torch.no_grad()
def _trained(net, data, sigmas: list[float], count: int, batch: int, seed: int) -> dict[str, list[float]]:
    """Norms of eps on x0 + sigma*z."""
    rows = []
    for draw, sigma in enumerate(sigmas):
        norms = []
        for first in range(0, count, batch):
            key = keys(seed, batch, first=first)
            index = torch.arange(first, first + batch) % len(data.images)
            x = perturb(data.images[index], 1.0, sigma, key, draw, int(Stream.DATA))
            labels = torch.nn.functional.one_hot(data.labels[index], 10).float()
            D = net(x, torch.full((batch,), sigma), labels)
            norms.append((x - D).flatten(1).norm(dim=1) / sigma)
        rows.append(torch.cat(norms))
    return _series(torch.stack(rows))


def _series(norms: Tensor) -> dict[str, list[float]]:
    """Mean and standard error of [calls, samples]."""
    return {"mean": norms.double().mean(1).tolist(), "standard_error": (norms.double().std(1) / norms.shape[1] ** 0.5).tolist()}


def _bias(series: dict[str, Any], method: str, sigmas: list[float]) -> float:
    """Mean over the calls down to GREY of |sampling - training|/training."""
    trained = "training, input perturbation" if method == "input perturbation" else "training"
    pairs = zip(sigmas, series[method]["mean"], series[trained]["mean"], strict=True)
    ratios = [abs(sampled / wanted - 1) for sigma, sampled, wanted in pairs if sigma >= GREY]
    return sum(ratios) / len(ratios)


def finding(numbers: Numbers) -> str:
    """In one sentence."""
    parts = []
    for name, result in numbers["samplers"].items():
        bias = result["bias"]
        best = min(bias, key=bias.__getitem__)
        parts.append(f"{name.split(',')[0]} {bias['plain']:.1%} ({best}: {bias[best]:.1%})")
    return "|eps| in sampling is off training's by " + "; ".join(parts)


def draw(figure: Figure, numbers: Numbers, rest: Any) -> None:
    """Norms over sigma, and relative to training, for both samplers."""
    axes = figure.subplots(2, len(numbers["samplers"]), sharex=True)
    for column, (name, result) in enumerate(numbers["samplers"].items()):
        sigma, series = result["sigma"], result["eps_norm"]
        order = sorted(range(len(sigma)), key=lambda i: -sigma[i])
        above, below = axes[0][column], axes[1][column]

        def values(key: str, order=order, series=series) -> list[float]:
            return [series[key]["mean"][i] for i in order]

        levels = [sigma[i] for i in order]
        above.semilogx(levels, values("training"), color=TRUTH, lw=3, label="training")
        for method, color in COLORS.items():
            above.semilogx(levels, values(method), color=color, label=method)
            trained = values("training, input perturbation" if method == "input perturbation" else "training")
            ratio = [100 * (s / t - 1) for s, t in zip(values(method), trained, strict=True)]
            below.semilogx(levels, ratio, ".-", color=color, ms=4, label=method)
        below.axhline(0, color=TRUTH, lw=1)
        above.set(title=name, ylabel="mean |eps|" if column == 0 else None)
        below.set(xlabel="sigma, data units (sampling goes to the right)", ylabel="% above training" if column == 0 else None)
        for ax in (above, below):
            ax.grid(True)
    axes[0][0].invert_xaxis()  # of all: they share it
    axes[0][0].legend(loc="lower left", fontsize=8, ncols=2)


STUDY = Study(
    name="exposure-bias",
    about="the norm of eps in training and in sampling, with epsilon scaling, discriminator guidance, input perturbation, time shift",
    source="Ning et al. 2024 (arXiv:2308.15321), figure 3; Ning et al. 2023 (arXiv:2301.11706); Li et al. 2023 (arXiv:2305.15583)",
    compute=compute, finding=finding, draw=draw, size=(13.0, 8.0), one_thread=False,
)  # fmt: skip
