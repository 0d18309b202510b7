"""accelerate: the schedulers of a pipeline, or one scheduler, become fastdiff's where they stand."""

from __future__ import annotations

from typing import Any, TypeVar

import diffusers
from diffusers import SchedulerMixin

from ._fused import Fused

T = TypeVar("T")


def classes() -> dict[type, type]:
    """diffusers' class to fastdiff's, for every scheduler that has a fused one."""
    from . import SCHEDULERS

    return {getattr(diffusers, cls.__name__): cls for cls in SCHEDULERS}


def accelerate(pipeline_or_scheduler: T) -> T:
    """Swap in fastdiff's schedulers in place, with config and state: every reference to a scheduler sees the faster one.

    >>> pipe = accelerate(DiffusionPipeline.from_pretrained(path))

    A subclass of a diffusers scheduler is left alone, since its own changes would be lost; so is a scheduler that has no fused class.

    Args:
        pipeline_or_scheduler: a DiffusionPipeline, all of whose schedulers are swapped, or a scheduler.

    Returns:
        The same object.

    Raises:
        TypeError: neither; ValueError: nothing that could be swapped.
    """
    found = _schedulers(pipeline_or_scheduler)
    known = classes()
    for scheduler in found:
        if type(scheduler) in known:
            scheduler.__class__ = known[type(scheduler)]
    if not any(isinstance(scheduler, Fused) for scheduler in found):
        names = ", ".join(sorted({type(scheduler).__name__ for scheduler in found})) or "none"
        expected = ", ".join(cls.__name__ for cls in known.values())
        raise ValueError(f"pipeline_or_scheduler: expected one of {expected}, got {names}")
    return pipeline_or_scheduler


def _schedulers(given: Any) -> list[Any]:
    if isinstance(given, SchedulerMixin):
        return [given]
    components = getattr(given, "components", None)
    if not isinstance(components, dict):
        raise TypeError(f"pipeline_or_scheduler: expected a DiffusionPipeline or a scheduler, got {type(given).__name__}")
    return [component for component in components.values() if isinstance(component, SchedulerMixin)]
