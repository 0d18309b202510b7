"""Single ops: against eager PyTorch, hand-fused eager, torch.compile, and the bandwidth that a copy reaches."""

from __future__ import annotations

import pytest
import torch

import fastdiff
from benchmarks.peers import compiled, eager_denoising_loss, eager_group_norm_silu, eager_perturb, eager_step, fused_step
from fastdiff import ops
from fastdiff.ops import OPS
from fastdiff.ops.noise import NOISE_OPS

COEF = {"a": 0.3, "b": 0.7, "c_x": 0.2, "c_D": 0.8, "c_h1": 0.1}


def _operands(n: int, count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, n, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("exponent", range(10, 26, 2))
def test_sampler_step(compare, exponent):
    x, F, H = _operands(2**exponent)
    row = ops.coef_row(**COEF)
    step = ops.OPS["sampler_step"].overload
    scalars = (COEF["a"], COEF["b"], COEF["c_x"], COEF["c_D"], COEF["c_h1"])
    peers = {
        "torch.compile": lambda: compiled(eager_step)(x, F, H, *scalars),
        "hand-fused": lambda: fused_step(x, F, H, *scalars),
        "eager": lambda: eager_step(x, F, H, *scalars),
    }

    def ours():
        return step(x, F, row, H1=H)[0]

    def check():
        for peer in peers.values():
            torch.testing.assert_close(ours(), peer(), rtol=1e-5, atol=1e-5)

    with torch.inference_mode():
        compare(f"sampler_step, 2^{exponent} elements, three inputs", ours, peers, check, {"torch.compile": 1.0})


def test_sampler_step_reaches_the_bandwidth_of_a_copy(compare):
    """copy_ of two tensors into two others moves as many bytes as three inputs and one output."""
    n = 6_000_000
    x, F, H = _operands(n)
    out, source, target = torch.empty_like(x), torch.randn(2 * n), torch.zeros(2 * n)
    row = ops.coef_row(**COEF)

    def ours():
        return ops.sampler_step(x, F, row, history=(H,), out=out).y

    def check():
        torch.testing.assert_close(ours(), eager_step(x, F, H, *COEF.values()), rtol=1e-5, atol=1e-5)

    with torch.inference_mode():
        compare(
            "sampler_step, 6M elements, three inputs",
            ours,
            {"copy_ of as many bytes": lambda: target.copy_(source)},
            check,
            {"copy_ of as many bytes": 0.8},
        )


@pytest.mark.parametrize("capability", ["best", "avx2"])
@pytest.mark.parametrize("count", [1, 2])
def test_normal(compare, threads, count, capability):
    from fastdiff import _C

    if capability not in ("best", *_C.cpu_capabilities()):
        pytest.skip(f"this CPU has no {capability}")
    threads(count)
    out = torch.empty(64, 2**14)
    key = fastdiff.keys(0, 64)
    wanted = {("best", 1): 4.0, ("best", 2): 7.0, ("avx2", 1): 2.0, ("avx2", 2): 3.5}[capability, count]
    if _C.cpu_capabilities()[-1] != "avx512":
        wanted = wanted / 2 if capability == "best" else wanted

    def check():
        assert torch.equal(fastdiff.normal(out, key), NOISE_OPS["normal"].reference(out, key))

    _C.set_cpu_capability("" if capability == "best" else capability)
    try:
        name = f"normal, 2^20 elements, {_C.cpu_capability()}, {count} thread{'s' * (count > 1)}"
        compare(name, lambda: fastdiff.normal(out, key), {"torch.randn": lambda: torch.randn(64, 2**14)}, check, {"torch.randn": wanted})
    finally:
        _C.set_cpu_capability("")


@pytest.mark.parametrize("kind", ["uniform", "rademacher"])
def test_other_noise(compare, kind):
    out, key = torch.empty(64, 2**14), fastdiff.keys(0, 64)
    call = getattr(fastdiff, kind)
    peer = {
        "uniform": ("torch.rand", lambda: torch.rand(64, 2**14)),
        "rademacher": ("torch.randint", lambda: torch.randint(0, 2, (64, 2**14), dtype=torch.float32) * 2 - 1),
    }[kind]

    def check():
        assert torch.equal(call(out, key), NOISE_OPS[kind].reference(out, key))

    compare(f"{kind}, 2^20 elements", lambda: call(out, key), dict([peer]), check)


@pytest.mark.parametrize("shape", [(64, 3, 32, 32), (256, 3, 32, 32)], ids=str)
def test_perturb(compare, shape):
    x0 = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    key = fastdiff.keys(0, shape[0])
    m, s = (torch.rand(shape[0], generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    peers = {"eager": lambda: eager_perturb(x0, m, s), "torch.compile": lambda: compiled(eager_perturb)(x0, m, s)}

    def ours():
        return ops.perturb(x0, m, s, key)

    def check():
        z = NOISE_OPS["normal"].reference(x0, key)
        expected = m.reshape(-1, 1, 1, 1) * x0 + s.reshape(-1, 1, 1, 1) * z
        torch.testing.assert_close(ours(), expected, rtol=1e-5, atol=1e-5)

    with torch.inference_mode():
        compare(f"perturb {list(shape)}", ours, peers, check, {"eager": 8.0, "torch.compile": 40.0})


def test_one_element(compare):
    """The cost of a call; torch.add is what the dispatcher costs at the least."""
    x, F, H = _operands(1)
    row = ops.coef_row(**COEF)
    step = ops.OPS["sampler_step"].overload

    def check():
        torch.testing.assert_close(step(x, F, row, H1=H)[0], eager_step(x, F, H, *COEF.values()))

    with torch.inference_mode():
        peers = {"torch.add": lambda: torch.add(x, F), "eager": lambda: eager_step(x, F, H, *COEF.values())}
        compare("sampler_step, one element (aim: 4 us)", lambda: step(x, F, row), peers, check)


@pytest.mark.parametrize("shape", [(64, 3, 32, 32), (16, 3, 64, 64)], ids=str)
def test_denoising_loss(compare, shape):
    """A training step around the network, forward and backward: noise, loss, gradient to the network's output."""
    generator = torch.Generator().manual_seed(0)
    x0, F = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator).requires_grad_()
    sigma = torch.rand(shape[0], generator=generator, dtype=torch.float64) + 0.1
    key = fastdiff.keys(0, shape[0])
    c_skip, c_out = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / (sigma**2 + 0.25).sqrt()
    weight = 1 / c_out**2
    coef = torch.stack([c_out, c_skip - 1, c_skip * sigma, weight], dim=1)
    columns = [v.float().reshape(-1, 1, 1, 1) for v in (sigma, c_skip, c_out, weight)]

    def ours():
        x_t = ops.perturb(x0, 1.0, sigma, key)
        return x_t, torch.autograd.grad(ops.denoising_loss(F, x0, coef, key).mean(), F)[0]

    def eager(loss=eager_denoising_loss, z=None):
        x_t = x0 + columns[0] * (torch.randn_like(x0) if z is None else z)
        return x_t, torch.autograd.grad(loss(F, x0, x_t, *columns[1:]).mean(), F)[0]

    def check():
        for got, expected in zip(ours(), eager(z=fastdiff.normal(x0, key)), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)

    peers = {"eager": eager, "torch.compile of the loss": lambda: eager(compiled(eager_denoising_loss))}
    compare(f"perturb and denoising_loss {list(shape)}, with the gradient", ours, peers, check, {"eager": 1.0})


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize(("shape", "groups"), [((64, 32, 8, 8), 8), ((64, 128, 32, 32), 32)], ids=str)
def test_group_norm_silu(compare, shape, groups, memory_format, backward):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).contiguous(memory_format=memory_format).requires_grad_()
    weight, bias = (torch.randn(shape[1], generator=generator).requires_grad_() for _ in range(2))
    g = torch.randn(shape, generator=generator).contiguous(memory_format=memory_format)

    def run(function):
        if not backward:
            with torch.no_grad():
                return (function(x, weight, bias, groups),)
        return torch.autograd.grad(function(x, weight, bias, groups), (x, weight, bias), g)

    peers = {
        "eager": lambda: run(eager_group_norm_silu),
        "torch.compile": lambda: run(compiled(eager_group_norm_silu)),
    }

    def check():
        for got, expected in zip(run(ops.group_norm_silu), run(eager_group_norm_silu), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())

    layout = "channels_last" if memory_format == torch.channels_last else "contiguous"
    name = f"group_norm_silu {list(shape)}, {groups} groups, {layout}{', with gradients' if backward else ''}"
    compare(name, lambda: run(ops.group_norm_silu), peers, check, {"eager": 1.0})


@pytest.mark.parametrize("op", list(OPS.values()), ids=list(OPS))
def test_every_op_of_the_table_against_its_reference(compare, op):
    """The table's own sample; the case names the bytes that one call must move at the least."""
    sample = next(s for s in op.samples("cpu", torch.float32) if s.label == "several ranges")

    def first(value):
        return value[0] if isinstance(value, tuple) else value

    def check():
        tolerance = op.tolerance[torch.float32]
        got, expected = (first(f(*sample.args, **sample.kwargs)) for f in (op.overload, op.reference))
        torch.testing.assert_close(got, expected, rtol=tolerance.rtol, atol=tolerance.atol)

    with torch.inference_mode():
        compare(
            f"{op.name}, sample of the op table, {op.bytes_moved(sample) / 1e3:.0f} kB",
            lambda: op.overload(*sample.args, **sample.kwargs),
            {"reference": lambda: op.reference(*sample.args, **sample.kwargs)},
            check,
            rounds=7,
        )
