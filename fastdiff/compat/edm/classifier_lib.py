"""DG's classifier_lib: its discriminator from the published files, the VP SDE that it lives in, and the log ratio."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...checkpoints import read
from ...checkpoints.guided_diffusion import convert_discriminator
from ...checkpoints.native import check_state
from ...models import Discriminator, build
from .guided import get_log_ratio, guidance_of, vpsde

__all__ = ["get_discriminator", "get_grad_log_ratio", "get_log_ratio", "load_published", "vpsde"]


def get_grad_log_ratio(
    discriminator: Any, vpsde: Any, unnormalized_input: Tensor, std_wve_t: Tensor, img_resolution: int, time_min: float, time_max: float,
    class_labels: Tensor | None, log: bool = False,
) -> Any:  # fmt: skip
    """-sigma^2 grad ln r, what DG adds to sigma times the slope; 0 outside of the times from time_min to time_max.

    Args:
        discriminator: as `get_discriminator` makes it, or None; vpsde: the SDE; unnormalized_input: [B, C, H, W] x0 + sigma*z.
        std_wve_t: sigma, [B] or a scalar; img_resolution: at 64 the discriminator's times are those of the cosine schedule.
        log: also return [B] ln r, 1e7 outside of the times.
    """
    sigma = torch.as_tensor(std_wve_t).reshape(-1).expand(len(unnormalized_input))
    first = float(vpsde.compute_tau(sigma).min())
    if discriminator is None or not time_min <= first <= time_max:
        zero = torch.zeros_like(unnormalized_input)
        return (zero, unnormalized_input.new_full((len(unnormalized_input),), 1e7)) if log else zero
    guidance = guidance_of(discriminator, vpsde, img_resolution, 1.0, 0.0, time_min, time_max)
    gradient, ratio = guidance.both(unnormalized_input, sigma, class_labels)
    added = -(sigma.reshape(-1, *[1] * (gradient.dim() - 1)) ** 2) * gradient
    return (added, ratio) if log else added


def get_discriminator(
    latent_extractor_ckpt: Path | str, discriminator_ckpt: Path | str, condition: bool, img_resolution: int = 32,
    device: torch.device | str = "cuda", enable_grad: bool = True,
) -> Callable[..., Tensor]:  # fmt: skip
    """DG's callable of the two published .pt files, which are read without executing anything.

    Args:
        latent_extractor_ckpt, discriminator_ckpt: paths, taken as they are; condition: whether the head must see classes.
        img_resolution: side of the images; device: where it computes; enable_grad: whether its input's gradient may be asked for.

    Returns:
        evaluate(perturbed_inputs, timesteps=None, condition=None): [B] probabilities that noisy samples are real.

    Raises:
        ValueError: files of other networks, or a head that disagrees with `condition`; OSError: a file cannot be read.
    """
    net = load_published(latent_extractor_ckpt, discriminator_ckpt, img_resolution, device)
    if bool(net.head.condition) != bool(condition):
        raise ValueError(f"condition: expected {net.head.condition}, as the head in {discriminator_ckpt} is, got {condition}")

    def evaluate(perturbed_inputs: Tensor, timesteps: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        with torch.set_grad_enabled(enable_grad):
            features = net.extractor(perturbed_inputs, timesteps, feature=True)
            return net.head(features, timesteps, condition=condition if net.head.condition else None).sigmoid().flatten()

    return evaluate


def load_published(
    extractor: Path | str, head: Path | str, img_resolution: int | None = None, device: torch.device | str = "cpu"
) -> Discriminator:
    """The Discriminator of DG's two .pt files; raises as `get_discriminator`."""
    found = convert_discriminator(read(head), read(extractor), img_resolution)
    assert found.spec is not None
    check_state(found.spec, found.state, str(head))
    net = build(found.spec)
    net.load_state_dict(found.state)
    assert isinstance(net, Discriminator)
    return net.eval().requires_grad_(False).to(device)
