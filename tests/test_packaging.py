"""The wheel and the sdist: everything is in them, kernels/ as fastdiff.kernels, and nothing is installed beside fastdiff."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def _run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """(wheel, sdist), the wheel built from the sdist, so that the sdist is shown to be complete."""
    out = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT), cwd=out, FASTDIFF_CUDA="0")
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def test_wheel(distributions, tmp_path):
    wheel, _ = distributions
    assert wheel.name.startswith("fastdiff_torch-")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"fastdiff", f"fastdiff_torch-{wheel.name.split('-')[1]}.dist-info"}
    for needed in ("fastdiff/kernels/sampler_step.py", "fastdiff/models/digits/digits.safetensors", "fastdiff/models/digits/train.py"):
        assert needed in names
    assert any(name.startswith("fastdiff/_C") for name in names)
    target = tmp_path / "site"
    _run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(target), str(wheel), cwd=tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r}); import fastdiff, fastdiff.kernels, torch\n"
        f"assert fastdiff.__file__.startswith({str(target)!r}), fastdiff.__file__\n"
        f"assert fastdiff.kernels.__file__.startswith({str(target)!r})\n"
        "assert fastdiff.CPU_EXTENSION_ERROR is None\n"
        "from fastdiff.models import load_model; load_model('digits')\n"
        "print(fastdiff.ops.has_kernel('sampler_step', 'CPU'))"
    )
    assert _run(sys.executable, "-S", "-c", "import site; site.main()\n" + code, cwd=tmp_path).strip() == "True"


def test_sdist(distributions):
    _, sdist = distributions
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    for needed in (
        "setup.py", "pyproject.toml", "README.md", "LICENSE", "csrc/formulas.h", "csrc/cpu/sampler_step.cpp",
        "csrc/cuda/sampler_step.cu", "csrc/cuda/device.cuh", "kernels/sampler_step.py", "fastdiff/models/digits/digits.safetensors",
    ):  # fmt: skip
        assert needed in names


def test_a_build_without_the_extension_is_pure_python(tmp_path):
    _run(
        sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT),
        cwd=tmp_path, FASTDIFF_BUILD="0",
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    assert "py3-none-any" in wheel.name
    assert not any(name.endswith((".so", ".pyd")) for name in zipfile.ZipFile(wheel).namelist())


def test_bad_build_flags_say_so(tmp_path):
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "FASTDIFF_CUDA": "yes"},
    )
    assert done.returncode != 0
    assert "FASTDIFF_CUDA: expected one of auto, 0, 1, got 'yes'" in done.stderr
