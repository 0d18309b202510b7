"""probe_dot: the inner product of a vector-Jacobian product with its random probe, the probe made again.

    d[b] = sum_e v[b, e]*g[b, e],   v = +-1 or N(0, 1) from (key, draw, stream)

With g = v^T J this is the Hutchinson-Skilling estimate of tr J (E[v v^T] = I).

Source: Hutchinson 1990; Skilling 1989; Grathwohl et al. 2019 (FFJORD).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from ._checks import check_counter, check_key, check_no_dual, check_per_sample, check_state
from ._samples import keys, laid_out, randn, states
from ._shapes import compute_dtype, sum_per_sample
from ._table import Op, Sample, Tolerance, differentiate, register
from .noise import noise_of_op, noise_reference


def check_probe(g: Tensor, key: Tensor, draw: int, stream: int) -> None:
    """Validate the inputs of probe_dot."""
    check_state("g", g)
    check_key(key, g)
    check_counter(draw, stream)


def reference(g, key, draw=0, stream=0, gaussian=False, *, noise=noise_reference):
    """[B] float64: products in the computing type, their sum in float64."""
    check_probe(g, key, draw, stream)
    dtype = compute_dtype(g)
    v = noise("normal" if gaussian else "rademacher", g.detach().to(dtype), key, draw, stream)
    return sum_per_sample((v * g.to(dtype)).double())


def _out_reference(g, key, draw=0, stream=0, gaussian=False, *, out):
    check_state("g", g)
    check_per_sample("out", out, g)
    return (reference(g, key, draw, stream, gaussian),)


def _samples(device, dtype) -> Iterator[Sample]:
    for label, g in states(device, dtype):
        yield Sample(label, (g, keys(g.shape[0], device)), {"draw": 3, "stream": 1})
    yield Sample("gaussian", (randn((2, 3, 41, 43), device, dtype, 1), keys(2, device)), {"gaussian": True})
    last = laid_out(randn((2, 3, 4, 4), device, dtype, 1), "channels_last")
    yield Sample("gaussian, channels_last", (last, keys(2, device)), {"draw": 1, "gaussian": True})


def _errors(device) -> Iterator[Sample]:
    g, key = torch.zeros(2, 3, device=device), keys(2, device)
    yield Sample("integer g", (g.long(), key))
    yield Sample("short key", (g, key[:1]))
    yield Sample("float key", (g, key.double()))
    yield Sample("negative draw", (g, key), {"draw": -1})
    yield Sample("large stream", (g, key), {"stream": 2**32})


_ARGS = "Tensor g, Tensor key, SymInt draw=0, SymInt stream=0, bool gaussian=False"
OP = register(
    Op(
        name="probe_dot",
        args=_ARGS,
        returns="Tensor",
        out_args=f"{_ARGS}, *, Tensor(a!) out",
        equation="d = sum v*g, v = +-1 or N(0, 1)",
        source="Hutchinson 1990; Grathwohl et al. 2019",
        reference=reference,
        out_names=("out",),
        out_reference=_out_reference,
        samples=_samples,
        errors=_errors,
        tolerance={
            torch.float64: Tolerance(1e-12, 1e-12, "a sum of a sample's elements in another order"),
            torch.float32: Tolerance(1e-6, 1e-5, "products in float32, up to 5000 of them summed in float64"),
        },
        bytes_moved=lambda sample: sample.args[0].numel() * sample.args[0].element_size(),
        **differentiate(partial(reference, noise=noise_of_op)),
    )
)


def probe_dot(g: Tensor, key: Tensor, draw: int = 0, stream: int = 0, gaussian: bool = False) -> Tensor:
    """sum v*g of each sample, the probe v made from its key.

    Args:
        g: [B, ...], e.g. v^T J with v = `rademacher(g, key, draw, stream)`.
        key: [B] int64; draw, stream: as for `normal`, usually `Stream.PROBE`.
        gaussian: v is normal instead of +-1.

    Returns:
        [B] float64.

    Raises:
        ValueError: names the argument, what was expected and what came.

    Source: Hutchinson 1990; Grathwohl et al. 2019 (arXiv:1810.01367), eq. 7.
    """
    check_no_dual(g)
    return OP.overload(g, key, draw, stream, gaussian)
