"""generate.py: random images of a network, one for each seed, to files named by the seeds.

python -m fastdiff.compat.edm.generate --network=digits --outdir=out --seeds=0-63
torchrun --standalone --nproc_per_node=2 -m fastdiff.compat.edm.generate --network=net.pkl --outdir=out --seeds=0-999
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ...distributed import World, world
from ...files import write_atomically
from ...opening import Opened
from ._command import run
from .generators import PhiloxGenerator, StackedRandomGenerator
from .networks import open_network, open_teller
from .samplers import ablation_sampler, edm_sampler

__all__ = ["PhiloxGenerator", "StackedRandomGenerator", "ablation_sampler", "edm_sampler", "generate_images", "main", "parse_int_list"]

#: More than this is a slip of the hand.
MOST_SEEDS = 10_000_000

GENERATORS: dict[str, type[StackedRandomGenerator] | type[PhiloxGenerator]] = {
    "upstream": StackedRandomGenerator,
    "philox": PhiloxGenerator,
}
ABLATIONS = ("solver", "discretization", "schedule", "scaling")


def parse_int_list(s: str | list[int]) -> list[int]:
    """The integers of "1,2,5-10", in that order; a list is returned as it is.

    Raises:
        ValueError: another text, or more than ten million integers.
    """
    if isinstance(s, list):
        return s
    found: list[int] = []
    for part in s.split(","):
        match = re.fullmatch(r"\s*(\d{1,19})(?:-(\d{1,19}))?\s*", part, re.ASCII)
        if match is None:
            raise ValueError(f"seeds: expected integers and ranges such as 1,2,5-10, got {s[:80]!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last - first + len(found) >= MOST_SEEDS:
            raise ValueError(f"seeds: expected at most {MOST_SEEDS}, got more in {s[:80]!r}")
        found += range(first, last + 1)
    return found


def generate_images(
    net: Any, seeds: list[int], *, batch: int = 64, class_idx: int | None = None, noise: Literal["upstream", "philox"] = "upstream",
    device: torch.device | str = "cpu", **sampler: Any,
) -> Iterator[tuple[list[int], Tensor]]:  # fmt: skip
    """Batches of (seeds, [B, C, H, W] samples): latents, then a class, then the steps' noise, each from its sample's seed.

    Args:
        net: with img_channels, img_resolution and label_dim; class_idx: the class of all, else each seed draws its own.
        noise: "upstream" for the streams of torch's generators on that device, "philox" for counter-based ones, which are faster and the
            same on every device; sampler: arguments of edm_sampler, or of ablation_sampler where it has one of solver, discretization,
            schedule and scaling.
    """
    function: Any = ablation_sampler if any(name in sampler for name in ABLATIONS) else edm_sampler
    for first in range(0, len(seeds), batch):
        own = seeds[first : first + batch]
        generator = GENERATORS[noise](device, own)
        latents = generator.randn([len(own), net.img_channels, net.img_resolution, net.img_resolution], device=device)
        labels = None
        if net.label_dim:
            drawn = generator.randint(net.label_dim, size=[len(own)], device=device)  # drawn even where it is given, as upstream does
            labels = torch.eye(net.label_dim, device=device)[drawn if class_idx is None else torch.full_like(drawn, class_idx)]
        with torch.no_grad():
            images = function(net, latents, labels, randn_like=generator.randn_like, **sampler)
        yield own, images


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--network", required=True, metavar="NAME|PATH", help="A shipped model, a native checkpoint, or a .pkl of NVlabs/edm.")
@click.option("--outdir", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Where to save the images.")
@click.option("--seeds", default="0-63", show_default=True, metavar="LIST", help="Random seeds, e.g. 1,2,5-10: one for each image.")
@click.option("--subdirs", is_flag=True, help="A subfolder for every 1000 seeds.")
@click.option("--class", "class_idx", type=click.IntRange(min=0), metavar="INT", help="Class of all images  [default: random]")
@click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True, metavar="INT", help="Images at a time.")
@click.option("--steps", "num_steps", type=click.IntRange(min=1), default=18, show_default=True, metavar="INT", help="Noise levels.")
@click.option("--sigma_min", type=click.FloatRange(min=0, min_open=True), metavar="FLOAT", help="Lowest noise level  [default: varies]")
@click.option("--sigma_max", type=click.FloatRange(min=0, min_open=True), metavar="FLOAT", help="Highest noise level  [default: varies]")
@click.option("--rho", type=click.FloatRange(min=0, min_open=True), default=7, show_default=True, metavar="FLOAT", help="Their exponent.")
@click.option("--S_churn", "S_churn", type=click.FloatRange(min=0), default=0, show_default=True, metavar="FLOAT", help="Added noise.")
@click.option("--S_min", "S_min", type=click.FloatRange(min=0), default=0, show_default=True, metavar="FLOAT", help="Its lowest level.")
@click.option("--S_max", "S_max", type=click.FloatRange(min=0), default="inf", show_default=True, metavar="FLOAT", help="Its highest.")
@click.option("--S_noise", "S_noise", type=float, default=1, show_default=True, metavar="FLOAT", help="Its inflation.")
@click.option("--solver", type=click.Choice(["euler", "heun"]), help="Ablation: ODE solver.")
@click.option("--disc", "discretization", type=click.Choice(["vp", "ve", "iddpm", "edm"]), help="Ablation: noise levels {t_i}.")
@click.option("--schedule", type=click.Choice(["vp", "ve", "linear"]), help="Ablation: noise schedule sigma(t).")
@click.option("--scaling", type=click.Choice(["vp", "none"]), help="Ablation: scaling s(t) of the signal.")
@click.option("--eps_scaler", type=float, default=1.0, show_default=True, metavar="FLOAT", help="EDM-ES: predicted noise divided by it.")
@click.option("--discriminator_ckpt", metavar="NAME|PATH", help="DG: a shipped discriminator, a native checkpoint, or DG's .pt.")
@click.option(
    "--pretrained_classifier_ckpt", type=click.Path(path_type=Path), metavar="PATH", help="DG: the encoder's .pt, beside DG's .pt."
)
@click.option("--dg_weight_1st_order", type=click.FloatRange(min=0), default=2.0, show_default=True, metavar="FLOAT", help="DG: weight.")
@click.option("--dg_weight_2nd_order", type=click.FloatRange(min=0), default=0.0, show_default=True, help="DG: weight at corrections.")
@click.option("--time_min", type=click.FloatRange(0, 1), default=0.01, show_default=True, metavar="FLOAT", help="DG: least time.")
@click.option("--time_max", type=click.FloatRange(0, 1), default=1.0, show_default=True, metavar="FLOAT", help="DG: greatest time.")
@click.option("--boosting", type=click.IntRange(min=0), default=0, show_default=True, metavar="INT", help="DG: more where ln r < 0.")
@click.option(
    "--noise", type=click.Choice(list(GENERATORS)), default="upstream", show_default=True,
    help="upstream: torch's generators, its images; philox: counter-based, faster, the same on every device.",
)  # fmt: skip
@click.option("--state", type=click.Choice(["float64", "float32"]), default="float64", show_default=True, help="Precision of the state.")
@click.option("--device", default=None, help="Where to compute; default: a GPU if there is one.")
def main(
    network: str, outdir: Path, seeds: str, subdirs: bool, class_idx: int | None, batch: int, discriminator_ckpt: str | None,
    pretrained_classifier_ckpt: Path | None, noise: Literal["upstream", "philox"], state: str, device: str | None, **sampler: Any,
) -> None:  # fmt: skip
    """Generate random images with the samplers of Karras et al. 2022, an image for each seed.

    A seed's image is the same for any --batch and any number of processes, up to the network's own rounding.

    \b
    python -m fastdiff.compat.edm.generate --network=digits --outdir=out --seeds=0-63
    python -m fastdiff.compat.edm.generate --network=edm-cifar10-32x32-cond-vp.pkl --outdir=out --seeds=0-63 --batch=64
    torchrun --standalone --nproc_per_node=2 -m fastdiff.compat.edm.generate --network=net.pkl --outdir=out --seeds=0-999
    """
    wanted = parse_int_list(seeds)
    if not wanted:
        raise ValueError(f"--seeds: expected at least one, got {seeds!r}")
    if outdir.exists() and not outdir.is_dir():
        raise ValueError(f"--outdir: expected a folder, got the file {outdir}")
    among = world(device)
    opened = open_network(network, among.device)
    net: Any = opened.net
    sampler = {name: value for name, value in sampler.items() if value is not None} | {"state_dtype": getattr(torch, state)}
    _check(opened, class_idx, pretrained_classifier_ckpt, discriminator_ckpt)
    if any(name in sampler for name in ABLATIONS) and sampler.pop("boosting"):
        raise ValueError("--boosting: expected 0 beside --solver, --disc, --schedule and --scaling, got 1")
    if discriminator_ckpt is not None:
        sampler["discriminator"] = open_teller(pretrained_classifier_ckpt, discriminator_ckpt, opened, among.device)
    if among.is_main:
        click.echo(f'Generating {len(wanted)} images to "{outdir}"...')
    own = _share(wanted, batch, among)
    with tqdm(total=len(own), desc="generating", unit="image", disable=not among.is_main) as bar:
        batches = generate_images(net, own, batch=batch, class_idx=class_idx, noise=noise, device=among.device, **sampler)
        for batch_seeds, images in batches:
            for seed, pixels in zip(batch_seeds, to_pixels(images), strict=True):
                save(pixels, outdir / f"{seed - seed % 1000:06d}" if subdirs else outdir, seed)
            bar.update(len(batch_seeds))
    among.wait()
    if among.is_main:
        click.echo("Done.")


def to_pixels(images: Tensor) -> np.ndarray:
    """[B, C, H, W] in [-1, 1] to [B, H, W, C] in 0..255, in the precision of the samples: a pixel near a step must not change sides."""
    return (images * 127.5 + 128).clip(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def save(pixels: np.ndarray, folder: Path, seed: int) -> None:
    """Write one image [H, W, C] as <seed>.png, whole or not at all."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    write_atomically(folder / f"{seed:06d}.png", lambda file: image.save(file, format="PNG"))


def _share(seeds: list[int], batch: int, among: World) -> list[int]:
    """This process's seeds, whole batches of them."""
    batches = among.share(-(-len(seeds) // batch))
    return seeds[batches.start * batch : batches.stop * batch]


def _check(opened: Opened, class_idx: int | None, extractor: Path | None, discriminator: str | None) -> None:
    if class_idx is not None and class_idx >= opened.classes:
        known = f"0 .. {opened.classes - 1}" if opened.classes else "none for a network without classes"
        raise ValueError(f"--class: expected {known}, got {class_idx}")
    if extractor is not None and discriminator is None:
        raise ValueError("--discriminator_ckpt: expected one beside --pretrained_classifier_ckpt, got none")


if __name__ == "__main__":
    run(main, "fastdiff.compat.edm.generate")
