"""sampler_step: what every sampler computes between two network calls, in one launch.

    D = clip(a*x + b*F + b_u*F_u, lo, hi)
    y = c_x*x + c_D*D + c_g*G + sum_k c_hk*H_k + c_n*z
    y = (1 - m)*y + m*(k_x*known + k_n*z')                      where a mask m is given

F is the raw network output, F_u the unconditional one, G a guidance gradient, H_k history, z and z' noise, known the data
that a measurement fixes. The coefficients come
from memory, one row for the batch or one for each sample (`COLUMNS` in coef.py). In the same launch, if asked for: the next
network input c_in*y in the network's dtype, D, and the norm of eps = e_x*x + e_D*D of each sample.

Source: the common form of Karras et al. 2022 (algorithms 1 and 2), Song et al. 2021 (DDIM; SDE predictors), Lu et al. 2022
(DPM-Solver++) and of guidance (Ho and Salimans 2022; Kim et al. 2023); docs/notation.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ._checks import check_coef, check_counter, check_key, check_like, check_net_dtype, check_no_dual, check_per_sample, check_state
from ._samples import keys, laid_out, randn, states
from ._shapes import column, columns, compute_dtype, sum_per_sample
from ._table import Op, Sample, Tolerance, register
from .coef import COLUMNS, coef_row
from .formulas import advanced, blended, denoised
from .noise import NOISE_OPS, known_stream, noise_reference


class SamplerStep(NamedTuple):
    """What a step wrote: y always, the rest where it was asked for."""

    y: Tensor
    net_in: Tensor | None
    D: Tensor | None
    eps_norm: Tensor | None


def check_step(x, F, coef, F_u, G, H1, H2, H3, z, key, draw, stream, known, mask, net_dtype=None) -> None:
    """Validate the inputs of a step."""
    check_state("x", x)
    check_like("F", F, x)
    check_coef(coef, x, len(COLUMNS))
    for name, t in (("F_u", F_u), ("G", G), ("H1", H1), ("H2", H2), ("H3", H3), ("z", z), ("known", known), ("mask", mask)):
        check_like(name, t, x)
    if (known is None) != (mask is None):
        raise ValueError("known, mask: expected both or neither, got one")
    check_key(key, x)
    if key is not None and z is not None:
        raise ValueError("key: expected none beside z, got both")
    check_counter(draw, stream)
    check_net_dtype(net_dtype)


def reference(
    x, F, coef, F_u=None, G=None, H1=None, H2=None, H3=None, z=None, key=None, draw=0, stream=0, known=None, mask=None,
    net_dtype=None, return_D=False, return_eps_norm=False,
):  # fmt: skip
    """(y, net_in, D, eps_norm), computed in float64 for a float64 state and in float32 otherwise."""
    check_step(x, F, coef, F_u, G, H1, H2, H3, z, key, draw, stream, known, mask, net_dtype)
    dtype = compute_dtype(x)
    state_dtype = x.dtype
    x, F, F_u, G, H1, H2, H3, z, known, mask = (None if t is None else t.to(dtype) for t in (x, F, F_u, G, H1, H2, H3, z, known, mask))
    if key is not None:
        z = noise_reference("normal", x, key, draw, stream)
    c = columns(coef, x, dtype)
    D = denoised(c["a"], x, c["b"], F, c["b_u"], F_u)
    D = torch.where(c["lo"] > D, c["lo"], D)
    D = torch.where(c["hi"] < D, c["hi"], D)
    y = advanced(
        c["c_x"], x, c["c_D"], D, c["c_g"], G, c["c_h1"], H1, c["c_h2"], H2, c["c_h3"], H3, c["c_n"], z
    )  # fmt: skip
    if mask is not None:
        y = blended(y, mask, _known_state(c, x, known, key, draw, stream))
    net_in = (c["c_in"] * y).to(net_dtype) if net_dtype is not None else None
    eps_norm = None
    if return_eps_norm:
        eps = (c["e_x"] * x + c["e_D"] * D).double()
        eps_norm = sum_per_sample(eps.square()).sqrt().to(dtype)
    return y.to(state_dtype), net_in, D.to(state_dtype) if return_D else None, eps_norm


def _known_state(c, x, known, key, draw, stream):
    """The known data at the noise level after the step: k_x*known + k_n*z'."""
    state = c["k_x"] * known
    if key is not None:
        state = state + c["k_n"] * noise_reference("normal", x.detach(), key, draw, known_stream(stream))
    return state


