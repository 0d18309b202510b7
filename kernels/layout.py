"""How tensors are laid before a kernel: rows of plain memory, or of channels-last memory, as csrc/tensor.h does it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Layout(NamedTuple):
    """B samples of n elements; channels > 1 where they are innermost."""

    batch: int
    n: int
    channels: int


def layout_of(x: Tensor) -> Layout:
    """The layout that a kernel will use for a state like x; a state that has neither is copied to plain rows."""
    batch = x.shape[0]
    n = x.numel() // batch if batch else 0
    last = _last_format(x)
    if not x.is_contiguous() and last is not None and x.is_contiguous(memory_format=last):
        return Layout(batch, n, x.shape[1])
    return Layout(batch, n, 1)


def rows_of(x: Tensor) -> Layout:
    """Plain rows, whatever the layout of x: a stack of slopes is in no other."""
    return layout_of(x)._replace(channels=1)


def arranged(t: Tensor | None, layout: Layout) -> Tensor | None:
    """t itself where its memory has the layout, else a copy that has."""
    if t is None or layout.channels == 1:
        return None if t is None else t.contiguous()
    last = _last_format(t)
    assert last is not None
    return t.contiguous(memory_format=last)


def output(x: Tensor, layout: Layout, dtype: torch.dtype | None = None, given: Tensor | None = None) -> Tensor:
    """The tensor that a kernel writes: the given one where its memory has the layout, else a new one, for `finish`."""
    target = torch.empty_like(x, dtype=dtype) if given is None else given
    if layout_of(target) == layout and _dense(target):
        return target
    last = None if layout.channels == 1 else _last_format(target)
    return torch.empty_like(target, memory_format=last or torch.contiguous_format)


def finish(written: Tensor, x: Tensor, given: Tensor | None = None) -> Tensor:
    """What was written, in the given tensor or with the strides of empty_like(x)."""
    if given is None:
        strides = torch.empty_like(x, device="meta").stride()
        given = written if written.stride() == strides else torch.empty_like(x, dtype=written.dtype)
    return given if given is written else given.copy_(written)


def _dense(t: Tensor) -> bool:
    last = _last_format(t)
    return t.is_contiguous() or (last is not None and t.is_contiguous(memory_format=last))


def _last_format(x: Tensor) -> torch.memory_format | None:
    return {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
