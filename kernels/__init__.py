"""Triton kernels: the portable GPU path. LAUNCHERS maps an op to a function with the op's own signature.

Everything here runs under TRITON_INTERPRET=1 on CPU tensors too, which is how it is tested without a GPU.
"""

import triton.language as tl

from fastdiff.ops import formulas

formulas.tl = tl  # type: ignore[attr-defined]  # the interpreter looks for it among a jitted function's globals

from .denoising_loss import denoising_loss  # noqa: E402
from .group_norm_silu import group_norm_silu, group_norm_silu_backward  # noqa: E402
from .langevin_row import langevin_row  # noqa: E402
from .noise import normal, rademacher, uniform  # noqa: E402
from .normal_sum import normal_sum  # noqa: E402
from .ode_error import ode_error  # noqa: E402
from .ode_stage import ode_stage  # noqa: E402
from .perturb import perturb  # noqa: E402
from .probe_dot import probe_dot  # noqa: E402
from .sampler_step import sampler_step  # noqa: E402

#: By op name: called as the functional overload, or with the tensors to write as keywords.
LAUNCHERS = {
    "normal": normal,
    "uniform": uniform,
    "rademacher": rademacher,
    "normal_sum": normal_sum,
    "probe_dot": probe_dot,
    "perturb": perturb,
    "sampler_step": sampler_step,
    "langevin_row": langevin_row,
    "ode_stage": ode_stage,
    "ode_error": ode_error,
    "denoising_loss": denoising_loss,
    "group_norm_silu": group_norm_silu,
    "group_norm_silu_backward": group_norm_silu_backward,
}
