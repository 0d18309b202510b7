"""Losses of what guides a sampler: noise-conditional classifiers, and the discriminator of EDM-G++."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as nnf

from ..noise import Stream
from ..ops import perturb


def classifier_loss(
    classifier: Callable[[Tensor, Tensor], Tensor], x0: Tensor, labels: Tensor, sigma: Tensor, key: Tensor, *, draw: int = 0
) -> Tensor:
    """-ln p(label | x; sigma) of each sample, [B], x = x0 + sigma*z (Dhariwal and Nichol 2021).

    Args:
        classifier: called as classifier(x, sigma), returns logits [B, classes].
        x0: [B, ...] data; labels: [B] int64; sigma: [B] noise levels, data units; key: [B] int64 noise keys, with their draw.
    """
    x = perturb(x0, 1.0, sigma, key, draw, int(Stream.DATA))
    return nnf.cross_entropy(classifier(x, sigma), labels, reduction="none")


def discriminator_loss(
    logits: Callable[..., Tensor], x0: Tensor, real: Tensor, sigma: Tensor, key: Tensor, *, draw: int = 0,
    weight: Tensor | None = None, class_labels: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Binary cross-entropy of telling data from generated samples at a noise level, [B] (Kim et al. 2023, eq. 6).

        L = -w(sigma)*(y*ln d + (1 - y)*ln(1 - d)),   ln d/(1 - d) = logits(x0 + sigma*z, sigma)

    Args:
        logits: called as logits(x, sigma, class_labels), returns [B], e.g. a Discriminator's.
        x0: [B, ...] data and generated samples; real: [B], 1 for data and 0 for generated.
        sigma: [B] noise levels: UniformLog draws them as EDM-G++ does; weight: [B] temporal weight instead, or beside it.
        key: [B] int64 noise keys, with their draw; class_labels: [B] or [B, K], for a conditional discriminator.
    """
    x = perturb(x0, 1.0, sigma, key, draw, int(Stream.DATA))
    guessed = logits(x, sigma, class_labels)
    loss = nnf.binary_cross_entropy_with_logits(guessed, real.to(guessed.dtype), reduction="none")
    return loss if weight is None else loss * weight.to(loss.dtype)
