"""Inception score, kernel distance, precision and recall, on sets whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from fastdiff import randn
from fastdiff.evaluation import inception_score, kernel_distance, precision_recall


def test_inception_score_counts_the_classes_that_are_sure_and_even():
    pytest.importorskip("torchmetrics")
    sure = 100 * torch.nn.functional.one_hot(torch.arange(1000) % 5, 10).float()
    mean, std = inception_score(sure)
    assert mean == pytest.approx(5, rel=0.05)
    assert std is not None
    assert inception_score(sure, splits=1) == (pytest.approx(5, rel=1e-6), None)
    assert inception_score(torch.zeros(100, 10))[0] == pytest.approx(1)


def test_kernel_distance_is_near_zero_for_one_distribution_and_the_closed_form_for_others():
    """Constant features u and v: k(u, u) + k(v, v) - 2 k(u, v)."""
    pytest.importorskip("torchmetrics")
    same, spread = kernel_distance(randn((1500, 8), 0), randn((1500, 8), 1))
    assert abs(same) < 0.02 < kernel_distance(randn((1500, 8), 0), 0.5 + randn((1500, 8), 1))[0]
    assert 0 < spread < 0.1
    u, v = torch.ones(20, 4), 2 * torch.ones(30, 4)
    assert kernel_distance(u, v)[0] == pytest.approx(2.0**3 + 5.0**3 - 2 * 3.0**3)


def test_random_draws_are_seeded_and_leave_the_global_generator_alone():
    pytest.importorskip("torchmetrics")
    x, y = randn((300, 4), 0), randn((300, 4), 1)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = kernel_distance(x, y, subsets=5), inception_score(x)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert (kernel_distance(x, y, subsets=5), inception_score(x)) == first
    assert kernel_distance(x, y, subsets=5, seed=1) != first[0]


def test_precision_and_recall_of_identical_and_disjoint_sets():
    x = randn((200, 3), 0)
    assert precision_recall(x, x) == (1.0, 1.0)
    assert precision_recall(x, x + 100) == (0.0, 0.0)


def test_a_collapsed_model_is_precise_and_recalls_little():
    data = torch.cat([randn((200, 2), 0), 50 + randn((200, 2), 1)])
    precision, recall = precision_recall(0.5 * randn((400, 2), 2), data)
    assert precision > 0.95
    assert recall <= 0.5


@pytest.mark.parametrize("neighbours", [1, 3])
def test_precision_and_recall_are_the_definition(neighbours):
    x, y = randn((90, 2), 3), 0.7 + randn((70, 2), 4)

    def share(points, centres):
        own = [sorted(math.dist(a, b) for b in centres.tolist()) for a in centres.tolist()]
        inside = [
            any(math.dist(p, c) <= row[neighbours] * (1 + 1e-6) for c, row in zip(centres.tolist(), own, strict=True))
            for p in points.tolist()
        ]
        return sum(inside) / len(points)

    expected = share(x, y), share(y, x)
    for chunk in (2, 16, 1000):
        assert precision_recall(x, y, neighbours=neighbours, chunk=chunk) == expected


def test_errors_name_what_came():
    x = torch.zeros(5, 3)
    with pytest.raises(ValueError, match=r"reference: expected \[N, 3\] with N >= 2, got \[5, 2\]"):
        precision_recall(x, torch.zeros(5, 2))
    with pytest.raises(ValueError, match=r"features: expected \[N, D\] with N >= 2, got \[1, 3\]"):
        kernel_distance(x[:1], x)
    with pytest.raises(ValueError, match=r"neighbours: expected 1 \.\. 4 with 5 points, got 5"):
        precision_recall(x, x, neighbours=5)
    with pytest.raises(ValueError, match="logits"):
        inception_score(torch.zeros(3))


def test_without_torchmetrics_the_error_names_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(ImportError, match=r"pip install 'fastdiff-torch\[eval\]'"):
        inception_score(torch.zeros(10, 3))
