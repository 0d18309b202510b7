"""Every op of the table, on every backend, over every sample: values, strides, errors, out=, gradients, compile, vmap."""

from __future__ import annotations

import pytest
import torch

import fastdiff
from fastdiff.ops import OPS, has_kernel
from fastdiff.ops._table import Sample
from tests.conftest import GPU
from tests.ops.backends import BACKENDS, backend, differentiable, in_float64, results

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def _cases(dtypes=DTYPES, only=lambda op: True):
    cases = []
    for op in filter(only, OPS.values()):
        for dtype in dtypes:
            for index, sample in enumerate(op.samples("meta", dtype)):
                cases.append(pytest.param(op, dtype, index, id=f"{op.name}-{str(dtype)[6:]}-{sample.label}"))
    return cases


def _sample(op, dtype, index: int, device="cpu") -> Sample:
    return list(op.samples(device, dtype))[index]


def _needed_outs(op, sample, kwargs) -> dict[str, torch.Tensor]:
    """Room for the outputs that are not optional."""
    produced = results(op.overload(*sample.args, **kwargs))
    return {name: torch.empty_like(t) for name, t in zip(op.out_names, produced, strict=True) if t is not None}


def _representative(op, dtype, index: int) -> bool:
    return _sample(op, dtype, index).label in ("odd image", "everything")


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(("op", "dtype", "index"), _cases())
def test_backend_agrees_with_the_float64_reference(op, dtype, index, name):
    if name == "triton" and not GPU and dtype in (torch.float64, torch.float16) and not _representative(op, dtype, index):
        pytest.skip("interpreted Triton: two samples of this dtype are enough, float32 and bfloat16 run them all")
    call, device = backend(name, op)
    sample = _sample(op, dtype, index, device)
    got = results(call(*sample.args, **sample.kwargs))
    state_dtype = sample.args[0].dtype
    reference = in_float64(_sample(op, dtype, index))
    expected = results(op.reference(*reference.args, **reference.kwargs))
    assert len(got) == len(expected)
    for value, exact in zip(got, expected, strict=True):
        if exact is None:
            assert value is None
            continue
        tolerance = op.tolerance[value.dtype if state_dtype == torch.float64 else min(value.dtype, torch.float32, key=lambda d: d.itemsize)]
        # Triton's interpreter truncates where it should round to bfloat16.
        slack = 2 if name == "triton" and not GPU and value.dtype == torch.bfloat16 else 1
        torch.testing.assert_close(value.cpu().double(), exact.double(), rtol=slack * tolerance.rtol, atol=tolerance.atol)
        state = sample.args[0]
        if value.shape == state.shape and name != "reference":
            assert value.stride() == torch.empty_like(state).stride()


@pytest.mark.parametrize("name", ["cpu", "cuda", "triton"])
@pytest.mark.parametrize("op", list(OPS.values()), ids=list(OPS))
def test_errors_read_the_same_on_every_backend(op, name):
    call, device = backend(name, op)
    for sample in op.errors(device):
        with pytest.raises(ValueError) as expected:
            op.reference(*sample.args, **sample.kwargs)
        with pytest.raises(ValueError) as got:
            call(*sample.args, **sample.kwargs)
        assert str(got.value) == str(expected.value), sample.label
        assert ": expected " in str(got.value)
        assert ", got " in str(got.value)


@pytest.mark.parametrize(("op", "dtype", "index"), _cases((torch.float32, torch.bfloat16)))
@pytest.mark.parametrize("target", ["like", "strided"])
def test_out_variant_writes_what_the_functional_one_returns(op, dtype, index, target):
    sample = _sample(op, dtype, index)
    expected = results(op.overload(*sample.args, **sample.kwargs))

    def room(t):
        if t is None or target == "like":
            return None if t is None else torch.empty_like(t)
        return torch.empty(*t.shape[:-1], 2 * t.shape[-1], dtype=t.dtype)[..., ::2]

    outs = dict(zip(op.out_names, map(room, expected), strict=True))
    flags = {"return_noise", "net_dtype", "return_D", "return_eps_norm"}
    inputs = sample.args[1:] if op.args.startswith("Tensor like") else sample.args
    with torch.no_grad():
        assert op.out_overload(*inputs, **{k: v for k, v in sample.kwargs.items() if k not in flags}, **outs) is None
    for name, exact in zip(op.out_names, expected, strict=True):
        if exact is not None:
            torch.testing.assert_close(outs[name], exact, rtol=0, atol=0)


