"""models.ema: the moving average of the parameters as the original keeps it, in one fused operation for all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class ExponentialMovingAverage:
    """average <- d*average + (1 - d)*parameters, d = min(decay, (1 + n)/(10 + n)) at the n-th update.

    Args:
        parameters: those that need a gradient are averaged.
        decay: the largest d; use_num_updates: else d is decay from the start.

    Raises:
        ValueError: a decay outside [0, 1].
    """

    def __init__(self, parameters: Iterable[Tensor], decay: float, use_num_updates: bool = True) -> None:
        if not 0 <= decay <= 1:
            raise ValueError(f"decay: expected a number from 0 to 1, got {decay}")
        self.decay = decay
        self.num_updates = 0 if use_num_updates else None
        self.shadow_params = [p.detach().clone() for p in parameters if p.requires_grad]
        self.collected_params: list[Tensor] = []

    @torch.no_grad()
    def update(self, parameters: Iterable[Tensor]) -> None:
        """Move the average towards the parameters."""
        decay = self.decay
        if self.num_updates is not None:
            self.num_updates += 1
            decay = min(decay, (1 + self.num_updates) / (10 + self.num_updates))
        if self.shadow_params:
            torch._foreach_lerp_(self.shadow_params, _trained(parameters), 1 - decay)  # type: ignore[arg-type]

    @torch.no_grad()
    def copy_to(self, parameters: Iterable[Tensor]) -> None:
        """Give the parameters the average's values."""
        for parameter, average in zip(_trained(parameters), self.shadow_params, strict=True):
            parameter.copy_(average)

    def store(self, parameters: Iterable[Tensor]) -> None:
        """Keep the parameters' values for `restore`."""
        self.collected_params = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def restore(self, parameters: Iterable[Tensor]) -> None:
        """Give the parameters the values that `store` kept."""
        for parameter, kept in zip(parameters, self.collected_params, strict=True):
            parameter.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """decay, num_updates and shadow_params, as in the original's checkpoints."""
        return {"decay": self.decay, "num_updates": self.num_updates, "shadow_params": self.shadow_params}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.decay, self.num_updates = state_dict["decay"], state_dict["num_updates"]
        self.shadow_params = state_dict["shadow_params"]


def _trained(parameters: Iterable[Tensor]) -> list[Tensor]:
    return [p.detach() for p in parameters if p.requires_grad]
