"""k_diffusion.sampling.log_likelihood on fastdiff's likelihood."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...likelihood import log_likelihood as core_log_likelihood
from ...ode import ODESolver
from ...sdes import EDMSDE
from ._running import DENOISER, check_call, state_of


def log_likelihood(
    model: Callable[..., Tensor], x: Tensor, sigma_min: float, sigma_max: float, extra_args: Mapping[str, Any] | None = None,
    atol: float = 1e-4, rtol: float = 1e-4,
) -> tuple[Tensor, dict[str, int]]:  # fmt: skip
    """([B] log density of x in nats, {"fevals": network calls}), with one Rademacher probe and one step size for the batch.

    The probe is upstream's own draw from torch's global generator; the solver is Dormand-Prince 5(4) with scipy's step control, upstream's
    is torchdiffeq's, so both agree within the tolerances.
    """
    check_call(model, x, extra_args)
    condition = dict(extra_args or {})
    probe = torch.randint_like(x, 2) * 2 - 1
    state = state_of(x)
    result = core_log_likelihood(
        lambda x_in, sigma: model(x_in.to(x.dtype), sigma.to(x.dtype), **condition), state, parametrization=DENOISER,
        process=EDMSDE(float(sigma_min), float(sigma_max)), probe=probe.to(state.dtype)[None], state_dtype=state.dtype,
        solver=ODESolver(rtol=rtol, atol=atol, control="batch"),
    )  # fmt: skip
    return result.log_prob.to(x.dtype), {"fevals": int(result.nfe.max()) if len(x) else 0}
