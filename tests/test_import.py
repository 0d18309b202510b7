"""Importing fastdiff: with nothing but torch and numpy, quickly, and without compiling."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import fastdiff
from tests.conftest import need


def python(code: str, **environment: str) -> str:
    """The output of a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TRITON_INTERPRET": "0", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked} or name in {blocked}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Block())
"""


def test_import_needs_torch_and_numpy_only():
    optional = ["triton", "safetensors", "tqdm", "click", "PIL", "sklearn", "scipy", "matplotlib", "ninja", "pybind11", "setuptools"]
    code = BLOCK.format(blocked=optional) + "import torch\nimport fastdiff\nprint(fastdiff.sample(lambda x, s: x * 0, (2, 3)).shape)"
    assert python(code) == "torch.Size([2, 3])"


def test_works_without_the_extension_and_says_why():
    code = BLOCK.format(blocked=["fastdiff._C"]) + (
        "import torch, fastdiff\n"
        "x = fastdiff.sample(lambda x, s: x * 0.5, (2, 5), sampler=fastdiff.EDMSampler(steps=3, S_churn=9))\n"
        "assert torch.isfinite(x).all()\n"
        "report = fastdiff.doctor()\n"
        "assert set(report.serves.values()) == {'reference'}, report.serves\n"
        "assert 'C++ kernels' in report.missing and any('pip install' in line for line in report.advice)\n"
        "print(x.flatten().tolist())"
    )
    values = eval(python(code).splitlines()[-1])
    x = fastdiff.sample(lambda x, s: x * 0.5, (2, 5), sampler=fastdiff.EDMSampler(steps=3, S_churn=9))
    assert values == pytest.approx(x.flatten().tolist(), rel=1e-5)


def test_import_never_compiles_and_leaves_no_process():
    code = (
        "import subprocess, os\n"
        "def refuse(*a, **k): raise SystemExit(f'started a process: {a}')\n"
        "import torch\n"
        "subprocess.Popen.__init__ = refuse; os.system = refuse\n"
        "import fastdiff, sys\n"
        "print('triton' in sys.modules, 'torch.utils.cpp_extension' in sys.modules)"
    )
    assert python(code).split()[-1] == "False"


def test_the_extension_uses_the_stable_abi_only():
    """No c10, at or torch C++ symbol: what makes one binary serve every torch from 2.10 on."""
    need("cpu", fastdiff.CPU_EXTENSION_ERROR is None, str(fastdiff.CPU_EXTENSION_ERROR))
    from fastdiff import _C

    symbols = subprocess.run(["nm", "-D", "--undefined-only", "--demangle", _C.__file__], capture_output=True, text=True, check=True).stdout
    foreign = [line for line in symbols.splitlines() if any(f" {ns}::" in line for ns in ("c10", "at", "torch"))]
    assert foreign == []


def test_every_public_name_is_there():
    assert all(hasattr(fastdiff, name) for name in fastdiff.__all__)