def _out_reference(
    x, F, coef, F_u=None, G=None, H1=None, H2=None, H3=None, z=None, key=None, draw=0, stream=0, known=None, mask=None,
    *, out, net_in=None, D=None, eps_norm=None,
):  # fmt: skip
    check_state("x", x)
    for name, t in (("out", out), ("net_in", net_in), ("D", D)):
        check_like(name, t, x)
    check_per_sample("eps_norm", eps_norm, x)
    flags = (None if net_in is None else net_in.dtype, D is not None, eps_norm is not None)
    return reference(x, F, coef, F_u, G, H1, H2, H3, z, key, draw, stream, known, mask, *flags)


def _setup_context(ctx, inputs, output) -> None:
    *tensors, ctx.draw, ctx.stream, known, mask, _net_dtype, _return_D, _return_eps_norm = inputs
    ctx.save_for_backward(*tensors, known, mask)


def _backward(ctx, grad_y, grad_net_in, grad_D, grad_eps_norm):
    """The transposed step, in differentiable operations, so that it can be differentiated again."""
    x, F, coef, F_u, G, H1, H2, H3, z, key, known, mask = ctx.saved_tensors
    dtype = compute_dtype(x)
    inputs = {"x": x, "F": F, "F_u": F_u, "G": G, "H1": H1, "H2": H2, "H3": H3, "z": z, "known": known, "mask": mask}
    v = {name: t.to(dtype) for name, t in inputs.items() if t is not None}
    if key is not None:
        v["z"] = NOISE_OPS["normal"].overload(x.detach().to(dtype), key, ctx.draw, ctx.stream)
    c = columns(coef, x, dtype)
    raw = denoised(c["a"], v["x"], c["b"], v["F"], c["b_u"], v.get("F_u"))
    low, high = c["lo"] > raw, c["hi"] < raw
    D = torch.where(high, c["hi"], torch.where(low, c["lo"], raw))

    zero = torch.zeros_like(v["x"])
    g_y = zero if grad_y is None else grad_y.to(dtype)
    grads: dict[str, Tensor] = {}  # of the coefficients, elementwise
    terms = [("c_g", "G"), ("c_h1", "H1"), ("c_h2", "H2"), ("c_h3", "H3"), ("c_n", "z")]
    operands = [item for column, name in terms for item in (c[column], v.get(name))]
    y = advanced(c["c_x"], v["x"], c["c_D"], D, *operands) if grad_net_in is not None or mask is not None else None
    if mask is not None:
        target = _known_state(c, v["x"], v["known"], key, ctx.draw, ctx.stream)
    if grad_net_in is not None:
        grads["c_in"] = grad_net_in.to(dtype) * (y if mask is None else blended(y, v["mask"], target))
        g_y = g_y + c["c_in"] * grad_net_in.to(dtype)
    g_mask = g_known = None
    if mask is not None:
        inside = v["mask"] * g_y
        g_mask, g_known = g_y * (target - y), c["k_x"] * inside
        grads["k_x"] = inside * v["known"]
        if key is not None:
            grads["k_n"] = inside * NOISE_OPS["normal"].overload(x.detach().to(dtype), key, ctx.draw, known_stream(ctx.stream))
        g_y = g_y - inside
    g_D = c["c_D"] * g_y + (zero if grad_D is None else grad_D.to(dtype))
    g_x = c["c_x"] * g_y
    if grad_eps_norm is not None:
        eps = c["e_x"] * v["x"] + c["e_D"] * D
        norm = column(sum_per_sample(eps.square()).sqrt(), x, dtype)
        scale = column(grad_eps_norm, x, dtype) / torch.where(norm == 0, 1, norm)
        grads["e_x"], grads["e_D"] = scale * eps * v["x"], scale * eps * D
        g_D, g_x = g_D + c["e_D"] * scale * eps, g_x + c["e_x"] * scale * eps
    g_raw = torch.where(low | high, 0, g_D)
    g_x = g_x + c["a"] * g_raw

    by_input = {
        "x": g_x, "F": c["b"] * g_raw, "F_u": c["b_u"] * g_raw, "G": c["c_g"] * g_y,
        "H1": c["c_h1"] * g_y, "H2": c["c_h2"] * g_y, "H3": c["c_h3"] * g_y, "z": c["c_n"] * g_y, "known": g_known, "mask": g_mask,
    }  # fmt: skip
    grad_coef = None
    if ctx.needs_input_grad[2]:
        grads |= {"a": g_raw * v["x"], "b": g_raw * v["F"], "c_x": g_y * v["x"], "c_D": g_y * D}
        grads |= {"lo": torch.where(low & ~high, g_D, 0), "hi": torch.where(high, g_D, 0)}
        pairs = (("b_u", "F_u", g_raw), ("c_g", "G", g_y), ("c_h1", "H1", g_y), ("c_h2", "H2", g_y), ("c_h3", "H3", g_y), ("c_n", "z", g_y))
        grads |= {column: g * v[name] for column, name, g in pairs if name in v}
        sums = [sum_per_sample(grads[name]) if name in grads else zero.new_zeros(x.shape[0]) for name in COLUMNS]
        per_sample = torch.stack(sums, dim=1).to(coef.dtype)
        grad_coef = per_sample if coef.dim() == 2 else per_sample.sum(0)

    def wanted(position: int, name: str) -> Tensor | None:
        t, gradient = inputs[name], by_input[name]
        return gradient.to(t.dtype) if t is not None and gradient is not None and ctx.needs_input_grad[position] else None

    tensors = [wanted(0, "x"), wanted(1, "F"), grad_coef]
    tensors += [wanted(3 + i, name) for i, name in enumerate(("F_u", "G", "H1", "H2", "H3", "z"))]
    return *tensors, None, None, None, wanted(12, "known"), wanted(13, "mask"), None, None, None


