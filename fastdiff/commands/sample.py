"""fastdiff sample: generate samples with any model."""

from __future__ import annotations

from pathlib import Path

import click

from ._options import DEVICE, MODEL, WEIGHTS


@click.command()
@MODEL
@WEIGHTS
@click.option("-n", "--count", type=int, default=64, show_default=True, help="Number of samples.")
@click.option("--seed", type=int, default=0, show_default=True, help="Sample i depends on (seed, i) alone, whatever the batch.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("samples.png"), show_default=True, help="The picture, a PNG.")
@click.option("--npz", type=click.Path(path_type=Path), help="Also write the samples (images, uint8 NHWC) and labels here.")
@click.option("--class", "class_index", type=int, help="Sample this class only; default: all classes in turn.")
@click.option("--label", type=int, help="Guide the unconditional model to this class with its noise-conditional classifier.")
@click.option("--guidance-scale", type=float, default=1.0, show_default=True, help="Weight of the classifier's gradient, with --label.")
@click.option("--discriminator", help="Discriminator guidance: digits (for --model digits-small), or a checkpoint's path.")
@click.option("--dg-weight", type=float, default=2.0, show_default=True, help="Its weight at predictors.")
@click.option("--own-sampler", "own", is_flag=True, help="Sample as the literature does from what the model was trained as.")
@click.option("--steps", type=int, default=18, show_default=True, help="Steps of Heun's method; 2*steps - 1 network calls.")
@click.option("--s-churn", type=float, default=0.0, show_default=True, help="EDM's S_churn: noise added while sampling.")
@click.option("--eps-scale", type=float, default=1.0, show_default=True, help="Epsilon scaling: the predicted noise is divided by this.")
@click.option("--cfg", type=float, default=1.0, show_default=True, help="Weight of classifier-free guidance; 1 is none.")
@click.option("--batch", type=int, default=256, show_default=True, help="Samples at a time.")
@DEVICE
@click.option("--compare/--no-compare", default=True, show_default=True, help="Time an eager PyTorch sampler on the same network, too.")
def sample(
    model: str, weights: Path | None, count: int, seed: int, out: Path, npz: Path | None, class_index: int | None,
    label: int | None, guidance_scale: float, discriminator: str | None, dg_weight: float, own: bool, steps: int, s_churn: float,
    eps_scale: float, cfg: float, batch: int, device: str | None, compare: bool,
) -> None:  # fmt: skip
    """Generate samples with a shipped model, and write them as a picture.

    \b
    fastdiff sample -n 100 --seed 1 --out digits.png
    fastdiff sample --class 7 --cfg 1.5 --out sevens.png
    fastdiff sample --label 3 --guidance-scale 2 --out threes.png
    fastdiff sample -n 1000 --npz digits.npz
    fastdiff sample --model digits-small --discriminator digits --dg-weight 1 --eps-scale 1.005
    fastdiff sample --model runs/ddpm-digits/network.safetensors --own-sampler
    torchrun --nproc-per-node 2 -m fastdiff.cli sample -n 50000    the same samples with any number of processes
    """
    from .generate import generate

    generate(
        model=model, weights=weights, count=count, seed=seed, out=out, npz=npz, class_index=class_index, label=label,
        guidance_scale=guidance_scale, discriminator=discriminator, dg_weight=dg_weight, own=own, steps=steps,
        s_churn=s_churn, eps_scale=eps_scale, cfg=cfg, batch=batch, device=device,
        compare=compare,
    )  # fmt: skip
