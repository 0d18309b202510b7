"""fastdiff study: the studies on the command line."""

from __future__ import annotations

import time
from pathlib import Path

import click

from . import STUDIES

_LIST = "\n".join(f"    {study.name:14} {study.about}" for study in STUDIES.values())


@click.command(
    help=f"""Reproduce a figure of the literature: NAME.png, and the numbers in NAME.json.

    \b
{_LIST}
    all            every one of them

    \b
    fastdiff study                                  list them
    fastdiff study kernels                          kernels.png and kernels.json here
    fastdiff study all --out studies --seed 1       a folder of all, with another seed
    """
)
@click.argument("name", required=False, type=click.Choice([*STUDIES, "all"]), metavar="[NAME]")
@click.option("--out", type=click.Path(path_type=Path), default=Path("."), help="Folder of both files, made if missing [default: here].")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same numbers.")
@click.option("--quick", is_flag=True, help="Fewer samples and steps: seconds instead of up to a minute, and rougher numbers.")
def study(name: str | None, out: Path, seed: int, quick: bool) -> None:
    if name is None:
        click.echo("\n".join(line[4:] for line in _LIST.split("\n")))
        return
    out.mkdir(parents=True, exist_ok=True)
    for chosen in STUDIES.values() if name == "all" else [STUDIES[name]]:
        start = time.perf_counter()
        numbers = chosen.run(out / chosen.name, seed=seed, quick=quick)
        click.echo(f"{chosen.name}: {chosen.finding(numbers)}")
        click.echo(f"  {out / chosen.name}.png and .json, {time.perf_counter() - start:.0f} s\n")
