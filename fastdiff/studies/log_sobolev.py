"""log-sobolev: Langevin dynamics forgets its start at least at the rate of the log-Sobolev inequality.

    dX = grad log pi(X) dt + sqrt(2) dW,   pi = N(0, Sigma):   dX = -Sigma^-1 X dt + sqrt(2) dW

Convention: pi satisfies the log-Sobolev inequality with constant C when KL(rho | pi) <= C/2 * I(rho | pi) for every rho, I the
relative Fisher information. For a Gaussian C is the largest eigenvalue of Sigma (Bakry and Emery: 1/C is the least curvature of
-log pi). Since d/dt KL(rho_t | pi) = -I(rho_t | pi),

    KL(rho_t | pi) <= KL(rho_0 | pi) exp(-2 t/C)

From a Gaussian start the law stays Gaussian, N(m, S) with m(t) = e^(-At) m(0), S(t) = Sigma + e^(-At) (S(0) - Sigma) e^(-At),
A = Sigma^-1, and KL = (tr(A S) - d + m'A m - log det(A S))/2. A start that is moved along the longest axis has the rate of the
bound as t grows; one that is not falls faster, here twice as fast.

Chains come from `Langevin` in the one loop: x + a/2 score + sqrt(a) z is an Euler-Maruyama step of length dt = a/2, whose law is
Gaussian too: m <- M m, S <- M S M + 2 dt I, M = I - dt A. Their KL is that of the Gaussian with their mean and covariance; 95 % of
such estimates lie in a band that follows from the laws of both, which is the test of the chains at every t.

Source: Vempala and Wibisono 2019 (arXiv:1903.08568), theorem 1 and lemma 2 with alpha = 1/C; Bakry and Emery 1985.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..figures import BLUE, GREEN
from ..loop import run
from ..noise import keys, randn
from ..parametrizations import Score
from ..samplers import Langevin
from ..schedules import Float, Linear
from ._common import Numbers, Part, Recorder, Study, seed_of
from .mixture import Mixture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The target N(0, SIGMA): these variances along axes turned by 30 degrees. NOISE of it is the sampler's noise level.
VARIANCES, TURN, NOISE = (2.0, 0.5), math.radians(30), 0.1
AXES = torch.tensor([[math.cos(TURN), -math.sin(TURN)], [math.sin(TURN), math.cos(TURN)]], dtype=torch.float64)
EYE = torch.eye(2, dtype=torch.float64)
SIGMA = AXES @ torch.diag(torch.tensor(VARIANCES, dtype=torch.float64)) @ AXES.T

#: Starts N(m, s^2 I): (m, s).
STARTS = {
    "moved along the longest axis": (3.0 * AXES[:, 0], 1.0),
    "moved along the shortest axis, too wide": (2.5 * AXES[:, 1], 2.0),
}


def gaussian_kl(mean: Tensor, covariance: Tensor) -> Tensor:
    """[...] KL(N(mean, covariance) | N(0, SIGMA)) in nats, for [..., d] and [..., d, d]."""
    A = torch.linalg.inv(SIGMA)
    relative, shift = A @ covariance, (mean @ A * mean).sum(-1)
    return 0.5 * (relative.diagonal(dim1=-2, dim2=-1).sum(-1) - mean.shape[-1] + shift - torch.logdet(relative))


def law(t: float, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the continuous dynamics at time t, from those at 0."""
    decay = torch.linalg.matrix_exp(-t * torch.linalg.inv(SIGMA))
    return decay @ mean, SIGMA + decay @ (covariance - SIGMA) @ decay


def band(steps: list[int], dt: float, mean: Tensor, covariance: Tensor, chains: int, seed: int) -> tuple[Float, Float]:
    """Between what 95 % of the estimates from so many chains lie after each number of steps.

    The mean of n samples is N(m, S/n), their covariance L B B'L'/(n - 1) with S = L L' and Bartlett's lower triangular B: normals
    below the diagonal, roots of chi-squared numbers on it, sqrt(n - 1) + z/sqrt(2) for many chains (Wishart 1928; Bartlett 1933).
    """
    z = randn((2000, 5), seed, dtype=torch.float64)
    B = torch.stack([z[:, 0] / math.sqrt(2), torch.zeros(len(z)), z[:, 1], z[:, 2] / math.sqrt(2)], dim=1).reshape(-1, 2, 2)
    B = B + math.sqrt(chains - 1) * EYE
    M = EYE - dt * torch.linalg.inv(SIGMA)
    bounds = []
    for done, wanted in zip([0, *steps], steps, strict=False):
        for _ in range(wanted - done):
            mean, covariance = M @ mean, M @ covariance @ M + 2 * dt * EYE
        L = torch.linalg.cholesky(covariance)
        estimates = gaussian_kl(mean + z[:, 3:] @ L.T / math.sqrt(chains), L @ B @ B.mT @ L.T / (chains - 1))
        bounds.append(np.quantile(estimates.numpy(), (0.025, 0.975)))
    low, high = np.stack(bounds, axis=1)
    return low, high


