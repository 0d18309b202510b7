"""fastdiff data: look into a data set, draw it, convert it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._options import expect_range

if TYPE_CHECKING:
    from ..data import ImageData

_MOST_ROWS = 20
_POINTS_SHOWN = 10_000


@click.command()
@click.argument("source", required=False)
@click.option("--out", type=click.Path(path_type=Path), help="Draw it: a row of images for each class, or the points; a PNG.")
@click.option("--per-class", type=int, default=8, show_default=True, help="Images in a row of that picture.")
@click.option("--to", type=click.Path(path_type=Path), help="Convert it: OUT.zip (EDM's, with dataset.json) or OUT.npz.")
@click.option("--resolution", type=int, help="Side of the images: cut square in the middle, then resampled; default: as they are.")
@click.option("--filter", "resize", type=click.Choice(["lanczos", "box"]), default="lanczos", show_default=True, help="Of --resolution.")
def data(source: str | None, out: Path | None, per_class: int, to: Path | None, resolution: int | None, resize: str) -> None:
    """Look into a data set: its size, classes, values, mean and sigma_data. Every file is read, so every file is checked.

    SOURCE is a built-in name or a path, with :train or :test behind it where there are splits. Without SOURCE: a list of both.
    sigma_data is the standard deviation of all pixels in [-1, 1]; networks with EDM's preconditioning want to know it.

    \b
    fastdiff data                                             what can be opened
    fastdiff data digits --out digits.png                     a few images of each class
    fastdiff data swiss-roll --out roll.png                   the points
    fastdiff data cifar-10-python.tar.gz --to cifar10.zip     EDM's format, for training here or there
    fastdiff data photos/ --resolution 64 --to photos.zip     images of any size, made 64 x 64
    fastdiff data mnist/:test --to mnist-test.npz             one split as arrays
    """
    from ..data import BUILT_IN, FORMATS, convert, describe, open_data
    from ..data.convert import check_target
    from ..files import check_writable

    if source is None:
        rows = {"built in": ""} | {f"  {name}": about for name, about in BUILT_IN.items()}
        rows |= {"paths": ""} | {f"  {name}": about for name, about in FORMATS.items()}
        click.echo("\n".join(f"{name:26}{about}".rstrip() for name, about in rows.items()))
        return
    expect_range("--per-class", per_class, 1, 1000)
    if out is not None:
        check_writable(out)
    opened = open_data(source, resolution=resolution, resize=resize)
    if to is not None:
        check_target(opened, to)
    if out is not None and opened.is_points:
        from ..figures import require_matplotlib

        require_matplotlib()
    summary = describe(opened, progress=True)
    click.echo(str(summary))
    if out is not None:
        shown = _scatter(opened, out) if opened.is_points else _grid(opened, out, per_class)
        click.echo(f"wrote {out}: {shown}")
    if to is not None:
        convert(opened, to, progress=True)
        click.echo(f"wrote {to}: {len(opened)} {'points' if opened.is_points else 'images'}, {to.stat().st_size / 1e6:.1f} MB")
        height, width = opened.shape[-2:] if not opened.is_points else (1, 1)
        if to.suffix.lower() == ".zip" and (height != width or height & (height - 1)):
            click.echo(f"note: EDM's own training reads squares whose side is a power of two, these are {height} x {width} (--resolution)")


def _grid(opened: ImageData, out: Path, per_class: int) -> str:
    """A row for each class, or a square of the first images; returns what is shown."""
    import torch

    from ..images import save_grid

    if opened.shape[0] not in (1, 3):
        raise ValueError(f"--out: expected images with 1 or 3 channels, got {opened.shape[0]}; leave it out")
    if not opened.classes:
        first = torch.arange(min(len(opened), per_class**2))
        save_grid(opened.batch(first)[0], out, columns=min(per_class, len(first)))
        return f"the first {len(first)} images"
    rows = min(opened.classes, _MOST_ROWS)
    tiles = torch.zeros(rows, per_class, *opened.shape)
    for label in range(rows):
        members = (opened.labels == label).nonzero().flatten()[:per_class]
        tiles[label, : len(members)] = opened.batch(members)[0]
    save_grid(tiles.flatten(0, 1), out, columns=per_class)
    return f"{per_class} images of {'each class' if rows == opened.classes else f'each of the first {rows} classes'}, a class in a row"


def _scatter(opened: ImageData, out: Path) -> str:
    """The first points of the plane; returns what is shown."""
    import torch

    from ..figures import BLUE, picture
    from ..files import write_atomically
    from ..studies._common import scatter

    if opened.shape != (2,):
        raise ValueError(f"--out: expected points of the plane [2], got {list(opened.shape)}; leave it out")
    x, _ = opened.batch(torch.arange(min(len(opened), _POINTS_SHOWN)))
    with picture((5.2, 5.2)) as figure:
        scatter(figure.subplots(), x, BLUE, limit=1.1 * float(x.abs().max()) or 1.0, size=2.0)
        figure.suptitle(f"{opened.name}: {opened.about}", fontsize=10)
        write_atomically(out, lambda file: figure.savefig(file, format="png"))
    return f"the first {len(x)} points"
