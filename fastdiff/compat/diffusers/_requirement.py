"""Imported first: says what to install where diffusers is missing or too old."""

from __future__ import annotations

OLDEST = (0, 35)

try:
    from diffusers import __version__
except ImportError as error:
    raise ImportError("fastdiff.compat.diffusers needs diffusers >= 0.35: pip install 'fastdiff-torch[diffusers]'") from error

if tuple(int(part) for part in __version__.split(".")[:2]) < OLDEST:
    raise ImportError(f"fastdiff.compat.diffusers needs diffusers >= 0.35, got {__version__}: pip install -U diffusers")