def compute(seed: int, quick: bool) -> tuple[Numbers, Any]:
    """KL over time from both starts: exact, and from chains."""
    chains, dt, end = (4000, 0.05, 3.0) if quick else (40_000, 0.02, 6.0)
    constant = float(torch.linalg.eigvalsh(SIGMA).max())
    # The sampler follows the score of data with noise on them: N(0, SIGMA - NOISE^2 I) with that noise is the target.
    data, net = Mixture([1.0], [[0.0, 0.0]], (SIGMA - NOISE**2 * EYE)[None]), Score(schedule=Linear(), label_is_sigma=True)
    numbers: Numbers = {"log_sobolev_constant": constant, "bound_rate": 2 / constant, "chains": chains, "dt": dt}
    curves = {}
    for i, (name, (mean, std)) in enumerate(STARTS.items()):
        covariance, key = std**2 * EYE, keys(seed_of(seed, Part.LATENTS), chains, first=i * chains)
        sampler = Langevin(sigma=NOISE, step_size=2 * dt, steps=round(end / dt), prior_std=std)
        latents = randn((chains, 2), key, dtype=torch.float64) + mean / std
        estimates = Recorder(std * latents, lambda x: float(gaussian_kl(x.mean(0), x.T.cov())), every=round(end / dt / 60))
        run(sampler.plan(net), data.network(net), latents, key=key, callback=estimates)

        t = np.linspace(0, end, 601)
        exact = np.array([float(gaussian_kl(*law(float(v), mean, covariance))) for v in t])
        of_chains, t_chains = np.array(estimates.kept), dt * np.array(estimates.calls)
        low, high = band(estimates.calls, dt, mean, covariance, chains, seed_of(seed, Part.FLOOR))
        clear = high < 2 * low  # elsewhere the chains' scatter hides their KL
        rates = -np.diff(np.log(exact)) / np.diff(t)
        numbers[name] = {
            "kl_start": float(exact[0]),
            "least_rate": float(rates.min()),
            "last_rate": float(rates[-1]),
            "exact_over_bound_max": float((exact / (exact[0] * np.exp(-2 * t / constant))).max()),
            "chains_rate": -float(np.polyfit(t_chains[clear], np.log(of_chains[clear]), 1)[0]),
            "chains_over_bound_max": float((of_chains / (exact[0] * np.exp(-2 * t_chains / constant)))[clear].max()),
            "chains_in_band": float(((low <= of_chains) & (of_chains <= high)).mean()),
        }
        curves[name] = (t, exact, t_chains, of_chains, low, high)
    return numbers, curves


def finding(numbers: Numbers) -> str:
    """In one sentence."""
    first, second = (numbers[name]["least_rate"] for name in STARTS)
    return (
        f"Langevin dynamics: KL falls at least at the log-Sobolev rate 2/C = {numbers['bound_rate']:.2f}; "
        f"here at {first:.2f} and {second:.2f} or faster"
    )


def draw(figure: Figure, numbers: Numbers, rest: Any) -> None:
    """One panel for each start."""
    axes = figure.subplots(1, len(rest), sharey=True)
    for ax, color, (name, (t, exact, t_chains, of_chains, low, high)) in zip(axes, (BLUE, GREEN), rest.items(), strict=True):
        ax.semilogy(t, exact[0] * np.exp(-t * numbers["bound_rate"]), "--", color="black", label="bound KL(0) exp(-2t/C)")
        ax.semilogy(t, exact, color=color, label="exact KL")
        ax.semilogy(t_chains, of_chains, "o", color=color, mfc="white", ms=4, label=f"estimate from {numbers['chains']:,} chains")
        ax.fill_between(t_chains, low, high, color=color, alpha=0.25, lw=0, label="95 % of such estimates")
        ax.set(title=f"Start {name}", xlabel="time t")
        ax.legend(loc="upper right")
    largest, least = max(curve[1][0] for curve in rest.values()), min(curve[4].min() for curve in rest.values())
    axes[0].set(ylabel="KL(law of X | target), nats", ylim=(least / 2, 2 * largest))


STUDY = Study(
    name="log-sobolev",
    about="KL divergence along Langevin dynamics falls at least at the log-Sobolev rate",
    source="Vempala and Wibisono 2019 (arXiv:1903.08568), theorem 1; Bakry and Emery 1985",
    compute=compute,
    finding=finding,
    draw=draw,
    size=(11.0, 4.6),
)
