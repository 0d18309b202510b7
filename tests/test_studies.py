"""The studies: both files are there and whole, the claim of each holds, and the parts they share are exact."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import fastdiff
from fastdiff.studies import STUDIES, sedm
from fastdiff.studies._common import sliced_wasserstein
from fastdiff.studies.command import study
from fastdiff.studies.mixture import Mixture

pytest.importorskip("matplotlib")

slow = pytest.mark.slow


@pytest.fixture
def result(tmp_path):
    """Run a study quickly, look at both files, and return its numbers."""

    def run(name: str, seed: int = 0) -> dict:
        numbers = STUDIES[name].run(tmp_path / name, seed=seed, quick=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.json", f"{name}.png"]
        with Image.open(tmp_path / f"{name}.png") as image:
            pixels = np.asarray(image.convert("L"))
        assert pixels.shape[0] > 400
        assert pixels.shape[1] > 1200
        white = (pixels > 250).mean()
        assert 0.1 < white < 0.98  # neither blank nor filled
        assert (pixels[:, -3:] > 250).all()  # nothing runs out of the picture on the right, such as a title
        record = json.loads((tmp_path / f"{name}.json").read_text())
        assert record["numbers"] == json.loads(json.dumps(numbers))
        assert (record["study"], record["seed"], record["quick"]) == (name, seed, True)
        assert record["finding"] == STUDIES[name].finding(numbers)
        return numbers

    return run


@slow
def test_mixture_field_is_right_where_the_data_are(result):
    numbers = result("mixture-field")
    assert numbers["relative_error_dense"] < 0.3
    assert numbers["relative_error_sparse"] > 1.2 * numbers["relative_error_dense"]
    assert numbers["rms_error_sparse"] > 2.5 * numbers["rms_error_dense"]


def test_slow_mixing_annealing_recovers_the_weights(result):
    numbers = result("slow-mixing")
    assert abs(numbers["exact samples"]["errors_from_truth"]) < 5
    assert numbers["Langevin"]["weight"] > 0.4
    assert abs(numbers["annealed Langevin"]["weight"] - 0.1) < 0.08  # a short run: at default size within 0.01 or so


@slow
def test_swiss_roll_is_rolled_up_again(result):
    numbers = result("swiss-roll")
    assert numbers["sliced_wasserstein"] < 0.4 * numbers["sliced_wasserstein_of_prior"]
    assert [snapshot["t"] for snapshot in numbers["snapshots"]] == sorted((s["t"] for s in numbers["snapshots"]), reverse=True)


def test_sde_and_ode_end_in_the_same_marginal(result):
    numbers = result("sde-ode")
    for distance in numbers["wasserstein_to_data"].values():
        assert distance < 0.25 * numbers["wasserstein_of_prior"]
    correlation = numbers["rank_correlation_with_latents"]
    assert correlation["probability-flow ODE"] == pytest.approx(1, abs=1e-6)  # paths in one dimension do not cross
    assert abs(correlation["reverse SDE"]) < 0.2


def test_nfe_quality_rises_with_calls(result):
    numbers = result("nfe-quality")
    exact = numbers["sliced_wasserstein_of_exact_samples"]["most"]
    for name, series in numbers["methods"].items():
        distance = series["sliced_wasserstein"]
        assert distance[-1] < distance[0]
        assert distance[-1] < (4 if name == "PC" else 1.5) * exact
    at_20 = {name: series["sliced_wasserstein"][1] for name, series in numbers["methods"].items()}
    assert at_20["DPM-Solver++ 2M"] < 1.5 * exact
    assert at_20["PC"] > 2 * at_20["DPM-Solver++ 2M"]
    assert numbers["methods"]["EDM Heun"]["network_calls"] == [5, 19, 99]


def test_log_sobolev_rate_is_at_least_the_bound(result):
    numbers = result("log-sobolev")
    assert numbers["bound_rate"] == pytest.approx(2 / 2.0)  # the target's largest variance is 2
    starts = [value for value in numbers.values() if isinstance(value, dict)]
    assert len(starts) == 2
    for start in starts:
        assert start["least_rate"] >= numbers["bound_rate"]
        assert start["exact_over_bound_max"] <= 1 + 1e-12
        assert start["chains_rate"] > 0.8 * numbers["bound_rate"]
        assert start["chains_over_bound_max"] < 1.2
        assert start["chains_in_band"] > 0.5  # 0.95 on average, and neighbouring times are not independent
    assert starts[0]["last_rate"] < 1.01 * numbers["bound_rate"]  # the bound is met


def test_kernels_agree(result):
    numbers = result("kernels")
    assert numbers["max_difference"] < 0.02  # of the range, with 100 steps: 1/N
    assert numbers["discretize_composed_minus_discrete"] < 1e-11


def test_numbers_depend_on_the_seed_alone(tmp_path):
    texts = []
    for i, seed in enumerate((3, 3, 4)):
        torch.rand(i + 1)  # the global generator has no say
        STUDIES["sde-ode"].run(tmp_path / str(i), seed=seed, quick=True)
        texts.append((tmp_path / f"{i}.json").read_text())
    assert texts[0] == texts[1]
    assert json.loads(texts[1])["numbers"] != json.loads(texts[2])["numbers"]


# ---- The command ---------------------------------------------------------------------------------------------------------


def test_command_lists_and_explains():
    for arguments in ([], ["--help"]):
        done = CliRunner().invoke(study, arguments)
        assert done.exit_code == 0
        for each in STUDIES.values():
            assert any(each.name in line and each.about in line for line in done.output.splitlines()), each.name


def test_command_makes_the_folder_and_says_what_it_found(tmp_path):
    out = tmp_path / "new" / "folder"
    done = CliRunner().invoke(study, ["kernels", "--quick", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "perturbation kernels agree" in done.output
    assert sorted(path.name for path in out.iterdir()) == ["kernels.json", "kernels.png"]


def test_command_knows_its_names():
    done = CliRunner().invoke(study, ["nope"])
    assert done.exit_code == 2
    assert "kernels" in done.output


def test_without_matplotlib_the_extra_is_named_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'fastdiff-torch\[plot\]'"):
        STUDIES["swiss-roll"].run(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_an_error_before_anything_is_computed(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        STUDIES["swiss-roll"].run(tmp_path / "no" / "x")


# ---- What the studies share ------------------------------------------------------------------------------------------------


def _mixture() -> Mixture:
    covariances = torch.tensor([[[0.5, 0.2], [0.2, 0.3]], [[0.1, 0.0], [0.0, 0.4]], [[0.2, -0.1], [-0.1, 0.2]]])
    return Mixture([1.0, 2.0, 3.0], [[0.0, 1.0], [-2.0, 0.5], [1.0, -1.0]], covariances)


@pytest.mark.parametrize("sigma", [0.0, 0.3, 5.0])
def test_mixture_density_and_score(sigma):
    mixture = _mixture()
    x = fastdiff.randn((50, 2), 1, dtype=torch.float64).requires_grad_()
    components = torch.distributions.MultivariateNormal(mixture.means, mixture.covariances + sigma**2 * torch.eye(2, dtype=torch.float64))
    expected = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(mixture.weights), components).log_prob(x)
    torch.testing.assert_close(mixture.log_density(x, sigma), expected)
    (score,) = torch.autograd.grad(expected.sum(), x)
    torch.testing.assert_close(mixture.score(x.detach(), sigma), score)
    torch.testing.assert_close(mixture.score(x.detach(), torch.full((50,), sigma, dtype=torch.float64)), score)


@pytest.mark.parametrize(
    "net",
    [
        fastdiff.Denoiser(), fastdiff.EDM(), fastdiff.Epsilon(), fastdiff.Score(), fastdiff.Velocity(), fastdiff.Data(),
        fastdiff.Epsilon(schedule=fastdiff.Discrete(), label_scale=1.0),
        fastdiff.Score(schedule=fastdiff.VESDE(), label_is_sigma=True),
    ],
    ids=lambda net: type(net).__name__,
)  # fmt: skip
def test_every_network_of_a_mixture_denoises_alike(net):
    mixture, x = _mixture(), fastdiff.randn((20, 2), 2, dtype=torch.float64)
    for sigma in (torch.full((20,), 0.7, dtype=torch.float64), torch.linspace(0.1, 3, 20, dtype=torch.float64)):
        a, b = net.denoiser(sigma)
        F = mixture.network(net)(net.c_in(sigma)[:, None] * x, net.label(sigma))
        torch.testing.assert_close(a[:, None] * x + b[:, None] * F, mixture.denoise(x, sigma))


def test_mixture_samples():
    mixture, count = _mixture(), 20_000
    x = mixture.sample(count, 5)
    torch.testing.assert_close(x[:100], mixture.sample(100, 5), rtol=0, atol=0)  # whatever the batch
    mean = mixture.weights @ mixture.means
    second = torch.einsum("k,kde->de", mixture.weights, mixture.covariances + mixture.means[:, :, None] * mixture.means[:, None])
    assert (x.mean(0) - mean).abs().max() < 5 * 2 / math.sqrt(count)
    assert (x.T @ x / count - second).abs().max() < 5 * 4 / math.sqrt(count)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, -1.0], [[0.0], [1.0]], 1.0), "weights, means: expected"),
        (([1.0], [[0.0], [1.0]], 1.0), "weights, means: expected"),
        (([1.0], [[0.0]], [[[1.0, 0.0], [0.0, 1.0]]]), "covariances: expected"),
        (([1.0], [[0.0]], -1.0), "positive definite"),
    ],
)
def test_mixture_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        Mixture(*arguments)


def test_sliced_wasserstein():
    x = fastdiff.randn((500, 2), 3, dtype=torch.float64)
    assert sliced_wasserstein(x, x.flip(0)) == 0
    shift = torch.tensor([3.0, 4.0], dtype=torch.float64)
    # A shift v moves every projection by u.v, whose mean square over directions is |v|^2/D.
    assert sliced_wasserstein(x, x + shift, directions=4000) == pytest.approx(5 / math.sqrt(2), rel=0.03)
    with pytest.raises(ValueError, match="x, y: expected"):
        sliced_wasserstein(x, x[:10])


@slow
def test_exposure_bias_is_there_and_scaling_makes_eps_smaller(result):
    numbers = result("exposure-bias")
    for name, calls in (("Euler, 21 calls", 21), ("Heun, 35 calls", 35)):
        run = numbers["samplers"][name]
        assert len(run["sigma"]) == calls
        norms = {method: np.array(series["mean"]) for method, series in run["eps_norm"].items()}
        assert set(norms) >= {"training", "plain", "epsilon scaling", "discriminator guidance", "both", "input perturbation", "time shift"}
        assert all(v.shape == (calls,) and (v > 0).all() for v in norms.values())
        np.testing.assert_allclose(norms["training"][0], math.sqrt(64), rtol=0.1)  # at the highest level eps is z
        np.testing.assert_allclose(norms["plain"][0], norms["training"][0], rtol=0.1)


@slow
def test_sedm_has_its_grid_and_its_table(result):
    numbers = result("sedm")
    assert {name: run["calls"] for name, run in numbers["samplers"].items()} == {
        "Euler 13": 13,
        "Euler 21": 21,
        "Euler 35": 35,
        "Heun 35": 35,
    }
    for run in numbers["samplers"].values():
        assert list(run["table"]) == ["EDM", "EDM + scaling", "EDM-G++", "SEDM-G++"]
        assert run["table"]["EDM"]["minus_edm"]["mean"] == 0
        assert all(row["mean"] > 0 and len(row["of_blocks"]) == 2 for row in run["table"].values())
        assert len(run["grid"]) == 4
    assert "FID" not in numbers["metric"]
    assert sedm.table(numbers).count("\n") == 1 + 4 * 4
