"""Exact likelihoods by the instantaneous change of variables (Chen et al. 2018; Song et al. 2021, section 4.3).

    log p(x0) = log prior(x(T)) + int_0^T div(dx/dt) dt

along the probability-flow ODE; the divergence is estimated with random probes, v^T J v with E[v v^T] = I (Hutchinson 1990; Skilling 1989),
or computed exactly where a sample has few elements. One evaluation is one forward and one vector-Jacobian product for each probe.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .flow import Flow, Trace
from .guidance import ClassifierFree, Guidance
from .noise import Seeds, Stream, keys
from .ode import ODEResult, ODESolver, integrate
from .ops import uniform
from .parametrizations import Parametrization, parametrization_of
from .progress import share_bar
from .sdes import EDMSDE, SDE, process_of


@dataclass(frozen=True)
class Likelihood:
    """The log-likelihood of each sample, and what it took.

    Attributes:
        log_prob: [B] float64 nats, log density in data units (of the dequantized data, where it was asked for).
        standard_error: [B] nats, of log_prob over the probes; NaN with one probe, 0 for the exact trace.
        z: [B, ...] latent in units of the prior's standard deviation; nfe, accepted, rejected: [B] int64.
        dims: elements of a sample; bin_width: distance of two data levels, data units.
    """

    log_prob: Tensor
    standard_error: Tensor
    z: Tensor
    nfe: Tensor
    accepted: Tensor
    rejected: Tensor
    dims: int
    bin_width: float

    @property
    def bits_per_dim(self) -> Tensor:
        """[B] -log2 of the probability of a data level's bin, for each element: -log_prob/(dims*ln 2) - log2(bin_width)."""
        return -self.log_prob / (self.dims * math.log(2)) - math.log2(self.bin_width)

    @property
    def bits_per_dim_error(self) -> Tensor:
        """[B] standard error of bits_per_dim over the probes."""
        return self.standard_error / (self.dims * math.log(2))


@torch.inference_mode(False)  # the divergence needs gradients, wherever this is called
def log_likelihood(
    net: Callable[..., Tensor],
    x0: Tensor,
    *,
    parametrization: str | Parametrization = "D",
    process: SDE | None = None,
    probes: int = 1,
    kind: Literal["rademacher", "gaussian"] = "rademacher",
    exact: bool = False,
    solver: ODESolver | None = None,
    seeds: Seeds = 0,
    data_range: tuple[float, float] = (-1.0, 1.0),
    bits: float = 8.0,
    dequantization: Literal["none", "uniform"] = "none",
    convention: Literal["levels", "score_sde"] = "levels",
    eps: float | None = None,
    probe: Tensor | None = None,
    guidance: Guidance | None = None,
    cfg: ClassifierFree | None = None,
    state_dtype: torch.dtype = torch.float32,
    net_dtype: torch.dtype | None = None,
    progress: bool | None = False,
    **condition: Any,
) -> Likelihood:
    """log p(x0) under a diffusion model.

    >>> result = fastdiff.log_likelihood(net, images, probes=4, dequantization="uniform")
    >>> result.bits_per_dim.mean()

    Args:
        net, parametrization, condition: as for `fastdiff.sample`.
        x0: [B, ...] data, in data units.
        process: the SDE whose probability-flow ODE is integrated; default: the parametrization's own, EDM's sigma-space for D and F.
        probes: number of random probes; kind: "rademacher" or "gaussian"; probe: [P, B, ...] given ones instead.
        exact: the exact trace instead: as many vector-Jacobian products as a sample has elements.
        solver: tolerances and step control; by default each sample has its own steps, so its result does not depend on its batch.
        seeds: of the probes and of the dequantization; see `fastdiff.keys`.
        data_range: (lo, hi) of the data levels; bits: log2 of their number. Only for bits_per_dim and dequantization.
        dequantization: "uniform" adds noise from [0, bin_width) to every element, for data that are levels; "none" for densities.
        convention: "levels": lo and hi are the first and the last level, (hi - lo)/(2^bits - 1) apart; "score_sde": they are
            (hi - lo)/2^bits apart, and the state starts at x0 as it is instead of at s(eps)*x0.
        eps: first time (noise level in sigma-space); default 1e-5, or the process's lowest level.
        guidance, cfg: added to the drift; a guidance gradient must be differentiable in x.
        state_dtype: float32 or float64; net_dtype: dtype of the network's input.
        progress: show a bar; None: only on a terminal.

    Returns:
        Likelihood.

    Raises:
        ValueError, TypeError: name the argument, what was expected and what came.
        ODEError: the integration cannot go on; says at which t.

    Source: Song et al. 2021 (arXiv:2011.13456), eq. 39 and 40.
    """
    if not isinstance(x0, Tensor) or x0.dim() < 1 or not x0.is_floating_point():
        raise ValueError(f"x0: expected a floating tensor [B, ...], got {getattr(x0, 'dtype', type(x0).__name__)}")
    if not exact and (not isinstance(probes, int) or probes < 1):
        raise ValueError(f"probes: expected an integer >= 1, got {probes!r}")
    if kind not in ("rademacher", "gaussian"):
        raise ValueError(f"kind: expected 'rademacher' or 'gaussian', got {kind!r}")
    if dequantization not in ("none", "uniform"):
        raise ValueError(f"dequantization: expected 'none' or 'uniform', got {dequantization!r}")
    width = bin_width(data_range, bits, convention)
    meaning = parametrization_of(net, parametrization)
    sde = process_of(meaning) if process is None else process
    start = eps if eps is not None else sde.eps if isinstance(sde, EDMSDE) else min(sde.eps, 1e-5)
    if not 0 < start < sde.T:
        raise ValueError(f"eps: expected 0 < eps < T = {sde.T:g}, got {start}")
    key = keys(seeds, x0.shape[0], device=x0.device)
    x = x0.to(state_dtype, copy=True)
    if dequantization == "uniform":
        x = x + width * uniform(x, key, 0, int(Stream.DEQUANTIZE))
    parity = convention == "score_sde"
    scale = 1.0 if parity else sde.scale(start)
    trace = _trace(x, probes, kind, exact, key, probe)
    flow = Flow(net, meaning, sde, guidance, cfg, condition, net_dtype=net_dtype)
    with share_bar(progress, "likelihood") as bar:
        result = integrate(flow, x * scale, start, sde.T, solver, trace, bar)
    return _collect(result, sde, scale, width, exact)


