"""The picture of an evaluation: every block of every metric, the likelihoods, and some samples."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..figures import BLUE, GREEN, ORANGE, PURPLE, RED, TRUTH, picture
from ..files import write_atomically
from ..images import grid, to_uint8
from .evaluate import Evaluation
from .nll import NLL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DPI = 150
GREY = "#777777"
SHOWN = 64  #: samples in the picture


class Panel(NamedTuple):
    """One set of axes: series of a value for each block."""

    title: str
    better: str
    series: dict[str, str]
    most: float | None = None


PANELS = (
    Panel("Fréchet distance", "lower is better", {"fid": BLUE}),
    Panel("Inception score", "higher is better", {"is": GREEN}),
    Panel("Kernel distance", "nearer to 0 is better", {"kid": PURPLE}),
    Panel("Precision and recall", "higher is better", {"precision": ORANGE, "recall": RED}, 1.0),
)


def draw(path: Path, title: str, details: str, evaluation: Evaluation | None, likelihoods: Sequence[NLL] = ()) -> None:
    """Write the picture as a PNG, whole or not at all.

    Args:
        title: in one sentence; details: lines below the samples; evaluation, likelihoods: what there is.
    """
    summary = evaluation.summary if evaluation else {}
    panels = [panel for panel in PANELS if any(name in summary for name in panel.series)]
    count = len(panels) + bool(likelihoods)
    rows = 1 if count < 3 else 2
    columns = math.ceil(count / rows)
    height = 2.6 * rows if rows > 1 else 3.8
    square, wide = height - 0.4, 6.0 if count == 1 else 3.2 * columns
    width = wide + (square if evaluation else 1.0)
    with picture((width, height + 0.8)) as figure:
        figure.suptitle(textwrap.fill(title, round(9 * width)), x=0.01, ha="left", fontweight="bold")
        parts: Any = figure.subfigures(1, 2 if evaluation else 1, width_ratios=(wide, square) if evaluation else None, squeeze=False)
        axes = list(parts[0, 0].subplots(rows, columns, squeeze=False).flat)
        for ax, panel in zip(axes, panels, strict=False):
            assert evaluation is not None
            _blocks(ax, panel, evaluation)
        if likelihoods:
            _likelihoods(axes[len(panels)], likelihoods)
        for ax in axes[count:]:
            ax.set_axis_off()
        if evaluation:
            _samples(parts[0, 1].subplots(), evaluation, details)
        write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=_DPI))


def _blocks(ax: Axes, panel: Panel, evaluation: Evaluation) -> None:
    """A point for each block, a line for the mean, a band from the least to the most."""
    at = range(1, len(evaluation.blocks) + 1)
    summary = evaluation.summary
    labels: list[str] = []
    for name, color in panel.series.items():
        row: Any = summary[name]
        values: Any = [block.values[name] for block in evaluation.blocks]
        error: Any = [block.values.get(f"{name}_std") for block in evaluation.blocks]
        ax.axhspan(row["min"], row["max"], color=color, alpha=0.15, lw=0)
        ax.axhline(row["mean"], color=color, lw=1.2)
        if any(error):
            ax.errorbar(at, values, yerr=error, fmt="none", ecolor=color, elinewidth=1.0, alpha=0.6, capsize=3)
        labels.append(f"{panel.title} {row['mean']:.3g}" if len(panel.series) == 1 else f"{name} {row['mean']:.3g}")
        ax.plot(at, values, "o", color=color, ms=7, mec="white", mew=0.8, label=labels[-1])
    if len(labels) > 1:
        ax.legend(loc="lower left", handletextpad=0.2, borderaxespad=0.2)
    _title(ax, panel.title if len(labels) > 1 else labels[0], panel.better)
    ax.set_xticks(list(at))
    ax.set(xlim=(0.5, len(at) + 0.5), xlabel="block of seeds" if len(at) > 1 else "block")
    if panel.most is not None:  # the upper half of the axes, for the legend to lie below
        least = min(summary[name]["min"] or 0.0 for name in panel.series)
        ax.set_ylim(max(-0.03, least - 1.2 * (panel.most - least) - 0.02), panel.most + 0.02)
    else:
        ax.margins(y=0.25)
    ax.locator_params(axis="y", nbins=5)


def _title(ax: Axes, title: str, note: str) -> None:
    ax.set_title(title, fontweight="bold", pad=16)
    ax.text(0, 1.02, note, transform=ax.transAxes, fontsize=9, color=GREY, va="bottom")


def _likelihoods(ax: Axes, likelihoods: Sequence[NLL]) -> None:
    """Bits per dimension, a line each."""
    at = range(len(likelihoods))
    for i, row in zip(at, likelihoods, strict=True):
        ax.errorbar(row.mean, i, xerr=row.standard_error, fmt="o", color=TRUTH, ms=7, mec="white", mew=0.8, capsize=3)
        ax.annotate(f"{row.mean:.3f}", (row.mean, i), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=10, color=TRUTH)
    ax.set_yticks(list(at), [f"{row.what}\n{row.data}" for row in likelihoods], fontsize=9)
    ax.set(ylim=(len(likelihoods) - 0.5, -0.6), xlabel="bits/dim")
    ax.margins(x=0.3)
    _title(ax, "Likelihood", "lower is better")
    ax.locator_params(axis="x", nbins=4)


def _samples(ax: Axes, evaluation: Evaluation, details: str) -> None:
    """The first samples of the first block."""
    pixels = to_uint8(evaluation.shown)
    if pixels.shape[3] not in (1, 3):
        ax.set_axis_off()
        return
    factor = max(1, math.ceil(24 / max(pixels.shape[1:3])))
    tiles = grid(pixels.repeat(factor, 1).repeat(factor, 2), columns=math.ceil(math.sqrt(len(pixels))), gap=2, shade=255)
    ax.imshow(tiles.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ax.set(xticks=[], yticks=[], anchor="N")
    ax.spines[:].set_visible(False)
    ax.set_title(f"The first {len(pixels)} samples", fontweight="bold")
    ax.set_xlabel(details, fontsize=9, color=GREY, loc="left", linespacing=1.4)
