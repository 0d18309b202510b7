"""The digits model: its data, its weights, and whether what it generates are digits."""

from __future__ import annotations

from importlib import resources

import pytest
import torch
from torch.nn import functional as nnf

import fastdiff
from fastdiff.models import MODELS, load_model
from fastdiff.models.digits.data import load_digits
from fastdiff.models.digits.network import SIGMA_DATA
from fastdiff.models.digits.train import edm_loss, train


def test_data_is_split_once_and_for_all():
    train_set, test_set = load_digits("train"), load_digits("test")
    assert len(train_set.images) == 1438
    assert len(test_set.images) == 359
    assert train_set.images.min() == -1
    assert train_set.images.max() == 1
    assert set(test_set.labels.tolist()) == set(range(10))
    assert float(train_set.images.std()) == pytest.approx(SIGMA_DATA, abs=5e-5)
    assert test_set.labels[:8].tolist() == load_digits("test").labels[:8].tolist()
    with pytest.raises(ValueError, match="split: expected 'train' or 'test', got 'dev'"):
        load_digits("dev")


def test_shipped_weights_are_small_and_load():
    weights = resources.files("fastdiff.models.digits") / "digits.safetensors"
    assert weights.stat().st_size < 4_000_000
    assert not any(p.requires_grad for p in load_model("digits").parameters())


def test_the_model_denoises_unseen_digits():
    """The loss on the test split at a middle noise level is far below that of the best linear denoiser."""
    net = load_model("digits")
    data = load_digits("test")
    sigma = torch.full((len(data.images),), 0.6)
    noisy = data.images + 0.6 * fastdiff.randn(data.images.shape, seeds=0)
    D = net(noisy, sigma, nnf.one_hot(data.labels, 10))
    linear = data.images.mean() + SIGMA_DATA**2 / (SIGMA_DATA**2 + 0.36) * (noisy - data.images.mean())
    assert float((D - data.images).square().mean()) < 0.25 * float((linear - data.images).square().mean())


@pytest.mark.slow
def test_a_classifier_recognises_the_samples():
    """A classifier of the real training digits gives at least 90 % of 500 samples a probability above 0.8."""
    from sklearn.neural_network import MLPClassifier

    real, held_out = load_digits("train"), load_digits("test")
    classifier = MLPClassifier((128,), alpha=1e-2, max_iter=300, random_state=0)
    classifier.fit(real.images.flatten(1).numpy(), real.labels.numpy())
    assert classifier.score(held_out.images.flatten(1).numpy(), held_out.labels.numpy()) > 0.95

    wanted = torch.arange(500) % 10
    samples = fastdiff.sample(load_model("digits"), (500, *MODELS["digits"].shape), seeds=0, class_labels=nnf.one_hot(wanted, 10).float())
    probabilities = torch.from_numpy(classifier.predict_proba(samples.flatten(1).numpy()))
    assert float((probabilities.max(1).values > 0.8).float().mean()) >= 0.9
    assert float((probabilities.argmax(1) == wanted).float().mean()) >= 0.9
    assert float(samples.std()) == pytest.approx(float(real.images.std()), rel=0.1)


def test_training_runs_is_seeded_and_lowers_the_loss():
    data = load_digits("train")
    small = type(data)(data.images[:64], data.labels[:64])
    nets = [train(small, steps=12, batch=16, lr=2e-3, half_life=5.0, seed=0) for _ in range(2)]
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(a, b)
    one_hot = nnf.one_hot(small.labels, 10).float()

    def loss(net):
        torch.manual_seed(0)
        with torch.no_grad():
            return float(edm_loss(net.eval(), small.images, one_hot))

    torch.manual_seed(0)
    assert loss(nets[0]) < loss(MODELS["digits"].build())
