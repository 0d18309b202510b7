"""Progress bars: shown on a terminal unless asked otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def wanted(progress: bool | None) -> bool:
    """Whether to show a bar: None means only on a terminal."""
    return sys.stderr.isatty() if progress is None else progress


@contextmanager
def share_bar(progress: bool | None, name: str) -> Iterator[Callable[[float], None] | None]:
    """A bar that is told the share of the way, 0 to 1; None where it is not wanted."""
    if not wanted(progress):
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=100, desc=name, unit="%", leave=False, bar_format="{l_bar}{bar}| {n:.0f} % [{elapsed}<{remaining}]") as bar:

        def show(share: float) -> None:
            bar.update(max(100 * share - bar.n, 0.0))

        yield show
