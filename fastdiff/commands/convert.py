"""fastdiff convert: a checkpoint of another code base as safetensors and a configuration."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--kind", type=click.Choice(["auto", "edm", "guided-diffusion", "dg", "score_sde"]), default="auto", show_default=True,
    help="Which code base wrote SOURCE; auto recognizes it by its content.",
)  # fmt: skip
@click.option("--image-size", type=int, help="Side of the images, where the weights do not say it.")
@click.option("--head-channels", type=int, help="Channels of an attention head of guided-diffusion; default: 64.")
@click.option("--extractor", type=click.Path(path_type=Path), help="For a DG discriminator: the .pt of the encoder of its features.")
def convert(source: Path, out: Path, kind: str, image_size: int | None, head_channels: int | None, extractor: Path | None) -> None:
    """Convert the checkpoint SOURCE to OUT.safetensors and OUT.json.

    Nothing in SOURCE is executed: a pickle that names anything but tensors and plain containers is refused, and the message says what
    it named. The network's arguments are read from the file, or from the names and shapes of its tensors.

    \b
    fastdiff convert edm-cifar10-32x32-cond-vp.pkl cifar10
    fastdiff convert checkpoint_8.pth ncsnpp --image-size 32
    fastdiff convert discriminator_60.pt dg --extractor 32x32_classifier.pt

    \b
    from fastdiff.checkpoints import load_network
    net = load_network("cifar10")
    """
    from ..checkpoints import convert as run

    report = run(source, out, kind, image_size=image_size, head_channels=head_channels, extractor=extractor)  # type: ignore[arg-type]
    click.echo(str(report))
