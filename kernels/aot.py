"""Compile the Triton kernels ahead of time, without a GPU, and report what came out: python -m fastdiff.kernels.aot

For NVIDIA: registers, spills and the widest global load of the PTX. For AMD: vector registers and spills.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from .denoising_loss import loss_kernel
from .group_norm_silu import ELEMENTS, norm_backward_kernel, norm_kernel
from .langevin_row import ROWS, norms_kernel, rows_kernel
from .noise import BLOCKS, COUNTER, NORMAL, RADEMACHER, noise_kernel
from .normal_sum import sum_kernel
from .ode_error import error_kernel
from .ode_stage import stage_kernel
from .perturb import perturb_kernel
from .probe_dot import probe_kernel
from .sampler_step import step_kernel

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}


class Case(NamedTuple):
    """A specialization: types of the arguments by name; what is absent is None, upper case is a constant."""

    name: str
    kernel: Any
    types: dict[str, str]
    constants: dict[str, Any]


def _cases() -> list[Case]:
    sizes = {"n": "i64", "channels": "i32", "tiles": "i32"}
    counter = dict.fromkeys(COUNTER, "u32")
    noise = {"keys": "*i64", **counter}
    plain = {"LAST": False, "BLOCKS": BLOCKS}
    float32 = {"COMPUTE": triton.language.float32, **plain}
    rows = {"n": "i64", "tiles": "i32", "numel": "i64"}

    def step(name: str, dtype: str, *, noisy: bool, **more: str) -> Case:
        types = {"out": dtype, "x": dtype, "F": dtype, "coef": "*fp64", **more, **sizes, **(noise if noisy else counter)}
        compute = triton.language.float64 if dtype == "*fp64" else triton.language.float32
        return Case(name, step_kernel, types, {"PER_SAMPLE": False, "COMPUTE": compute, **plain})

    def stage(name: str, dtype: str, slopes: int, **more: str) -> Case:
        states = dict.fromkeys(("k", "y", "x", "F", "x0", "K"), dtype)
        types = {**states, "coef": "*fp64", "weights": "*fp64", **more, **rows}
        compute = triton.language.float64 if dtype == "*fp64" else triton.language.float32
        shared = {"PER_SAMPLE": False, "WEIGHTS_PER_SAMPLE": False}
        return Case(name, stage_kernel, types, {"COUNT": slopes, "COMPUTE": compute, "BLOCKS": BLOCKS, **shared})

    perturb_types = {"out": "*fp32", "x0": "*fp32", "mean_coef": "*fp64", "std": "*fp64", **noise, **sizes}
    sum_types = {"out": "*fp32", "keys": "*i64", "draws": "*i64", "weights": "*fp64", "count": "i32", "stream": "u32", **sizes}
    probe_types = {"partial": "*fp64", "g": "*fp32", **noise, **sizes}
    norms_types = {"partial": "*fp64", "x": "*fp32", "F": "*fp32", "coef": "*fp64", **noise, **sizes}
    rows_types = {"out": "*fp64", "squares": "*fp64", "coef": "*fp64", "batch": "i32"}
    loss_types = {"partial": "*fp64", "F": "*fp32", "x0": "*fp32", "coef": "*fp64", **noise, **sizes}
    norm_sizes = {"n": "i64", "channels": "i32", "groups": "i32", "width": "i32"}
    parameters = {**dict.fromkeys(("weight", "bias", "scale", "shift"), "*fp32"), **norm_sizes}
    norm_types = {"out": "*fp32", "x": "*fp32", "mean_out": "*fp64", "rstd_out": "*fp64", "eps": "fp64", **parameters}
    gradients = {
        **dict.fromkeys(("grad_x", "x", "grad"), "*fp32"),
        **dict.fromkeys(("dot_out", "total_out", "mean_in", "rstd_in"), "*fp64"),
    }
    norm_constants = {"SILU": True, "COMPUTE": triton.language.float32, "LAST": False, "CHANNELS": 1, "PIXELS": ELEMENTS}
    error_types = {"partial": "*fp64", **dict.fromkeys(("x0", "y", "K"), "*fp32"), "weights": "*fp64", "rtol": "fp64", "atol": "fp64"}
    masked = {"known": "*fp32", "mask": "*fp32"}
    return [
        Case("normal float32", noise_kernel, {"out": "*fp32", **noise, **sizes}, {"KIND": NORMAL.value, **plain}),
        Case("normal_sum float32", sum_kernel, sum_types, float32),
        Case("perturb float32", perturb_kernel, perturb_types, float32),
        step("step float32", "*fp32", noisy=False),
        step("step float32, Heun corrector", "*fp32", noisy=False, H1="*fp32"),
        step("step float32, churn", "*fp32", noisy=True, H1="*fp32"),
        step("step float32, known data", "*fp32", noisy=False, **masked),
        step("step float32, noisy known data", "*fp32", noisy=True, **masked),
        step("step float64", "*fp64", noisy=False, H1="*fp64"),
        step("step bfloat16", "*bf16", noisy=False),
        Case("Langevin norms float32", norms_kernel, norms_types, {"PER_SAMPLE": False, **float32}),
        Case("Langevin rows", rows_kernel, rows_types, {"PER_SAMPLE": True, "SHARED": True, "ROWS": ROWS}),
        Case("probe_dot float32", probe_kernel, probe_types, {"KIND": RADEMACHER.value, **float32}),
        Case("probe_dot float32, gaussian", probe_kernel, probe_types, {"KIND": NORMAL.value, **float32}),
        Case("denoising_loss float32", loss_kernel, loss_types, {"PER_SAMPLE": False, **float32}),
        Case("denoising_loss bfloat16", loss_kernel, {**loss_types, "F": "*bf16"}, {"PER_SAMPLE": True, **float32}),
        Case("group_norm_silu float32", norm_kernel, norm_types, norm_constants),
        Case("group_norm_silu_backward", norm_backward_kernel, {**gradients, **parameters}, norm_constants),
        stage("ode_stage float32, first", "*fp32", 0),
        stage("ode_stage float32, seventh", "*fp32", 6, F_u="*fp32", G="*fp32", net_in="*bf16"),
        stage("ode_stage float64, seventh", "*fp64", 6),
        stage("ode_stage bfloat16, seventh", "*bf16", 6),
        Case("ode_error float32", error_kernel, {**error_types, **rows}, {"COUNT": 7, "PER_SAMPLE": False, **float32}),
    ]


def compile_case(case: Case, target: GPUTarget) -> dict[str, Any]:
    """One row of the report."""
    names = case.kernel.arg_names
    signature, constexprs, attrs = {}, {}, {}
    for i, name in enumerate(names):
        if name in case.types:
            signature[name] = case.types[name]
            if case.types[name].startswith("*") or name in ("n", "numel"):
                attrs[(i,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "constexpr"
            constexprs[name] = case.constants.get(name)
    source = ASTSource(case.kernel, signature, constexprs, attrs)
    compiled = triton.compile(source, target=target, options={"enable_fp_fusion": False, "num_warps": 4})
    if target.backend == "hip":
        assembly = compiled.asm["amdgcn"]

        def number(field: str) -> int:
            return int(re.search(rf"\.{field}:\s*(\d+)", assembly).group(1))  # type: ignore[union-attr]

        widths = [int(w or 1) for w in re.findall(r"(?:global|buffer)_load_(?:dword|b)x?(\d*)", assembly)]
        return {"registers": number("vgpr_count"), "spills": number("vgpr_spill_count"), "load_bits": 32 * max(widths, default=0)}
    ptx = compiled.asm["ptx"]
    loads = re.findall(r"ld\.global[.\w:]*?(?:\.v(\d))?\.[bfu](\d+)", ptx)
    return {**_resources(compiled.asm["cubin"]), "load_bits": max((int(v or 1) * int(bits) for v, bits in loads), default=0)}


def _resources(cubin: bytes) -> dict[str, int]:
    """Registers and spilled bytes of a cubin, from Triton's own cuobjdump."""
    tool = next(Path(triton.__file__).parent.glob("backends/nvidia/bin/cuobjdump*"))
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True).stdout
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", text).groups()  # type: ignore[union-attr]
    return {"registers": int(registers), "spills": int(stack)}


def report() -> list[dict[str, Any]]:
    """Every case for every target."""
    return [{"kernel": case.name, "target": name, **compile_case(case, target)} for case in _cases() for name, target in TARGETS.items()]


def main() -> None:
    """Print the report as a table, or as JSON with --json."""
    rows = report()
    if "--json" in sys.argv:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'kernel':32} {'target':8} {'registers':>9} {'spills':>7} {'widest load':>12}")
    for row in rows:
        print(f"{row['kernel']:32} {row['target']:8} {row['registers']:9} {row['spills']:7} {row['load_bits']:8} bit")


if __name__ == "__main__":
    main()
