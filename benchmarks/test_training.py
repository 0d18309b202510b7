"""A training step of the digits preset against the loop that people write: eager noise and loss, an average kept tensor by tensor."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

import fastdiff
from benchmarks.peers import eager_edm_loss, update_average
from fastdiff import Stream
from fastdiff.distributed import World
from fastdiff.training import PRESETS
from fastdiff.training.batches import Batch
from fastdiff.training.loop import _Run

BATCH = 64


class PlainLoop:
    """EDM's training step as in its repository: one image batch, Adam, clipped gradients, the average of the weights."""

    def __init__(self, channels_last: bool = False, compiled: bool = False) -> None:
        torch.manual_seed(0)
        from fastdiff.models import build

        self.config = PRESETS["digits"]
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.net = build(self.config.spec).train().to(memory_format=self.format)
        self.called = torch.compile(self.net, dynamic=False) if compiled else self.net
        self.average = copy.deepcopy(self.net).eval()
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-3, betas=(0.9, 0.99))

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        images = images.contiguous(memory_format=self.format)
        loss = eager_edm_loss(self.called, self.net.sigma_data, images, labels, self.config.p_mean, self.config.p_std)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        update_average(self.average, self.net, 0.999)


@pytest.fixture(params=[False, True], ids=["eager", "compiled"])
def run(tmp_path, request):
    torch.manual_seed(0)
    return _Run(PRESETS["digits"].changed({"batch": BATCH, "compile": request.param}), tmp_path, World(0, 1, torch.device("cpu")))


def test_training_step_of_digits(compare, run):
    """compile=true is the best setting here; what a user gets who compiles the network of a plain loop stands beside it."""
    loaded = run.source.load(list(range(BATCH)))
    images, labels = loaded["x0"], loaded["labels"]
    one_hot = nn.functional.one_hot(labels, 10).float()
    key = fastdiff.keys(0, BATCH)
    batch = Batch(images.contiguous(memory_format=torch.channels_last), labels, key, {})
    plain, last = PlainLoop(), PlainLoop(channels_last=True)

    def check():
        """The same loss for the same noise, in evaluation mode so that nothing is dropped."""
        run.objective.eval()
        sigma = run.objective.levels.draw(key)
        z = fastdiff.normal(images, key, 0, int(Stream.DATA))
        net = run.objective.net
        ours = run.objective(images, labels, key).mean()
        weight = (sigma**-2 + net.sigma_data**-2).float()
        D = net(images + sigma.float()[:, None, None, None] * z, sigma.float(), one_hot)
        torch.testing.assert_close(ours, (weight[:, None, None, None] * (D - images) ** 2).mean(), rtol=1e-4, atol=0)
        run.objective.train()

    sigma = torch.ones(BATCH)

    def network() -> None:
        plain.net(images, sigma, one_hot).mean().backward()

    peers: dict[str, Callable[[], None]] = {
        "the network's forward and backward alone": network,
        "plain loop": lambda: plain.step(images, one_hot),
        "plain loop, channels_last": lambda: last.step(images, one_hot),
    }
    name = f"training step, digits preset, batch {BATCH}"
    if run.config.compile:
        compiled = PlainLoop(channels_last=True, compiled=True)
        peers["plain loop, channels_last, network under torch.compile"] = lambda: compiled.step(images, one_hot)
        name += ", compile=true"
    compare(name, lambda: run.step([batch]), peers, check, {"plain loop": 1.5} if run.config.compile else {}, rounds=9)


def test_loss_and_its_gradient(compare):
    """The network apart: perturb and the loss with its gradient, against the same eager."""
    shape = (64, 3, 32, 32)
    x0, F = torch.randn(shape), torch.randn(shape, requires_grad=True)
    key = fastdiff.keys(0, 64)
    sigma = torch.rand(64, dtype=torch.float64) + 0.1
    from fastdiff.losses import diffusion_loss
    from fastdiff.parametrizations import EDM

    weight = sigma**-2 + 4

    def ours():
        loss = diffusion_loss(lambda x, label: F, x0, sigma, key, parametrization=EDM(), weight=weight).mean()
        return torch.autograd.grad(loss, F)[0]

    def eager(z=None):
        s, w = (v.float()[:, None, None, None] for v in (sigma, weight))
        x = x0 + s * (torch.randn_like(x0) if z is None else z)
        variance = s**2 + 0.25
        _net_in = x / variance.sqrt()
        D = 0.25 / variance * x + 0.5 * s / variance.sqrt() * F
        loss = (w * (D - x0) ** 2).sum((1, 2, 3)).mean()
        return torch.autograd.grad(loss, F)[0]

    def check():
        torch.testing.assert_close(ours(), eager(fastdiff.normal(x0, key, 0, int(Stream.DATA))), rtol=1e-3, atol=1e-5)

    compare(f"EDM's noise, loss and gradient {list(shape)}, no network", ours, {"eager": eager}, check)
