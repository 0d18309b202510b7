"""kernels: the discrete perturbation kernels of SMLD and DDPM against those of their SDEs.

With N = 1000 steps, t = i/N, and the constants of Song et al. 2021:

    SMLD   x_i = x0 + sigma_i z                          sigma_i geometric from 0.01 to 50, i = 1, ..., N
    VE     x(t) = x0 + sigma(t) z                        sigma(t) = 0.01*(50/0.01)^t
    DDPM   x_i = sqrt(alpha_bar_i) x0 + sqrt(1 - alpha_bar_i) z,   alpha_bar_i = prod_j (1 - beta_j),  beta from 1e-4 to 0.02
    VP     x(t) = alpha(t) x0 + sqrt(1 - alpha(t)^2) z,            alpha(t) = exp(-int beta / 2),   beta from 0.1 to 20

The discrete index runs over N values with both ends, t over (0, 1]: they are off by at most one part in N, which is what is
left. The steps of `SDE.discretize`, composed, must give the discrete kernels exactly.

Source: Song et al. 2021 (arXiv:2011.13456), figure 5 and appendix C.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..discrete import Discrete, geometric_sigmas, linear_betas
from ..figures import BLUE, RED
from ..schedules import Float
from ..sdes import SDE, VESDE, VPSDE
from ._common import Numbers, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def composed(sde: SDE, steps: int) -> tuple[Float, Float]:
    """Scale of the mean and variance after each of the steps x_i = m*x_{i-1} + G*z."""
    scale, variance = np.empty(steps), np.empty(steps)
    s, v = 1.0, 0.0
    for i in range(steps):
        m, G = sde.discretize(sde.T * i / (steps - 1), steps)
        s, v = m * s, m**2 * v + G**2
        scale[i], variance[i] = s, v
    return scale, variance


def compute(seed: int, quick: bool) -> tuple[Numbers, Any]:
    """The three pairs of curves of figure 5, and how far they differ."""
    steps = 100 if quick else 1000
    ve, vp = VESDE(), VPSDE()
    t = np.arange(1, steps + 1) / steps
    ddpm = Discrete(linear_betas(steps, vp.beta_min / steps, vp.beta_max / steps))
    curves = {
        "SMLD and VE: variance": (geometric_sigmas(steps, ve.sigma_max, ve.sigma_min)[::-1] ** 2, _of(ve.std, t) ** 2),
        "DDPM and VP: scale of the mean": (np.sqrt(ddpm.alpha_bar), _of(vp.scale, t)),
        "DDPM and VP: variance": (1 - ddpm.alpha_bar, _of(vp.std, t) ** 2),
    }
    steps_of_ve, steps_of_vp = composed(ve, steps), composed(vp, steps)
    (smld, _), (mean, _), (variance, _) = curves.values()
    numbers: Numbers = {
        "steps": steps,
        "max_difference_over_range": {name: float(np.abs(a - b).max() / np.ptp(a)) for name, (a, b) in curves.items()},
        "max_relative_difference_of_smld_variance": float(np.abs(curves["SMLD and VE: variance"][1] / smld - 1).max()),
        "discretize_composed_minus_discrete": max(
            float(np.abs(a / b - 1).max()) for a, b in ((steps_of_ve[1], smld), (steps_of_vp[0], mean), (steps_of_vp[1], variance))
        ),
    }
    numbers["max_difference"] = max(numbers["max_difference_over_range"].values())
    return numbers, (t, curves)


def finding(numbers: Numbers) -> str:
    """In one sentence."""
    return f"Discrete and continuous perturbation kernels agree: within {100 * numbers['max_difference']:.1g} % of their range"


def draw(figure: Figure, numbers: Numbers, rest: Any) -> None:
    """Curves above, differences below."""
    t, curves = rest
    axes = figure.subplots(2, 3, sharex=True, height_ratios=(3, 1.4), squeeze=False)
    for (title, (discrete, continuous)), upper, lower in zip(curves.items(), *axes, strict=True):
        names = ("SMLD", "VE SDE") if "SMLD" in title else ("DDPM", "VP SDE")
        upper.plot(t, continuous, color=BLUE, label=f"{names[1]}, continuous")
        every = max(len(t) // 20, 1)
        upper.plot(t[every - 1 :: every], discrete[every - 1 :: every], "o", color=RED, ms=4.5, label=f"{names[0]}, discrete")
        upper.set_title(title)
        lower.plot(t, (discrete - continuous) / np.ptp(discrete) * 100, color="black", lw=1.2)
        lower.axhline(0, color="#bbbbbb", lw=0.8, zorder=0)
        lower.set_xlabel("t = i/N")
        lower.margins(y=0.2)
    axes[0, 0].set(yscale="log", ylabel="variance")
    axes[0, 1].set(ylabel="scale of the mean", ylim=(-0.03, 1.05))
    axes[0, 2].set(ylabel="variance", ylim=(-0.03, 1.05))
    axes[1, 0].set_ylabel("difference,\n% of the range")
    relative = 100 * numbers["max_relative_difference_of_smld_variance"]
    axes[1, 0].text(0.04, 0.12, f"relative: up to {relative:.2g} %", transform=axes[1, 0].transAxes, fontsize=10)
    for upper, place in zip(axes[0], ("upper left", "upper right", "lower right"), strict=True):
        upper.legend(loc=place)
    figure.align_ylabels(axes[:, 0])


def _of(function: Any, t: Float) -> Float:
    return np.array([function(float(v)) for v in t])


STUDY = Study(
    name="kernels",
    about="discrete (SMLD, DDPM) and continuous (VE, VP) perturbation kernels agree",
    source="Song et al. 2021 (arXiv:2011.13456), figure 5",
    compute=compute, finding=finding, draw=draw, size=(12.0, 5.6),
)  # fmt: skip
