"""Likelihoods: against densities in closed form and the original program; probes, conventions, guidance."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import fastdiff
from fastdiff import EDMSDE, VPSDE, Guidance, ODESolver, log_likelihood
from fastdiff.likelihood import bin_width
from tests.samplers.mixture import Mixture, MixtureScore
from tests.test_ode import CASES, GOLDEN, SDES, Gaussian, recorded_mixture

FINE = ODESolver(1e-5, 1e-6)
PROCESS = EDMSDE(0.01, 10.0)
MEANS, WEIGHTS, STD = torch.tensor([[1.0, 0.5, -0.5, 0.0], [-1.0, 0.0, 0.5, 1.0]]), torch.tensor([0.4, 0.6]), 0.5


def mixture() -> Mixture:
    """Two Gaussians that overlap."""
    return Mixture(MEANS, WEIGHTS, STD)


def log_density(x: torch.Tensor, means=MEANS, weights=WEIGHTS, std=STD) -> torch.Tensor:
    """[B] of the mixture, in float64."""
    normal = torch.distributions.Normal(means.double(), std)
    return torch.logsumexp(weights.double().log() + normal.log_prob(x.double()[:, None]).sum(-1), 1)


def error(result, x0, means=MEANS, weights=WEIGHTS, std=STD, process=PROCESS) -> torch.Tensor:
    """[B] log_prob minus the density in closed form, both with what the process leaves out: at the last time the mixture is not quite
    the prior, and at the first it is not quite the data. What is left is the solver's and the trace's error."""
    first, last = process.eps, process.T
    scale, z = process.scale(last), result.z * process.prior_std
    corrected = (
        result.log_prob - process.prior_log_prob(z) + log_density(z, scale * means, weights, scale * math.hypot(std, process.sigma(last)))
    )
    return corrected - log_density(x0, means, weights, math.hypot(std, process.sigma(first)))


@pytest.mark.parametrize("exact", [False, True], ids=["probe", "exact"])
def test_a_gaussian(exact):
    """J is a multiple of the identity, so one Rademacher probe is exact too."""
    x0 = 0.5 * torch.randn(32, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    result = log_likelihood(Gaussian(0.5), x0, process=PROCESS, exact=exact, solver=FINE, state_dtype=torch.float64)
    assert error(result, x0, torch.zeros(1, 6), torch.ones(1)).abs().max() / 6 < 1e-5  # nats per dimension


def test_a_mixture_with_the_exact_trace():
    net = mixture()
    x0 = net.sample(32, seed=0)
    for dtype, bound in ((torch.float64, 1e-5), (torch.float32, 3e-5)):
        result = log_likelihood(net, x0, process=PROCESS, exact=True, solver=FINE, state_dtype=dtype)
        assert error(result, x0).abs().max() / 4 < bound
        assert (result.standard_error == 0).all()


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_a_mixture_with_probes(kind):
    means, weights = torch.from_numpy(GOLDEN["mu"]), torch.from_numpy(GOLDEN["weights"])
    net = Mixture(means, weights, 0.5)
    x0 = net.sample(64, seed=0)
    result = log_likelihood(net, x0, process=PROCESS, probes=16, kind=kind, solver=FINE, state_dtype=torch.float64)
    off = error(result, x0, means, weights)
    assert (off.abs() < 6 * result.standard_error).all()
    assert off.mean().abs() < 4 * result.standard_error.mean() / 8
    if kind == "rademacher":  # Gaussian probes err on the diagonal too: 6.9 nats a dimension times sqrt(2/48/16/64)
        assert off.mean().abs() / 48 < 1e-3


def test_the_variance_preserving_sdes_agree_with_the_density():
    for sde in (VPSDE(), SDES["subvp"]):
        net = MixtureScore(sde, MEANS, WEIGHTS, STD)
        x0 = net.sample(16, seed=2)
        result = log_likelihood(
            net, x0, parametrization=net.parametrization, exact=True, solver=FINE, eps=sde.eps, state_dtype=torch.float64
        )
        assert error(result, x0, process=sde).abs().max() / 4 < 5e-5


@pytest.mark.parametrize("name", list(SDES))
def test_likelihoods_of_the_original_program(name):
    net = recorded_mixture(name)
    case = CASES[f"ll/{name}"]
    result = log_likelihood(
        net, torch.from_numpy(GOLDEN[f"ll/{name}/data"]), parametrization=net.parametrization, process=SDES[name],
        solver=ODESolver(case["rtol"], case["atol"], control="batch"), eps=case["eps"], convention="score_sde",
        probe=torch.from_numpy(GOLDEN[f"ll/{name}/noise"]),
    )  # fmt: skip
    # VE agrees to 1e-6; VP and sub-VP amplify float32's rounding where std is 1e-3 and 1e-6, at t = 1e-5.
    expected = torch.from_numpy(GOLDEN[f"ll/{name}/out0"]).double()
    torch.testing.assert_close(result.bits_per_dim, expected, rtol=0, atol=5e-6 if name == "ve" else 2e-4)
    z = torch.from_numpy(GOLDEN[f"ll/{name}/out1"])
    torch.testing.assert_close(result.z * SDES[name].prior_std, z, rtol=0, atol=1e-4)
    assert abs(int(result.nfe[0]) - int(GOLDEN[f"ll/{name}/out2"])) <= 12
    assert net.calls == int(result.nfe[0])  # one forward an evaluation


def test_the_error_falls_as_one_over_the_root_of_the_probes():
    net = mixture()
    x0 = net.sample(1, seed=3).expand(200, -1)  # one point, 200 independent sets of probes
    spreads = []
    for probes in (1, 4, 16):
        result = log_likelihood(net, x0, process=PROCESS, probes=probes, kind="gaussian", solver=ODESolver(1e-3, 1e-3), seeds=probes)
        spreads.append(result.log_prob.std().item())
        if probes > 1:  # the stated error is the true one
            assert 0.8 < result.standard_error.square().mean().sqrt() / spreads[-1] < 1.25
    ratios = [a / b for a, b in itertools.pairwise(spreads)]
    assert all(1.6 < ratio < 2.5 for ratio in ratios), spreads


def test_a_result_does_not_depend_on_its_batch():
    net = Gaussian()
    x0 = torch.randn(5, 8, generator=torch.Generator().manual_seed(1)) * torch.tensor([0.1, 0.5, 1.0, 2.0, 4.0])[:, None]
    key = fastdiff.keys(0, 5)
    arguments = {"process": PROCESS, "kind": "gaussian", "dequantization": "uniform", "solver": ODESolver(1e-4, 1e-4)}
    together = log_likelihood(net, x0, seeds=key, **arguments)
    for i in range(5):
        alone = log_likelihood(net, x0[i : i + 1], seeds=key[i : i + 1], **arguments)
        assert torch.equal(alone.log_prob[0], together.log_prob[i])
        assert torch.equal(alone.z[0], together.z[i])


def test_guidance_in_the_drift():
    """Towards another mixture by the gradient of the log ratio: the result is that mixture's density."""
    first, second = mixture(), Mixture(-MEANS, WEIGHTS, STD)

    def score(net, x, sigma):
        return (net(x, sigma) - x) / sigma.to(x.dtype).reshape(-1, 1) ** 2

    guidance = Guidance(lambda x, sigma: score(second, x, sigma) - score(first, x, sigma), weight=1.0, second_order_weight=1.0)
    x0 = second.sample(8, seed=4)
    result = log_likelihood(first, x0, process=PROCESS, exact=True, guidance=guidance, solver=FINE, state_dtype=torch.float64)
    assert error(result, x0, means=-MEANS).abs().max() / 4 < 1e-5
    detached = Guidance(lambda x, sigma: guidance.gradient(x, sigma).detach())
    with pytest.raises(ValueError, match=r"guidance\.gradient: expected a result that is differentiable in x"):
        log_likelihood(first, x0, process=PROCESS, guidance=detached)


