"""Known data: inpainting, colorization, and any linear measurement that is a mask in an orthogonal basis.

Wherever the mask is 1 the state is replaced, after each step and in the same launch, by the known data at that noise level:
alpha*known + std*z (Song et al. 2021, arXiv:2011.13456, section 5 and appendix I).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .plan import Plan


class Basis(NamedTuple):
    """An orthogonal change of coordinates of a state [B, ...]: noise stays white, so sampling can happen in it."""

    forward: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]


def channel_basis(matrix: Tensor) -> Basis:
    """The basis in which channel j is sum_i matrix[i, j]*channel i, for an orthogonal [C, C] matrix.

    Raises:
        ValueError: the matrix is not square, or not orthogonal to 1e-5.
    """
    matrix = torch.as_tensor(matrix).double()
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"matrix: expected [C, C], got {list(matrix.shape)}")
    gram = matrix @ matrix.T
    if not torch.allclose(gram, torch.eye(len(matrix), dtype=torch.float64, device=matrix.device), atol=1e-5):
        raise ValueError("matrix: expected an orthogonal matrix, got one whose rows are not orthonormal")

    def change(m: Tensor) -> Callable[[Tensor], Tensor]:
        kept: dict[Any, Tensor] = {}  # by device and dtype: a copy at every call would wait for the device

        def transformed(x: Tensor) -> Tensor:
            where = (x.device, x.dtype)
            if where not in kept:
                kept[where] = m.to(*where)
            return torch.einsum("bi...,ij->bj...", x, kept[where])

        return transformed

    return Basis(change(matrix), change(torch.linalg.inv(matrix)))


def gray_basis() -> Basis:
    """Channel 0 is the grey image, sqrt(3) times the mean of R, G and B; the other two hold the colors."""
    a, b, c = 1 / math.sqrt(3), 1 / math.sqrt(6), 1 / math.sqrt(2)
    return channel_basis(torch.tensor([[a, -2 * b, 0.0], [a, b, c], [a, b, -c]], dtype=torch.float64))


class Blend(NamedTuple):
    """Known data at one place of a run: k_x*data + k_n*z, after `dead` draws of the original program that are overwritten."""

    k_x: float
    k_n: float
    dead: int = 0


@dataclass(frozen=True)
class Known:
    """What a measurement fixes.

    Args:
        data: [B, ...] in data units; read where the mask is not 0.
        mask: broadcastable to data: 1 known, 0 free; in the basis, if there is one.
        basis: coordinates in which the measurement is a mask; None for the data's own.
        parity: score_sde's convention instead of ours: the first state is left as it is given, the known data enter at the noise
            level before the step, without noise after the last one; without a corrector they enter once more before each step.
    """

    data: Tensor
    mask: Tensor
    basis: Basis | None = None
    parity: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.data, Tensor) or self.data.dim() < 1 or not self.data.is_floating_point():
            raise ValueError(f"data: expected [B, ...] floating, got {getattr(self.data, 'dtype', type(self.data).__name__)}")
        try:
            self.mask.expand(self.data.shape)
        except (RuntimeError, AttributeError) as error:
            got = list(self.mask.shape) if isinstance(self.mask, Tensor) else type(self.mask).__name__
            raise ValueError(f"mask: expected a tensor that broadcasts to {list(self.data.shape)}, got {got}") from error

    @classmethod
    def gray(cls, images: Tensor, parity: bool = False) -> Known:
        """Colorization: the grey image [B, 3, H, W] (three equal channels, or any whose mean is to be kept) is known."""
        if images.dim() < 2 or images.shape[1] != 3:
            raise ValueError(f"images: expected [B, 3, ...], got {list(images.shape)}")
        mask = torch.zeros(1, 3, *[1] * (images.dim() - 2), dtype=images.dtype, device=images.device)
        mask[:, 0] = 1
        return cls(images, mask, gray_basis(), parity)

    def tensors(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """(known, mask) like the state, in the basis."""
        if self.data.shape != state.shape:
            raise ValueError(f"data: expected the state's shape {list(state.shape)}, got {list(self.data.shape)}")
        data = self.data.to(state.device, state.dtype)
        mask = torch.empty_like(state).copy_(self.mask.to(state.device, state.dtype).expand(state.shape))
        data = torch.where(mask != 0, data, 0) if self.basis is None else self.basis.forward(data)  # what is unknown may be NaN
        return torch.empty_like(state).copy_(data), mask

    def blends(self, plan: Plan) -> list[Blend]:
        """How the known data enter after each row."""
        rows, last = plan.rows, len(plan) - 1
        if not rows:
            return []
        if not self.parity:
            return [Blend(row.next_scale, row.next_scale * row.next_sigma) for row in rows]
        final = Blend(rows[-1].scale, 0.0)
        if self._corrected(plan):
            return [Blend(row.scale, row.scale * row.sigma) if i < last else final for i, row in enumerate(rows)]
        # Upstream's corrector that does nothing still blends: what entered after the predictor is overwritten before the next call.
        following = [Blend(row.scale, row.scale * row.sigma, dead=1) for row in rows[1:]]
        return [*following, final]

    def first(self, plan: Plan) -> Blend | None:
        """How the known data enter the first state, where a draw of its own is needed for it."""
        if not self.parity or self._corrected(plan) or not plan.rows:
            return None
        return Blend(plan.rows[0].scale, plan.rows[0].scale * plan.rows[0].sigma)

    @staticmethod
    def _corrected(plan: Plan) -> bool:
        return any(row.next_sigma == row.sigma for row in plan.rows[:-1])

    def draws(self, plan: Plan) -> int:
        """How often the original program draws noise for the known data."""
        return len(plan) * (2 if self.first(plan) else 1)

    def apply(self, plan: Plan) -> Plan:
        """The plan with the levels of the known data."""
        blends = self.blends(plan)
        return plan.map_rows(lambda i, row: replace(row, coef=row.coef | {"k_x": blends[i].k_x, "k_n": blends[i].k_n}), " + known data")


@dataclass(frozen=True)
class AsGiven:
    """Known data that the loop has already brought to the noise level, where the noise is a callable's."""

    def apply(self, plan: Plan) -> Plan:
        """The plan that takes them as they are."""
        return plan.map_rows(lambda _, row: replace(row, coef=row.coef | {"k_x": 1.0, "k_n": 0.0}), " + known data")


AS_GIVEN = AsGiven()
