"""k-diffusion's samplers, schedules and noise: change the import.

    from k_diffusion import sampling as K                      # before
    from fastdiff.compat.k_diffusion import sampling as K      # after

    x = K.sample_dpmpp_2m(model, torch.randn(shape) * sigmas[0], sigmas, extra_args=extra_args)

k-diffusion need not be installed. `patch()` does it for a program that cannot be changed. docs/compat_k_diffusion.md says what is the same.
"""

from . import sampling
from .patching import Patched, patch, unpatch
from .sampling import *  # noqa: F403
from .sampling import __all__ as _names

__all__ = [*_names, "Patched", "patch", "sampling", "unpatch"]
