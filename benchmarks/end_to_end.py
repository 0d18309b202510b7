"""Real networks, small enough for a CPU, and what share of a run is the sampler's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastdiff.models import EDMPrecond, load_model


class Case(NamedTuple):
    """A network of EDM's kind, the shape of its samples, and class labels [B, classes] where it takes them."""

    net: Callable[..., Tensor]
    shape: tuple[int, ...]
    labels: Tensor | None


def real_network(name: str) -> Case:
    """ "digits": the shipped model; "ddpmpp": a small DDPM++ of random weights."""
    if name == "digits":
        return Case(load_model("digits"), (16, 1, 8, 8), torch.eye(10)[torch.arange(16) % 10])
    torch.manual_seed(0)
    more = dict(model_type="SongUNet", model_channels=32, channel_mult=[1, 2, 2], num_blocks=1, attn_resolutions=[16])
    return Case(EDMPrecond(32, 3, **more).eval().requires_grad_(False), (2, 3, 32, 32), None)


class Timed:
    """A network that adds up the time of its calls."""

    def __init__(self, net: Callable[..., Any]) -> None:
        self.net, self.seconds = net, 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        result = self.net(*args, **kwargs)
        self.seconds += time.perf_counter() - begin
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.net, name)


def sampler_share(run: Callable[[Callable[..., Any]], Any], net: Callable[..., Any]) -> float:
    """1 - (time in the network)/(time of run(network)), after a warm-up."""
    run(net)
    timed = Timed(net)
    begin = time.perf_counter()
    run(timed)
    return 1 - timed.seconds / (time.perf_counter() - begin)
