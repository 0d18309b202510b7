"""diffusers' own scheduler tests, run against fastdiff's classes; they are in a checkout of its repository, not in the wheel.

FASTDIFF_DIFFUSERS_TESTS=path/to/diffusers pytest tests/compat/test_diffusers_upstream.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = os.environ.get("FASTDIFF_DIFFUSERS_TESTS")
#: They download a model.
FROM_THE_HUB = ("test_default_arguments_not_in_config", "test_default_solver_type_after_switch", "push_to_hub")


@pytest.mark.slow
@pytest.mark.skipif(CHECKOUT is None, reason="FASTDIFF_DIFFUSERS_TESTS names no checkout of diffusers")
def test_their_scheduler_tests_pass():
    command = [
        sys.executable, "-m", "pytest", "-q", "-n", "2", "-W", "ignore", "-p", "diffusers_plugin", "tests/schedulers",
        "-k", " and ".join(f"not {name}" for name in FROM_THE_HUB),
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}  # of the plugin; their package is called tests too
    result = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=3000)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
    assert int(result.stdout.rsplit(" passed", 1)[0].rsplit(maxsplit=1)[-1]) > 500, result.stdout[-300:]
