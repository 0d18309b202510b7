"""log-sobolev: Langevin dynamics forgets its start at least at the rate of the log-Sobolev inequality.

    dX = grad log pi(X) dt + sqrt(2) dW,   pi = N(0, Sigma):   dX = -Sigma^-1 X dt + sqrt(2) dW

Convention: pi satisfies the log-Sobolev inequality with constant C when KL(rho | pi) <= C/2 * I(rho | pi) for every rho, I the
relative Fisher information. For a Gaussian C is the largest eigenvalue of Sigma (Bakry and Emery: 1/C is the least curvature of
-log pi). Since d/dt KL(rho_t | pi) = -I(rho_t | pi),

    KL(rho_t | pi) <= KL(rho_0 | pi) exp(-2 t/C)

From a Gaussian start the law stays Gaussian, N(m, S) with m(t) = e^(-At) m(0), S(t) = Sigma + e^(-At) (S(0) - Sigma) e^(-At),
A = Sigma^-1, and KL = (tr(A S) - d + m'A m - log det(A S))/2. A start that is moved along the longest axis meets the bound
as t grows; any other falls faster. Samples come from `Langevin` in the one loop: x + a/2 score + sqrt(a) z is an Euler-Maruyama
step of length dt = a/2. Their KL is that of the Gaussian with their mean and covariance. It ends on a floor: p/(2 n) for n chains and
p = d + d(d+1)/2 fitted numbers, and the KL of where steps of that length end, N(0, Sigma (I - dt A/2)^-1).

Source: Vempala and Wibisono 2019 (arXiv:1903.08568), theorem 1 and lemma 2 with alpha = 1/C; Bakry and Emery 1985.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..loop import run
from ..noise import keys, randn
from ..parametrizations import Score
from ..samplers import Langevin
from ..schedules import Linear
from ._common import BLUE, GREEN, Numbers, Part, Recorder, Study, seed_of
from .mixture import Mixture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The target N(0, SIGMA): variances 2 and 0.5 along axes turned by 30 degrees. NOISE of it is the sampler's noise level.
VARIANCES, TURN, NOISE = (2.0, 0.5), math.radians(30), 0.1
AXES = torch.tensor([[math.cos(TURN), -math.sin(TURN)], [math.sin(TURN), math.cos(TURN)]], dtype=torch.float64)
SIGMA = AXES @ torch.diag(torch.tensor(VARIANCES, dtype=torch.float64)) @ AXES.T

#: Starts N(m, s^2 I): (m, s).
STARTS = {
    "moved along the longest axis": (3.0 * AXES[:, 0], 1.0),
    "moved along the shortest axis, too wide": (2.5 * AXES[:, 1], 2.0),
}


def gaussian_kl(mean: Tensor, covariance: Tensor, target: Tensor) -> float:
    """KL(N(mean, covariance) | N(0, target)) in nats: (tr(A S) - d + m'A m - log det(A S))/2, A = target^-1."""
    A = torch.linalg.inv(target)
    return 0.5 * float(torch.trace(A @ covariance) - len(mean) + mean @ A @ mean - torch.logdet(A @ covariance))


def law(t: float, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the continuous dynamics at time t, from those at 0."""
    decay = torch.linalg.matrix_exp(-t * torch.linalg.inv(SIGMA))
    return decay @ mean, SIGMA + decay @ (covariance - SIGMA) @ decay


def compute(seed: int, quick: bool) -> tuple[Numbers, Any]:
    """KL over time of both starts: exact, and from chains."""
    chains, dt, end = (4000, 0.05, 3.0) if quick else (40_000, 0.02, 6.0)
    constant = float(torch.linalg.eigvalsh(SIGMA).max())
    # The sampler follows the score of data with noise on them: data N(0, Sigma - NOISE^2 I) make that noisy density N(0, Sigma).
    data = Mixture([1.0], [[0.0, 0.0]], (SIGMA - NOISE**2 * torch.eye(2))[None])
    net = Score(schedule=Linear(), label_is_sigma=True)
    arrived = SIGMA @ torch.linalg.inv(torch.eye(2, dtype=torch.float64) - dt / 2 * torch.linalg.inv(SIGMA))
    floor = 5 / (2 * chains) + gaussian_kl(torch.zeros(2, dtype=torch.float64), arrived, SIGMA)
    numbers: Numbers = {"log_sobolev_constant": constant, "bound_rate": 2 / constant, "chains": chains, "dt": dt, "floor_of_chains": floor}
    curves = {}
    for i, (name, (mean, std)) in enumerate(STARTS.items()):
        covariance = std**2 * torch.eye(2, dtype=torch.float64)
        sampler = Langevin(sigma=NOISE, step_size=2 * dt, steps=round(end / dt), prior_std=std)
        seeds = seed_of(seed, Part.LATENTS) + len(Part) * 1000 * i
        latents = randn((chains, 2), seeds, dtype=torch.float64) + mean / std
        moments = Recorder(std * latents, lambda x: gaussian_kl(x.mean(0), x.T.cov(), SIGMA), every=round(end / dt / 60))
        run(sampler.plan(net), data.network(net), latents, key=keys(seeds, chains), callback=moments)
        t = np.linspace(0, end, 601)
        exact = np.array([gaussian_kl(*law(float(v), mean, covariance), SIGMA) for v in t])
        sampled_t, sampled = dt * np.array(moments.calls), np.array(moments.kept)
        rates = -np.diff(np.log(exact)) / np.diff(t)
        above = sampled > 20 * floor  # where the chains' own scatter does not bend the line
        numbers[name] = {
            "kl_start": float(exact[0]),
            "least_rate": float(rates.min()),
            "last_rate": float(rates[-1]),
            "exact_over_bound_max": float((exact / (exact[0] * np.exp(-2 * t / constant))).max()),
            "rate_of_chains": -float(np.polyfit(sampled_t[above], np.log(sampled[above]), 1)[0]),
            "chains_over_bound_max": float((sampled[above] / (sampled[0] * np.exp(-2 * sampled_t[above] / constant))).max()),
            "chains_minus_exact_max": float(np.abs(sampled - np.interp(sampled_t, t, exact)).max() / exact[0]),
        }
        curves[name] = (t, exact, sampled_t, sampled)
    return numbers, curves


def finding(numbers: Numbers) -> str:
    """In one sentence."""
    least = min(numbers[name]["least_rate"] for name in STARTS)
    return f"Langevin dynamics: KL falls at a rate of at least {least:.3f}, the log-Sobolev bound is 2/C = {numbers['bound_rate']:.3f}"


def draw(figure: Figure, numbers: Numbers, rest: Any) -> None:
    """One panel for each start."""
    axes = figure.subplots(1, len(rest), sharey=True)
    lowest = numbers["floor_of_chains"]
    for ax, color, (name, (t, exact, sampled_t, sampled)) in zip(axes, (BLUE, GREEN), rest.items(), strict=True):
        ax.semilogy(t, exact[0] * np.exp(-t * numbers["bound_rate"]), "--", color="black", label="bound KL(0) exp(-2t/C)")
        ax.semilogy(t, exact, color=color, label="exact KL")
        ax.semilogy(sampled_t, sampled, "o", color=color, mfc="white", ms=4, label=f"{numbers['chains']:,} Langevin chains")
        ax.axhspan(lowest / 30, lowest, color="#eeeeee", zorder=0)
        ax.set(title=f"Start {name}", xlabel="time t", ylim=(lowest / 5, 2 * max(curve[1][0] for curve in rest.values())))
        ax.legend(loc="upper right")
    axes[0].text(
        0.02, lowest, " floor of the chains: their number and step size", va="top", fontsize=9, color="#777777", transform=axes[0].get_yaxis_transform()
    )
    axes[0].set_ylabel("KL(law of X | target), nats")


STUDY = Study(
    name="log-sobolev",
    about="KL divergence along Langevin dynamics falls at least at the log-Sobolev rate",
    source="Vempala and Wibisono 2019 (arXiv:1903.08568), theorem 1; Bakry and Emery 1985",
    compute=compute, finding=finding, draw=draw, size=(11.0, 4.6),
)  # fmt: skip
