"""mixture-field: where a learned score can be trusted.

The data are 0.3 N((1, 1), 0.1 I) + 0.7 N((-1, -1), 0.1 I). A network trained by denoising score matching at one small noise
level sees samples only where the density is high, and its objective E |s_theta - score|^2 weighs errors with the density: between
and far from the modes the learned field is a guess. That is why one trains and samples at many noise levels (study slow-mixing).

Both fields are those of the density with noise sigma = 0.1 on it, which is what the network is trained for.

Source: Song and Ermon 2019 (arXiv:1907.05600), section 3.2.1 and figure 2; the mixture is that of the seed literature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..figures import BLUE, TRUTH
from ._common import Numbers, Part, Study, seed_of, square
from .mixture import Mixture
from .mlp import ScoreMLP, train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DATA = Mixture([0.3, 0.7], [[1.0, 1.0], [-1.0, -1.0]], 0.1)
SIGMA, LIMIT, MASS = 0.1, 3.0, 0.95


def square_grid(per_side: int) -> Tensor:
    """[per_side^2, 2] points of the square, rows of equal x_2."""
    line = torch.linspace(-LIMIT, LIMIT, per_side, dtype=torch.float64)
    return torch.cartesian_prod(line, line).flip(1)


def dense_region(density: Tensor) -> Tensor:
    """The fewest grid points that hold MASS of the probability."""
    order = density.argsort(descending=True)
    inside = density[order].cumsum(0) <= MASS * density.sum()
    return torch.zeros_like(density, dtype=torch.bool).index_put_((order,), inside)


def compute(seed: int, quick: bool) -> tuple[Numbers, Any]:
    """Train, and compare both fields on a grid."""
    samples, steps = (5000, 400) if quick else (20_000, 3000)
    data = DATA.sample(samples, seed_of(seed, Part.DATA))
    net = ScoreMLP(2, sigma_data=float(data.std()), seed=seed)
    train(net, data, steps=steps, seed=seed_of(seed, Part.TRAINING), sigma_min=SIGMA, sigma_max=SIGMA)
    x = square_grid(161)
    density, true, learned = DATA.log_density(x, SIGMA).exp(), DATA.score(x, SIGMA), net.score(x.float(), SIGMA).double()
    squared, size = (learned - true).square().sum(1), true.square().sum(1)
    dense = dense_region(density)
    mass = density / density.sum()
    numbers = {
        "sigma": SIGMA,
        "training_samples": samples,
        "training_steps": steps,
        "mass_of_dense_region": MASS,
        "area_of_dense_region": float(dense.double().mean()) * (2 * LIMIT) ** 2,
        "relative_error_dense": _relative(squared[dense], size[dense]),
        "relative_error_sparse": _relative(squared[~dense], size[~dense]),
        "relative_error_weighted_by_density": float(((mass * squared).sum() / (mass * size).sum()).sqrt()),
        "rms_error_dense": float(squared[dense].mean().sqrt()),
        "rms_error_sparse": float(squared[~dense].mean().sqrt()),
    }
    return numbers, (net, dense, squared.sqrt(), density)


def _relative(squared: Tensor, size: Tensor) -> float:
    """sqrt(mean of |error|^2 / mean of |score|^2)."""
    return float((squared.mean() / size.mean()).sqrt())


def finding(numbers: Numbers) -> str:
    """In one sentence."""
    dense, sparse = (
        f"rms error {numbers[f'rms_error_{where}']:.2g}, {100 * numbers[f'relative_error_{where}']:.0f} %" for where in ("dense", "sparse")
    )
    return f"The learned score is right where the data are ({dense}) and a guess where they are not ({sparse})"


def draw(figure: Figure, numbers: Numbers, rest: Any) -> None:
    """True field, learned field, error, error weighted by density."""
    from matplotlib.colors import LogNorm

    net, dense, error, density = rest
    side = int(len(error) ** 0.5)
    axes = figure.subplots(1, 4)
    coarse = square_grid(19)
    line = square_grid(side)[:side, 0].numpy()
    fields = {"True score": (DATA.score(coarse, SIGMA), TRUTH), "Learned score": (net.score(coarse.float(), SIGMA).double(), BLUE)}
    for ax, (title, (field, color)) in zip(axes, fields.items(), strict=False):
        # One scale in both panels; the far arrows would hide the near ones at their true lengths.
        arrows = field / field.norm(dim=1, keepdim=True).clamp(min=1e-9).sqrt()
        ax.quiver(*coarse.T.numpy(), *arrows.T.numpy(), color=color, scale=75, width=0.006, pivot="mid")
        ax.set_title(f"{title} (length: square root)")
    shown = {
        "|error| / max(|score|, 1)": (error / DATA.score(square_grid(side), SIGMA).norm(dim=1).clamp(min=1.0), (0.01, 3)),
        "|error| times density": (error * density, (1e-4, 0.3)),
    }
    for ax, (title, (values, (low, high))) in zip(axes[2:], shown.items(), strict=True):
        image = ax.pcolormesh(
            line, line, values.reshape(side, side).numpy(), norm=LogNorm(low, high), cmap="magma_r", shading="nearest", rasterized=True
        )
        figure.colorbar(image, ax=ax, shrink=0.62, extend="both")
        ax.set_title(title)
    for ax in axes:
        ax.contour(line, line, dense.double().reshape(side, side).numpy(), levels=[0.5], colors="#D55E00", linewidths=1.5)
        square(ax, LIMIT)
    axes[0].plot([], [], color="#D55E00", lw=1.5, label=f"region that holds {100 * MASS:.0f} % of the data")
    figure.legend(loc="outside lower center")


STUDY = Study(
    name="mixture-field",
    about="score field of a mixture of two Gaussians, true against learned by a small network",
    source="Song and Ermon 2019 (arXiv:1907.05600), section 3.2.1 and figure 2",
    compute=compute, finding=finding, draw=draw, size=(16.0, 4.6),
)  # fmt: skip
