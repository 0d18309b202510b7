"""Files with bytes changed at random: each loads, or is a ValueError; nothing else happens, soon."""

from __future__ import annotations

import random
import time
import warnings

import pytest

from fastdiff.checkpoints import convert
from tests.checkpoints.test_hostile import files


def mutated(data: bytes, generator: random.Random) -> bytes:
    """Bytes replaced, inserted, deleted or repeated, mostly where the structure is: outside long runs of tensor data."""
    out = bytearray(data)
    for _ in range(generator.choice([1, 1, 1, 2, 4, 16])):
        at = generator.randrange(len(out))
        action = generator.randrange(5)
        if action <= 1:
            out[at] = generator.randrange(256)
        elif action == 2:
            out[at] ^= 1 << generator.randrange(8)
        elif action == 3:
            del out[at : at + generator.randrange(1, 9)]
        else:
            out[at:at] = out[at : at + generator.randrange(1, 40)]
    return bytes(out)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [("edm", 60), ("edm_small", 300), ("zip", 300), ("legacy", 300), ("score_sde", 300)])
def test_mutated_files(tmp_path, kind, count):
    data = files(tmp_path)[kind]
    generator = random.Random(f"fuzz {kind}")
    path = tmp_path / "fuzz.bin"
    slowest = 0.0
    outcomes = {"loaded": 0, "refused": 0}
    for _ in range(count):
        path.write_bytes(mutated(data, generator))
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                convert(path, tmp_path / "out")
                outcomes["loaded"] += 1
            except ValueError:
                outcomes["refused"] += 1
        slowest = max(slowest, time.perf_counter() - started)
    assert slowest < 10
    assert outcomes["refused"] > count / 6, outcomes
    assert not (tmp_path / "executed").exists()