@pytest.mark.parametrize("op", list(OPS.values()), ids=list(OPS))
def test_out_variant_refuses_gradients_and_bumps_versions(op):
    sample = _sample(op, torch.float32, 4)
    inputs = sample.args[1:] if op.args.startswith("Tensor like") else sample.args
    counter = {k: v for k, v in sample.kwargs.items() if k in ("key", "draw")}
    outs = _needed_outs(op, sample, counter)
    before = outs["out"]._version
    op.out_overload(*inputs, **counter, **outs)
    assert outs["out"]._version > before
    outs["out"].requires_grad_()
    with pytest.raises(RuntimeError, match="has no gradient"):
        op.out_overload(*inputs, **counter, **outs)


@pytest.mark.skipif(not has_kernel("sampler_step", "CPU"), reason="the reference copies, so it cannot tell")
@pytest.mark.parametrize("name", ["perturb", "sampler_step"])
def test_out_may_be_an_input_but_must_not_overlap_one(name):
    op = OPS[name]
    sample = _sample(op, torch.float32, 4)
    kwargs = {k: v for k, v in sample.kwargs.items() if k in ("key", "draw")}
    expected = results(op.overload(*sample.args, **kwargs))[0]
    state = sample.args[0].clone()
    op.out_overload(state, *sample.args[1:], **kwargs, out=state)
    torch.testing.assert_close(state, expected, rtol=0, atol=0)
    memory = torch.zeros(state.numel() + 1)
    shifted = memory[1:].view(state.shape)
    with pytest.raises(ValueError, match="partial overlap"):
        op.out_overload(memory[:-1].view(state.shape), *sample.args[1:], **kwargs, out=shifted)
    launch, device = backend("triton", op)
    if device == "cpu":
        with pytest.raises(ValueError, match="partial overlap"):
            launch(memory[:-1].view(state.shape), *sample.args[1:], **kwargs, out=shifted)


@pytest.mark.parametrize("name", ["cpu", "triton"])
@pytest.mark.parametrize("output", ["net_in", "D"])
def test_further_outputs_must_be_apart_from_everything(output, name):
    op = OPS["sampler_step"]
    call, device = backend(name, op)
    x, F, coef = _sample(op, torch.float32, 4, device).args
    if name == "cpu":
        call = op.out_overload
    for taken in ("x", "H1", "out"):
        tensors = {"x": x.clone(), "H1": torch.zeros_like(x), "out": torch.empty_like(x)}
        with pytest.raises(ValueError, match=f"{output}: expected memory apart from every other tensor's, got an overlap"):
            call(tensors["x"], F, coef, H1=tensors["H1"], out=tensors["out"], **{output: tensors[taken]})


@pytest.mark.slow
@pytest.mark.parametrize("grad", [False, True], ids=["plain", "grad"])
@pytest.mark.parametrize(("op", "dtype", "index"), _cases((torch.float32,)))
def test_opcheck(op, dtype, index, grad):
    if grad and not differentiable(op):
        pytest.skip("nothing to differentiate")
    sample = _sample(op, dtype, index)
    if grad:
        sample = sample.map(lambda t: t.detach().requires_grad_() if t.is_floating_point() else t)
    torch.library.opcheck(op.overload, sample.args, sample.kwargs)


@pytest.mark.slow
@pytest.mark.parametrize("op", list(OPS.values()), ids=list(OPS))
def test_opcheck_out(op):
    sample = _sample(op, torch.float32, 4)
    inputs = sample.args[1:] if op.args.startswith("Tensor like") else sample.args
    counter = {k: v for k, v in sample.kwargs.items() if k in ("key", "draw")}
    torch.library.opcheck(op.out_overload, inputs, {**counter, **_needed_outs(op, sample, counter)})


