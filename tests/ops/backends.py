"""The backends that serve an op, as functions to compare with the reference."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import fastdiff
from fastdiff.ops import Op, has_kernel
from tests.conftest import GPU, need

BACKENDS = ("reference", "cpu", "cuda", "triton")


def backend(name: str, op: Op) -> tuple[Callable, str]:
    """(function with the op's signature, device it runs on); skips or fails where the backend is missing."""
    if name == "reference":
        return op.reference, "cpu"
    if name == "cpu":
        need("cpu", has_kernel(op.name, "CPU"), f"extension: {fastdiff.CPU_EXTENSION_ERROR}")
        return op.overload, "cpu"
    if name == "cuda":
        compiled = importlib.import_module("fastdiff._backends").cuda_kernels()
        need("cuda", GPU and compiled, "no GPU" if not GPU else "the extension was built without CUDA")
        return op.overload, "cuda"
    error = importlib.import_module("fastdiff._backends").triton_error()
    need("triton", error is None, str(error))
    return importlib.import_module("fastdiff.kernels").LAUNCHERS[op.name], "cuda" if GPU else "cpu"


def results(value) -> tuple:
    """What an op returned, as a tuple."""
    return value if isinstance(value, tuple) else (value,)


def in_float64(sample):
    """The same call with float64 tensors."""
    return sample.map(lambda t: t.double() if t.is_floating_point() else t)


def differentiable(op: Op) -> bool:
    """Whether the op has gradients."""
    return op.backward is not None
