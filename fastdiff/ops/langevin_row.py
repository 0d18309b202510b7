"""langevin_row: the coefficients of a Langevin corrector, whose step size depends on the data, in one reduction.

    D' = c_x*x + c_D*D + c_g*G,  D = clip(a*x + b*F + b_u*F_u)      the guided estimate, as in sampler_step
    eps = e_x*x + e_D*D',        score = -e_x*eps                    e_x = 1/(s*sigma), e_D = -1/sigma
    step = 2*alpha*(snr*|z|/|score|)^2 = c_l*r^2/e_x^2,              c_l = 2*alpha*snr^2, r = |z|/|eps|

The result is the row with which `sampler_step` computes x + step*score + sqrt(2*step)*z: the step size never leaves the
device, and z is made again from its key instead of being stored.

Source: Song et al. 2021 (arXiv:2011.13456), algorithms 4 and 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from ._checks import check_coef, check_counter, check_key, check_like, check_no_dual, check_state, reject
from ._samples import keys, laid_out, randn, states
from ._shapes import columns, compute_dtype, sum_per_sample
from ._table import Op, Sample, Tolerance, differentiate, register
from .coef import COLUMNS
from .formulas import denoised
from .noise import noise_of_op, noise_reference


def check_langevin(x, F, coef, F_u, G, z, key, draw, stream) -> None:
    """Validate the inputs of langevin_row."""
    check_state("x", x)
    check_like("F", F, x)
    check_coef(coef, x, len(COLUMNS))
    for name, t in (("F_u", F_u), ("G", G), ("z", z)):
        check_like(name, t, x)
    check_key(key, x)
    if (key is None) == (z is None):
        raise ValueError(f"z: expected noise or its key, got {'neither' if key is None else 'both'}")
    check_counter(draw, stream)


def reference(x, F, coef, F_u=None, G=None, z=None, key=None, draw=0, stream=0, shared=False, *, noise=noise_reference):
    """[B, 18] float64."""
    check_langevin(x, F, coef, F_u, G, z, key, draw, stream)
    dtype = compute_dtype(x)
    x, F, F_u, G, z = (None if t is None else t.to(dtype) for t in (x, F, F_u, G, z))
    if z is None:
        z = noise("normal", x.detach(), key, draw, stream)
    c = columns(coef, x, dtype)
    D = denoised(c["a"], x, c["b"], F, c["b_u"], F_u)
    D = torch.where(c["lo"] > D, c["lo"], D)
    D = torch.where(c["hi"] < D, c["hi"], D)
    D = c["c_x"] * x + c["c_D"] * D
    if G is not None:
        D = D + c["c_g"] * G
    eps = (c["e_x"] * x + c["e_D"] * D).double()
    norms = [sum_per_sample(t.square()).sqrt() for t in (z.double(), eps)]
    if shared:
        norms = [norm.mean().expand(x.shape[0]) for norm in norms]
    still = norms[1] == 0
    ratio = torch.where(still, 0, norms[0] / torch.where(still, 1, norms[1]))
    return _rows(coef.expand(x.shape[0], -1), ratio)


def _rows(coef: Tensor, ratio: Tensor) -> Tensor:
    """The base rows [B, 18] with the step size folded in; ratio: [B] of |z|/|eps|."""
    c = dict(zip(COLUMNS, coef.unbind(1), strict=True))
    rho = c["c_l"] * ratio**2
    tilt = -rho * c["e_D"] / c["e_x"]
    new = {"c_x": 1 - rho + tilt * c["c_x"], "c_D": tilt * c["c_D"], "c_g": tilt * c["c_g"]}
    new["c_n"] = (2 * c["c_l"]).sqrt() * ratio / c["e_x"]
    return torch.stack([new.get(name, c[name]) for name in COLUMNS], dim=1)


def _out_reference(x, F, coef, F_u=None, G=None, z=None, key=None, draw=0, stream=0, shared=False, *, out):
    check_state("x", x)
    check_rows(out, x)
    return (reference(x, F, coef, F_u, G, z, key, draw, stream, shared),)


def check_rows(out: Tensor, x: Tensor) -> None:
    """out: one row for each sample of x."""
    if out.shape != (x.shape[0], len(COLUMNS)) or out.dtype != torch.float64 or out.device != x.device:
        reject("out", f"[{x.shape[0]}, {len(COLUMNS)}] float64 on {x.device}", out)


def _samples(device, dtype) -> Iterator[Sample]:
    def coef(seed: int, batch: int | None = None) -> Tensor:
        shape = (len(COLUMNS),) if batch is None else (batch, len(COLUMNS))
        row = 0.5 + randn(shape, device, torch.float64, seed).abs()
        row[..., COLUMNS.index("lo")], row[..., COLUMNS.index("hi")] = -1.0, 1.5
        row[..., COLUMNS.index("e_D")] *= -1
        return row

    for label, x in states(device, dtype, seed=1):
        yield Sample(label, (x, randn(x.shape, device, dtype, 2), coef(3)), {"key": keys(x.shape[0], device), "draw": 5})
    shape = (2, 3, 5, 7)
    x, F, F_u, G, z = (randn(shape, device, dtype, 10 + i) for i in range(5))
    yield Sample("mean over the batch", (x, F, coef(4)), {"key": keys(2, device), "shared": True})
    yield Sample("given noise", (x, F, coef(5, 2)), {"z": z})
    yield Sample("guided", (x, F, coef(6)), {"F_u": F_u, "G": G, "key": keys(2, device), "draw": 1, "stream": 3})
    last = laid_out(randn((2, 3, 6, 9), device, dtype, 1), "channels_last")
    yield Sample("mean over the batch, channels_last", (last, last.flip(0), coef(7, 2)), {"key": keys(2, device), "shared": True})


def _errors(device) -> Iterator[Sample]:
    x, coef, key = torch.zeros(2, 3, device=device), torch.ones(len(COLUMNS), dtype=torch.float64, device=device), keys(2, device)
    yield Sample("integer state", (x.long(), x, coef), {"key": key})
    yield Sample("shape of F", (x, x[:, :2], coef), {"key": key})
    yield Sample("short row", (x, x, coef[:7]), {"key": key})
    yield Sample("no noise", (x, x, coef))
    yield Sample("noise twice", (x, x, coef), {"key": key, "z": x})
    yield Sample("shape of G", (x, x, coef), {"key": key, "G": x[:1]})
    yield Sample("short key", (x, x, coef), {"key": key[:1]})
    yield Sample("negative draw", (x, x, coef), {"key": key, "draw": -1})


def _bytes_moved(sample: Sample) -> int:
    tensors = [*sample.args[:2], *(sample.kwargs.get(name) for name in ("F_u", "G", "z"))]
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


_ARGS = (
    "Tensor x, Tensor F, Tensor coef, Tensor? F_u=None, Tensor? G=None, Tensor? z=None, Tensor? key=None, "
    "SymInt draw=0, SymInt stream=0, bool shared=False"
)
OP = register(
    Op(
        name="langevin_row",
        args=_ARGS,
        returns="Tensor",
        out_args=f"{_ARGS}, *, Tensor(a!) out",
        equation="the sampler_step row of x + e*score + sqrt(2*e)*z, e = 2*alpha*(snr*|z|/|score|)^2",
        source="Song et al. 2021, algorithms 4 and 5",
        reference=reference,
        out_names=("out",),
        out_reference=_out_reference,
        samples=_samples,
        errors=_errors,
        tolerance={
            torch.float64: Tolerance(1e-12, 1e-12, "a sum of a sample's elements in another order"),
            torch.float32: Tolerance(2e-6, 2e-6, "eps is computed in float32 and summed in float64"),
        },
        bytes_moved=_bytes_moved,
        **differentiate(partial(reference, noise=noise_of_op)),
    )
)


def langevin_row(
    x: Tensor, F: Tensor, coef: Tensor, *, F_u: Tensor | None = None, G: Tensor | None = None, z: Tensor | None = None,
    key: Tensor | None = None, draw: int = 0, stream: int = 0, shared: bool = False,
) -> Tensor:  # fmt: skip
    """The rows with which `sampler_step` makes a step of Langevin dynamics at a given signal-to-noise ratio.

        score = -e_x*(e_x*x + e_D*D'),  D' = c_x*x + c_D*D + c_g*G
        step = c_l*(|z|/|eps|)^2/e_x^2;  y = x + step*score + sqrt(2*step)*z

    Args:
        x, F, F_u, G: [B, ...] as for `sampler_step`.
        coef: [18] or [B, 18] float64: a, b, b_u, lo, hi, (c_x, c_D, c_g) of D', e_x = 1/(s*sigma), e_D = -1/sigma, c_l = 2*alpha*snr^2.
        z: [B, ...] noise, or key: [B] int64 with draw and stream, from which the kernels make it.
        shared: one step size for the batch, from the mean norms, as score_sde does; else one for each sample.

    Returns:
        [B, 18] float64; a sample whose eps is 0 gets the identity.

    Raises:
        ValueError: names the argument, what was expected and what came.

    Source: Song et al. 2021 (arXiv:2011.13456), algorithms 4 and 5.
    """
    check_no_dual(x, F, coef, F_u, G, z)
    return OP.overload(x, F, coef, F_u, G, z, key, draw, stream, shared)
