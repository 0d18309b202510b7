"""Triton kernels: the portable GPU path. LAUNCHERS maps an op to a function with the op's own signature.

Everything here runs under TRITON_INTERPRET=1 on CPU tensors too, which is how it is tested without a GPU.
"""

import triton.language as tl

from fastdiff.ops import formulas

formulas.tl = tl  # type: ignore[attr-defined]  # the interpreter looks for it among a jitted function's globals

from .noise import normal, rademacher, uniform  # noqa: E402
from .perturb import perturb  # noqa: E402
from .sampler_step import sampler_step  # noqa: E402

#: By op name: called as the functional overload, or with the tensors to write as keywords.
LAUNCHERS = {
    "normal": normal,
    "uniform": uniform,
    "rademacher": rademacher,
    "perturb": perturb,
    "sampler_step": sampler_step,
}
