"""fastdiff.compat.score_sde gives the original program's numbers: every recorded case, through its own functions."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fastdiff.compat.score_sde import controllable_generation, get_sampling_fn, likelihood, losses, sampling, sde_lib
from tests.samplers.mixture import MixtureScore
from tests.test_ode import recorded_mixture

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "score_sde.npz")
CASES = json.loads(str(GOLDEN["meta"]))
SHAPE = (3, 3, 4, 4)
TOLERANCE = 5e-5  # tests/samplers/test_score_sde.py says why


def sde_of(case: dict):
    """The SDE of a recorded case."""
    makers = {"vp": sde_lib.VPSDE, "subvp": sde_lib.subVPSDE}
    return sde_lib.VESDE(0.01, 10.0, case["N"]) if case["sde"] == "ve" else makers[case["sde"]](0.1, 20.0, case["N"])


def exact_score(case: dict) -> MixtureScore:
    """The model of the recorded cases."""
    means, weights = torch.from_numpy(GOLDEN["mu"]), torch.from_numpy(GOLDEN["weights"])
    return MixtureScore(sde_of(case).process, means, weights, float(GOLDEN["std"]))


def array(case: dict, what: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[f"{case['name']}/{what}"])


class Recorded:
    """The draws of the original program, in its order."""

    def __init__(self, case: dict) -> None:
        self.draws = array(case, "noise")
        self.calls = 0

    def __call__(self, like: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        assert like.shape == self.draws[self.calls - 1].shape
        return self.draws[self.calls - 1].to(like)

    def assert_all_drawn(self) -> None:
        assert self.calls == len(self.draws)


def cases(*kinds: str) -> pytest.MarkDecorator:
    chosen = [case for case in CASES if case["name"].split("/")[0] in kinds]
    return pytest.mark.parametrize("case", chosen, ids=[case["name"] for case in chosen])


def same(x):
    return x


def assert_equals(got: torch.Tensor, expected: torch.Tensor, tolerance: float = TOLERANCE) -> None:
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance)


def unfused(sde):
    """The same SDE as an object that fastdiff must not look into: its plain loops run."""
    return type("Own", (type(sde),), {})(
        *((sde.sigma_min, sde.sigma_max) if hasattr(sde, "sigma_min") else (sde.beta_0, sde.beta_1)), sde.N
    )


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain loop"])
@cases("pc")
def test_pc_sampler(case, fused):
    sde, model, noise = sde_of(case), exact_score(case), Recorded(case)
    names = ("snr", "n_steps", "probability_flow", "denoise", "eps")
    sampler = sampling.get_pc_sampler(
        sde if fused else unfused(sde), SHAPE, sampling.get_predictor(case["predictor"]), sampling.get_corrector(case["corrector"]),
        lambda x: (x + 1) / 2, continuous=True, device="cpu", **{name: case[name] for name in names},
    )  # fmt: skip
    x, nfe = sampler(model, noise=noise)
    assert_equals(2 * x - 1, array(case, "out0"))
    assert nfe == case["N"] * (case["n_steps"] + 1)
    noise.assert_all_drawn()
    correct, predict = (case[kind] != "none" for kind in ("corrector", "predictor"))
    assert model.calls == case["N"] * (correct * case["n_steps"] + predict)


@cases("pc")
def test_sampling_fn_of_a_config(case):
    names = {name: case[name] for name in ("predictor", "corrector", "snr", "probability_flow")}
    settings = SimpleNamespace(method="PC", n_steps_each=case["n_steps"], noise_removal=case["denoise"], **names)
    config = SimpleNamespace(sampling=settings, training=SimpleNamespace(continuous=True), device=torch.device("cpu"))
    noise = Recorded(case)
    x, _ = get_sampling_fn(config, sde_of(case), SHAPE, same, case["eps"])(exact_score(case), noise=noise)
    assert_equals(x, array(case, "out0"))
    noise.assert_all_drawn()


@pytest.mark.parametrize("method", ["RK45", "scipy's RK45"])
@cases("ode")
def test_ode_sampler(case, method):
    if method != "RK45":
        pytest.importorskip("scipy")
    sde, model = sde_of(case), recorded_mixture(case["sde"])
    sampler = sampling.get_ode_sampler(
        sde if method == "RK45" else unfused(sde), SHAPE, same, rtol=case["rtol"], atol=case["atol"], eps=case["eps"], device="cpu"
    )
    noise = Recorded(case)
    x, nfe = sampler(model, noise=noise)
    assert_equals(x, array(case, "out0"), 1e-4)
    assert model.calls == nfe
    assert abs(nfe - int(array(case, "out1"))) <= 12  # two attempts: float32 rounding may reject one
    noise.assert_all_drawn()
    again, _ = sampler(model, array(case, "noise")[0] * sde.process.prior_std)
    torch.testing.assert_close(again, x, rtol=0, atol=0)


@pytest.mark.parametrize("method", ["RK45", "scipy's RK45"])
@cases("ll")
def test_likelihood(case, method):
    if method != "RK45":
        pytest.importorskip("scipy")
    sde, noise = sde_of(case), Recorded(case)
    function = likelihood.get_likelihood_fn(
        sde if method == "RK45" else unfused(sde), lambda x: (x + 1) / 2, hutchinson_type=case["hutchinson"],
        rtol=case["rtol"], atol=case["atol"], eps=case["eps"],
    )  # fmt: skip
    bits, z, nfe = function(recorded_mixture(case["sde"]), array(case, "data"), noise=noise)
    assert_equals(bits, array(case, "out0"), 5e-6 if case["sde"] == "ve" else 2e-4)
    assert_equals(z, array(case, "out1"), 1e-4)
    assert abs(nfe - int(array(case, "out2"))) <= 12
    noise.assert_all_drawn()


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain loop"])
@cases("inpaint", "color")
def test_controllable_generation(case, fused):
    sde, model, noise = sde_of(case), exact_score(case), Recorded(case)
    kind = case["name"].split("/")[0]
    make = controllable_generation.get_pc_inpainter if kind == "inpaint" else controllable_generation.get_pc_colorizer
    function = make(
        sde if fused else unfused(sde), sampling.get_predictor(case["predictor"]), sampling.get_corrector(case["corrector"]), same,
        case["snr"], continuous=True, eps=case["eps"],
    )  # fmt: skip
    given = [array(case, what) for what in (("data", "mask") if kind == "inpaint" else ("gray",))]
    assert_equals(function(model, *given, noise=noise), array(case, "out0"))
    noise.assert_all_drawn()


@pytest.mark.parametrize("fused", [True, False], ids=["ours", "own"])
@cases("loss")
def test_sde_loss(case, fused):
    sde, noise = sde_of(case), Recorded(case)
    loss_fn = losses.get_sde_loss_fn(
        sde if fused else unfused(sde), train=False, reduce_mean=case["reduce_mean"], likelihood_weighting=case["likelihood_weighting"],
        eps=case["eps"],
    )  # fmt: skip
    t = array(case, "u") * (1 - case["eps"]) + case["eps"]
    data = torch.from_numpy(GOLDEN[f"ll/{case['sde']}/data"])
    loss = loss_fn(recorded_mixture(case["sde"]), data, t=t, noise=noise)
    torch.testing.assert_close(loss, array(case, "out0"), rtol=2e-5, atol=2e-4)
    noise.assert_all_drawn()


def test_every_golden_case_is_there():
    count = Counter(case["name"].split("/")[0] for case in CASES)
    assert count == {"pc": 33, "inpaint": 3, "color": 3, "ode": 3, "ll": 3, "loss": 12}
