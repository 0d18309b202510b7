"""The GPU check, dry-run: every step that a CPU can do is done, and the report is complete."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_dry_run(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check", "--dry-run", "--no-build", "--out", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "dry-run-on-the-cpu.json").read_text())
    assert [s["step"] for s in report["steps"]] == ["tests"]
    assert {row["op"] for row in report["rows"]} == {
        "sampler_step",
        "perturb",
        "normal",
        "denoising_loss",
        "group_norm_silu",
        "group_norm_silu_backward",
        "langevin_row",
        "probe_dot",
        "normal_sum",
        "ode_stage",
        "ode_error",
    }
    text = (tmp_path / "dry-run-on-the-cpu.md").read_text()
    assert "of copy bandwidth" in text
    assert text.count("\n| ") >= 8


def test_without_a_gpu_it_says_so(monkeypatch):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu_check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no GPU here: use --dry-run" in done.stderr
