"""Outputs of the original programs (NVlabs/edm, EDM-ES), reproduced."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import fastdiff
from fastdiff import Denoiser, EDMSampler, EpsilonScaling
from tests.samplers.mixture import Mixture

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "edm_samplers.npz")
CASES = json.loads(str(GOLDEN["meta"]))

# A float32 state differs by the rounding of D and of x where Heun's corrector divides their difference by a small sigma: its
# coefficients reach h/sigma = 900 on these schedules, times 2^-24 for each of a few roundings, relative to the largest pixel.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 5e-4}


def _sampler(case: dict) -> EDMSampler:
    arguments = dict(case["kwargs"])
    scale = EpsilonScaling(arguments.pop("eps_scaler", 1.0), of_scaled_state=True)
    return EDMSampler(steps=arguments.pop("num_steps"), eps_scale=scale, **arguments)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_golden(case, dtype):
    net = Mixture(torch.from_numpy(GOLDEN["mu"]), torch.from_numpy(GOLDEN["weights"]), float(GOLDEN["std"]))
    plan = _sampler(case).plan(Denoiser.of(net))
    name = case["name"]
    recorded = iter(torch.from_numpy(GOLDEN[f"{name}/noise"])) if f"{name}/noise" in GOLDEN else None
    noise = None if recorded is None else lambda like: next(recorded).to(like)
    x = fastdiff.run(plan, net, torch.from_numpy(GOLDEN["latents"]).to(dtype), noise=noise)
    expected = torch.from_numpy(GOLDEN[f"{name}/out"])
    assert x.dtype == dtype
    assert float((x.double() - expected).abs().max() / expected.abs().max()) < TOLERANCE[dtype]
    assert net.calls == len(plan)


def test_every_golden_case_is_there():
    assert len(CASES) == 56
    assert {case["name"].split("/")[0] for case in CASES} == {"edm", "edm_es", "ablation"}
