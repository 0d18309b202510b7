"""Latents of data: encoding and decoding by the probability-flow ODE, and what one does with latents.

The ODE is invertible: encoding integrates it from the data to the prior, decoding back. Both return errors of the solver's tolerance only
(Song et al. 2021, arXiv:2011.13456, section 4.3 and appendix D.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .flow import Flow
from .guidance import ClassifierFree, Guidance
from .ode import ODEResult, ODESolver, integrate
from .parametrizations import Parametrization, parametrization_of
from .progress import share_bar
from .sdes import SDE, process_of


@dataclass(frozen=True)
class ODESampler:
    """Sampling by the adaptive solver: `fastdiff.sample(net, shape, sampler=ODESampler())`.

    Args:
        process: the SDE whose ODE is integrated; default: the parametrization's own, EDM's sigma-space for D and F.
        solver: tolerances and step control.
        eps: the last time; None for the process's own.
        unscale: return x(eps)/s(eps), the state in data units; else x(eps) as it is, as score_sde does.
    """

    process: SDE | None = None
    solver: ODESolver = field(default_factory=ODESolver)
    eps: float | None = None
    unscale: bool = True

    def solve(
        self, net: Callable[..., Tensor], parametrization: str | Parametrization, x: Tensor, *, backward: bool,
        guidance: Guidance | None = None, cfg: ClassifierFree | None = None, clip: tuple[float, float] | None = None,
        condition: Mapping[str, Any] | None = None, net_dtype: torch.dtype | None = None, progress: bool | None = None,
    ) -> ODEResult:  # fmt: skip
        """From standard normal latents to data (backward), or from data to latents.

        Args:
            net, parametrization, guidance, cfg, clip, condition, net_dtype, progress: as for `fastdiff.sample`.
            x: [B, ...] latents, or data.

        Returns:
            ODEResult, x in data units, or in units of the prior's standard deviation.
        """
        meaning = parametrization_of(net, parametrization)
        sde = process_of(meaning) if self.process is None else self.process
        eps = sde.eps if self.eps is None else self.eps
        if not 0 < eps < sde.T:
            raise ValueError(f"eps: expected 0 < eps < T = {sde.T:g}, got {eps}")
        scale = sde.scale(eps) if self.unscale else 1.0
        flow = Flow(net, meaning, sde, guidance, cfg, condition or {}, clip, net_dtype)
        ends = (sde.T, eps) if backward else (eps, sde.T)
        with share_bar(progress, "decoding" if backward else "encoding") as bar:
            result = integrate(flow, x * (sde.prior_std if backward else scale), *ends, self.solver, progress=bar)
        factor = 1 / scale if backward else 1 / sde.prior_std
        return ODEResult(result.x * factor, None, result.nfe, result.accepted, result.rejected)


def encode(
    net: Callable[..., Tensor], x0: Tensor, *, parametrization: str | Parametrization = "D", process: SDE | None = None,
    solver: ODESolver | None = None, progress: bool | None = False, **condition: Any,
) -> Tensor:  # fmt: skip
    """The latents of data: [B, ...], standard normal for data that the model would generate.

    Args:
        net, parametrization, condition: as for `fastdiff.sample`; x0: [B, ...] data; process, solver: as for `ODESampler`.
    """
    sampler = ODESampler(process, solver or ODESolver())
    return sampler.solve(net, parametrization, x0, backward=False, condition=condition, progress=progress).x


def decode(
    net: Callable[..., Tensor], z: Tensor, *, parametrization: str | Parametrization = "D", process: SDE | None = None,
    solver: ODESolver | None = None, progress: bool | None = False, **condition: Any,
) -> Tensor:  # fmt: skip
    """The data of latents: [B, ...]; `decode(net, encode(net, x0))` is x0 within the solver's tolerance.

    Args:
        net, parametrization, condition: as for `fastdiff.sample`; z: [B, ...] latents; process, solver: as for `ODESampler`.
    """
    sampler = ODESampler(process, solver or ODESolver())
    return sampler.solve(net, parametrization, z, backward=True, condition=condition, progress=progress).x


def slerp(z0: Tensor, z1: Tensor, steps: int) -> Tensor:
    """Spherical interpolation from one latent to another, without a batch dimension: [steps, *z0.shape].

        z(u) = sin((1 - u)*w)/sin(w)*z0 + sin(u*w)/sin(w)*z1,   w the angle between z0 and z1, u = 0, ..., 1

    Source: Shoemake 1985. The norm of a latent is what keeps it typical, so latents are interpolated on the sphere.

    Raises:
        ValueError: different shapes, or fewer than two steps.
    """
    if z0.shape != z1.shape:
        raise ValueError(f"z1: expected the shape of z0, {list(z0.shape)}, got {list(z1.shape)}")
    if steps < 2:
        raise ValueError(f"steps: expected an integer >= 2, got {steps}")
    a, b = z0.double().flatten(), z1.double().flatten()
    angle = torch.acos((a @ b / (a.norm() * b.norm())).clamp(-1, 1))
    u = torch.linspace(0, 1, steps, dtype=torch.float64, device=z0.device).reshape(-1, *[1] * z0.dim())
    if angle.sin().abs() < 1e-6:
        weights = (1 - u, u)
    else:
        weights = (torch.sin((1 - u) * angle) / torch.sin(angle), torch.sin(u * angle) / torch.sin(angle))
    return (weights[0] * z0 + weights[1] * z1).to(z0.dtype)


def with_temperature(z: Tensor, temperature: float) -> Tensor:
    """Latents of a colder (below 1) or hotter prior: temperature*z (Kingma and Dhariwal 2018; Song et al. 2021, appendix D.2).

    Raises:
        ValueError: a temperature that is not > 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature: expected a number > 0, got {temperature}")
    return temperature * z
