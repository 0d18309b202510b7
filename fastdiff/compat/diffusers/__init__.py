"""Hugging Face diffusers' schedulers, each step one fused launch.

    from diffusers import DDIMScheduler                        # before
    from fastdiff.compat.diffusers import DDIMScheduler        # after

    pipe = fastdiff.compat.diffusers.accelerate(pipe)          # or: the schedulers of a whole pipeline, in place

They are subclasses under the same names, with the same configs, timesteps and numbers. A config that the fused step does not serve runs
the original's own code: `scheduler.handed_over` says why, and `fastdiff.doctor()` lists what was handed over. `print(scheduler.plan)`
shows the table. With a generator the noise is the original's; without one it is fastdiff's, from keys of torch's global generator.
"""

try:
    import diffusers as _diffusers
except ImportError as error:
    raise ImportError("fastdiff.compat.diffusers needs diffusers >= 0.35: pip install 'fastdiff-torch[diffusers]'") from error

_version = tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in _diffusers.__version__.split(".")[:2])
if _version < (0, 35):
    raise ImportError(f"fastdiff.compat.diffusers needs diffusers >= 0.35, got {_diffusers.__version__}: pip install -U diffusers")

from .accelerate import accelerate
from .ddim import DDIMInverseScheduler, DDIMScheduler
from .ddpm import DDPMScheduler
from .dpm import DPMSolverMultistepScheduler, DPMSolverSinglestepScheduler, EDMDPMSolverMultistepScheduler
from .euler import EDMEulerScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from .heun import HeunDiscreteScheduler
from .lms import LMSDiscreteScheduler
from .score_sde_ve import ScoreSdeVeScheduler
from .unipc import UniPCMultistepScheduler

#: Every scheduler that has a fused class.
SCHEDULERS = (
    DDPMScheduler, DDIMScheduler, DDIMInverseScheduler, EulerDiscreteScheduler, EulerAncestralDiscreteScheduler, HeunDiscreteScheduler,
    DPMSolverMultistepScheduler, DPMSolverSinglestepScheduler, EDMEulerScheduler, EDMDPMSolverMultistepScheduler, UniPCMultistepScheduler,
    LMSDiscreteScheduler, ScoreSdeVeScheduler, FlowMatchEulerDiscreteScheduler,
)  # fmt: skip

__all__ = ["SCHEDULERS", "accelerate", *(cls.__name__ for cls in SCHEDULERS)]
