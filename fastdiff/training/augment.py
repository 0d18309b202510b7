"""Non-leaky augmentation: images are turned, scaled and shifted, and the network is told how.

Told all zeros, it generates images as they are. Pixels are interpolated at twice the resolution (bicubic up, bilinear, box down; EDM
uses the sym6 wavelet). The nine labels are those of EDM's networks: flips in x and y, scale, rotation (cos - 1,
sin), stretching along an angle (2), translation (2).

Source: Karras et al. 2020 (arXiv:2006.06676); 2022, appendix F.2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as nnf

from ..noise import Stream
from ..ops import uniform

LABELS = 9
SCALE_STD, STRETCH_STD, SHIFT_STD = 0.2, 0.2, 0.125
_NUMBERS = 13


def augment(images: Tensor, key: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """(images, labels [B, 9]): each change is made with probability p, but for the flip in x, which is always a fair coin.

    Args:
        images: [B, C, H, W]; key: [B] int64 noise keys of the samples.
    """
    u = uniform(torch.empty(len(images), _NUMBERS, device=images.device), key, 0, int(Stream.AUGMENTATION)).unbind(1)

    def normal(i: int) -> Tensor:
        return torch.special.ndtri(u[i].clamp(1e-6, 1 - 1e-6))

    def angle(i: int) -> Tensor:
        return (2 * u[i] - 1) * math.pi

    def chosen(i: int, value: Tensor, probability: float = p) -> Tensor:
        return torch.where(u[i] <= probability, value, 0.0)

    flip_x, flip_y = (u[0] <= 0.5).float(), chosen(1, (u[2] <= 0.5).float())
    scale, turn = chosen(3, normal(4)), chosen(5, angle(6))
    stretch, along = chosen(7, normal(8)), torch.where(u[9] <= 0.5, angle(9) * 2, 0.0)
    shift = [chosen(10, normal(i)) for i in (11, 12)]
    labels = [flip_x, flip_y, scale, turn.cos() - 1, turn.sin(), stretch * along.cos(), stretch * along.sin(), *shift]

    images = torch.where(_column(flip_x) > 0, images.flip(3), images)
    images = torch.where(_column(flip_y) > 0, images.flip(2), images)
    ratio, width = torch.exp2(scale * SCALE_STD), torch.exp2(stretch * STRETCH_STD)
    matrix = _rotation(turn) @ _rotation(-along) @ torch.diag_embed(torch.stack([1 / width, width], 1)) @ _rotation(along)
    matrix = matrix / ratio[:, None, None]
    offset = torch.stack(shift, 1) * (2 * SHIFT_STD)  # affine_grid's image spans -1 .. 1
    changed = (scale != 0) | (turn != 0) | (stretch != 0) | (shift[0] != 0)
    return torch.where(_column(changed.float()) > 0, _warped(images, matrix, offset), images), torch.stack(labels, 1)


def _warped(images: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Output pixel p shows the image at matrix @ (p - offset), mirrored at its borders; computed at twice the resolution."""
    theta = torch.cat([matrix, -(matrix @ offset[:, :, None])], dim=2)
    fine = nnf.interpolate(images, scale_factor=2, mode="bicubic", align_corners=False)
    grid = nnf.affine_grid(theta, list(fine.shape), align_corners=False)
    fine = nnf.grid_sample(fine, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return nnf.avg_pool2d(fine, 2)


def _rotation(angle: Tensor) -> Tensor:
    """[B, 2, 2]."""
    c, s = angle.cos(), angle.sin()
    return torch.stack([torch.stack([c, -s], 1), torch.stack([s, c], 1)], 1)


def _column(v: Tensor) -> Tensor:
    return v[:, None, None, None]
