"""fastdiff eval: FID, inception score, kernel distance, precision and recall, and likelihoods, over blocks of seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ._options import DEVICE, MODEL, SEED, WEIGHTS


@click.command("eval")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@MODEL
@WEIGHTS
@click.option("-n", "--count", type=int, default=1000, show_default=True, help="Samples in a block; 0: only --stats-out and --nll.")
@click.option("--blocks", type=int, default=3, show_default=True, help="Block k has the samples k*n .. (k + 1)*n - 1 of the seed.")
@SEED
@click.option("--metrics", default=None, help="Any of fid,is,kid,pr; default: all that the reference allows.")
@click.option("--data", default=None, help="Images to compare with, a name or a path; default: the digits' training split.")
@click.option("--reference", type=click.Path(path_type=Path), help="Statistics to compare with, EDM's .npz; enough for fid and is.")
@click.option("--stats-out", type=click.Path(path_type=Path), help="Write the statistics of --data here, as EDM's .npz.")
@click.option("--features", default="digits", show_default=True, help="digits, or inception:FILE with FID's weights, .pth or .safetensors.")
@click.option("--steps", type=int, default=18, show_default=True, help="Steps of EDM's sampler.")
@click.option(
    "--solver", type=click.Choice(["heun", "euler"]), default="heun", show_default=True, help="2*steps - 1 network calls, or steps."
)
@click.option("--s-churn", type=float, default=0.0, show_default=True, help="EDM's S_churn: noise added while sampling.")
@click.option("--eps-scale", type=float, default=1.0, show_default=True, help="Epsilon scaling: the predicted noise is divided by this.")
@click.option("--discriminator", help="Discriminator guidance: digits (for --model digits-small), or a checkpoint's path.")
@click.option("--dg-weight", type=float, default=2.0, show_default=True, help="Its weight at predictors.")
@click.option("--cfg", type=float, default=1.0, show_default=True, help="Weight of classifier-free guidance; 1 is none.")
@click.option("--unconditional", is_flag=True, help="Without class labels; default: random ones, of the seed.")
@click.option("--nll", "with_nll", is_flag=True, help="Also a table of bits per dimension of the data's splits.")
@click.option("--nll-count", type=click.IntRange(min=1), default=128, show_default=True, help="Images of each split in that table.")
@click.option("--nll-tol", type=float, default=1e-4, show_default=True, help="rtol and atol of its ODE solver.")
@click.option("--batch", type=int, default=256, show_default=True, help="Images at a time.")
@DEVICE
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("eval.json"), show_default=True, help="The record; its PNG lies beside."
)
def evaluate(**options: Any) -> None:
    """Say how good a model's samples are, or those in FILES, of which each is a block.

    FID scatters, so samples come in blocks of seeds: every metric is given with its mean, its least and its spread over them.
    Compare numbers of the same features and the same -n only: FID falls with more samples, whoever made them.

    \b
    fastdiff eval                                      3 blocks of 1000 digits, every metric
    fastdiff eval --solver euler --eps-scale 1.005     what epsilon scaling changes
    fastdiff eval --model digits-small --discriminator digits --dg-weight 1 --eps-scale 1.005
    fastdiff eval --model runs/ddpm-digits/network     a checkpoint of `fastdiff train` or `fastdiff convert`
    fastdiff eval --metrics fid --nll                  FID, and bits per dimension
    fastdiff eval samples.npz                          what `fastdiff sample --npz` wrote
    fastdiff eval -n 0 --stats-out digits-stats.npz    the statistics to compare with, alone
    fastdiff eval cifar.npz --features inception:pt_inception-2015-12-05-6726825d.pth --reference cifar10-32x32.npz
    torchrun --nproc-per-node 2 -m fastdiff.cli eval   the same numbers with two processes
    """
    from ..evaluation.report import Request, report

    report(Request(**options))
