"""fastdiff.doctor(): what runs where, why a backend is missing, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass, field

import numpy as np
import torch

from ._version import __version__


@dataclass(frozen=True)
class Report:
    """What `doctor` found. `print` it.

    Attributes:
        versions: of what fastdiff runs on, by name.
        serves: (op, device type) to the backend that serves it: "C++ (avx512)", "CUDA C++", "Triton" or "reference".
        missing: backend to the reason why it is not there.
        programs: those that fastdiff.compat takes the place of and that come as packages, with their versions.
        handed_over: what the adapters of fastdiff.compat left to the originals' own code in this process, and how often.
        advice: what to do, one line each.
    """

    versions: dict[str, str]
    cpu_capability: str
    cpu_capabilities: list[str]
    threads: int
    devices: list[str]
    serves: dict[tuple[str, str], str]
    missing: dict[str, str] = field(default_factory=dict)
    advice: list[str] = field(default_factory=list)
    programs: dict[str, str] = field(default_factory=dict)
    handed_over: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        def section(title: str, lines: list[str]) -> list[str]:
            return [title, *(f"  {line}" for line in lines), ""]

        device_types = sorted({device for _, device in self.serves})
        ops = dict.fromkeys(op for op, _ in self.serves)
        width = max((len(b) for b in self.serves.values()), default=0)
        table = [f"{'op':14}" + "".join(f"{device:{width + 2}}" for device in device_types).rstrip()]
        table += [f"{op:14}" + "".join(f"{self.serves[op, d]:{width + 2}}" for d in device_types).rstrip() for op in ops]
        lines = section(f"fastdiff {__version__}", [f"{name:10} {version}" for name, version in self.versions.items()])
        capabilities = f"{self.cpu_capability} (this CPU runs: {', '.join(self.cpu_capabilities) or 'none of ours'})"
        lines += section("machine", [f"CPU kernels {capabilities}", f"threads     {self.threads}", *self.devices])
        lines += section("who serves which op", table)
        if self.missing:
            lines += section("missing", [f"{backend}: {reason}" for backend, reason in self.missing.items()])
        programs = [f"{name:11} {version}" for name, version in self.programs.items()]
        counts = [f"handed over to the original: {what} ({count} times)" for what, count in self.handed_over.items()]
        lines += section(
            "other programs (fastdiff.compat)", programs + (counts or ["handed over to the originals in this process: nothing"])
        )
        lines += section("what to do", self.advice or ["nothing: every backend that this machine can have is there"])
        return "\n".join(lines).rstrip()


def inspect() -> Report:
    """The report as data."""
    from . import _backends
    from .compat._handed_over import HANDED_OVER
    from .ops import OPS, has_kernel

    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    missing: dict[str, str] = {}
    advice: list[str] = []
    capability, capabilities = "none", []
    if _backends.CPU_EXTENSION_ERROR is None:
        from . import _C

        info = _C.build_info()
        capability, capabilities = _C.cpu_capability(), _C.cpu_capabilities()
        versions["extension"] = f"{info['version']}, built with {info['compiler']} for torch >= {info['torch_target']}"
        if info["version"] != __version__:
            advice.append(f"the extension is of version {info['version']}: build again with `pip install -e .`")
    else:
        missing["C++ kernels"] = _backends.CPU_EXTENSION_ERROR
        advice.append(
            "unset FASTDIFF_EXTENSION"
            if "FASTDIFF_EXTENSION" in missing["C++ kernels"]
            else "build the C++ kernels: `pip install -e .` in the source tree with a C++20 compiler (unset FASTDIFF_BUILD)"
        )

    triton_error = _backends.triton_error()
    if triton_error is None:
        import triton

        versions["triton"] = triton.__version__
    else:
        missing["Triton kernels"] = triton_error
        if torch.cuda.is_available():
            advice.append("install Triton: `pip install triton`")

    devices = [f"GPU {i}       {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    if not devices:
        why = "this torch is built without CUDA" if torch.version.cuda is None else "torch sees no GPU"
        missing["GPU"] = why
        devices = [f"GPU         none: {why}"]
    elif not _backends.cuda_kernels():
        missing["CUDA C++ kernels"] = "the extension was built without CUDA"
        advice.append("build the CUDA kernels: set CUDA_HOME to a toolkit of torch's CUDA version and run `pip install -e .`")

    serves: dict[tuple[str, str], str] = {}
    for op in OPS:
        serves[op, "cpu"] = f"C++ ({capability})" if has_kernel(op, "CPU") else "reference"
        if torch.cuda.is_available():
            triton = "Triton" if op in _backends.SERVED_BY_TRITON else "reference"
            serves[op, "cuda"] = "CUDA C++" if _backends.cuda_kernels() else triton
    if os.environ.get("TRITON_INTERPRET") == "1":
        advice.append("TRITON_INTERPRET=1 is set: Triton kernels run interpreted, hundreds of times slower")
    return Report(
        versions, capability, capabilities, torch.get_num_threads(), devices, serves, missing, advice, _programs(), dict(HANDED_OVER)
    )


def _programs() -> dict[str, str]:
    found = {}
    for name in ("diffusers", "k-diffusion"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = f"not installed: pip install 'fastdiff-torch[{name}]'"
    return found


def doctor() -> Report:
    """Print versions, which backend serves which op on which device, why a backend is missing, and what to do about it."""
    report = inspect()
    print(report)
    return report
