"""Digits and points: exact where there is something exact, the same points for ever, and the interface that training relies on."""

from __future__ import annotations

import pickle

import pytest
import torch

import fastdiff
from fastdiff.data import TOYS, ImageData, describe, open_data
from fastdiff.data.image_data import unlabelled
from fastdiff.data.toys import open_toy
from fastdiff.models.digits.data import load_digits
from fastdiff.models.digits.network import SIGMA_DATA


@pytest.mark.parametrize("split", ["train", "test"])
def test_digits_are_the_digits(split):
    data, truth = open_data("digits" if split == "train" else "digits:test"), load_digits(split)
    x, labels = data.batch(torch.arange(len(data)))
    assert torch.equal(x, truth.images)
    assert torch.equal(labels, truth.labels)
    assert torch.equal(data.labels, truth.labels)
    assert (data.shape, data.classes, data.levels, data.normalized) == ((1, 8, 8), 10, 17, False)
    assert len(data) == len(truth.images)


def test_the_statistics_of_the_digits():
    summary = describe(open_data("digits"))
    x = load_digits("train").images.double()
    assert summary.std == pytest.approx(x.std(correction=0).item(), rel=1e-12)
    assert summary.std == pytest.approx(SIGMA_DATA, abs=1e-4)
    assert summary.mean == pytest.approx(x.mean().item(), rel=1e-12)
    assert summary.counts == tuple(torch.bincount(load_digits("train").labels).tolist())
    assert (summary.low, summary.high) == (-1.0, 1.0)


@pytest.mark.parametrize("name", TOYS)
def test_toys_are_points_that_never_change(name):
    data = open_data(name)
    assert (len(data), data.shape, data.classes, data.levels) == (50_000, (2,), 0, 0)
    assert (data.labels == -1).all()
    assert torch.isfinite(data.pixels).all()
    assert torch.equal(data.pixels[:100], open_toy(name, count=100).pixels)  # point i depends on (seed, i) alone
    test = open_data(f"{name}:test")
    assert len(test) == 10_000
    assert not (test.pixels[:100] == data.pixels[:100]).any()
    assert (test.pixels.mean(0) - data.pixels.mean(0)).abs().max() < 0.05  # other points of the same law
    assert (test.pixels.std(0) - data.pixels.std(0)).abs().max() < 0.05


def test_the_checkerboard_has_every_second_square():
    x = open_data("checkerboard").pixels
    assert x.abs().max() <= 1
    cell = ((x + 1) * 2).floor().long().clamp(0, 3)
    counts = torch.zeros(4, 4).index_put_((cell[:, 0], cell[:, 1]), torch.ones(len(x)), accumulate=True)
    black = (torch.arange(4)[:, None] + torch.arange(4)) % 2 == 0
    assert counts[~black].sum() == 0
    assert ((counts[black] / len(x) - 1 / 8).abs() < 0.01).all()


def test_the_moons_are_half_circles():
    x = open_data("moons").pixels.double()
    to_upper = ((x - torch.tensor([-0.5, -0.25])).norm(dim=1) - 1).abs()
    to_lower = ((x - torch.tensor([0.5, 0.25])).norm(dim=1) - 1).abs()
    assert torch.minimum(to_upper, to_lower).max() < 6 * 0.05
    assert (x.mean(0).abs() < 0.02).all()


def test_a_batch_is_its_elements():
    data = open_data("digits")
    x, labels = data.batch([5, 3, 3])
    assert x.dtype == torch.float32
    assert labels.dtype == torch.int64
    for i, index in enumerate([5, 3, 3]):
        one, label = data[index]
        assert torch.equal(one, x[i])
        assert label == int(labels[i])
        assert type(label) is int
    x.zero_()
    assert data[5][0].abs().sum() > 0  # a batch is a copy
    assert torch.equal(data[-1][0], data[len(data) - 1][0])
    assert data.batch([])[0].shape == (0, 1, 8, 8)
    assert data.batch(range(2))[0].shape == (2, 1, 8, 8)


def test_eight_bits_stay_eight_bits_until_a_batch():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(4, 1, 8, 8)
    data = ImageData("a", "b", pixels, unlabelled(4), 0, 256)
    assert data.raw([0]).dtype == torch.uint8
    x, _ = data.batch(torch.arange(4))
    assert torch.equal(x.flatten(), torch.arange(256, dtype=torch.float32) / 127.5 - 1)
    assert (x.min(), x.max()) == (-1, 1)


def test_it_is_a_dataset_for_loaders_and_pickles():
    data = open_data("digits:test")
    assert isinstance(data, torch.utils.data.Dataset)
    x, labels = next(iter(torch.utils.data.DataLoader(data, batch_size=7)))
    assert torch.equal(x, data.batch(range(7))[0])
    assert torch.equal(labels, data.labels[:7])
    assert torch.equal(pickle.loads(pickle.dumps(data)).pixels, data.pixels)
    assert sum(1 for _ in data) == len(data)  # iteration ends


def test_wrong_indices():
    data = open_data("digits:test")
    for index in (len(data), -len(data) - 1):
        with pytest.raises(IndexError, match=r"index: expected -359 \.\. 358, got"):
            data[index]
    with pytest.raises(IndexError, match=r"indices: expected 0 \.\. 358, got -1 \.\. 0"):
        data.batch([0, -1])
    for bad in ([0.5], torch.ones(3, dtype=torch.bool), [[1, 2]]):
        with pytest.raises(TypeError, match=r"indices: expected \[B\] integers"):
            data.batch(bad)


def test_wrong_contents():
    pixels = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"labels: expected \[3\] int64"):
        ImageData("a", "b", pixels, unlabelled(2), 0, 256)
    with pytest.raises(ValueError, match=r"labels: expected -1 \.\. 1, got 0 \.\. 2"):
        ImageData("a", "b", pixels, torch.arange(3), 2, 256)
    with pytest.raises(ValueError, match="pixels: expected uint8 or float32, got float64"):
        ImageData("a", "b", pixels.double(), unlabelled(3), 0, 256)
    with pytest.raises(ValueError, match="expected at least one image"):
        ImageData("a", "b", pixels[:0], unlabelled(0), 0, 256)


@pytest.mark.parametrize("name", ["digits:valid", "moons:0"])
def test_unknown_split_of_a_built_in(name):
    with pytest.raises(ValueError, match=r"data: expected \w+:train or \w+:test, got"):
        open_data(name)


def test_resolution_of_the_digits():
    data = open_data("digits:test", resolution=4, resize="box")
    x, truth = data.batch([0, 1, 2])[0], load_digits("test").images[:3]
    assert (data.shape, data.levels, data.pixels.dtype) == ((1, 4, 4), 256, torch.uint8)
    means = torch.nn.functional.avg_pool2d(truth, 2)
    assert (x - means).abs().max() <= 1 / 255 + 1e-6
    assert open_data("digits", resolution=8).levels == 17
    with pytest.raises(ValueError, match=r"resolution: expected 1 \.\. 8192 pixels, got 0"):
        open_data("digits", resolution=0)
    with pytest.raises(ValueError, match="resize: expected one of lanczos, box, got 'nearest'"):
        open_data("digits", resolution=4, resize="nearest")
    with pytest.raises(ValueError, match=r"resolution: expected images, got points \[2\]"):
        open_data("moons", resolution=4)


def test_training_reads_like_this():
    data = open_data("mixture")
    x, _ = data.batch(torch.randint(len(data), (16,)))
    assert fastdiff.perturb(x, 1.0, 0.5, fastdiff.keys(0, 16)).shape == (16, 2)
