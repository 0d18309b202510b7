"""ode_stage: one stage of an explicit Runge-Kutta method, from the raw network output to the next network input.

    D = clip(a*x + b*F + b_u*F_u)
    k = c_x*x + c_D*D + c_g*G                                   the slope at this stage
    y = x0 + sum_m w[m]*K[m] + w[M]*k                           where the next stage is evaluated

The weights are h*a_jm, so a sample may have its own step size.

Source: Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, chapter II.4.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ._checks import check_coef, check_like, check_net_dtype, check_no_dual, check_state, check_weights
from ._samples import laid_out, randn, states
from ._shapes import column, columns, compute_dtype
from ._table import Op, Sample, Tolerance, differentiate, register
from .coef import COLUMNS
from .formulas import denoised

#: Most earlier slopes of a stage: Dormand-Prince has seven stages.
MOST_SLOPES = 7


def check_stage(x, F, coef, x0, K, weights, F_u, G, net_dtype=None) -> None:
    """Validate the inputs of ode_stage."""
    check_state("x", x)
    check_like("F", F, x)
    check_coef(coef, x, len(COLUMNS))
    check_like("x0", x0, x)
    check_slopes(K, x)
    check_weights(weights, x, K.shape[0] + 1)
    check_like("F_u", F_u, x)
    check_like("G", G, x)
    check_net_dtype(net_dtype)


def check_slopes(K: Tensor, x: Tensor) -> None:
    """K: up to seven tensors like x, stacked, in memory without gaps."""
    if K.dim() != x.dim() + 1 or K.shape[1:] != x.shape or K.shape[0] > MOST_SLOPES or K.dtype != x.dtype or K.device != x.device:
        got = f"{list(K.shape)} {str(K.dtype).removeprefix('torch.')} on {K.device}"
        expected = f"[M, {', '.join(map(str, x.shape))}] {str(x.dtype).removeprefix('torch.')} on {x.device} with M <= {MOST_SLOPES}"
        raise ValueError(f"K: expected {expected}, got {got}")


def combined(x0: Tensor | None, K: Tensor, weights: Tensor) -> Tensor:
    """x0 + sum_m w[m]*K[m], in the computing type and in this order."""
    dtype = compute_dtype(K)
    total = torch.zeros_like(K[0], dtype=dtype) if x0 is None else x0.to(dtype)
    for m in range(K.shape[0]):
        weight = weights[..., m]
        weight = column(weight, K[m], torch.float64) if weight.dim() else weight
        total = total + weight.expand(K[m].shape).to(dtype) * K[m].to(dtype)
    return total


def reference(x, F, coef, x0, K, weights, F_u=None, G=None, net_dtype=None):
    """(k, y, net_in)."""
    check_stage(x, F, coef, x0, K, weights, F_u, G, net_dtype)
    dtype, state_dtype = compute_dtype(x), x.dtype
    x, F, x0, F_u, G = (None if t is None else t.to(dtype).contiguous() for t in (x, F, x0, F_u, G))  # plain rows, as K is
    # Expanded before they are rounded, so that their gradients are summed in float64, in whatever order.
    c = {name: v.expand(x.shape).to(dtype) for name, v in columns(coef, x, torch.float64).items()}
    D = denoised(c["a"], x, c["b"], F, c["b_u"], F_u)
    D = torch.where(c["lo"] > D, c["lo"], D)
    D = torch.where(c["hi"] < D, c["hi"], D)
    k = c["c_x"] * x + c["c_D"] * D
    if G is not None:
        k = k + c["c_g"] * G
    y = combined(combined(x0, K, weights[..., :-1]), k[None], weights[..., -1:])
    net_in = (c["c_in"] * y).to(net_dtype) if net_dtype is not None else None
    return k.to(state_dtype), y.to(state_dtype), net_in


def _out_reference(x, F, coef, x0, K, weights, F_u=None, G=None, *, out, y, net_in=None):
    check_state("x", x)
    for name, t in (("out", out), ("y", y), ("net_in", net_in)):
        check_like(name, t, x)
    return reference(x, F, coef, x0, K, weights, F_u, G, None if net_in is None else net_in.dtype)


def _samples(device, dtype) -> Iterator[Sample]:
    def coef(seed: int, batch: int | None = None) -> Tensor:
        shape = (len(COLUMNS),) if batch is None else (batch, len(COLUMNS))
        row = randn(shape, device, torch.float64, seed) / 2
        row[..., COLUMNS.index("lo")], row[..., COLUMNS.index("hi")] = -1.0, 1.5
        return row

    def slopes(x: Tensor, count: int, seed: int = 6) -> Tensor:
        K = torch.empty(count, *x.shape, device=device, dtype=dtype)
        for m in range(count):
            K[m] = randn(x.shape, device, dtype, seed + m)
        return K

    for label, x in states(device, dtype, seed=1):
        F, x0 = randn(x.shape, device, dtype, 2), randn(x.shape, device, dtype, 4)
        yield Sample(label, (x, F, coef(3), x0, slopes(x, 2), randn((3,), device, torch.float64, 5)))
    shape = (2, 3, 5, 7)
    x, F, x0, F_u, G = (randn(shape, device, dtype, 10 + i) for i in range(5))
    yield Sample("first stage", (x, F, coef(3), x0, slopes(x, 0), randn((1,), device, torch.float64, 5)))
    everything = (x, F, coef(4, 2), x0, slopes(x, 6), randn((2, 7), device, torch.float64, 5))
    yield Sample("everything", everything, {"F_u": F_u, "G": G, "net_dtype": dtype})
    last = laid_out(randn((2, 3, 6, 9), device, dtype, 1), "channels_last")
    K = torch.stack([last, last * 2]).contiguous()
    yield Sample("channels_last state", (last, last.flip(0), coef(7, 2), last, K, randn((2, 3), device, torch.float64, 5)))


def _errors(device) -> Iterator[Sample]:
    x, coef = torch.zeros(2, 3, device=device), torch.ones(len(COLUMNS), dtype=torch.float64, device=device)
    K, weights = torch.zeros(1, 2, 3, device=device), torch.zeros(2, dtype=torch.float64, device=device)
    yield Sample("integer state", (x.long(), x, coef, x, K, weights))
    yield Sample("shape of F", (x, x[:, :2], coef, x, K, weights))
    yield Sample("short row", (x, x, coef[:7], x, K, weights))
    yield Sample("shape of x0", (x, x, coef, x[:1], K, weights))
    yield Sample("shape of K", (x, x, coef, x, K[:, :1], weights))
    yield Sample("dtype of K", (x, x, coef, x, K.double(), weights))
    yield Sample("eight slopes", (x, x, coef, x, K.expand(8, -1, -1), weights))
    yield Sample("one weight", (x, x, coef, x, K, weights[:1]))
    yield Sample("float32 weights", (x, x, coef, x, K, weights.float()))
    yield Sample("shape of G", (x, x, coef, x, K, weights), {"G": x[:1]})
    yield Sample("integer network", (x, x, coef, x, K, weights), {"net_dtype": torch.int32})


def _bytes_moved(sample: Sample) -> int:
    x, F, _, x0, K, _ = sample.args
    tensors = [x, F, x0, K, sample.kwargs.get("F_u"), sample.kwargs.get("G"), x, x]
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


_ARGS = "Tensor x, Tensor F, Tensor coef, Tensor x0, Tensor K, Tensor weights, Tensor? F_u=None, Tensor? G=None"
OP = register(
    Op(
        name="ode_stage",
        args=f"{_ARGS}, ScalarType? net_dtype=None",
        returns="(Tensor, Tensor, Tensor?)",
        out_args=f"{_ARGS}, *, Tensor(a!) out, Tensor(b!) y, Tensor(c!)? net_in=None",
        equation="k = c_x*x + c_D*D + c_g*G; y = x0 + sum_m w_m*K_m + w_M*k",
        source="Hairer, Norsett and Wanner, chapter II.4",
        reference=reference,
        out_names=("out", "y", "net_in"),
        out_reference=_out_reference,
        samples=_samples,
        errors=_errors,
        tolerance={
            torch.float64: Tolerance(1e-13, 1e-13, "up to twelve roundings of terms of size 1"),
            torch.float32: Tolerance(1e-6, 4e-6, "up to twelve roundings of terms of size 1, coefficients rounded to float32"),
            torch.bfloat16: Tolerance(2**-8, 4e-6, "float32 arithmetic, rounded once"),
            torch.float16: Tolerance(2**-10, 4e-6, "float32 arithmetic, rounded once"),
        },
        bytes_moved=_bytes_moved,
        **differentiate(reference),
    )
)


def ode_stage(
    x: Tensor, F: Tensor, coef: Tensor, x0: Tensor, K: Tensor, weights: Tensor, *, F_u: Tensor | None = None, G: Tensor | None = None,
    net_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """One stage of a Runge-Kutta method: the slope k, where the next stage is evaluated, and the network's input there.

    Args:
        x: [B, ...] where this stage was evaluated; F, F_u: raw network outputs there; G: guidance gradient.
        coef: [18] or [B, 18] float64: a, b, b_u, lo, hi, then k = c_x*x + c_D*D + c_g*G, and c_in of the next call.
        x0: [B, ...] start of the step; K: [M, B, ...] earlier slopes in x's dtype, M <= 7.
        weights: [M + 1] or [B, M + 1] float64: h*a_jm, the last for k.
        net_dtype: also return c_in*y in this dtype.

    Returns:
        (k, y, net_in or None).

    Raises:
        ValueError: names the argument, what was expected and what came.

    Source: Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, chapter II.4.
    """
    check_no_dual(x, F, coef, x0, K, weights, F_u, G)
    return OP.overload(x, F, coef, x0, K, weights, F_u, G, net_dtype)
