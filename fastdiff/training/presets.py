"""Training runs by name: the networks and settings of the literature, and small ones that train here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..models.digits.network import ARGUMENTS as DIGITS
from ..models.digits.network import EXTRACTOR, HEAD, SIGMA_DATA, SMALL
from .config import TrainConfig

MILLION = 1_000_000

#: DDPM++ and NCSN++ of EDM's CIFAR-10 (Karras et al. 2022, table 7).
_DDPMPP: dict[str, Any] = {
    "img_resolution": 32, "img_channels": 3, "model_type": "SongUNet", "model_channels": 128, "channel_mult": [2, 2, 2],
    "augment_dim": 9, "dropout": 0.13,
}  # fmt: skip
_NCSNPP = _DDPMPP | {
    "embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2, "resample_filter": [1, 3, 3, 1]
}  # fmt: skip
_CIFAR = TrainConfig(
    arguments=_DDPMPP, data="cifar-10-python.tar.gz", images=200 * MILLION, batch=512, lr=1e-3, warm_up=10 * MILLION,
    ema_half_life=500_000, augment=0.12, precision="fp32", log_every=50_000, sample_every=2_500_000, save_every=2_500_000,
)  # fmt: skip

#: Half of EDM's DDPM++ at a quarter of its width: the U-Net of the MNIST systems.
_MNIST: dict[str, Any] = {
    "img_resolution": 28, "in_channels": 1, "out_channels": 1, "model_channels": 32, "channel_mult": [1, 2, 2], "num_blocks": 2,
    "attn_resolutions": [7], "dropout": 0.1,
}  # fmt: skip
_SMALL = TrainConfig(
    data="mnist", images=60_000 * 20, batch=128, warm_up=20_000, clip=1.0, ema_half_life=60_000, weighting="simple", lr=1e-4,
    log_every=6_400, sample_every=60_000, save_every=60_000,
)  # fmt: skip


def _preconditioned(raw: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a preconditioned network from those of the raw one."""
    rest = {name: value for name, value in raw.items() if name not in ("in_channels", "out_channels")}
    return {"img_channels": raw["in_channels"], "model_type": "SongUNet", **rest}


#: SMLD: ten levels, annealed Langevin (Song and Ermon 2019).
_SMLD = replace(
    _SMALL, network="VEPrecond", arguments=_preconditioned(_MNIST) | {"sigma_min": 0.01, "sigma_max": 1.0}, process="smld", steps=10,
    sigma_min=0.01, sigma_max=1.0, levels="uniform-steps", lr=1e-3,
)  # fmt: skip
#: DDPM: a thousand steps, ancestral sampling (Ho et al. 2020).
_DDPM = replace(
    _SMALL, network="SongUNet", arguments=_MNIST, predicts="eps", process="ddpm", beta_min=1e-4, beta_max=0.02, levels="uniform-steps"
)
#: The VP SDE: continuous times by Gaussian Fourier features, reverse diffusion in a thousand steps (Song et al. 2021).
_SDE = replace(
    _SMALL, network="SongUNet", arguments=_MNIST | {"embedding_type": "fourier", "channel_mult_noise": 2}, predicts="eps", process="vp",
    levels="uniform-time", label_scale=1.0,
)  # fmt: skip


def _on_digits(config: TrainConfig, images: int = 200_000) -> TrainConfig:
    """An MNIST system on the built-in 8x8 digits."""
    small = {"img_resolution": 8, "model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}
    arguments = config.arguments | small
    return replace(
        config, data="digits", arguments=arguments, images=images, warm_up=10_000, ema_half_life=20_000, lr=max(config.lr, 1e-3),
        decay="cosine", sample_every=100_000, save_every=50_000,
    )  # fmt: skip


PRESETS: dict[str, TrainConfig] = {
    "cifar10-ddpmpp": _CIFAR,
    "cifar10-ncsnpp": replace(_CIFAR, arguments=_NCSNPP),
    "cifar10-ddpmpp-vp": replace(
        _CIFAR, network="VPPrecond", process="vp", levels="uniform-time", weighting="simple"
    ),
    "cifar10-ncsnpp-ve": replace(
        _CIFAR, network="VEPrecond", arguments=_NCSNPP, process="ve", levels="uniform-log", sigma_min=0.02, sigma_max=100.0,
        weighting="simple",
    ),
    "adm-imagenet64": TrainConfig(
        arguments={
            "img_resolution": 64, "img_channels": 3, "label_dim": 1000, "model_type": "DhariwalUNet", "model_channels": 192,
            "channel_mult": [1, 2, 3, 4], "dropout": 0.10,
        },
        data="imagenet-64x64.zip", conditional=True, images=2500 * MILLION, batch=4096, lr=1e-4, warm_up=10 * MILLION,
        ema_half_life=50 * MILLION, precision="bf16", log_every=200_000, sample_every=10 * MILLION, save_every=10 * MILLION,
    ),
    "smld-mnist": _SMLD,
    "ddpm-mnist": _DDPM,
    "sde-mnist": _SDE,
    "smld-digits": _on_digits(_SMLD),
    "ddpm-digits": _on_digits(_DDPM),
    "sde-digits": _on_digits(_SDE),
    "digits": TrainConfig(
        arguments=DIGITS, data="digits", conditional=True, p_mean=-0.8, sigma_data=SIGMA_DATA, images=576_000, batch=64, lr=2e-3,
        betas=[0.9, 0.99], warm_up=11_520, decay="cosine", clip=1.0, ema_half_life=19_200, log_every=6_400, sample_every=64_000,
        save_every=64_000,
    ),
    "digits-small": TrainConfig(
        arguments=SMALL, data="digits", conditional=True, p_mean=-0.8, sigma_data=SIGMA_DATA, images=300_000, batch=64, lr=3e-3,
        betas=[0.9, 0.99], warm_up=6_400, decay="cosine", clip=1.0, ema_half_life=9_600, log_every=6_400, save_every=64_000,
    ),
    "digits-extractor": TrainConfig(
        task="classify", network="ADMEncoder", arguments=EXTRACTOR, data="digits", levels="uniform-log", images=120_000, batch=128, lr=1e-3,
        warm_up=6_000, decay="cosine", clip=1.0, ema_half_life=20_000, log_every=6_400, save_every=64_000,
    ),
    "digits-discriminator": TrainConfig(
        task="discriminate", network="Discriminator", arguments={"extractor": EXTRACTOR, "head": HEAD}, data="digits",
        generated="generated.npz", extractor="digits", conditional=True, levels="uniform-log", images=400_000, batch=128, lr=1e-3,
        optimizer="adamw", weight_decay=1e-2, warm_up=6_000, decay="cosine", clip=1.0, ema_half_life=20_000, log_every=6_400,
        save_every=64_000,
    ),
    "swiss-roll": TrainConfig(
        network="MLP", arguments={"dim": 2, "hidden": 128, "layers": 4}, predicts="F", data="swiss-roll", images=2 * MILLION, batch=512,
        lr=2e-3, warm_up=20_000, decay="cosine", clip=1.0, ema_half_life=50_000, sigma_max=20.0, log_every=50_000, save_every=500_000,
    ),
}  # fmt: skip
