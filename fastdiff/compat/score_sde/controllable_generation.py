"""controllable_generation: inpainting and colorization by predictor-corrector sampling around known data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...known import Basis, Known
from ...loop import run
from ...ops._shapes import column
from .._plans import plan_for
from . import _networks, sde_lib
from ._noise import Keyed, Noise, new_keys
from .sampling import Model, as_sampler, prior_sample, shared_corrector_update_fn, shared_predictor_update_fn

_PIXELS = Basis(lambda x: x, lambda x: x)


def get_pc_inpainter(
    sde: sde_lib.SDE, predictor: Any, corrector: Any, inverse_scaler: Callable, snr: float, n_steps: int = 1,
    probability_flow: bool = False, continuous: bool = False, denoise: bool = True, eps: float = 1e-5, *, noise: Noise | None = None,
) -> Callable[..., Tensor]:  # fmt: skip
    """pc_inpainter(model, data, mask, *, noise=None) -> images, where mask is 1 on known pixels of data and 0 elsewhere.

    Args:
        sde, predictor, corrector, inverse_scaler, snr, n_steps, probability_flow, continuous, noise: as for `get_pc_sampler`.
        denoise: known pixels end without noise; as in the original, the others keep that of the last step.
        eps: the last time.
    """

    def pc_inpainter(model: Model, data: Tensor, mask: Tensor, *, noise: Noise | None = noise) -> Tensor:
        with torch.no_grad():
            draw = Keyed(new_keys(len(data), data.device)) if noise is None else noise
            mask = mask.to(data.dtype)
            first = data * mask + prior_sample(sde, data.shape, data.device, draw) * (1 - mask)
            return inverse_scaler(sampled(model, Known(data, mask, parity=True), first, draw))

    sampled = _around_known_data(sde, predictor, corrector, snr, n_steps, probability_flow, continuous, denoise, eps)
    return pc_inpainter


def get_pc_colorizer(
    sde: sde_lib.SDE, predictor: Any, corrector: Any, inverse_scaler: Callable, snr: float, n_steps: int = 1,
    probability_flow: bool = False, continuous: bool = False, denoise: bool = True, eps: float = 1e-5, *, noise: Noise | None = None,
) -> Callable[..., Tensor]:  # fmt: skip
    """pc_colorizer(model, gray_scale_img, *, noise=None) -> images of three channels with the brightness of gray_scale_img [B, 3, H, W].

    Args:
        sde, predictor, corrector, inverse_scaler, snr, n_steps, probability_flow, continuous, noise: as for `get_pc_sampler`.
        denoise: the brightness ends without noise; as in the original, the colors keep that of the last step.
        eps: the last time.
    """

    def pc_colorizer(model: Model, gray_scale_img: Tensor, *, noise: Noise | None = noise) -> Tensor:
        with torch.no_grad():
            known = Known.gray(gray_scale_img, parity=True)
            assert known.basis is not None
            draw = Keyed(new_keys(len(gray_scale_img), gray_scale_img.device)) if noise is None else noise
            prior = prior_sample(sde, gray_scale_img.shape, gray_scale_img.device, draw)
            # The mask meets the prior before the change of basis: the original's order, which decides the first state.
            first = known.basis.forward(gray_scale_img) * known.mask + known.basis.forward(prior * (1 - known.mask))
            return inverse_scaler(sampled(model, known, first, draw))

    sampled = _around_known_data(sde, predictor, corrector, snr, n_steps, probability_flow, continuous, denoise, eps)
    return pc_colorizer


def _around_known_data(
    sde: Any, predictor: Any, corrector: Any, snr: float, n_steps: int, probability_flow: bool, continuous: bool, denoise: bool, eps: float
) -> Callable[[Model, Known, Tensor, Noise], Tensor]:
    """The function that goes on from a first state, which is in the basis of the known data."""

    def fused(model: Model, known: Known, first: Tensor, noise: Noise) -> Tensor | None:
        sampler = as_sampler(sde, predictor, corrector, snr, n_steps, probability_flow, False, eps)
        # The known data of the loop enter after every row: as the original's do with one corrector step and a predictor.
        if sampler is None or sampler.predictor == "none" or not denoise or sampler.corrector_steps > 1:
            return None
        if probability_flow:  # its predictor draws noise that it does not use, before that of the known data
            return None
        plan, net = plan_for(sampler, _networks.parametrization_of(sde, continuous)), _networks.network_of(model, sde, continuous)
        return run(plan, net, first / sde.process.prior_std, noise=noise, known=known, progress=False)

    def sampled(model: Model, known: Known, first: Tensor, noise: Noise) -> Tensor:
        x = fused(model, known, first, noise)
        if x is not None:
            return x
        basis, mask = known.basis or _PIXELS, known.mask
        data, x_mean = basis.forward(known.data), first
        x = basis.inverse(first)
        for t in torch.linspace(sde.T, eps, sde.N, device=x.device):
            vec_t = t.repeat(len(x))
            mean, std = sde.marginal_prob(data, vec_t)
            for update in (correct, predict):
                x = basis.forward(update(model, x, vec_t, noise))
                x = x * (1 - mask) + (mean + column(std, x, x.dtype) * noise(x)) * mask
                x_mean = basis.inverse(x * (1 - mask) + mean * mask)
                x = basis.inverse(x)
        return x_mean if denoise else x

    def correct(model: Model, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        return shared_corrector_update_fn(x, t, sde, model, corrector, continuous, snr, n_steps, noise=noise)[0]

    def predict(model: Model, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        return shared_predictor_update_fn(x, t, sde, model, predictor, probability_flow, continuous, noise=noise)[0]

    return sampled
