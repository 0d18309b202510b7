"""fastdiff.compat.score_sde against the original's samplers as its users run them: the sampler alone, and with a real network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from benchmarks.end_to_end import sampler_share
from benchmarks.sde_peers import BETA_MAX, BETA_MIN, EPS, column, langevin_update, pc_sampler, reverse_diffusion_update
from fastdiff.compat.score_sde import losses, sampling, sde_lib
from fastdiff.models import SongUNet

CIFAR, SMALL = (64, 3, 32, 32), (2, 3, 8, 8)


class Constant:
    """A network that costs nothing."""

    def __init__(self, shape) -> None:
        self.eps = torch.randn(shape, generator=torch.Generator().manual_seed(9))

    def __call__(self, x, labels):
        return self.eps


def linear(x, labels):
    """A network whose samples depend on every coefficient."""
    return 0.1 * x + 0.2


def replayed(shape, count: int) -> Callable:
    """A maker of noise callables that replay the same draws, the prior's first."""
    generator = torch.Generator().manual_seed(3)
    draws = [torch.randn(shape, generator=generator) for _ in range(count)]

    def replay():
        rest = iter(draws)
        return lambda like: next(rest)

    return replay


def marginal_prob(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the VP SDE."""
    log_mean = -0.25 * t**2 * (BETA_MAX - BETA_MIN) - 0.5 * t * BETA_MIN
    return column(torch.exp(log_mean)) * x, torch.sqrt(1 - torch.exp(2 * log_mean))


def original_score(net: Callable, x: Tensor, t: Tensor) -> Tensor:
    """The score as the original finds it: the mean of zeros is computed for the sake of the standard deviation."""
    output = net(x, t * 999)
    return -output / column(marginal_prob(torch.zeros_like(x), t)[1])


@torch.no_grad()
def original_sampler(net: Callable, latents: Tensor, steps: int, noise: Callable = torch.randn_like, ancestral: bool = False) -> Tensor:
    """The original's loop on the VP SDE: Langevin and reverse diffusion, or ancestral sampling alone; the last mean."""
    betas = torch.linspace(BETA_MIN / steps, BETA_MAX / steps, steps, device=latents.device)
    times = torch.linspace(1.0, EPS, steps, device=latents.device)
    x = mean = latents
    for i in range(steps):
        t = torch.ones(len(x), device=x.device) * times[i]
        beta = betas[(t * (steps - 1)).long()]
        if ancestral:
            mean = (x + column(beta) * original_score(net, x, t)) / column(torch.sqrt(1 - beta))
            x = mean + column(torch.sqrt(beta)) * noise(x)
        else:
            x = langevin_update(x, original_score(net, x, t), noise(x), 1 - beta, 0.16)
            x, mean = reverse_diffusion_update(x, original_score(net, x, t), noise(x), beta)
    return mean


def sampler_of(predictor: str, corrector: str, shape, steps: int, noise=None) -> Callable:
    """Ours, as its users make it."""
    return sampling.get_pc_sampler(
        sde_lib.VPSDE(BETA_MIN, BETA_MAX, steps), shape, sampling.get_predictor(predictor), sampling.get_corrector(corrector),
        lambda x: x, 0.16, continuous=True, eps=EPS, device="cpu", noise=noise,
    )  # fmt: skip


ancestral_sampler = partial(original_sampler, ancestral=True)

#: predictor, corrector, the peers called as peer(net, latents, steps, noise=...), and how often they draw in a step.
KINDS: dict[str, tuple[str, str, dict[str, Callable], int]] = {
    "reverse diffusion + Langevin": (
        "reverse_diffusion",
        "langevin",
        {"original": original_sampler, "leaner transcription": pc_sampler},
        2,
    ),
    "ancestral sampling": ("ancestral_sampling", "none", {"original": ancestral_sampler}, 1),
}


def checked(kind: str, steps: int) -> Callable[[], None]:
    """A check that both programs turn the same draws into the same samples."""
    predictor, corrector, peers, draws = KINDS[kind]

    def check():
        replay = replayed(SMALL, 1 + draws * steps)
        ours, _ = sampler_of(predictor, corrector, SMALL, steps)(linear, noise=replay())
        for peer in peers.values():
            noise = replay()
            torch.testing.assert_close(ours, peer(linear, noise(ours), steps, noise=noise), rtol=2e-3, atol=2e-3)

    return check


@pytest.mark.parametrize(("kind", "target"), [("reverse diffusion + Langevin", 7), ("ancestral sampling", 7)])
def test_sampler_alone(compare, kind, target):
    steps, net = 100, Constant(CIFAR)
    predictor, corrector, originals, draws = KINDS[kind]
    ours = sampler_of(predictor, corrector, CIFAR, steps)
    peers = {name: lambda peer=peer: peer(net, torch.randn(CIFAR), steps) for name, peer in originals.items()}
    name = f"score_sde {kind}, {draws * steps} calls {list(CIFAR)}"
    compare(name, lambda: ours(net), peers, checked(kind, steps), dict.fromkeys(peers, target), rounds=5)


def test_with_a_network(compare):
    """A small DDPM++; the sampler's share of both programs is in the case's name."""
    steps, shape = 20, (2, 3, 32, 32)
    torch.manual_seed(0)
    unet = SongUNet(32, 3, 3, model_channels=32, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[16]).eval()

    def net(x, labels):
        return unet(x, labels, None)

    ours = sampler_of("reverse_diffusion", "langevin", shape, steps)

    def theirs(net=net):
        return original_sampler(net, torch.randn(shape), steps)

    kind = "reverse diffusion + Langevin"
    shares = f"sampler's share {sampler_share(ours, net):.1%}, original's {sampler_share(theirs, net):.1%}"
    case = f"score_sde {kind}, small DDPM++, {2 * steps} calls {list(shape)} ({shares})"
    compare(case, lambda: ours(net), {"original": theirs}, checked(kind, steps), rounds=3)


def test_sde_loss(compare):
    """Loss and gradient at a network that costs little, against the original's eager loss."""
    sde, data = sde_lib.VPSDE(BETA_MIN, BETA_MAX, 1000), torch.rand(CIFAR) * 2 - 1
    weight = torch.tensor(0.1, requires_grad=True)

    def net(x, labels):
        return weight * x

    loss_fn = losses.get_sde_loss_fn(sde, True, reduce_mean=False, likelihood_weighting=False)

    def eager(t: Tensor, z: Tensor) -> Tensor:
        mean, std = marginal_prob(data, t)
        score = original_score(net, mean + column(std) * z, t)
        residual = torch.square(score * column(std) + z)
        return (0.5 * residual.reshape(len(data), -1).sum(dim=-1)).mean()

    def check():
        t, z = torch.linspace(0.01, 1, len(data)), torch.randn_like(data)
        torch.testing.assert_close(loss_fn(net, data, t=t, noise=z), eager(t, z), rtol=1e-4, atol=1e-3)

    def original():
        eager(torch.rand(len(data)) * (1 - 1e-5) + 1e-5, torch.randn_like(data)).backward()

    compare(f"score_sde loss and gradient {list(CIFAR)}", lambda: loss_fn(net, data).backward(), {"original": original}, check, rounds=7)
