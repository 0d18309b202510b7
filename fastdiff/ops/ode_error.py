"""ode_error: the error of a Runge-Kutta step against its tolerance, summed over each sample.

    e = sum_m w[m]*K[m];   sum ( e / (atol + rtol*max(|x0|, |y|)) )^2

The step is accepted where the root mean square is below 1.

Source: Hairer, Norsett and Wanner, chapter II.4; the norm of scipy.integrate.RK45.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ._checks import check_like, check_no_dual, check_per_sample, check_state, check_tolerance, check_weights
from ._samples import laid_out, randn, states
from ._shapes import compute_dtype, sum_per_sample
from ._table import Op, Sample, Tolerance, differentiate, register
from .ode_stage import check_slopes, combined


def check_error(x0: Tensor, y: Tensor, K: Tensor, weights: Tensor, rtol: float, atol: float) -> None:
    """Validate the inputs of ode_error."""
    check_state("x0", x0)
    check_like("y", y, x0)
    check_slopes(K, x0)
    check_weights(weights, x0, K.shape[0])
    check_tolerance(rtol, atol)


def reference(x0, y, K, weights, rtol, atol):
    """[B] float64."""
    check_error(x0, y, K, weights, rtol, atol)
    dtype = compute_dtype(x0)
    error = combined(None, K, weights)
    tolerance = atol + rtol * torch.maximum(x0.to(dtype).abs(), y.to(dtype).abs())
    return sum_per_sample((error / tolerance).double().square())


def _out_reference(x0, y, K, weights, rtol, atol, *, out):
    check_state("x0", x0)
    check_per_sample("out", out, x0)
    return (reference(x0, y, K, weights, rtol, atol),)


def _samples(device, dtype) -> Iterator[Sample]:
    for label, x0 in states(device, dtype, seed=1):
        K = torch.empty(7, *x0.shape, device=device, dtype=dtype)
        for m in range(7):
            K[m] = randn(x0.shape, device, dtype, 6 + m)
        yield Sample(label, (x0, randn(x0.shape, device, dtype, 2), K, randn((7,), device, torch.float64, 5), 0.1, 0.2))
    last = laid_out(randn((2, 3, 6, 9), device, dtype, 1), "channels_last")
    K = torch.stack([last, last * 2]).contiguous()
    yield Sample("weights of each sample", (last, last.flip(0), K, randn((2, 2), device, torch.float64, 5), 0.0, 1.0))


def _errors(device) -> Iterator[Sample]:
    x, K, weights = (
        torch.zeros(2, 3, device=device),
        torch.zeros(1, 2, 3, device=device),
        torch.zeros(1, dtype=torch.float64, device=device),
    )
    yield Sample("integer state", (x.long(), x, K, weights, 0.1, 0.1))
    yield Sample("shape of y", (x, x[:1], K, weights, 0.1, 0.1))
    yield Sample("shape of K", (x, x, K[:, :1], weights, 0.1, 0.1))
    yield Sample("two weights", (x, x, K, torch.zeros(2, dtype=torch.float64, device=device), 0.1, 0.1))
    yield Sample("negative rtol", (x, x, K, weights, -0.1, 0.1))
    yield Sample("no atol", (x, x, K, weights, 0.1, 0.0))


_ARGS = "Tensor x0, Tensor y, Tensor K, Tensor weights, float rtol, float atol"
OP = register(
    Op(
        name="ode_error",
        args=_ARGS,
        returns="Tensor",
        out_args=f"{_ARGS}, *, Tensor(a!) out",
        equation="sum ((sum_m w_m*K_m)/(atol + rtol*max(|x0|, |y|)))^2",
        source="Hairer, Norsett and Wanner, chapter II.4",
        reference=reference,
        out_names=("out",),
        out_reference=_out_reference,
        samples=_samples,
        errors=_errors,
        tolerance={
            torch.float64: Tolerance(1e-12, 1e-12, "a sum of a sample's elements in another order"),
            torch.float32: Tolerance(5e-6, 1e-5, "seven roundings of an error whose terms cancel, squares summed in float64"),
        },
        bytes_moved=lambda sample: sum(t.numel() * t.element_size() for t in sample.args[:3]),
        **differentiate(reference),
    )
)


def ode_error(x0: Tensor, y: Tensor, K: Tensor, weights: Tensor, rtol: float, atol: float) -> Tensor:
    """sum ((sum_m w_m*K_m)/(atol + rtol*max(|x0|, |y|)))^2 of each sample.

    Args:
        x0, y: [B, ...] state before and after the step; K: [M, B, ...] slopes in x0's dtype, M <= 7.
        weights: [M] or [B, M] float64: h times the difference of the two embedded methods.
        rtol, atol: tolerances, rtol >= 0, atol > 0.

    Returns:
        [B] float64; divide by the number of elements for the mean square.

    Raises:
        ValueError: names the argument, what was expected and what came.

    Source: Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, chapter II.4.
    """
    check_no_dual(x0, y, K, weights)
    return OP.overload(x0, y, K, weights, rtol, atol)
