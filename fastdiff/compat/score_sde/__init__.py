"""yang-song/score_sde_pytorch's names on fastdiff's plans and kernels.

    import sampling, sde_lib                                    # before
    from fastdiff.compat.score_sde import sampling, sde_lib     # after

The modules are the original's: sde_lib, sampling, likelihood, controllable_generation, losses, datasets (its scalers), models.utils
and models.ema. Every function that draws noise takes `noise=`, called as noise(like) once for each of the original's draws, in its
order, the prior's first.
"""

from . import controllable_generation, datasets, likelihood, losses, models, sampling, sde_lib
from .controllable_generation import get_pc_colorizer, get_pc_inpainter
from .datasets import get_data_inverse_scaler, get_data_scaler
from .likelihood import get_div_fn, get_likelihood_fn
from .losses import get_ddpm_loss_fn, get_optimizer, get_sde_loss_fn, get_smld_loss_fn, get_step_fn, optimization_manager
from .models import utils
from .models.ema import ExponentialMovingAverage
from .models.utils import (
    create_model,
    from_flattened_numpy,
    get_ddpm_params,
    get_model,
    get_model_fn,
    get_score_fn,
    get_sigmas,
    register_model,
    to_flattened_numpy,
)
from .sampling import (
    AncestralSamplingPredictor,
    AnnealedLangevinDynamics,
    Corrector,
    EulerMaruyamaPredictor,
    LangevinCorrector,
    NoneCorrector,
    NonePredictor,
    Predictor,
    ReverseDiffusionPredictor,
    get_corrector,
    get_ode_sampler,
    get_pc_sampler,
    get_predictor,
    get_sampling_fn,
    register_corrector,
    register_predictor,
    shared_corrector_update_fn,
    shared_predictor_update_fn,
)
from .sde_lib import SDE, VESDE, VPSDE, subVPSDE

__all__ = [
    "SDE",
    "VESDE",
    "VPSDE",
    "AncestralSamplingPredictor",
    "AnnealedLangevinDynamics",
    "Corrector",
    "EulerMaruyamaPredictor",
    "ExponentialMovingAverage",
    "LangevinCorrector",
    "NoneCorrector",
    "NonePredictor",
    "Predictor",
    "ReverseDiffusionPredictor",
    "controllable_generation",
    "create_model",
    "datasets",
    "from_flattened_numpy",
    "get_corrector",
    "get_data_inverse_scaler",
    "get_data_scaler",
    "get_ddpm_loss_fn",
    "get_ddpm_params",
    "get_div_fn",
    "get_likelihood_fn",
    "get_model",
    "get_model_fn",
    "get_ode_sampler",
    "get_optimizer",
    "get_pc_colorizer",
    "get_pc_inpainter",
    "get_pc_sampler",
    "get_predictor",
    "get_sampling_fn",
    "get_score_fn",
    "get_sde_loss_fn",
    "get_sigmas",
    "get_smld_loss_fn",
    "get_step_fn",
    "likelihood",
    "losses",
    "models",
    "optimization_manager",
    "register_corrector",
    "register_model",
    "register_predictor",
    "sampling",
    "sde_lib",
    "shared_corrector_update_fn",
    "shared_predictor_update_fn",
    "subVPSDE",
    "to_flattened_numpy",
    "utils",
]
