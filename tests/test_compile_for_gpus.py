"""GPU code without a GPU: Triton compiles ahead of time for three targets, nvcc compiles the CUDA sources for two."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import need

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def test_triton_kernels_compile_without_spills_and_load_wide():
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-m", "fastdiff.kernels.aot", "--json"],
        capture_output=True, text=True, check=False, env={**os.environ, "TRITON_INTERPRET": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {row["target"] for row in rows} == {"sm_80", "sm_90", "gfx942"}
    for row in rows:
        print(row)
        kernel, target = row["kernel"], row["target"]
        assert row["spills"] == 0, row
        # Nine float64 inputs at once: four warps of each scheduler are enough where each waits for so many loads.
        assert row["registers"] <= (128 if kernel == "ode_stage float64, seventh" else 64), row
        if "normal" not in kernel and kernel != "Langevin rows":  # which load keys, weights and rows alone
            # 64 where four bfloat16 are loaded at once; denoising_loss loads more where it computes more.
            assert row["load_bits"] in ((64, 128) if "bfloat16" in kernel and target == "gfx942" else (128,)), row


@pytest.mark.parametrize("source", sorted(path.name for path in (ROOT / "csrc" / "cuda").glob("*.cu")))
def test_cuda_sources_compile(source, tmp_path):
    nvcc = shutil.which("nvcc")
    need("nvcc", nvcc is not None, "no nvcc on the PATH")
    include = Path(torch.__file__).parent / "include"
    done = subprocess.run(
        [nvcc, "-std=c++20", "-O3", "--fmad=false", "-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000", f"-I{include}",
         "-gencode", "arch=compute_80,code=sm_80", "-gencode", "arch=compute_90,code=sm_90", "-Xptxas", "-v",
         "-c", str(ROOT / "csrc" / "cuda" / source), "-o", str(tmp_path / "kernel.o")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "0 bytes spill stores" in done.stderr
    spilled = [line for line in done.stderr.splitlines() if "spill stores" in line and ", 0 bytes spill stores" not in line]
    assert spilled == []