def bin_width(data_range: tuple[float, float], bits: float, convention: str = "levels") -> float:
    """The distance of two data levels, data units.

    Raises:
        ValueError: an empty range, no bits, or an unknown convention.
    """
    if not (len(data_range) == 2 and data_range[0] < data_range[1]):
        raise ValueError(f"data_range: expected (lo, hi) with lo < hi, got {data_range!r}")
    if not bits > 0:
        raise ValueError(f"bits: expected a number > 0, got {bits!r}")
    if convention not in ("levels", "score_sde"):
        raise ValueError(f"convention: expected 'levels' or 'score_sde', got {convention!r}")
    return (data_range[1] - data_range[0]) / (2**bits - (convention == "levels"))


def _trace(x: Tensor, probes: int, kind: Literal["rademacher", "gaussian"], exact: bool, key: Tensor, probe: Tensor | None) -> Trace:
    if probe is None:
        return Trace(0 if exact else probes, kind, key)
    if probe.shape[1:] != x.shape or not len(probe) or exact:
        raise ValueError(f"probe: expected [P, {', '.join(map(str, x.shape))}] and no exact trace, got {list(probe.shape)}")
    return Trace(probe.shape[0], kind, given=probe.to(x.device))


def _collect(result: ODEResult, sde: SDE, scale: float, width: float, exact: bool) -> Likelihood:
    assert result.divergence is not None
    dims = result.x[0].numel() if len(result.x) else 1
    # The density of x0 is that of the state scale*x0 times the volume that scaling takes.
    estimates = sde.prior_log_prob(result.x) + result.divergence + dims * math.log(scale)
    count = len(estimates)
    if count > 1:
        error = estimates.std(0) / math.sqrt(count)
    else:
        error = torch.full_like(estimates[0], 0.0 if exact else math.nan)
    return Likelihood(
        estimates.mean(0), error, result.x / sde.prior_std, result.nfe, result.accepted, result.rejected, dims, width,
    )  # fmt: skip
