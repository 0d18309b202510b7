"""Negative log-likelihoods of models on data splits, in bits per dimension: what `fastdiff likelihood` and `fastdiff eval --nll` print.

Data are levels; noise that fills the gap to the next level makes them a density, whose -log2 is an upper bound of the levels' own
(Theis et al. 2016, arXiv:1511.01844).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..distributed import World, world
from ..likelihood import Likelihood, log_likelihood
from ..noise import keys
from ..ode import ODESolver
from ..parametrizations import Parametrization

if TYPE_CHECKING:
    from ..data import ImageData


@dataclass(frozen=True)
class NLL:
    """The likelihood of one data split under one model.

    Attributes:
        model, data: names; conditional: whether of p(x | y) with the true classes.
        bits: [N] float64 bits per dimension of each image; probe_error: [N] its standard error over the probes (NaN with one).
        nats: [N] log p in nats; nfe: [N] network calls; probes: of the trace, 0 for the exact one.
    """

    model: str
    data: str
    conditional: bool
    bits: Tensor
    probe_error: Tensor
    nats: Tensor
    nfe: Tensor
    probes: int

    @property
    def mean(self) -> float:
        """Bits per dimension."""
        return self.bits.mean().item()

    @property
    def standard_error(self) -> float | None:
        """Of the mean, over the images; None with one image."""
        return self.bits.std().item() / math.sqrt(len(self.bits)) if len(self.bits) > 1 else None

    @property
    def what(self) -> str:
        """log p(x) or log p(x | y)."""
        return "log p(x | y)" if self.conditional else "log p(x)"

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "model": self.model, "data": self.data, "of": self.what, "images": len(self.bits), "bits_per_dim": self.mean,
            "standard_error": self.standard_error, "nats": self.nats.mean().item(), "nfe": self.nfe.mean().item(),
            "nfe_least": self.nfe.min().item(), "nfe_most": self.nfe.max().item(), "probes": self.probes or "exact trace",
        }  # fmt: skip


def nll(
    net: Callable[..., Tensor], data: ImageData, *, parametrization: str | Parametrization = "D", model: str = "model",
    count: int | None = None, conditional: bool = False,
    seed: int = 0, batch: int = 128, solver: ODESolver | None = None, probes: int = 1, exact: bool = False, eps: float | None = None,
    among: World | None = None, device: torch.device | str | None = None, progress: bool = True,
) -> NLL | None:  # fmt: skip
    """Bits per dimension of the first images of a data set.

    Args:
        net, parametrization: as for `fastdiff.log_likelihood`; the classes are its class_labels.
        data: 8-bit images or others with grey levels; count: how many of them, default all.
        conditional: log p(x | y) with the classes of the data.
        seed: image i has the probes and the dequantization of (seed, i), whatever the batch and the number of processes.
        solver, probes, exact, eps: see `fastdiff.log_likelihood`.
        among: the processes that share the work; device: where; progress: show a bar.

    Returns:
        NLL on the main process, None on the others.

    Raises:
        ValueError: data without levels or, for `conditional`, without classes; a count out of range.
    """
    count = len(data) if count is None else count
    if not 1 <= count <= len(data):
        raise ValueError(f"count: expected 1 .. {len(data)}, got {count}")
    if batch < 1:
        raise ValueError(f"batch: expected an integer >= 1, got {batch}")
    if data.levels < 2:
        raise ValueError(f"data: expected grey levels, whose probability bits per dimension are, got continuous values ({data.name})")
    if conditional and not data.classes:
        raise ValueError(f"conditional: expected data with classes, got {data.name} without")
    among = among or world()
    place = torch.device(device) if device is not None else among.device
    parts: list[Likelihood] = []
    batches = list(torch.arange(count).split(batch))
    mine = [batches[i] for i in among.share(len(batches))]  # whole batches: a network's rounding depends on its batch
    with tqdm(total=sum(map(len, mine)), desc="likelihood", unit="image", disable=not (progress and among.is_main)) as bar:
        for index in mine:
            x0, labels = data.batch(index)
            one_hot = torch.nn.functional.one_hot(labels, data.classes).to(place, torch.float32) if conditional else None
            key = keys(seed, len(index), first=int(index[0]), device=place)
            parts.append(
                log_likelihood(
                    net, x0.to(place), parametrization=parametrization, seeds=key, solver=solver, probes=probes, exact=exact, eps=eps,
                    data_range=(-1.0, 1.0),
                    bits=math.log2(data.levels), dequantization="uniform", class_labels=one_hot,
                )
            )  # fmt: skip
            bar.update(len(index))
            bar.set_postfix(nfe=f"{parts[-1].nfe.float().mean():.0f}")
    rows = [torch.stack([p.bits_per_dim, p.bits_per_dim_error, p.log_prob, p.nfe.double()], 1).double().cpu() for p in parts]
    whole = among.gather(torch.cat([torch.empty(0, 4, dtype=torch.float64), *rows]))
    if whole is None:
        return None
    bits, probe_error, nats, nfe = whole.unbind(1)
    return NLL(model, data.name, conditional, bits, probe_error, nats, nfe, 0 if exact else probes)


def nll_table(results: Sequence[NLL]) -> str:
    """A line for each result: bits per dimension with its standard error over the images, nats, network calls, images."""
    head = ("model", "data", "of", "bits/dim", "+-", "nats", "calls", "images")
    rows = [
        (
            r.model, r.data, r.what, f"{r.mean:.4f}", "-" if r.standard_error is None else f"{r.standard_error:.4f}",
            f"{r.nats.mean():.2f}", f"{r.nfe.mean():.0f}", f"{len(r.bits)}",
        )
        for r in results
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    text = 3  # columns of words, before those of numbers
    return "\n".join(
        "  ".join(cell.ljust(width) if i < text else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in (head, *rows)
    )
