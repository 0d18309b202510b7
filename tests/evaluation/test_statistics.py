"""Statistics of features and their Frechet distance: closed form, scipy, torchmetrics, EDM's files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastdiff import randn
from fastdiff.distributed import World
from fastdiff.evaluation import Moments, Statistics, frechet_distance
from fastdiff.evaluation.metrics import _AsGiven


def gaussian(count: int, dim: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    mix = torch.eye(dim) + 0.3 * randn((dim, dim), 100 + seed)
    return scale * randn((count, dim), seed) @ mix + shift


def test_distance_of_gaussians_is_the_closed_form():
    """Commuting covariances: |mu|^2 + sum (sqrt a - sqrt b)^2."""
    q = torch.linalg.qr(randn((8, 8), 0, dtype=torch.float64)).Q
    a, b = torch.rand(8, dtype=torch.float64) + 0.1, 3 * torch.rand(8, dtype=torch.float64)
    mu = torch.arange(8.0, dtype=torch.float64)
    first, second = Statistics(mu, q @ a.diag() @ q.T), Statistics(2 * mu, q @ b.diag() @ q.T)
    expected = mu.square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    assert frechet_distance(first, second) == pytest.approx(expected.item(), rel=1e-12)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-12)


def test_sampled_gaussians_come_near_their_distance():
    x, y = randn((20000, 4), 0), 1 + 2 * randn((20000, 4), 1)
    assert frechet_distance(Statistics.of(x), Statistics.of(y)) == pytest.approx(4 + 4, rel=0.02)


@pytest.mark.parametrize("count", [500, 20])
def test_distance_is_scipys(count):
    """Also with fewer samples than features, where scipy's root of a singular product is good to 1e-5 only."""
    from scipy.linalg import sqrtm

    a, b = Statistics.of(gaussian(count, 32, 0)), Statistics.of(gaussian(count, 32, 1, 1.5, 0.5))
    root = np.asarray(sqrtm(a.sigma.numpy() @ b.sigma.numpy())).real
    expected = (a.mu - b.mu).square().sum().item() + np.trace((a.sigma + b.sigma).numpy() - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10 if count == 500 else 1e-5)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-12)


def test_distance_is_torchmetrics():
    fid = pytest.importorskip("torchmetrics.image.fid")
    x, y = gaussian(600, 16, 2).double(), gaussian(400, 16, 3, 0.8, 0.1).double()
    net = _AsGiven()
    net.num_features = 16
    metric = fid.FrechetInceptionDistance(feature=net)
    metric.update(x, real=True)
    metric.update(y, real=False)
    assert frechet_distance(Statistics.of(x), Statistics.of(y)) == pytest.approx(metric.compute().item(), rel=1e-9)


def test_moments_are_those_of_the_whole_in_any_batches():
    x = gaussian(301, 6, 4, shift=3.0)
    moments = Moments(6)
    for part in x.split(17):
        moments.add(part)
    found = moments.statistics("mine", World(0, 1, torch.device("cpu")))
    np.testing.assert_allclose(found.mu, x.double().mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.sigma, np.cov(x.double().numpy().T), rtol=1e-10)
    assert (found.count, found.features) == (301, "mine")
    with pytest.raises(ValueError, match="features: expected those of at least 2 images, got 1"):
        Statistics.of(x[:1])


def test_files_round_trip_and_those_of_edm_load(tmp_path):
    path = tmp_path / "a.npz"
    written = Statistics.of(gaussian(50, 5, 5), "mine")
    written.save(path)
    found = Statistics.load(path)
    assert torch.equal(found.mu, written.mu)
    assert torch.equal(found.sigma, written.sigma)
    assert (found.count, found.features) == (50, "mine")
    assert list(tmp_path.iterdir()) == [path]

    np.savez(path, mu=written.mu.numpy(), sigma=written.sigma.numpy())  # as NVlabs/edm's fid.py ref writes it
    edm = Statistics.load(path)
    assert (edm.count, edm.features) == (None, None)
    assert frechet_distance(edm, written) == pytest.approx(0, abs=1e-12)
    with np.load(path) as file:  # and as it reads ours
        assert file["mu"].dtype == file["sigma"].dtype == np.float64


def test_files_that_are_something_else(tmp_path):
    path = tmp_path / "a.npz"
    for spoil in (
        lambda: np.savez(path, images=np.zeros(3)),
        lambda: path.write_bytes(b"\x00" * 20),
        lambda: np.savez(path, mu=np.zeros(3), sigma=np.zeros((2, 2))),
        lambda: np.savez(path, mu=np.array([None]), sigma=np.zeros((1, 1))),
        lambda: np.savez(path, mu=np.array([np.nan]), sigma=np.zeros((1, 1))),
        lambda: path.write_bytes(b""),
    ):
        spoil()
        with pytest.raises(ValueError, match=r"reference: expected an \.npz with mu"):
            Statistics.load(path)
    with pytest.raises(FileNotFoundError):
        Statistics.load(tmp_path / "none.npz")


def test_statistics_of_different_extractors_are_never_compared():
    x = gaussian(50, 5, 6)
    with pytest.raises(ValueError, match="statistics: expected those of one extractor, got a and b"):
        frechet_distance(Statistics.of(x, "a"), Statistics.of(x, "b"))
    with pytest.raises(ValueError, match="the same number of features, got 5 and 4"):
        frechet_distance(Statistics.of(x), Statistics.of(x[:, :4]))
