"""Denoising score matching under an SDE (Song et al. 2021, arXiv:2011.13456, eq. 7).

    L = E_t lambda(t) E |score(x(t), t) + z/std(t)|^2,   x(t) = alpha(t)*x0 + std(t)*z

lambda = std^2, the weighting of the paper, or g^2, with which L bounds the negative log-likelihood (Song et al. 2021, arXiv:2101.09258).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..noise import Seeds, Stream, keys
from ..ops import normal, rademacher
from ..ops._shapes import sum_per_sample
from ..parametrizations import Parametrization, parametrization_of
from ..sdes import SDE, process_of


def score_matching_loss(
    net: Callable[..., Tensor], x0: Tensor, t: Tensor, *, parametrization: str | Parametrization = "eps", process: SDE | None = None,
    seeds: Seeds | None = None, draw: int = 0, noise: Tensor | None = None, likelihood_weighting: bool = False, reduce_mean: bool = False,
    **condition: Any,
) -> Tensor:  # fmt: skip
    """The loss of each sample, [B]; take its mean for training.

    Args:
        net, parametrization, condition: as for `fastdiff.sample`; x0: [B, ...] data; t: [B] times in (0, T].
        process: the SDE; default: the parametrization's own.
        seeds, draw: of the noise, e.g. a seed and the training step; or noise: [B, ...] standard normals.
        likelihood_weighting: lambda = g^2 instead of std^2.
        reduce_mean: the mean over a sample's elements instead of half their sum.

    Raises:
        ValueError: neither or both of seeds and noise; t of another shape.
    """
    if (seeds is None) == (noise is None):
        raise ValueError(f"seeds: expected seeds or noise, got {'neither' if seeds is None else 'both'}")
    if t.shape != x0.shape[:1]:
        raise ValueError(f"t: expected [{x0.shape[0]}], got {list(t.shape)}")
    meaning = parametrization_of(net, parametrization)
    sde = process_of(meaning) if process is None else process
    z = normal(x0, keys(seeds, x0.shape[0], device=x0.device), draw, int(Stream.DATA)) if noise is None else noise  # type: ignore[arg-type]
    times = t.double()

    def column(v: Tensor) -> Tensor:
        return v.to(x0.dtype).reshape(-1, *[1] * (x0.dim() - 1))

    alpha, std, sigma = sde.scale(times), sde.std(times), sde.sigma(times)
    x = column(alpha) * x0 + column(std) * z
    F = net(column(meaning.c_in(sigma) / alpha) * x, meaning.label(sigma).to(torch.promote_types(x0.dtype, torch.float32)), **condition)
    a, b = meaning.denoiser(sigma)
    # std*score = (alpha*D - x)/std with D = a*x/alpha + b*F, without dividing twice.
    scaled_score = column((a - 1) / std) * x + column(alpha * b / std) * F
    total = sum_per_sample((scaled_score + z).square())
    loss = total / x0[0].numel() if reduce_mean else 0.5 * total
    return loss * (sde.diffusion(times) / std).square().to(x0.dtype) if likelihood_weighting else loss


def implicit_score_matching_loss(score: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """tr(grad s(x)) + |s(x)|^2/2 of each sample, [B]: score matching without noise, for data of few dimensions.

    Args:
        score: called as score(x), [B, ...] to [B, ...]; each sample's score must depend on that sample alone.
        x: [B, ...] data; one vector-Jacobian product for each element of a sample.

    Source: Hyvarinen 2005.
    """
    with torch.enable_grad():
        leaf = x if x.requires_grad else x.detach().requires_grad_()
        s = score(leaf).flatten(1)
        trace = 0.5 * s.square().sum(1)
        for i in range(s.shape[1]):
            (row,) = torch.autograd.grad(s[:, i].sum(), leaf, create_graph=True)
            trace = trace + row.flatten(1)[:, i]
    return trace


def sliced_score_matching_loss(score: Callable[[Tensor], Tensor], x: Tensor, key: Tensor, *, draw: int = 0, slices: int = 1) -> Tensor:
    """v.(grad (v.s(x))) + |s(x)|^2/2 of each sample, [B], averaged over random v: implicit score matching at any dimension.

    Args:
        score, x: as for `implicit_score_matching_loss`.
        key: [B] int64 noise keys of the Rademacher v; draw: of the first; slices: how many.

    Source: Song et al. 2019 (arXiv:1905.07088), the variance-reduced form.
    """
    with torch.enable_grad():
        leaf = x if x.requires_grad else x.detach().requires_grad_()
        s = score(leaf)
        loss = 0.5 * sum_per_sample(s.square())
        for i in range(slices):
            v = rademacher(leaf.detach(), key, draw + i, int(Stream.PROBE))
            (product,) = torch.autograd.grad((s * v).sum(), leaf, create_graph=True)
            loss = loss + sum_per_sample(product * v) / slices
    return loss
