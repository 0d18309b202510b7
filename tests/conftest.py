"""What every test shares: backends that must not be missing in silence, poisoned memory, two threads."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: threads that spin starve the other workers of pytest-xdist

import pytest
import torch

GPU = torch.cuda.is_available()
if not GPU:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported: its kernels then run on CPU tensors

REQUIRED = set(filter(None, os.environ.get("FASTDIFF_REQUIRE", "").split(",")))


def pytest_configure(config: pytest.Config) -> None:
    unknown = REQUIRED - {"cpu", "cuda", "triton"}
    if unknown:
        raise pytest.UsageError(f"FASTDIFF_REQUIRE: expected cpu, cuda, triton, got {', '.join(sorted(unknown))}")
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills what torch.empty returns with NaN
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]


def need(backend: str, available: bool, why: str) -> None:
    """Skip where a backend is missing, and fail where FASTDIFF_REQUIRE says that it must be there."""
    if available:
        return
    if backend in REQUIRED:
        pytest.fail(f"FASTDIFF_REQUIRE={','.join(sorted(REQUIRED))}, but {backend} is missing: {why}")
    pytest.skip(f"{backend}: {why}")


@pytest.fixture
def capability():
    """Force a CPU instruction set; restored afterwards."""
    import fastdiff

    need("cpu", fastdiff.CPU_EXTENSION_ERROR is None, str(fastdiff.CPU_EXTENSION_ERROR))
    from fastdiff import _C

    yield _C.set_cpu_capability
    _C.set_cpu_capability("")


@pytest.fixture
def threads():
    """Set the number of threads; restored afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
