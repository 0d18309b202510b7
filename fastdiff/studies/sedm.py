"""SEDM-G++ on digits: does epsilon scaling on top of discriminator guidance make samples better, and where?

A grid over the guidance's weight and lambda finds the best settings on one set of seeds; the table of EDM, EDM-G++ and SEDM-G++ is
made with them on other seeds, so that a lucky choice does not flatter itself. Distances are Frechet distances of the features of
fastdiff's digits classifier: they compare with each other alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..evaluation import digits_features, evaluate, reference_of
from ..figures import BLUE, GREEN, ORANGE, PURPLE, RED, TRUTH
from ..models import discriminator_guidance, load_discriminator, load_model
from ..parametrizations import parametrization_of
from ..samplers import EDMSampler
from ._common import Numbers, Part, Study, seed_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLERS = {
    "Euler 13": EDMSampler(13, solver="euler"), "Euler 21": EDMSampler(21, solver="euler"), "Euler 35": EDMSampler(35, solver="euler"),
    "Heun 35": EDMSampler(18),
}  # fmt: skip
COLORS = (TRUTH, BLUE, GREEN, ORANGE, RED, PURPLE)


@dataclass(frozen=True)
class Size:
    """How much is computed."""

    samples: int
    grid_blocks: int
    table_blocks: int
    weights: tuple[float, ...]
    lambdas: tuple[float, ...]


FULL = Size(500, 2, 6, (0.0, 1.0, 2.0), (0.995, 1.0, 1.005, 1.01, 1.02))
QUICK = Size(40, 2, 2, (0.0, 1.0), (1.0, 1.01))


def compute(seed: int, quick: bool) -> tuple[Numbers, Any]:
    """The grid, the settings that it says are best, and the table on other seeds."""
    from ..data import open_data

    size = QUICK if quick else FULL
    net, discriminator, extractor = load_model("digits-small"), load_discriminator("digits"), digits_features()
    reference = reference_of(open_data("digits"), extractor, keep=False, progress=False)

    def distances(sampler: EDMSampler, weight: float, scale: float, blocks: int, part: Part) -> list[float]:
        """The distance of each block of seeds."""
        guidance = discriminator_guidance(discriminator, weight) if weight else None
        result = evaluate(
            net, reference, extractor=extractor, shape=(1, 8, 8), n=size.samples, blocks=blocks, seed=seed_of(seed, part), classes=10,
            batch=250, progress=False, sampler=sampler, eps_scale=scale, guidance=guidance,
        )  # fmt: skip
        assert result is not None
        return [block.values["fid"] for block in result.blocks]

    results: dict[str, Any] = {}
    for name, sampler in SAMPLERS.items():
        grid = {
            (weight, scale): distances(sampler, weight, scale, size.grid_blocks, Part.LATENTS)
            for weight in size.weights for scale in size.lambdas
        }  # fmt: skip

        def best(settings: list[tuple[float, float]], grid: dict = grid) -> tuple[float, float]:
            return min(settings, key=lambda setting: sum(grid[setting]))

        chosen = {
            "EDM": (0.0, 1.0),
            "EDM + scaling": best([key for key in grid if key[0] == 0]),
            "EDM-G++": best([key for key in grid if key[0] and key[1] == 1]),
            "SEDM-G++": best([key for key in grid if key[0]]),
        }
        table: dict[str, Any] = {}
        for method, (weight, scale) in chosen.items():
            values = distances(sampler, weight, scale, size.table_blocks, Part.HELD_OUT)
            table[method] = {"weight": weight, "lambda": scale, "of_blocks": values} | _summary(values)
        for row in table.values():  # the same seeds, block by block: their difference is known better than either
            row["minus_edm"] = _summary([a - b for a, b in zip(row["of_blocks"], table["EDM"]["of_blocks"], strict=True)])
        results[name] = {
            "calls": len(sampler.plan(parametrization_of(net, "D"))), "table": table,
            "grid": [{"weight": w, "lambda": s, "of_blocks": v} | _summary(v) for (w, s), v in grid.items()],
            "best_lambda": {str(w): best([key for key in grid if key[0] == w])[1] for w in size.weights},
        }  # fmt: skip
    numbers = {
        "metric": f"Frechet distance of {extractor.name}", "samples_per_block": size.samples, "reference": "digits, train split",
        "samplers": results,
    }  # fmt: skip
    return numbers, None


def _summary(values: list[float]) -> dict[str, float]:
    """Mean, least, and the standard error of the mean over blocks."""
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / max(len(values) - 1, 1)
    return {"mean": mean, "min": min(values), "max": max(values), "standard_error": (variance / len(values)) ** 0.5}


def finding(numbers: Numbers) -> str:
    """In one sentence."""
    changes = {name: result["table"]["SEDM-G++"]["minus_edm"] for name, result in numbers["samplers"].items()}
    parts = (f"{name} {change['mean']:+.2f} +- {change['standard_error']:.2f}" for name, change in changes.items())
    return "SEDM-G++ against EDM: " + ", ".join(parts)


def table(numbers: Numbers) -> str:
    """The table as Markdown."""
    lines = ["| sampler | method | weight | lambda | distance | minus EDM, same seeds |", "| --- | --- | --- | --- | --- | --- |"]
    for name, result in numbers["samplers"].items():
        for method, row in result["table"].items():
            delta = row["minus_edm"]
            change = "-" if method == "EDM" else f"{delta['mean']:+.3f} +- {delta['standard_error']:.3f}"
            value = f"{row['mean']:.3f} +- {row['standard_error']:.3f}"
            lines.append(f"| {name} | {method} | {row['weight']:g} | {row['lambda']:g} | {value} | {change} |")
    return "\n".join(lines)


def draw(figure: Figure, numbers: Numbers, rest: Any) -> None:
    """Distance over lambda for each weight, and the table's rows as bars."""
    count = len(numbers["samplers"])
    axes = figure.subplots(2, count, sharey="row")
    for column, (name, result) in enumerate(numbers["samplers"].items()):
        above, below = axes[0][column], axes[1][column]
        weights = sorted({row["weight"] for row in result["grid"]})
        for weight, color in zip(weights, COLORS, strict=False):
            rows = [row for row in result["grid"] if row["weight"] == weight]
            above.errorbar(
                [row["lambda"] for row in rows], [row["mean"] for row in rows], [row["standard_error"] for row in rows],
                fmt="o-", color=color, ms=4, capsize=2, label="no guidance" if weight == 0 else f"weight {weight:g}",
            )  # fmt: skip
        above.set(title=f"{name} calls", xlabel="lambda")
        for i, (row, color) in enumerate(zip(result["table"].values(), (TRUTH, BLUE, GREEN, RED), strict=True)):
            below.bar(i, row["mean"], yerr=row["standard_error"], color=color, capsize=3)
            below.text(i, row["mean"] + row["standard_error"], f"{row['mean']:.2f}", ha="center", va="bottom", fontsize=9)
        below.set_xticks(range(4), ["EDM", "EDM\n+ scaling", "EDM-G++", "SEDM-G++"], fontsize=8)
        above.grid(True)
    axes[0][0].set(ylabel=numbers["metric"].replace(" of ", "\nof ", 1))
    axes[1][0].set(ylabel="on other seeds,\nbest of the grid")
    axes[0][0].legend(fontsize=8)


STUDY = Study(
    name="sedm",
    about="EDM, EDM-G++ and SEDM-G++: discriminator guidance x epsilon scaling for Euler and Heun",
    source="Kim et al. 2023 (arXiv:2211.17091); Ning et al. 2024 (arXiv:2308.15321)",
    compute=compute, finding=finding, draw=draw, size=(15.0, 7.5), one_thread=False,
)  # fmt: skip
