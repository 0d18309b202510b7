"""k-diffusion's own sampling.py, loaded alone: its package imports networks and metrics that these tests do not need."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def directory() -> Path | None:
    """Where k-diffusion is installed."""
    found = importlib.util.find_spec("k_diffusion")
    return None if found is None or found.origin is None else Path(found.origin).parent


def upstream() -> ModuleType:
    """k_diffusion.sampling under a name of its own; the test is skipped where it cannot be had."""
    if "upstream_k_diffusion.sampling" in sys.modules:
        return sys.modules["upstream_k_diffusion.sampling"]
    path = directory()
    if path is None:
        pytest.skip("k-diffusion is not installed")
    for needed in ("scipy", "torchdiffeq", "torchsde"):
        pytest.importorskip(needed)
    package = ModuleType("upstream_k_diffusion")
    package.__path__ = [str(path)]
    utils = ModuleType("upstream_k_diffusion.utils")
    utils.append_dims = lambda x, dims: x[(...,) + (None,) * (dims - x.ndim)]  # the one function of utils.py that sampling.py uses
    package.utils = utils
    sys.modules |= {package.__name__: package, utils.__name__: utils}
    spec = importlib.util.spec_from_file_location("upstream_k_diffusion.sampling", path / "sampling.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module
