"""The command line: fastdiff --help."""

from __future__ import annotations

import sys

import click

from ._version import __version__
from .commands.convert import convert
from .commands.data import data
from .commands.eval import evaluate
from .commands.inpaint import inpaint
from .commands.interpolate import interpolate
from .commands.likelihood import likelihood
from .commands.sample import sample
from .commands.train import train
from .studies.command import study


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="fastdiff-torch", prog_name="fastdiff")
def cli() -> None:
    """Fused kernels and samplers for diffusion models.

    \b
    fastdiff doctor                                   what runs where on this machine
    fastdiff models                                   the models that are shipped
    fastdiff sample --model digits --out samples.png  a picture of generated digits
    fastdiff sample --label 3 --guidance-scale 2      threes, by a classifier's gradient
    fastdiff train digits                             train a preset; killed, the same command goes on
    fastdiff eval                                     FID, IS, KID, precision and recall over blocks of seeds
    fastdiff data digits --out digits.png             what is in a data set; also converts
    fastdiff convert network.pkl net                  checkpoints of other code bases, executing nothing in them
    fastdiff likelihood                               bits per dimension of the test split
    fastdiff inpaint                                  completions of half digits
    fastdiff interpolate                              from one digit to another
    fastdiff study                                    figures of the literature
    """


for command in (sample, train, evaluate, data, convert, likelihood, inpaint, interpolate, study):
    cli.add_command(command)


@cli.command()
def doctor() -> None:
    """Print versions, which backend serves which op, what is missing, and what to do about it."""
    from .doctor import inspect

    click.echo(str(inspect()))


@cli.command()
def models() -> None:
    """List the models that are shipped with their weights, and the presets of `fastdiff train`."""
    import torch

    from .models import CLASSIFIERS, DISCRIMINATORS, EXTRACTORS, MODELS, build
    from .training import PRESETS

    click.echo("shipped with their weights:")
    for model in MODELS.values():
        click.echo(f"  {model.name:22} {model.about}")
    for what, entries in (("classifier", CLASSIFIERS), ("extractor", EXTRACTORS), ("discriminator", DISCRIMINATORS)):
        for entry in entries.values():
            click.echo(f"  {entry.name:22} {what}: {entry.about}")
    click.echo("presets of `fastdiff train`:")
    for name, config in PRESETS.items():
        with torch.device("meta"):
            parameters = sum(p.numel() for p in build(config.spec).parameters())
        click.echo(f"  {name:22} {config.task}: {config.network}, {parameters / 1e6:.2f} M parameters, on {config.data}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: an error of the user is one line and exit code 2."""
    try:
        code = cli.main(args=arguments, prog_name="fastdiff", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(0)
    except click.Abort:
        click.echo("fastdiff: interrupted", err=True)
        sys.exit(130)
    except (click.ClickException, ValueError, TypeError, OSError, ImportError) as error:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"fastdiff: {' '.join(text.split())}", err=True)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
