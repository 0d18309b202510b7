"""fastdiff likelihood: bits per dimension of a data split."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import click

from ._options import DEVICE, MODEL, SEED, WEIGHTS, expect_range, working_device


@click.command()
@MODEL
@WEIGHTS
@click.option("--split", type=click.Choice(["test", "train"]), default="test", show_default=True, help="Which images.")
@click.option("-n", "--count", type=int, default=None, help="How many of them; default: all.")
@click.option("--conditional", is_flag=True, help="log p(x | y) with the true classes instead of log p(x).")
@click.option("--probes", type=int, default=1, show_default=True, help="Random probes of the trace for each image.")
@click.option("--exact", is_flag=True, help="The exact trace: 64 vector-Jacobian products a call for digits.")
@click.option("--tol", type=float, default=1e-4, show_default=True, help="rtol and atol of the ODE solver.")
@click.option("--eps", type=float, default=None, help="Noise level at which the data lie; default: the process's lowest.")
@SEED
@click.option("--batch", type=int, default=128, show_default=True, help="Images at a time; the result does not depend on it.")
@DEVICE
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write the numbers of every image here.")
def likelihood(
    model: str, weights: Path | None, split: str, count: int | None, conditional: bool, probes: int, exact: bool, tol: float,
    eps: float | None, seed: int, batch: int, device: str | None, json_path: Path | None,
) -> None:  # fmt: skip
    """Print the bits per dimension of a data split, by the probability-flow ODE.

    The data are dequantized uniformly within their grey levels, so the number is an upper bound of the discrete model's.

    \b
    fastdiff likelihood                             the digits' test split
    fastdiff likelihood --conditional --probes 4    given the classes, with less noise in the trace
    """
    import torch
    from tqdm import tqdm

    from ..files import check_writable, write_atomically
    from ..likelihood import log_likelihood
    from ..models import MODELS, load_model
    from ..models.digits.data import GREY_LEVELS, load_digits
    from ..noise import keys
    from ..ode import ODESolver

    place = working_device(device)
    net = load_model(model, weights, place)
    if json_path is not None:
        check_writable(json_path)
    images, labels = load_digits(split)
    count = len(images) if count is None else count
    expect_range("-n", count, 1, len(images))
    expect_range("--batch", batch, 1, 1_000_000)
    solver = ODESolver(rtol=tol, atol=tol)
    parts = []
    started = time.perf_counter()
    with tqdm(total=count, desc="likelihood", unit="image") as bar:
        for first in range(0, count, batch):
            chosen = slice(first, min(first + batch, count))
            x0 = images[chosen].to(place)
            one_hot = torch.nn.functional.one_hot(labels[chosen], MODELS[model].classes).to(place, torch.float32)
            parts.append(
                log_likelihood(
                    net, x0, seeds=keys(seed, len(x0), first=first, device=place), solver=solver, probes=probes, exact=exact, eps=eps,
                    data_range=(-1.0, 1.0), bits=math.log2(GREY_LEVELS), dequantization="uniform",
                    class_labels=one_hot if conditional else None,
                )
            )  # fmt: skip
            bar.update(len(x0))
            bar.set_postfix(nfe=f"{parts[-1].nfe.float().mean():.0f}")
    elapsed = time.perf_counter() - started
    bits = torch.cat([part.bits_per_dim for part in parts]).cpu()
    nats = torch.cat([part.log_prob for part in parts]).cpu()
    nfe = torch.cat([part.nfe for part in parts]).double().cpu()
    error = bits.std().item() / math.sqrt(count) if count > 1 else None
    what = "log p(x | y)" if conditional else "log p(x)"
    trace = "exact trace" if exact else f"{probes} probe{'s' * (probes > 1)}"
    spread = "" if error is None else f" +- {error:.4f}"
    click.echo(f"{bits.mean():.4f}{spread} bits/dim   ({what}, {count} images of the {split} split, {trace}; +- over images)")
    if probes > 1 and not exact:
        of_probes = torch.cat([part.bits_per_dim_error for part in parts]).mean()
        click.echo(f"an image's own standard error over its {probes} probes: {of_probes:.4f} bits/dim")
    click.echo(
        f"{nats.mean():.2f} nats an image; {nfe.mean():.0f} network calls an image ({nfe.min():.0f} to {nfe.max():.0f}); {elapsed:.1f} s"
    )
    if json_path is not None:
        numbers = {"bits_per_dim": bits.mean().item(), "standard_error": error, "nfe": nfe.mean().item(), "of_images": bits.tolist()}
        write_atomically(json_path, lambda file: file.write((json.dumps(numbers, indent=1) + "\n").encode()))
        click.echo(f"wrote {json_path}")
