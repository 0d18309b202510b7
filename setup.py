"""Builds csrc/ into fastdiff._C with ninja. Everything else about the package is in pyproject.toml.

Environment:
    FASTDIFF_BUILD=1|0          0 installs the Python package alone (the reference backend serves every op)
    FASTDIFF_CUDA=auto|0|1      auto compiles csrc/cuda where torch has CUDA and CUDA_HOME exists; 1 fails where it cannot
    TORCH_CUDA_ARCH_LIST        GPU architectures, as for any torch extension; MAX_JOBS: parallel compilations
"""

import os
import sys
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
TORCH_TARGET = "0x020a000000000000"  # the stable ABI of torch 2.10: one binary serves every later torch


def flag(name: str, default: str, allowed: tuple[str, ...]) -> str:
    value = os.environ.get(name, default)
    if value not in allowed:
        sys.exit(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
    return value


def cuda_wanted() -> bool:
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    choice = flag("FASTDIFF_CUDA", "auto", ("auto", "0", "1"))
    missing = (
        "this torch has no CUDA" if torch.version.cuda is None else "CUDA_HOME is not set and no nvcc was found" if not CUDA_HOME else ""
    )
    if choice == "1" and missing:
        sys.exit(f"FASTDIFF_CUDA=1, but {missing}")
    if choice == "auto" and missing:
        print(f"fastdiff: building without CUDA kernels ({missing})")
    return choice != "0" and not missing


def extension():
    import pybind11
    from torch.utils import cpp_extension

    cuda = cuda_wanted()
    version = (HERE / "fastdiff/_version.py").read_text().split('"')[1]
    sources = [*HERE.glob("csrc/*.cpp"), *HERE.glob("csrc/cpu/*.cpp"), *(HERE.glob("csrc/cuda/*.cu") if cuda else [])]
    defines = [f"-DTORCH_TARGET_VERSION={TORCH_TARGET}", f'-DFASTDIFF_VERSION="{version}"']
    if cuda:
        defines += ["-DUSE_CUDA", f'-DFASTDIFF_CUDA_ARCHS="{os.environ.get("TORCH_CUDA_ARCH_LIST") or "native"}"']
    common = ["-std=c++20", "-O3", "-g0", "-ffp-contract=off", "-fschedule-insns", "-fvisibility=hidden", *defines]
    compile_args = {
        "cxx": [*common, "-Wall", "-Wno-unknown-pragmas", "-Wno-maybe-uninitialized"],
        "nvcc": ["-std=c++20", "-O3", "--fmad=false", *defines],
    }
    arguments = cpp_extension.include_paths("cuda") if cuda else cpp_extension.include_paths()
    build = cpp_extension.setuptools.Extension(
        "fastdiff._C",
        sources=sorted(str(path.relative_to(HERE)) for path in sources),
        depends=sorted(str(path.relative_to(HERE)) for path in HERE.glob("csrc/**/*.h")),
        include_dirs=[pybind11.get_include(), *arguments],
        library_dirs=cpp_extension.library_paths("cuda" if cuda else "cpu"),
        libraries=["torch_cpu", *(["torch_cuda", "cudart"] if cuda else [])],
        extra_compile_args=compile_args,
        language="c++",
    )
    return [build], {"build_ext": cpp_extension.BuildExtension.with_options(use_ninja=True)}


if flag("FASTDIFF_BUILD", "1", ("0", "1")) == "1":
    modules, commands = extension()
    setup(ext_modules=modules, cmdclass=commands)
else:
    setup()
