"""The worked example of CONTRIBUTING.md, taken from the page and run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

import fastdiff
from fastdiff import Denoiser, EDMSampler, Parametrization, Plan, Row
from fastdiff.schedules import Linear, edm_sigmas
from tests.samplers.mixture import Mixture

ROOT = Path(__file__).parents[2]


def _example() -> type:
    text = (ROOT / "CONTRIBUTING.md").read_text().split("## Adding a sampler")[1]
    code = re.search(r"```python\n(.*?)```", text, re.S).group(1)
    names = {"dataclass": dataclass, "Literal": Literal, "Parametrization": Parametrization, "Plan": Plan, "Row": Row, "Linear": Linear}
    exec(code, names)
    return names["DDIM"]


def test_the_ddim_example_runs_and_is_euler_in_sigma_space():
    """DDIM without scaling is EDM's Euler (Karras et al. 2022, section 3); with VP scaling it gives the same samples."""
    DDIM = _example()
    sigmas = tuple(edm_sigmas(10, 0.01, 20.0).tolist())
    euler = EDMSampler(steps=10, sigma_min=0.01, sigma_max=20.0, solver="euler").plan(Denoiser())
    plain = DDIM(sigmas, scaling="none").plan(Denoiser())
    assert plain.difference(euler) < 1e-12
    net = Mixture(torch.tensor([[-1.0, 0.5], [1.0, 0.2]]), torch.tensor([0.4, 0.6]), 0.2)
    latents = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # The VP prior has scale s*sigma, so both start from the same x0 + sigma*z.
    torch.testing.assert_close(fastdiff.run(DDIM(sigmas).plan(Denoiser()), net, latents), fastdiff.run(plain, net, latents))
