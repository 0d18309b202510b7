"""likelihood: bits per dimension by the probability-flow ODE, in fastdiff's solver with one forward an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...likelihood import log_likelihood
from ...noise import Stream
from ...ode import ODESolver
from ...ops import normal, rademacher
from . import _networks, sde_lib
from ._noise import Noise, new_keys
from ._scipy import solve_ivp
from .models import utils as mutils
from .sampling import MAX_ATTEMPTS, Model, _Drift

_KINDS: dict[str, Any] = {"Rademacher": rademacher, "Gaussian": normal}


def get_div_fn(fn: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """div_fn(x, t, eps) -> [B]: the estimate eps^T J eps of the divergence of fn(x, t)."""

    def div_fn(x: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (product,) = torch.autograd.grad((fn(leaf, t) * eps).sum(), leaf)
        return (product * eps).flatten(1).sum(1)

    return div_fn


def get_likelihood_fn(
    sde: sde_lib.SDE, inverse_scaler: Callable, hutchinson_type: str = "Rademacher", rtol: float = 1e-5, atol: float = 1e-5,
    method: str = "RK45", eps: float = 1e-5, *, noise: Noise | None = None,
) -> Callable[..., tuple[Tensor, Tensor, int]]:  # fmt: skip
    """likelihood_fn(model, data, *, noise=None) -> (bits per dimension [B], latents like data, network calls).

    Args:
        sde: the forward SDE; inverse_scaler: maps data to [0, 1]; only its value at -1 is used, for the offset in bits.
        hutchinson_type: "Rademacher" or "Gaussian" probes.
        rtol, atol, method: as for `get_ode_sampler`; eps: the first time.
        noise: noise(like) returns the probe, for parity; None: noise keys from torch's global generator.

    Raises:
        ValueError: another hutchinson_type.
    """
    if hutchinson_type not in _KINDS:
        raise ValueError(f"hutchinson_type: expected 'Rademacher' or 'Gaussian', got {hutchinson_type!r}")

    def likelihood_fn(model: Model, data: Tensor, *, noise: Noise | None = noise) -> tuple[Tensor, Tensor, int]:
        if noise is None:
            probe = _KINDS[hutchinson_type](data, new_keys(len(data), data.device), 0, int(Stream.PROBE))
        else:
            probe = noise(data)
        solve = _on_the_device if method == "RK45" and _networks.fusible(sde) else _in_scipy
        log_prob, z, nfe = solve(sde, model, data, probe, eps, rtol, atol, method)
        bits = -log_prob / (data[0].numel() * np.log(2)) + (7.0 - inverse_scaler(-1.0))
        return bits.float(), z.float(), nfe

    return likelihood_fn


def _on_the_device(sde, model, data, probe, eps, rtol, atol, method) -> tuple[Tensor, Tensor, int]:
    result = log_likelihood(
        _networks.network_of(model, sde, continuous=True), data, parametrization=_networks.parametrization_of(sde, True),
        process=sde.process, solver=ODESolver(rtol, atol, control="batch", max_steps=MAX_ATTEMPTS), eps=eps, convention="score_sde",
        probe=probe[None],
    )  # fmt: skip
    return result.log_prob, result.z * sde.process.prior_std, int(result.nfe[0])


@torch.no_grad()
def _in_scipy(sde, model, data, probe, eps, rtol, atol, method) -> tuple[Tensor, Tensor, int]:
    drift, size = _Drift(sde, model), len(data)
    div_fn = get_div_fn(drift)

    def slope(t: float, flat: np.ndarray) -> np.ndarray:
        x = mutils.from_flattened_numpy(flat[:-size], data.shape).to(data.device, torch.float32)
        vec_t = torch.full((size,), t, device=data.device)
        return np.concatenate([mutils.to_flattened_numpy(v) for v in (drift(x, vec_t), div_fn(x, vec_t, probe))])

    start = np.concatenate([mutils.to_flattened_numpy(data), np.zeros(size)])
    solution = solve_ivp(slope, (eps, sde.T), start, rtol=rtol, atol=atol, method=method)
    end = solution.y[:, -1]
    z = mutils.from_flattened_numpy(end[:-size].copy(), data.shape).to(data.device, torch.float32)
    return sde.prior_logp(z) + torch.from_numpy(end[-size:].copy()).to(z), z, solution.nfev
