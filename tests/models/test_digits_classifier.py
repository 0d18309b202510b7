"""The digits classifier: how well it reads noisy digits, its gradients, and its training script."""

from __future__ import annotations

import math
from importlib import resources

import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional as nnf

import fastdiff
from fastdiff.models import CLASSIFIERS, MODELS, load_classifier, load_model
from fastdiff.models.digits.classifier import build_classifier
from fastdiff.models.digits.data import load_digits
from fastdiff.models.digits.train_classifier import classifier_loss, main, train


@pytest.fixture(scope="module")
def net():
    return load_classifier("digits")


def read(net, sigma: float, draws: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """ln p [draws*359, 10] of the test split at one noise level, and the labels."""
    data = load_digits("test")
    key = fastdiff.keys(0, len(data.images))
    noisy = [fastdiff.perturb(data.images, 1.0, sigma, key, draw) for draw in range(draws)]
    with torch.no_grad():
        return net(torch.cat(noisy), sigma).log_softmax(1), data.labels.repeat(draws)


# Measured: 0.992, 0.991, 0.957, 0.793, 0.458.
@pytest.mark.parametrize(("sigma", "accuracy"), [(0.002, 0.96), (0.05, 0.96), (0.5, 0.92), (1.0, 0.7), (2.0, 0.35)])
def test_accuracy_on_unseen_digits(net, sigma, accuracy):
    log_p, labels = read(net, sigma)
    assert float((log_p.argmax(1) == labels).float().mean()) >= accuracy


@pytest.mark.parametrize("sigma", [0.002, 0.5, 1.0, 2.0, 5.0, 20.0, 80.0])
def test_probabilities_mean_what_they_say(net, sigma):
    """The probability of the chosen class is, on average, how often it is right: what guidance needs, beyond accuracy."""
    log_p, labels = read(net, sigma)  # measured: at most 0.03 apart
    chosen = log_p.max(1)
    right = (chosen.indices == labels).float().mean()
    assert float(chosen.values.exp().mean()) == pytest.approx(float(right), abs=0.05)
    assert float(nnf.nll_loss(log_p, labels)) < math.log(10) + 0.02


def test_pure_noise_tells_nothing(net):
    for sigma in (20.0, 80.0):
        log_p, _ = read(net, sigma)
        assert float(log_p.max(1).values.exp().mean()) < 0.16  # measured: 0.128 and 0.116


@pytest.mark.parametrize("sigma", [0.0, 0.002, 80.0])
def test_input_gradient_is_finite_and_that_of_a_probability(net, sigma):
    data = load_digits("test")
    x = fastdiff.perturb(data.images, 1.0, sigma, fastdiff.keys(0, len(data.images))).requires_grad_()
    log_p = net(x, torch.full((len(x),), sigma)).log_softmax(1)
    (G,) = torch.autograd.grad(log_p.gather(1, data.labels[:, None]).sum(), x)
    assert G.shape == x.shape
    assert torch.isfinite(G).all()
    assert float(G.abs().max()) > 0


def test_it_can_be_differentiated_twice():
    torch.manual_seed(0)
    net = build_classifier().double().eval()
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    sigma = torch.tensor([0.3, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(net, (x, sigma), fast_mode=True)


def test_sigma_is_a_number_or_one_for_each_sample(net):
    x = fastdiff.randn((3, 1, 8, 8), seeds=0)
    torch.testing.assert_close(net(x, 0.7), net(x, torch.full((3,), 0.7)))
    torch.testing.assert_close(net(x, torch.tensor(-1.0)), net(x, 1e-4))
    assert net(x.double(), 0.7).dtype == torch.float64


@pytest.mark.slow
def test_guidance_makes_the_unconditional_model_draw_what_is_asked_for(net):
    """Samples of the digits model without labels, judged by a classifier that has seen no noise."""
    from sklearn.neural_network import MLPClassifier

    wanted = torch.arange(100) % 10

    def gradient(x, sigma):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            log_p = net(x, sigma).log_softmax(1)
            return torch.autograd.grad(log_p.gather(1, wanted[:, None]).sum(), x)[0]

    real = load_digits("train")
    judge = MLPClassifier((128,), alpha=1e-2, max_iter=300, random_state=0)
    judge.fit(real.images.flatten(1).numpy(), real.labels.numpy())

    def share(guidance):
        samples = fastdiff.sample(load_model("digits"), (100, *MODELS["digits"].shape), seeds=0, guidance=guidance)
        return float((judge.predict(samples.flatten(1).numpy()) == wanted.numpy()).mean())

    guidance = fastdiff.Guidance(gradient, weight=2.0, second_order_weight=2.0)
    assert share(None) < 0.25  # measured: 0.12
    assert share(guidance) > 0.85  # measured: 0.97


def test_shipped_weights_are_small(net):
    assert (resources.files("fastdiff.models.digits") / "classifier.safetensors").stat().st_size < 150_000
    assert not any(p.requires_grad for p in net.parameters())
    assert not net.training
    assert net(torch.zeros(1, 1, 8, 8), 1.0).shape == (1, CLASSIFIERS["digits"].classes)


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="classifier: expected one of digits, got 'letters'"):
        load_classifier("letters")
    with pytest.raises(FileNotFoundError, match="weights: no such file"):
        load_classifier("digits", tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match=r"weights: expected the .* tensors of DigitsClassifier"):
        load_classifier("digits", resources.files("fastdiff.models.digits") / "digits.safetensors")


def test_the_training_script_writes_what_loads(tmp_path):
    out = tmp_path / "few.safetensors"
    done = CliRunner().invoke(main, ["--out", str(out), "--steps", "3", "--batch", "8"])
    assert done.exit_code == 0, done.output
    assert f"wrote {out}" in done.output
    assert torch.isfinite(load_classifier("digits", out)(torch.zeros(1, 1, 8, 8), 1.0)).all()


def test_training_is_seeded_and_lowers_the_loss():
    data = load_digits("train")
    small = type(data)(data.images[:64], data.labels[:64])
    nets = [train(small, steps=30, batch=32, lr=2e-3, half_life=5.0, seed=0) for _ in range(2)]
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(a, b)

    def loss(net):
        torch.manual_seed(0)
        with torch.no_grad():
            return float(classifier_loss(net.eval(), *small, fastdiff.keys(1, len(small.images)), draw=0))

    torch.manual_seed(0)
    assert loss(nets[0]) < loss(build_classifier()) - 0.1
