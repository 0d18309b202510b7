"""patch(), the page's example, and that the table of names holds all of upstream's."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fastdiff.compat import k_diffusion as K
from fastdiff.models import load_model
from tests.compat.entries.k_diffusion import ENTRIES
from tests.compat.upstream_k_diffusion import directory, upstream

PAGE = Path(__file__).parents[2] / "docs" / "compat_k_diffusion.md"


@pytest.fixture
def installed(monkeypatch):
    """`import k_diffusion.sampling` gives upstream's own module."""
    package, original = ModuleType("k_diffusion"), upstream()
    package.sampling = original
    monkeypatch.setitem(sys.modules, "k_diffusion", package)
    monkeypatch.setitem(sys.modules, "k_diffusion.sampling", original)
    yield original
    K.unpatch()


def test_patch_and_unpatch(installed):
    originals = {name: getattr(installed, name) for name in K.sampling.__all__}
    K.patch()
    K.patch()
    from k_diffusion.sampling import sample_heun

    assert sample_heun is K.sample_heun
    assert all(getattr(installed, name) is getattr(K.sampling, name) for name in originals)
    K.unpatch()
    assert all(getattr(installed, name) is original for name, original in originals.items())
    with K.patch() as patched:
        assert patched.module is installed
        assert installed.sample_lms is K.sample_lms
    assert installed.sample_lms is originals["sample_lms"]
    K.unpatch()  # nothing left to undo


def test_patch_a_copy_that_lacks_some_names():
    copy = ModuleType("copy")
    copy.sample_euler = original = object()
    with K.patch(copy):
        assert copy.sample_euler is K.sample_euler
        assert not hasattr(copy, "sample_heun")
    assert copy.sample_euler is original


def test_patch_without_k_diffusion(monkeypatch):
    monkeypatch.setitem(sys.modules, "k_diffusion", None)
    with pytest.raises(ImportError, match=r"k_diffusion: expected it to be installed, pip install 'fastdiff-torch\[k-diffusion\]'"):
        K.patch()


def test_patch_where_the_imports_of_k_diffusion_fail(monkeypatch, tmp_path):
    (tmp_path / "k_diffusion").mkdir()
    (tmp_path / "k_diffusion" / "__init__.py").write_text("import a_package_that_is_not_here")
    for name in [name for name in sys.modules if name.partition(".")[0] == "k_diffusion"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ImportError, match=r"its own import fails for want of a_package_that_is_not_here.*--no-deps"):
        K.patch()


def _blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


def test_the_examples_run():
    torch.manual_seed(0)
    names: dict = {}
    for block in _blocks("python"):
        exec(block, names)
    assert names["images"].shape == (8, 1, 8, 8)
    assert names["images"].isfinite().all()


def test_before_and_after_give_the_same_images(installed, monkeypatch):
    model = load_model("digits")
    monkeypatch.setattr("fastdiff.models.load_model", lambda name: model)  # (making one draws from torch's generator)
    images = []
    for block in (_blocks("python before")[0], _blocks("python")[0]):
        torch.manual_seed(0)
        names = {"model": model}
        exec(block, names)
        images.append(names["images"])
    torch.testing.assert_close(*images, rtol=1e-4, atol=1e-4)


def test_every_public_name_of_upstream_is_in_the_table():
    path = directory()
    if path is None:
        pytest.skip("k-diffusion is not installed")
    public = set()
    for file in path.rglob("*.py"):
        module = ".".join(file.relative_to(path).with_suffix("").parts)
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                public.add(f"{module}.{node.name}")
    named = {entry.name for entry in ENTRIES}
    assert public <= named, sorted(public - named)
    classes = {f"sampling.{name}" for name in K.sampling.__all__ if isinstance(getattr(K.sampling, name), type)}
    methods = {name for name in named if name.rpartition(".")[0] in classes}
    assert named - methods == public
