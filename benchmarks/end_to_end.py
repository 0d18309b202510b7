"""What share of a run with a real network is the sampler's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


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