@pytest.mark.parametrize(("op", "dtype", "index"), _cases((torch.float64,), differentiable))
def test_gradients_to_every_tensor(op, dtype, index):
    sample = _sample(op, dtype, index)
    if sample.args[0].numel() > 700:
        pytest.skip("gradcheck of a small sample says as much")
    if not sample.args[0].shape[0]:
        pytest.skip("gradcheck needs an output")
    arguments = dict(enumerate(sample.args)) | sample.kwargs
    names = [k for k, v in arguments.items() if isinstance(v, torch.Tensor) and v.dtype == torch.float64 and v.numel()]
    values = [torch.where(torch.isinf(arguments[k]), torch.sign(arguments[k]) * 50, arguments[k]).requires_grad_() for k in names]
    assert names or not sample.args[0].numel()

    def call(*given):
        changed = arguments | dict(zip(names, given, strict=True))
        positional = [changed.pop(i) for i in range(len(sample.args))]
        outputs = op.overload(*positional, **changed)
        return tuple(t for t in outputs if t is not None and t.dtype == torch.float64)

    if names:
        torch.autograd.gradcheck(call, values, fast_mode=True)
        torch.autograd.gradgradcheck(call, values, fast_mode=True, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("op", list(OPS.values()), ids=list(OPS))
def test_compiles_without_graph_breaks(op, dynamic):
    torch._dynamo.reset()
    sample = _sample(op, torch.float32, 4)
    counters = [name for name in ("draw", "stream") if f"SymInt {name}=0" in op.args][:1]  # what changes from call to call
    fixed = {k: v for k, v in sample.kwargs.items() if k not in counters}

    def function(state, count):
        return results(op.overload(state * 2, *sample.args[1:], **fixed, **dict.fromkeys(counters, count)))[0] + 1

    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic)
    for count in (0, 1, 5, 2**40 if counters == ["draw"] else 2**31):
        torch.testing.assert_close(compiled(sample.args[0], count), function(sample.args[0], count))


@pytest.mark.slow
@pytest.mark.parametrize("op", list(filter(differentiable, OPS.values())), ids=lambda op: op.name)
def test_compiled_backward_gives_the_same_gradients(op):
    torch._dynamo.reset()
    sample = _sample(op, torch.float32, 4)

    def loss(state):
        return results(op.overload(state, *sample.args[1:], **sample.kwargs))[0].square().sum()

    gradients = []
    for function in (loss, torch.compile(loss, fullgraph=True)):
        state = sample.args[0].clone().requires_grad_()
        function(state).backward()
        gradients.append(state.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("op", list(OPS.values()), ids=list(OPS))
def test_vmap_equals_a_loop(op):
    sample = _sample(op, torch.float64, 4)
    kwargs = {k: v for k, v in sample.kwargs.items() if k != "return_D"}
    stacked = torch.stack([sample.args[0], sample.args[0].flip(0)])

    def call(state):
        return results(op.overload(state, *sample.args[1:], **kwargs))[0]

    torch.testing.assert_close(torch.func.vmap(call)(stacked), torch.stack([call(s) for s in stacked]))


@pytest.mark.parametrize("op", list(filter(differentiable, OPS.values())), ids=lambda op: op.name)
def test_forward_mode_is_right_under_torch_func_and_refused_for_dual_tensors(op):
    sample = _sample(op, torch.float64, 4)
    direction = torch.ones_like(sample.args[0])

    def call(state):
        return results(op.overload(state, *sample.args[1:], **sample.kwargs))[0]

    value, tangent = torch.func.jvp(call, (sample.args[0],), (direction,))
    step = 1e-6
    torch.testing.assert_close(value, call(sample.args[0]))
    ahead, behind = (call(sample.args[0] + sign * step * direction) for sign in (1, -1))
    torch.testing.assert_close(tangent, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-7)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(sample.args[0], direction)
        kwargs = {k: v for k, v in sample.kwargs.items() if k in ("key", "draw")}
        with pytest.raises(NotImplementedError, match=r"torch\.func\.jvp"):
            getattr(fastdiff.ops, op.name)(dual, *sample.args[1:], **kwargs)


@pytest.mark.parametrize("op", list(OPS.values()), ids=list(OPS))
def test_bytes_moved_counts_at_least_the_output(op):
    for sample in op.samples("cpu", torch.float32):
        state = sample.args[0]
        assert op.bytes_moved(sample) >= state.numel() * state.element_size()
