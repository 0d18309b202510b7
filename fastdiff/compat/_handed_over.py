"""What adapters handed over to the original's own code in this process, and why: `fastdiff.doctor()` shows it."""

from __future__ import annotations

from collections import Counter

#: "diffusers.DDPMScheduler: thresholding=True: why" to how often an object or a call was handed over for it.
HANDED_OVER: Counter[str] = Counter()


def record(who: str, why: str) -> None:
    """Count one hand-over."""
    HANDED_OVER[f"{who}: {why}"] += 1
