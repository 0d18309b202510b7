"""A pytest plugin: diffusers' scheduler classes become fastdiff's before any test module imports them."""

from __future__ import annotations

import diffusers

import fastdiff.compat.diffusers as ours

for _cls in ours.SCHEDULERS:
    setattr(diffusers, _cls.__name__, _cls)