def _samples(device, dtype) -> Iterator[Sample]:
    def coef(seed: int, batch: int | None = None, **values) -> Tensor:
        shape = (len(COLUMNS),) if batch is None else (batch, len(COLUMNS))
        row = randn(shape, device, torch.float64, seed) / 2
        row[..., COLUMNS.index("lo")], row[..., COLUMNS.index("hi")] = values.pop("clip", (-torch.inf, torch.inf))
        for name, value in values.items():
            row[..., COLUMNS.index(name)] = value
        return row

    for label, x in states(device, dtype, seed=1):
        F = randn(x.shape, device, dtype, 2)
        yield Sample(label, (x, F, coef(3)), {"key": keys(x.shape[0], device), "draw": 5, "return_D": True})
    last = laid_out(randn((2, 3, 6, 9), device, dtype, 1), "channels_last")
    yield Sample("per-sample row, channels_last", (last, last.flip(0), coef(4, 2)), {"key": keys(2, device), "return_eps_norm": True})

    shape = (2, 3, 5, 7)
    x, F, F_u, G, H1, H2, H3, z = (randn(shape, device, dtype, 10 + i) for i in range(8))
    yield Sample("final step to sigma 0", (x, F, coef_row(a=0.3, b=0.7, c_D=1.0).to(device)))
    yield Sample("per-sample row", (x, F, coef(4, 2)))
    yield Sample("classifier-free guidance", (x, F, coef(5)), {"F_u": F_u})
    yield Sample("guidance gradient", (x, F, coef(6)), {"G": G})
    yield Sample("Heun corrector", (x, F, coef(7)), {"H1": H1})
    yield Sample("three history tensors", (x, F, coef(8)), {"H1": H1, "H2": H2, "H3": H3})
    yield Sample("third history tensor alone", (x, F, coef(8)), {"H3": H3})
    yield Sample("given noise", (x, F, coef(9)), {"z": z})
    yield Sample("clipped", (x, F, coef(10, clip=(-0.5, 0.4))), {"return_D": True})
    yield Sample("network input in bfloat16", (x, F, coef(11)), {"net_dtype": torch.bfloat16})
    yield Sample("network of another dtype", (x, F.to(torch.bfloat16), coef(12)), {"F_u": F_u.float(), "net_dtype": torch.float16})
    known, mask = randn(shape, device, dtype, 30), (randn(shape, device, dtype, 31) > 0).to(dtype)
    yield Sample("known data", (x, F, coef(15)), {"known": known, "mask": mask, "net_dtype": dtype})
    yield Sample("known data and noise", (x, F, coef(16, 2)), {"known": known, "mask": mask * 0.7, "key": keys(2, device), "draw": 2})
    last_mask = (last > 0).to(dtype)
    noisy = {"known": last.flip(1), "mask": last_mask, "key": keys(2, device)}
    yield Sample("known data, channels_last", (last, last.flip(0), coef(17)), noisy)
    everything = {
        "F_u": F_u,
        "known": known,
        "mask": mask,
        "G": G,
        "H1": H1,
        "H2": H2,
        "H3": H3,
        "key": keys(2, device),
        "draw": 1,
        "stream": 9,
    }
    outputs = {"net_dtype": dtype, "return_D": True, "return_eps_norm": True}
    yield Sample("everything", (x, F, coef(13, 2, clip=(-1.0, 1.0))), everything | outputs)
    big = randn((2, 3, 41, 43), device, dtype, 20)
    yield Sample("norm over several ranges", (big, big.flip(1), coef(14)), {"return_eps_norm": True})


