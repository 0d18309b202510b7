"""Outputs of score_sde_pytorch (Song et al. 2021), reproduced: predictor-corrector sampling, inpainting, colorization."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import fastdiff
from fastdiff import EDMSDE, VESDE, VPSDE, Known, PCSampler, SubVPSDE
from tests.samplers.mixture import Mixture, MixtureScore

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "score_sde.npz")
CASES = json.loads(str(GOLDEN["meta"]))
SDES = {"vp": VPSDE(0.1, 20.0), "subvp": SubVPSDE(0.1, 20.0), "ve": VESDE(0.01, 10.0)}

# Both programs run in float32. The worst cases are sub-VP's, 2e-5: in terms of D the last step is x + 90*(D - x), since
# g^2*dt/std^2 = 90 at t = eps, and that multiplies the roundings of x and D.
TOLERANCE = 5e-5


class Recorded:
    """The noise that the original program drew: the prior first, then one entry a call."""

    def __init__(self, name: str) -> None:
        self.prior, *self.draws = torch.from_numpy(GOLDEN[f"{name}/noise"])
        self.calls = 0

    def __call__(self, like: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.draws[self.calls - 1].to(like)


def _net(case: dict) -> MixtureScore:
    return MixtureScore(SDES[case["sde"]], torch.from_numpy(GOLDEN["mu"]), torch.from_numpy(GOLDEN["weights"]), float(GOLDEN["std"]))


def _sampler(case: dict) -> PCSampler:
    names = ("predictor", "corrector", "snr", "eps", "probability_flow")
    given = {name: case[name] for name in names if name in case}
    # Upstream's controllable generation has one corrector step, and its last step keeps the noise.
    return PCSampler(
        SDES[case["sde"]], steps=case["N"], corrector_steps=case.get("n_steps", 1), denoise=case.get("denoise", False), **given
    )


def _known(case: dict, prior: torch.Tensor) -> tuple[Known | None, torch.Tensor]:
    """(known data, the first state as upstream makes it from them and the prior's sample)."""
    name = case["name"]
    if name.startswith("inpaint/"):
        data, mask = torch.from_numpy(GOLDEN[f"{name}/data"]), torch.from_numpy(GOLDEN[f"{name}/mask"])
        return Known(data, mask, parity=True), data * mask + prior * (1 - mask)
    if name.startswith("color/"):
        gray = torch.from_numpy(GOLDEN[f"{name}/gray"])
        known = Known.gray(gray, parity=True)
        forward, mask = known.basis.forward, known.mask
        return known, forward(gray) * mask + forward(prior * (1 - mask))
    return None, prior


def _cases(*prefixes: str) -> pytest.MarkDecorator:
    chosen = [case for case in CASES if case["name"].split("/")[0] in prefixes]
    return pytest.mark.parametrize("case", chosen, ids=[case["name"] for case in chosen])


@_cases("pc", "inpaint", "color")
def test_golden(case):
    net, noise = _net(case), Recorded(case["name"])
    plan = _sampler(case).plan(net.parametrization)
    prior_std = SDES[case["sde"]].prior_std
    known, first = _known(case, noise.prior * prior_std)
    x = fastdiff.run(plan, net, first / prior_std, noise=noise, known=known)
    expected = torch.from_numpy(GOLDEN[f"{case['name']}/out0"])
    assert x.dtype == torch.float32
    assert float((x - expected).abs().max()) < TOLERANCE
    assert noise.calls == len(noise.draws)
    assert net.calls == len(plan)


def test_every_golden_case_is_there():
    """No case is skipped in silence: those of other test files are named here."""
    count = Counter(case["name"].split("/")[0] for case in CASES)
    assert count == {
        "pc": 33, "inpaint": 3, "color": 3,
        "ode": 3, "ll": 3,  # the adaptive ODE sampler and likelihoods
        "loss": 12,  # training losses
    }  # fmt: skip
    assert all(f"{case['name']}/out0" in GOLDEN for case in CASES if case["name"].split("/")[0] in ("pc", "inpaint", "color"))


@pytest.mark.parametrize("predictor", ["euler_maruyama", "reverse_diffusion", "ancestral_sampling", "probability_flow"])
def test_predictors_in_edms_sigma_space_walk_down_its_noise_levels(predictor):
    net = Mixture(torch.tensor([[0.3, -0.3]]), torch.ones(1), 0.5)
    sampler = PCSampler(EDMSDE(), steps=400, predictor=predictor, corrector="none")
    x = fastdiff.sample(net, (4000, 2), seeds=0, sampler=sampler)
    torch.testing.assert_close(x.mean(0), torch.tensor([0.3, -0.3]), rtol=0, atol=0.04)
    torch.testing.assert_close(x.std(0), torch.full((2,), 0.5), rtol=0.1, atol=0)  # first-order steps
