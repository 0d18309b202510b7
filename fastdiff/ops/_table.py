"""The op table: one frozen entry for each op, from which registration, tests, benchmarks, doctor and docs follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

NAMESPACE = "fastdiff"
LIBRARY = torch.library.Library(NAMESPACE, "DEF")


class Sample(NamedTuple):
    """Arguments of one call; `label` says in words what is special about it."""

    label: str
    args: tuple
    kwargs: Mapping[str, Any] = MappingProxyType({})

    def map(self, f: Callable[[Tensor], Tensor]) -> Sample:
        """The same call with f applied to every tensor."""
        change = lambda v: f(v) if isinstance(v, Tensor) else v  # noqa: E731
        return Sample(self.label, tuple(map(change, self.args)), {k: change(v) for k, v in self.kwargs.items()})


class Tolerance(NamedTuple):
    """Largest error against the float64 reference, and why it is what it is."""

    rtol: float
    atol: float
    reason: str


@dataclass(frozen=True)
class Op:
    """An op: schema "fastdiff::name(args) -> returns", its mathematics, and what tests and benchmarks need to know.

    Attributes:
        name: of the op, of its file stem and of its kernels.
        args, returns: the functional schema without the name.
        out_args: the schema of the `.out` overload, which writes its keyword-only tensors and returns nothing.
        equation, source: for people.
        reference: plain PyTorch, float64-capable; positional parameters as in `args`.
        out_names: the tensors that `.out` writes.
        out_reference: what to write into them: called as `.out` is, returns a tuple of tensors in the order of out_names.
        samples: (device, dtype) to calls that every backend must get right.
        errors: device to calls that must raise ValueError with the same text on every backend.
        tolerance: by dtype.
        bytes_moved: of one call, read and written once: the floor of a memory-bound kernel.
        setup_context, backward: as for torch.library.register_autograd; None where nothing is differentiable.
    """

    name: str
    args: str
    returns: str
    out_args: str
    equation: str
    source: str
    reference: Callable[..., Any]
    out_names: tuple[str, ...]
    out_reference: Callable[..., tuple]
    samples: Callable[[torch.device | str, torch.dtype], Iterator[Sample]]
    errors: Callable[[torch.device | str], Iterator[Sample]]
    tolerance: Mapping[torch.dtype, Tolerance]
    bytes_moved: Callable[[Sample], int]
    setup_context: Callable[..., None] | None = None
    backward: Callable[..., Any] | None = None

    @property
    def overload(self):
        """The functional overload in the dispatcher."""
        return getattr(getattr(torch.ops, NAMESPACE), self.name).default

    @property
    def out_overload(self):
        """The overload that writes into given tensors."""
        return getattr(getattr(torch.ops, NAMESPACE), self.name).out


#: Context in which ops skip autograd's bookkeeping.
below_autograd = torch._C._AutoDispatchBelowAutograd

#: Every op, by name, in the order of registration.
OPS: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Put an op in the table and give it to the dispatcher: define, reference, functorch, autograd, out variant."""
    qualified = f"{NAMESPACE}::{op.name}"
    LIBRARY.define(f"{op.name}({op.args}) -> {op.returns}", tags=torch.Tag.pt2_compliant_tag)
    LIBRARY.impl(op.name, _with_strides_of_the_state(op.reference), "CompositeExplicitAutograd")
    # register_autograd alone would fail under torch.func, and jvp would return zeros in silence.
    LIBRARY.impl(op.name, op.reference, "FuncTorchDynamicLayerFrontMode")
    if op.backward is None:
        LIBRARY.impl(op.name, torch.library.fallthrough_kernel, "Autograd")
    else:
        torch.library.register_autograd(qualified, op.backward, setup_context=op.setup_context, lib=LIBRARY)

    LIBRARY.define(f"{op.name}.out({op.out_args}) -> ()", tags=torch.Tag.pt2_compliant_tag)
    LIBRARY.impl(f"{op.name}.out", _write_out(op), "CompositeExplicitAutograd")
    LIBRARY.impl(f"{op.name}.out", _refuse_gradients(op), "Autograd", with_keyset=True)
    LIBRARY.impl(f"{op.name}.out", _bump_versions(op), "ADInplaceOrView", with_keyset=True)
    OPS[op.name] = op
    return op