def test_classifier_free_guidance_in_the_drift():
    def net(x, sigma, class_labels=None):
        return Gaussian(0.5 if class_labels is None else 1.0)(x, sigma)

    def combined(x, sigma):
        return net(x, sigma) + 1.5 * (net(x, sigma, 1) - net(x, sigma))

    x0 = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    arguments = {"process": EDMSDE(0.05, 20.0), "exact": True, "solver": FINE, "state_dtype": torch.float64}
    guided = log_likelihood(net, x0, cfg=fastdiff.ClassifierFree(1.5), class_labels=1, **arguments)
    torch.testing.assert_close(guided.log_prob, log_likelihood(combined, x0, **arguments).log_prob, rtol=1e-6, atol=1e-8)


def test_bits_per_dim_and_its_conventions():
    assert bin_width((-1, 1), 8) == pytest.approx(2 / 255)
    assert bin_width((-1, 1), 8, "score_sde") == pytest.approx(2 / 256)
    assert bin_width((0, 16), math.log2(17)) == pytest.approx(1.0)
    x0 = 0.5 * torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    result = log_likelihood(Gaussian(0.5), x0, process=PROCESS, solver=FINE)
    torch.testing.assert_close(result.bits_per_dim, -result.log_prob / (6 * math.log(2)) - math.log2(2 / 255))
    for arguments, message in (
        ({"data_range": (1, -1)}, "data_range: expected"),
        ({"bits": 0}, "bits: expected a number > 0, got 0"),
        ({"convention": "nvlabs"}, "convention: expected"),
        ({"probes": 0}, "probes: expected an integer >= 1, got 0"),
        ({"kind": "uniform"}, "kind: expected"),
        ({"dequantization": "normal"}, "dequantization: expected"),
        ({"probe": x0}, r"probe: expected \[P, 4, 6\]"),
    ):
        with pytest.raises(ValueError, match=message):
            log_likelihood(Gaussian(0.5), x0, process=PROCESS, **arguments)
    with pytest.raises(ValueError, match=r"x0: expected a floating tensor \[B, \.\.\.\], got torch.int64"):
        log_likelihood(Gaussian(0.5), x0.long())


