"""fastdiff train: any preset or configuration, resumable."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path

import click


class _Help(click.Command):
    """The options, and then every field of a configuration."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from ..training import TrainConfig

        with formatter.section("Fields (KEY=VALUE)"):
            default = TrainConfig()
            formatter.write_dl([(f.name, f"{f.metadata['about']} [{getattr(default, f.name)}]") for f in fields(TrainConfig)])


@click.command(cls=_Help)
@click.argument("source", metavar="PRESET|CONFIG.toml", required=False)
@click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1)
@click.option(
    "--out", type=click.Path(path_type=Path), default=None, help="The run directory; default: runs/PRESET. An unfinished run there goes on."
)
@click.option("--device", default=None, help="cpu or cuda; default: a GPU if there is one.")
@click.option("--show", is_flag=True, help="Print the whole configuration as JSON, and train nothing.")
def train(source: str | None, overrides: tuple[str, ...], out: Path | None, device: str | None, show: bool) -> None:
    """Train a network. Without arguments: list the presets.

    \b
    fastdiff train digits                                    the shipped model again
    fastdiff train ddpm-digits images=100000 lr=5e-4         a preset with other values
    fastdiff train my.toml arguments.dropout=0.2 --out runs/a
    torchrun --nproc-per-node 8 -m fastdiff.cli train cifar10-ddpmpp data=cifar10.zip

    CONFIG.toml holds the same keys; `preset = "NAME"` says what it starts from. Killed at any moment, the same command goes on from
    the last checkpoint and ends with the same weights. The run directory holds network.safetensors (the averaged weights, for
    `--weights` and `fastdiff eval`), pictures, log.jsonl and tensorboard's events.
    """
    from ..training import PRESETS, TrainingError
    from ..training import train as run
    from ..training.config import read_config

    if source is None:
        width = max(map(len, PRESETS))
        for name, config in PRESETS.items():
            click.echo(f"{name:{width}}  {config.task}: {config.network} on {config.data}, {config.images:,} images")
        return
    config = read_config(source, PRESETS, overrides)
    if show:
        click.echo(json.dumps(asdict(config), indent=2))
        return
    folder = out or Path("runs") / Path(source).stem
    try:
        run(config, folder, device=device, announce=click.echo)
    except KeyboardInterrupt:
        raise click.ClickException(f"interrupted; the same command goes on from the checkpoint in {folder}") from None
    except TrainingError as error:
        raise click.ClickException(str(error)) from error
