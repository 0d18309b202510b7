"""fastdiff likelihood: bits per dimension of a data split."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from ..distributed import working_device
from ._options import DEVICE, MODEL, SEED, WEIGHTS, expect_range


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
    from ..data import open_data
    from ..evaluation.nll import nll
    from ..files import check_writable, write_atomically
    from ..ode import ODESolver
    from ..opening import open_model

    place = working_device(device)
    opened = open_model(model, weights, place)
    if json_path is not None:
        check_writable(json_path)
    data = open_data(f"digits:{split}")
    count = len(data) if count is None else count
    expect_range("-n", count, 1, len(data))
    expect_range("--batch", batch, 1, 1_000_000)
    started = time.perf_counter()
    result = nll(
        opened.net, data, parametrization=opened.parametrization, model=model, count=count, conditional=conditional,
        seed=seed, batch=batch, solver=ODESolver(rtol=tol, atol=tol),
        probes=probes, exact=exact, eps=eps, device=place,
    )  # fmt: skip
    if result is None:
        return
    elapsed = time.perf_counter() - started
    trace = "exact trace" if exact else f"{probes} probe{'s' * (probes > 1)}"
    spread = "" if result.standard_error is None else f" +- {result.standard_error:.4f}"
    click.echo(f"{result.mean:.4f}{spread} bits/dim   ({result.what}, {count} images of the {split} split, {trace}; +- over images)")
    if probes > 1 and not exact:
        click.echo(f"an image's own standard error over its {probes} probes: {result.probe_error.mean():.4f} bits/dim")
    nfe = result.nfe
    calls = f"{nfe.mean():.0f} network calls an image ({nfe.min():.0f} to {nfe.max():.0f})"
    click.echo(f"{result.nats.mean():.2f} nats an image; {calls}; {elapsed:.1f} s")
    if json_path is not None:
        numbers = {
            "bits_per_dim": result.mean, "standard_error": result.standard_error, "nfe": nfe.mean().item(),
            "of_images": result.bits.tolist(),
        }  # fmt: skip
        write_atomically(json_path, lambda file: file.write((json.dumps(numbers, indent=1) + "\n").encode()))
        click.echo(f"wrote {json_path}")
