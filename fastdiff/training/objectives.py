"""What a step computes: from images, classes and noise keys to one loss for each sample, with the network inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..discrete import Discrete, geometric_sigmas, linear_betas
from ..losses import (
    Levels,
    LogNormal,
    UniformLog,
    UniformSteps,
    UniformTime,
    classifier_loss,
    diffusion_loss,
    discriminator_loss,
    weighting,
)  # fmt: skip
from ..models import ADMEncoder, Discriminator, build
from ..parametrizations import BY_NAME, EDM, Parametrization, parametrization_of
from ..samplers import DDPM, AnnealedLangevin, EDMSampler, PCSampler, Sampler
from ..schedules import Schedule
from ..sdes import EDMSDE, VESDE, VPSDE, SubVPSDE
from .config import TrainConfig

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def process_for(config: TrainConfig) -> Schedule:
    """The forward process that a configuration names."""
    c = config
    if c.process == "ddpm":
        return Discrete(linear_betas(c.steps, c.beta_min, c.beta_max))
    if c.process in ("vp", "sub-vp"):
        return (VPSDE if c.process == "vp" else SubVPSDE)(c.beta_min, c.beta_max)
    return VESDE(c.sigma_min, c.sigma_max) if c.process == "ve" else EDMSDE(c.sigma_min, c.sigma_max)


def levels_of(config: TrainConfig) -> Levels:
    """The distribution of noise levels that a configuration names."""
    c = config
    if c.levels == "log-normal":
        return LogNormal(c.p_mean, c.p_std)
    if c.levels == "uniform-log":
        return UniformLog(c.sigma_min, c.sigma_max)
    process = process_for(c)
    if c.levels == "uniform-time":
        return UniformTime(process, c.epsilon_t)
    if isinstance(process, Discrete):
        return UniformSteps(tuple(process.sigmas))
    if c.process != "smld":
        raise ValueError(f"levels: expected uniform-steps with the processes ddpm and smld only, got {c.process}")
    return UniformSteps(tuple(geometric_sigmas(c.steps, c.sigma_max, c.sigma_min)))


def parametrization_for(config: TrainConfig, net: nn.Module) -> Parametrization:
    """What the network that is trained returns."""
    if config.predicts == "precond":
        if not hasattr(net, "parametrization"):
            raise ValueError(f"predicts: expected another than precond for {config.network}, which is no preconditioned denoiser")
        return net.parametrization  # type: ignore[return-value]
    if config.predicts == "D":
        return parametrization_of(net, "D")
    if config.predicts == "F":
        return EDM(config.sigma_min, config.sigma_max, sigma_data=config.sigma_data)
    return BY_NAME[config.predicts](schedule=process_for(config), label_scale=config.label_scale or None)  # type: ignore[call-arg]


def sampler_for(config: TrainConfig) -> Sampler:
    """How the literature samples from what a configuration trains."""
    process = process_for(config)
    if config.process == "smld":
        return AnnealedLangevin(tuple(geometric_sigmas(config.steps, config.sigma_max, config.sigma_min)), denoise=True)
    if isinstance(process, Discrete):
        return DDPM(process)
    if config.predicts == "precond" or isinstance(process, EDMSDE):
        return EDMSampler()
    return PCSampler(process, steps=config.steps, corrector="none")  # type: ignore[arg-type]


class Objective(nn.Module):
    """A network and its loss, called as objective(x0, labels, key) -> [B].

    x0: [B, ...] data; labels: [B] int64 classes, -1 where there are none; key: [B] int64 noise keys.
    """

    net: nn.Module

    def __init__(self, config: TrainConfig, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.config, self.shape, self.classes = config, shape, classes
        self.net = build(config.spec)
        self.levels = levels_of(config)

    def autocast(self, device: torch.device) -> torch.autocast:
        """Half precision for the network where the configuration says so."""
        half = _HALF.get(self.config.precision)
        return torch.autocast(device.type, half, enabled=half is not None)

    def one_hot(self, labels: Tensor) -> Tensor | None:
        """[B, classes], zeros where there is no class; None for an unconditional network."""
        if not self.config.conditional:
            return None
        return (labels[:, None] == torch.arange(self.classes, device=labels.device)).float()


class Denoise(Objective):
    """The denoising loss of `diffusion_loss`, its mean over a sample's elements."""

    def __init__(self, config: TrainConfig, shape: tuple[int, ...], classes: int) -> None:
        super().__init__(config, shape, classes)
        self.parametrization = parametrization_for(config, self.net)
        self.weight = weighting(config.weighting, process=process_for(config), sigma_data=config.sigma_data)

    def forward(self, x0: Tensor, labels: Tensor, key: Tensor, augment_labels: Tensor | None = None) -> Tensor:
        sigma = self.levels.draw(key)
        condition: dict[str, Any] = {}
        if self.config.conditional:
            condition["class_labels"] = self.one_hot(labels)
        if self.config.arguments.get("augment_dim"):  # zeros say that nothing was changed; every parameter takes part in each step
            labelled = augment_labels is not None
            condition["augment_labels"] = augment_labels if labelled else x0.new_zeros(len(x0), self.config.arguments["augment_dim"])
        raw: Callable[..., Tensor] = self.net.raw if self.config.predicts == "precond" else self.net  # type: ignore[assignment]

        def net(x: Tensor, label: Tensor, **condition: Any) -> Tensor:
            with self.autocast(x.device):
                return raw(x, label, **condition)

        total = diffusion_loss(
            net, x0, sigma, key, parametrization=self.parametrization, weight=self.weight(sigma),
            perturbation=self.config.input_perturbation, **condition,
        )  # fmt: skip
        return total / x0[0].numel()


class Classify(Objective):
    """Cross-entropy of the classes of noisy images."""

    def forward(self, x0: Tensor, labels: Tensor, key: Tensor) -> Tensor:
        sigma = self.levels.draw(key).to(x0.dtype)
        classifier = self.net.classify if isinstance(self.net, ADMEncoder) else self.net
        with self.autocast(x0.device):
            return classifier_loss(classifier, x0, labels, sigma, key)


class Discriminate(Objective):
    """Binary cross-entropy of telling data (real [B]: 1) from generated samples (0) at a noise level."""

    def __init__(self, config: TrainConfig, shape: tuple[int, ...], classes: int) -> None:
        super().__init__(config, shape, classes)
        if not isinstance(self.net, Discriminator):
            raise ValueError(f"network: expected Discriminator for the task discriminate, got {config.network}")

    def forward(self, x0: Tensor, labels: Tensor, key: Tensor, real: Tensor) -> Tensor:
        sigma = self.levels.draw(key).to(x0.dtype)
        classes = labels if self.config.conditional else None
        with self.autocast(x0.device):
            return discriminator_loss(self.net.logits, x0, real, sigma, key, class_labels=classes)  # type: ignore[arg-type]


OBJECTIVES: dict[str, type[Objective]] = {"denoise": Denoise, "classify": Classify, "discriminate": Discriminate}
