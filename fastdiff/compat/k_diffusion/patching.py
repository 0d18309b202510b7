"""Make programs that import k_diffusion.sampling use fastdiff's samplers."""

from __future__ import annotations

import importlib
from types import ModuleType, TracebackType

from . import sampling

_ORIGINALS: dict[ModuleType, dict[str, object]] = {}


class Patched:
    """What `patch` did; as a context manager it is undone at the end, unless the module had been patched before."""

    def __init__(self, module: ModuleType, first: bool = True) -> None:
        self.module, self.first = module, first

    def __enter__(self) -> Patched:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.first:
            unpatch(self.module)


def patch(module: ModuleType | None = None) -> Patched:
    """Replace the functions and classes of k_diffusion.sampling by those of the same name here.

    What looks them up there afterwards, `k_diffusion.sampling.sample_euler` or a later `from k_diffusion.sampling import sample_euler`,
    gets ours; names that another module has imported already stay what they were. Patching twice changes nothing.

    Args:
        module: another module with the same functions, e.g. a program's own copy of k_diffusion/sampling.py.

    Raises:
        ImportError: k-diffusion is not installed, or its own imports fail.
    """
    module = _upstream() if module is None else module
    first = module not in _ORIGINALS
    if first:
        _ORIGINALS[module] = {name: getattr(module, name) for name in sampling.__all__ if hasattr(module, name)}
    for name in _ORIGINALS[module]:
        setattr(module, name, getattr(sampling, name))
    return Patched(module, first)


def unpatch(module: ModuleType | None = None) -> None:
    """Undo `patch`, of one module or of all."""
    for patched in list(_ORIGINALS) if module is None else [module]:
        for name, original in _ORIGINALS.pop(patched, {}).items():
            setattr(patched, name, original)


def _upstream() -> ModuleType:
    try:
        return importlib.import_module("k_diffusion.sampling")
    except ImportError as error:
        missing = getattr(error, "name", None) or str(error)
        if missing.partition(".")[0] == "k_diffusion":
            raise ImportError("k_diffusion: expected it to be installed, pip install 'fastdiff-torch[k-diffusion]'") from error
        raise ImportError(
            f"k_diffusion: its own import fails for want of {missing}; pip install 'fastdiff-torch[k-diffusion]' brings what it needs "
            "(an installation with --no-deps does not). fastdiff.compat.k_diffusion itself works without it."
        ) from error
