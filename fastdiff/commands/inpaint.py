"""fastdiff inpaint: complete images of which a part is known."""

from __future__ import annotations

from pathlib import Path

import click

from ..distributed import working_device
from ._options import DEVICE, MODEL, SEED, WEIGHTS, expect_range, out

MASKS = ("top", "bottom", "left", "right", "frame", "random")


@click.command()
@MODEL
@WEIGHTS
@click.option("--known", type=click.Choice(MASKS), default="left", show_default=True, help="The part that is known.")
@click.option("-n", "--count", type=int, default=8, show_default=True, help="Images of the test split.")
@click.option("--completions", type=int, default=6, show_default=True, help="Completions of each.")
@click.option("--steps", type=int, default=64, show_default=True, help="Steps of EDM's stochastic Heun.")
@click.option("--s-churn", type=float, default=40.0, show_default=True, help="Noise added while sampling: it lets the parts agree.")
@SEED
@out("inpainted.png")
@DEVICE
def inpaint(
    model: str, weights: Path | None, known: str, count: int, completions: int, steps: int, s_churn: float, seed: int, out: Path,
    device: str | None,
) -> None:  # fmt: skip
    """Complete images of which a part is known.

    A row of the picture: the image, what is known of it, and its completions.

    \b
    fastdiff inpaint --known top --out tops.png
    """
    import torch

    from ..files import check_writable
    from ..images import save_grid
    from ..known import Known
    from ..models.digits.data import load_digits
    from ..opening import open_model
    from ..samplers import EDMSampler
    from ..sampling import sample

    check_writable(out)
    place = working_device(device)
    opened = open_model(model, weights, place)
    net = opened.net
    images = load_digits("test").images
    expect_range("-n", count, 1, len(images))
    expect_range("--completions", completions, 1, 100)
    images = images[:count].to(place)
    mask = part(known, images.shape[1:], seed).to(place)
    repeated = images.repeat_interleave(completions, 0)
    completed = sample(
        net, repeated.shape, seeds=seed, sampler=EDMSampler(steps=steps, S_churn=s_churn), known=Known(repeated, mask), progress=True,
        parametrization=opened.parametrization,
        class_labels=None,
    )  # fmt: skip
    shown = torch.where(mask > 0, images, torch.zeros_like(images))
    rows = torch.cat([images[:, None], shown[:, None], completed.unflatten(0, (count, completions))], 1)
    save_grid(rows.flatten(0, 1), out, columns=completions + 2)
    click.echo(f"wrote {out}: the image, what is known ({known}), and {completions} completions, in each of {count} rows")


def part(name: str, shape, seed: int):
    """[1, C, H, W] mask of the known part."""
    import torch

    _, height, width = shape
    mask = torch.zeros(1, 1, height, width)
    if name == "random":
        generator = torch.Generator().manual_seed(seed)
        return (torch.rand(1, 1, height, width, generator=generator) < 0.4).float().expand(1, *shape)
    if name == "frame":
        mask += 1
        mask[..., height // 4 : -(height // 4), width // 4 : -(width // 4)] = 0
    else:
        where = {
            "top": (slice(height // 2), slice(None)), "bottom": (slice(height // 2, None), slice(None)),
            "left": (slice(None), slice(width // 2)), "right": (slice(None), slice(width // 2, None)),
        }[name]  # fmt: skip
        mask[(..., *where)] = 1
    return mask.expand(1, *shape)