def test_dequantization_adds_uniform_noise_of_one_bin():
    seen = []

    def net(x, sigma):
        seen.append(x.detach().clone())
        return Gaussian(0.5)(x, sigma)

    x0 = torch.zeros(64, 5)
    result = log_likelihood(net, x0, process=EDMSDE(1e-3, 50.0), dequantization="uniform", bits=1, solver=ODESolver(1e-2, 1e-2))
    assert result.bin_width == 2.0
    first = seen[0]
    assert first.min() >= 0
    assert first.max() < 2
    assert abs(first.mean() - 1) < 0.15


@pytest.mark.parametrize("exact", [False, True])
def test_a_network_that_detaches_is_refused(exact):
    net = torch.no_grad()(Gaussian(0.5).__call__)
    with pytest.raises(ValueError, match="net: expected an output that is differentiable in x_in, got a detached one"):
        log_likelihood(net, torch.zeros(2, 3), process=PROCESS, exact=exact)


def test_inference_mode_changes_nothing():
    x0 = 0.5 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    expected = log_likelihood(Gaussian(0.5), x0, process=PROCESS).log_prob
    with torch.inference_mode():
        assert torch.equal(log_likelihood(Gaussian(0.5), x0.clone(), process=PROCESS).log_prob, expected)


@pytest.mark.parametrize("exact", [False, True])
def test_states_without_further_dimensions(exact):
    x0 = torch.tensor([0.1, -0.7], dtype=torch.float64)
    flat, column = (log_likelihood(Gaussian(0.5), x, process=PROCESS, exact=exact, state_dtype=torch.float64) for x in (x0, x0[:, None]))
    torch.testing.assert_close(flat.log_prob, column.log_prob)