def _errors(device) -> Iterator[Sample]:
    x, F, coef, key = torch.zeros(2, 3, device=device), torch.zeros(2, 3, device=device), coef_row(b=1.0).to(device), keys(2, device)
    yield Sample("integer state", (x.long(), F, coef))
    yield Sample("scalar state", (x[0, 0], F, coef))
    yield Sample("shape of F", (x, F[:, :2], coef))
    yield Sample("dtype of F", (x, F.long(), coef))
    yield Sample("short row", (x, F, coef[:7]))
    yield Sample("float32 row", (x, F, coef.float()))
    yield Sample("too many rows", (x, F, coef.expand(3, -1)))
    yield Sample("shape of H2", (x, F, coef), {"H2": F[:1]})
    yield Sample("short key", (x, F, coef), {"key": key[:1]})
    yield Sample("z and key", (x, F, coef), {"z": x, "key": key})
    yield Sample("negative draw", (x, F, coef), {"draw": -1})
    yield Sample("mask alone", (x, F, coef), {"mask": x})
    yield Sample("shape of known", (x, F, coef), {"known": x[:1], "mask": x})
    yield Sample("integer network", (x, F, coef), {"net_dtype": torch.int32})
    yield Sample("complex state", (x.to(torch.complex64), F, coef))


def _bytes_moved(sample: Sample) -> int:
    x, kwargs = sample.args[0], sample.kwargs
    tensors = [*sample.args[:2], *(kwargs.get(name) for name in ("F_u", "G", "H1", "H2", "H3", "z", "known", "mask")), x]
    if kwargs.get("return_D"):
        tensors.append(x)
    moved = sum(t.numel() * t.element_size() for t in tensors if t is not None)
    return moved + (x.numel() * kwargs["net_dtype"].itemsize if kwargs.get("net_dtype") else 0)


_TENSORS = "Tensor x, Tensor F, Tensor coef, Tensor? F_u=None, Tensor? G=None, Tensor? H1=None, Tensor? H2=None, Tensor? H3=None"
_NOISE = "Tensor? z=None, Tensor? key=None, SymInt draw=0, SymInt stream=0, Tensor? known=None, Tensor? mask=None"

