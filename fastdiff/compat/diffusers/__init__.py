"""Hugging Face diffusers' schedulers, each step one fused launch.

    from diffusers import DDIMScheduler                        # before
    from fastdiff.compat.diffusers import DDIMScheduler        # after

    pipe = fastdiff.compat.diffusers.accelerate(pipe)          # or: the schedulers of a whole pipeline, in place

They are subclasses under the same names, with the same configs, timesteps and numbers. A config that the fused step does not serve runs
the original's own code: `scheduler.handed_over` says why, and `fastdiff.doctor()` lists what was handed over. `print(scheduler.plan)`
shows the table. With a generator the noise is the original's; without one it is fastdiff's, from keys of torch's global generator.
"""

from . import _requirement  # noqa: F401 - first: it says what is missing
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
