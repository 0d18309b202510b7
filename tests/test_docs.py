"""Documentation that is checked: the generated page, the README's figures of speech, and its examples."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import fastdiff
from fastdiff.ops import noise_format
from fastdiff.ops.document import page

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="not a source tree")


def test_the_op_page_is_up_to_date():
    assert (ROOT / "docs" / "ops.md").read_text() == page(), "run `make docs`"


def test_the_noise_page_holds_the_coefficients_in_use():
    text = (ROOT / "docs" / "noise.md").read_text()
    written = {name: re.search(rf"\| {name} \| (.*?) \|", text).group(1).split(", ") for name in ("P", "S", "C")}
    for name, used in (("P", noise_format.LOG), ("S", noise_format.SIN), ("C", noise_format.COS)):
        assert [float.fromhex(c) for c in written[name]] == used


def test_relative_links_lead_somewhere():
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


def _examples(document: str) -> str:
    """The Python blocks of a document at small sizes."""
    text = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.S))
    for large, small in (
        ("64, 3, 32, 32", "4, 3, 8, 8"),
        ("range(64)", "range(4)"),
        ("keys(0, 64)", "keys(0, 4)"),
        ("arange(32) < 16", "arange(8) < 4"),
    ):
        text = text.replace(large, small)
    return text


@pytest.mark.parametrize("document", ["README.md", "docs/samplers.md"])
def test_examples_run(document):
    x0 = torch.zeros(256, 3, 4, 4)
    names = {
        "torch": torch,
        "fastdiff": fastdiff,
        "net": lambda x, sigma, class_labels=None: 0.1 * x,
        "unet": lambda x, label: 0.1 * x,
        "labels": torch.zeros(4, 10),
        "grad_log_ratio": lambda x, sigma: -x,
        "latents": torch.randn(4, 3, 8, 8),
        "x0": x0,
        "alpha": 0.9,
        "sigma": 0.1,
        "step": 3,
        "x": x0,
        "F": x0,
    }
    exec(_examples(document), names)
    assert names["images"].shape == (4, 3, 8, 8)
    assert "plan" not in names or isinstance(names["plan"], fastdiff.Plan)