OP = register(
    Op(
        name="sampler_step",
        args=f"{_TENSORS}, {_NOISE}, ScalarType? net_dtype=None, bool return_D=False, bool return_eps_norm=False",
        returns="(Tensor, Tensor?, Tensor?, Tensor?)",
        out_args=f"{_TENSORS}, {_NOISE}, *, Tensor(a!) out, Tensor(b!)? net_in=None, Tensor(c!)? D=None, Tensor(d!)? eps_norm=None",
        equation="D = clip(a*x + b*F + b_u*F_u); y = c_x*x + c_D*D + c_g*G + sum_k c_hk*H_k + c_n*z; y = (1-m)*y + m*(k_x*known + k_n*z')",
        source="common form of EDM, DDIM, SDE predictors and multistep solvers; docs/notation.md",
        reference=reference,
        out_names=("out", "net_in", "D", "eps_norm"),
        out_reference=_out_reference,
        samples=_samples,
        errors=_errors,
        tolerance={
            torch.float64: Tolerance(1e-13, 1e-13, "up to nine roundings of terms of size 1"),
            torch.float32: Tolerance(1e-6, 2e-6, "up to nine roundings of terms of size 1, coefficients rounded to float32"),
            torch.bfloat16: Tolerance(2**-8, 2e-6, "float32 arithmetic, rounded once"),
            torch.float16: Tolerance(2**-10, 2e-6, "float32 arithmetic, rounded once"),
        },
        bytes_moved=_bytes_moved,
        setup_context=_setup_context,
        backward=_backward,
    )
)


def sampler_step(
    x: Tensor,
    F: Tensor,
    coef: Tensor,
    *,
    F_u: Tensor | None = None,
    G: Tensor | None = None,
    history: Sequence[Tensor | None] = (),
    z: Tensor | None = None,
    key: Tensor | None = None,
    draw: int = 0,
    stream: int = 0,
    known: Tensor | None = None,
    mask: Tensor | None = None,
    net_dtype: torch.dtype | None = None,
    return_D: bool = False,
    return_eps_norm: bool = False,
    out: Tensor | None = None,
) -> SamplerStep:
    """D = clip(a*x + b*F + b_u*F_u), y = c_x*x + c_D*D + c_g*G + sum_k c_hk*H_k + c_n*z, in one launch.

    Computed in float64 for a float64 state, else in float32; every tensor may have its own floating dtype.

    Args:
        x: [B, ...] state.
        F: [B, ...] raw network output; F_u: that without the condition, for classifier-free guidance.
        coef: [18] or [B, 18] float64, columns `fastdiff.ops.COLUMNS`, made by `coef_row` or by a plan.
        G: [B, ...] guidance gradient; history: up to three tensors H_1..H_3.
        z: [B, ...] noise, or key: [B] int64 with draw and stream, from which the kernel makes it.
        known, mask: [B, ...] data that is known and where (1 known, 0 free): y <- (1 - m)*y + m*(k_x*known + k_n*z'), z' from the key
            in the stream's known half; without a key there is no z'.
        net_dtype: also return the next network input c_in*y in this dtype.
        return_D, return_eps_norm: also return D, and |e_x*x + e_D*D|_2 of each sample, [B].
        out: y is written there; no gradients then.

    Returns:
        SamplerStep(y, net_in, D, eps_norm), outputs in x's dtype and strides, None where not asked for.

    Raises:
        ValueError: names the argument, what was expected and what came.

    Source: docs/notation.md.
    """
    if len(history) > 3:
        raise ValueError(f"history: expected at most 3 tensors, got {len(history)}")
    check_net_dtype(net_dtype)
    H = [*history, None, None, None][:3]
    check_no_dual(x, F, coef, F_u, G, *H, z, known, mask)
    operands = (x, F, coef, F_u, G, *H, z, key, draw, stream, known, mask)
    if out is None:
        return SamplerStep(*OP.overload(*operands, net_dtype, return_D, return_eps_norm))
    net_in = torch.empty_like(x, dtype=net_dtype) if net_dtype is not None else None
    D = torch.empty_like(x) if return_D else None
    eps_norm = x.new_empty(x.shape[0], dtype=compute_dtype(x)) if return_eps_norm else None
    OP.out_overload(*operands, out=out, net_in=net_in, D=D, eps_norm=eps_norm)
    return SamplerStep(out, net_in, D, eps_norm)
