"""fastdiff interpolate: from one image to another through the latents."""

from __future__ import annotations

from pathlib import Path

import click

from ..distributed import working_device
from ._options import DEVICE, MODEL, SEED, WEIGHTS, expect_range, out


@click.command()
@MODEL
@WEIGHTS
@click.option("-n", "--pairs", type=int, default=6, show_default=True, help="Pairs of images of the test split.")
@click.option("--steps", type=int, default=9, show_default=True, help="Images of a row, both ends included.")
@click.option("--temperature", type=float, default=1.0, show_default=True, help="Factor of the latents: below 1 is more typical.")
@click.option("--tol", type=float, default=1e-4, show_default=True, help="rtol and atol of the ODE solver.")
@SEED
@out("interpolated.png")
@DEVICE
def interpolate(
    model: str, weights: Path | None, pairs: int, steps: int, temperature: float, tol: float, seed: int, out: Path, device: str | None
) -> None:
    """Interpolate between images: encode both, walk on the sphere between their latents, decode.

    \b
    fastdiff interpolate -n 8 --steps 11 --out walk.png
    """
    import torch

    from ..encoding import decode, encode, slerp, with_temperature
    from ..files import check_writable
    from ..images import save_grid
    from ..models.digits.data import load_digits
    from ..ode import ODESolver
    from ..opening import open_model

    check_writable(out)
    expect_range("--steps", steps, 2, 100)
    place = working_device(device)
    opened = open_model(model, weights, place)
    net = opened.net
    images = load_digits("test").images
    expect_range("-n", pairs, 1, len(images) // 2)
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[: 2 * pairs]
    ends = images[chosen].to(place)
    solver = ODESolver(rtol=tol, atol=tol)
    z = encode(net, ends, parametrization=opened.parametrization, solver=solver, progress=True, class_labels=None)
    walk = torch.cat([with_temperature(slerp(z[2 * i], z[2 * i + 1], steps), temperature) for i in range(pairs)])
    decoded = decode(net, walk, parametrization=opened.parametrization, solver=solver, progress=True, class_labels=None)
    if temperature == 1:
        error = (decoded.unflatten(0, (pairs, steps))[:, [0, -1]].flatten(0, 1) - ends).abs().max().item()
        click.echo(f"the ends come back within {error:.1e}")
    save_grid(decoded, out, columns=steps)
    click.echo(f"wrote {out}: {pairs} rows from one image of the test split to another")
