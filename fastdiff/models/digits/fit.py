"""The loop that made the weights in this folder: random batches, a cosine, clipped gradients, an average of the weights.

`fastdiff train` has since taken its place; the scripts keep it so that they still make the shipped weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

EMA_RAMP = 0.05
Net = TypeVar("Net", bound=nn.Module)


def fit(
    net: Net, optimizer: torch.optim.Optimizer, loss_of: Callable[[Tensor, int], Tensor], *, size: int, steps: int, batch: int,
    half_life: float, expected: float,
) -> Net:  # fmt: skip
    """Train, and return the averaged network.

    Args:
        loss_of: called with the indices of a batch and the step, from 1 on; size: of the data.
        half_life: of the average, in steps; expected: the loss of the untrained network, where the shown one starts.
    """
    average = copy.deepcopy(net).eval()
    lr = optimizer.param_groups[0]["lr"]
    warm_up, running = max(steps // 50, 1), expected
    with tqdm(range(1, steps + 1), unit="step", desc="training") as bar:
        for step in bar:
            decay = 0.5 * (1 + math.cos(math.pi * step / steps))
            for group in optimizer.param_groups:
                group["lr"] = lr * min(step / warm_up, 1) * decay
            loss = loss_of(torch.randint(size, (batch,)), step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            update_average(average, net, step, half_life)
            running += 0.01 * (loss.item() - running)
            if step % 20 == 0:
                bar.set_postfix(loss=f"{running:.4f}")
    return average


@torch.no_grad()
def update_average(average: nn.Module, net: nn.Module, step: int, half_life: float) -> None:
    """average <- beta*average + (1 - beta)*net, with the half-life (in steps) ramped up from the start of training."""
    beta = 0.5 ** (1 / max(min(half_life, step * EMA_RAMP), 1e-8))
    for kept, new in zip(average.parameters(), net.parameters(), strict=True):
        kept.lerp_(new, 1 - beta)
