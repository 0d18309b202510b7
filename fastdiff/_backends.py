"""Loads what serves the ops: the compiled extension, and Triton on GPUs that it has no kernels for.

A failure is kept, not raised: the reference serves then, and `fastdiff.doctor()` says why.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable

import torch

from .ops import OPS, has_kernel
from .ops._table import LIBRARY, Op

#: Why the compiled extension did not load, or None.
CPU_EXTENSION_ERROR: str | None = None
if os.environ.get("FASTDIFF_EXTENSION") == "0":
    CPU_EXTENSION_ERROR = "switched off by FASTDIFF_EXTENSION=0"
else:
    try:
        from . import _C  # noqa: F401  (loading it registers the kernels)
    except ImportError as error:
        CPU_EXTENSION_ERROR = str(error)


#: Ops whose CUDA key Triton has, since the extension was built without CUDA kernels.
SERVED_BY_TRITON: set[str] = set()


def cuda_kernels() -> bool:
    """Whether the extension holds CUDA kernels."""
    return has_kernel("sampler_step", "CUDA") and "sampler_step" not in SERVED_BY_TRITON


def triton_error() -> str | None:
    """Why the Triton kernels cannot be used, or None. Imports Triton."""
    try:
        importlib.import_module("fastdiff.kernels")
    except ImportError as error:
        return str(error)
    return None


def _triton_kernel(op: Op) -> Callable:
    def launch(*args, **kwargs):
        return importlib.import_module("fastdiff.kernels").LAUNCHERS[op.name](*args, **kwargs)

    return launch


def _triton_out_kernel(op: Op) -> Callable:
    launch = _triton_kernel(op)

    def write(*args, **kwargs) -> None:
        # A noise op has no other tensor that says where and how large: there, `out` is also the `like`.
        like = (kwargs["out"],) if "like" in op.args else ()
        launch(*like, *args, **kwargs)

    return write


def _register_triton() -> None:
    """Triton serves the CUDA key where the extension was built without CUDA; it is imported at the first launch."""
    if (torch.version.cuda is None and torch.version.hip is None) or importlib.util.find_spec("triton") is None:
        return
    for op in OPS.values():
        if not has_kernel(op.name, "CUDA"):
            SERVED_BY_TRITON.add(op.name)
            LIBRARY.impl(op.name, _triton_kernel(op), "CUDA")
            LIBRARY.impl(f"{op.name}.out", _triton_out_kernel(op), "CUDA")


_register_triton()