def has_kernel(name: str, dispatch_key: str) -> bool:
    """Whether a compiled kernel (and not the reference) serves the op under a dispatch key such as "CPU" or "CUDA"."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{name}", dispatch_key)


def differentiate(reference: Callable) -> dict[str, Callable]:
    """setup_context and backward that differentiate the reference: for ops whose backward is not worth a kernel."""

    def setup_context(ctx, inputs, output) -> None:
        ctx.is_tensor = [isinstance(v, Tensor) for v in inputs]
        ctx.rest = [None if tensor else v for v, tensor in zip(inputs, ctx.is_tensor, strict=True)]
        ctx.save_for_backward(*(v for v, tensor in zip(inputs, ctx.is_tensor, strict=True) if tensor))
        outputs = output if isinstance(output, tuple) else (output,)
        ctx.given = [t is not None for t in outputs]

    def backward(ctx, *grads):
        saved = iter(ctx.saved_tensors)
        inputs = [next(saved) if tensor else v for tensor, v in zip(ctx.is_tensor, ctx.rest, strict=True)]
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad) if needed]
        again = torch.is_grad_enabled()  # someone differentiates the gradient
        with torch.enable_grad():
            for i in wanted:
                inputs[i] = inputs[i] if again else inputs[i].detach().requires_grad_()
            results = reference(*inputs)
            produced = [t for t in (results if isinstance(results, tuple) else (results,)) if t is not None]
            given = [g for g, was in zip(grads, ctx.given, strict=True) if was]
            pairs = [(t, g.to(t.dtype)) for t, g in zip(produced, given, strict=True) if g is not None and t.requires_grad]
            variables = [inputs[i] for i in wanted]
            outputs, cotangents = ([pair[side] for pair in pairs] for side in (0, 1))
            found = torch.autograd.grad(outputs, variables, cotangents, create_graph=again, allow_unused=True) if pairs else ()
        result: list[Tensor | None] = [None] * len(inputs)
        for i, gradient in zip(wanted, found, strict=False):
            result[i] = gradient
        return tuple(result)

    return {"setup_context": setup_context, "backward": backward}


def _with_strides_of_the_state(reference: Callable) -> Callable:
    """The reference with outputs laid out as every kernel lays them out: like empty_like of the first argument."""

    def laid_out(state: Tensor, *args, **kwargs):
        results = reference(state, *args, **kwargs)
        strides = torch.empty_like(state, device="meta").stride()

        def fix(t):
            if t is None or t.shape != state.shape or t.stride() == strides:
                return t
            return torch.empty_like(state, dtype=t.dtype).copy_(t)

        return tuple(map(fix, results)) if isinstance(results, tuple) else fix(results)

    return laid_out


def _write_out(op: Op) -> Callable:
    def out_kernel(*args, **kwargs):
        results = op.out_reference(*args, **kwargs)
        for name, result in zip(op.out_names, results, strict=True):
            if kwargs.get(name) is not None:
                kwargs[name].copy_(result)

    return out_kernel


def _refuse_gradients(op: Op) -> Callable:
    def autograd(keyset, *args, **kwargs):
        if torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in (*args, *kwargs.values())):
            raise RuntimeError(
                f"fastdiff::{op.name}.out writes into given tensors and has no gradient: call fastdiff::{op.name}, or use torch.no_grad()"
            )
        with below_autograd():
            return op.out_overload.redispatch(keyset & torch._C._after_autograd_keyset, *args, **kwargs)

    return autograd


def _bump_versions(op: Op) -> Callable:
    def adinplace_or_view(keyset, *args, **kwargs):
        for name in op.out_names:
            if kwargs.get(name) is not None:
                torch.autograd.graph.increment_version(kwargs[name])
        with torch._C._AutoDispatchBelowADInplaceOrView():
            return op.out_overload.redispatch(keyset & torch._C._after_ADInplaceOrView_keyset, *args, **kwargs)

    return adinplace_or_view
