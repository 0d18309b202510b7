"""sampling: predictor-corrector and ODE samplers under their original names, in fastdiff's loop and solver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...flow import Flow
from ...loop import run
from ...noise import randn
from ...ode import ODESolver, integrate
from ...samplers import PCSampler
from .._handed_over import record
from .._plans import plan_for
from . import _networks, sde_lib
from ._noise import Keyed, Noise, first_draw, new_keys
from ._scipy import solve_ivp
from ._steps import (
    CORRECTORS,
    PREDICTORS,
    AncestralSamplingPredictor,
    AnnealedLangevinDynamics,
    Corrector,
    EulerMaruyamaPredictor,
    LangevinCorrector,
    NoneCorrector,
    NonePredictor,
    Predictor,
    ReverseDiffusionPredictor,
    register_corrector,
    register_predictor,
)
from .models import utils as mutils

__all__ = [
    "AncestralSamplingPredictor", "AnnealedLangevinDynamics", "Corrector", "EulerMaruyamaPredictor", "LangevinCorrector", "NoneCorrector",
    "NonePredictor", "Predictor", "ReverseDiffusionPredictor", "get_corrector", "get_ode_sampler", "get_pc_sampler", "get_predictor",
    "get_sampling_fn", "register_corrector", "register_predictor", "shared_corrector_update_fn", "shared_predictor_update_fn",
]  # fmt: skip

Model = Callable[[Tensor, Tensor], Tensor]
_PREDICTOR_NAMES: dict[Any, Any] = {
    None: "none", NonePredictor: "none", EulerMaruyamaPredictor: "euler_maruyama", ReverseDiffusionPredictor: "reverse_diffusion",
    AncestralSamplingPredictor: "ancestral_sampling",
}  # fmt: skip
_CORRECTOR_NAMES: dict[Any, Any] = {None: "none", NoneCorrector: "none", LangevinCorrector: "langevin", AnnealedLangevinDynamics: "ald"}

#: SciPy has no limit, and a solver that gives up is no drop-in.
MAX_ATTEMPTS = 1_000_000


def get_predictor(name: str) -> type[Predictor]:
    """The predictor of a name: "euler_maruyama", "reverse_diffusion", "ancestral_sampling", "none", or one that was registered.

    Raises:
        ValueError: there is none.
    """
    return PREDICTORS[name]


def get_corrector(name: str) -> type[Corrector]:
    """The corrector of a name: "langevin", "ald", "none", or one that was registered.

    Raises:
        ValueError: there is none.
    """
    return CORRECTORS[name]


def get_sampling_fn(
    config: Any, sde: sde_lib.SDE, shape: Sequence[int], inverse_scaler: Callable, eps: float, *, noise: Noise | None = None
) -> Callable[..., tuple[Tensor, int]]:
    """The sampler of a configuration.

    Args:
        config: anything with the attributes sampling.method ("pc" or "ode"), sampling.noise_removal and device; for "pc" also
            sampling.predictor, .corrector, .snr, .n_steps_each, .probability_flow and training.continuous.
        sde, shape, inverse_scaler, eps, noise: as for `get_pc_sampler`.

    Raises:
        ValueError: another method, or names that nobody registered.
    """
    sampling = config.sampling
    method = sampling.method.lower()
    if method == "ode":
        return get_ode_sampler(sde, shape, inverse_scaler, denoise=sampling.noise_removal, eps=eps, device=config.device, noise=noise)
    if method != "pc":
        raise ValueError(f"config.sampling.method: expected 'pc' or 'ode', got {sampling.method!r}")
    return get_pc_sampler(
        sde, shape, get_predictor(sampling.predictor.lower()), get_corrector(sampling.corrector.lower()), inverse_scaler, sampling.snr,
        n_steps=sampling.n_steps_each, probability_flow=sampling.probability_flow, continuous=config.training.continuous,
        denoise=sampling.noise_removal, eps=eps, device=config.device, noise=noise,
    )  # fmt: skip


def get_pc_sampler(
    sde: sde_lib.SDE, shape: Sequence[int], predictor: Any, corrector: Any, inverse_scaler: Callable, snr: float, n_steps: int = 1,
    probability_flow: bool = False, continuous: bool = False, denoise: bool = True, eps: float = 1e-3,
    device: torch.device | str = "cuda", *, noise: Noise | None = None,
) -> Callable[..., tuple[Tensor, int]]:  # fmt: skip
    """A predictor-corrector sampler, pc_sampler(model, *, noise=None) -> (samples, network calls as the original counts them).

    Args:
        sde: the forward SDE; shape: (B, C, H, W) of the samples; inverse_scaler: applied to them.
        predictor, corrector: classes, of `get_predictor` and `get_corrector` or your own, or None. With the original ones the whole run
            is a `fastdiff.PCSampler`, one fused step for each network call; with a class or an SDE of your own it is a plain loop.
        snr, n_steps: signal-to-noise ratio and number of the corrector's steps.
        probability_flow: the predictor steps along the probability-flow ODE.
        continuous: the model was trained in continuous time; see `models.utils.get_score_fn`.
        denoise: leave the noise out of the last predictor step.
        eps: the last time.
        device: where to sample with a model that has no parameters; others sample where they are.
        noise: noise(like) instead of fastdiff's noise, called once for each of the original's draws, in its order, the prior's first;
            None: noise keys from torch's global generator, so that torch.manual_seed makes runs repeat.
    """

    def pc_sampler(model: Model, *, noise: Noise | None = noise) -> tuple[Tensor, int]:
        where = _networks.device_of(model, device)
        fused = as_sampler(sde, predictor, corrector, snr, n_steps, probability_flow, denoise, eps)
        with torch.no_grad():
            if fused is None:
                record(
                    "score_sde", f"{_name(predictor)}, {_name(corrector)} on {_name(type(sde))}: a plain loop with the original's semantics"
                )
                x = _unfused(model, where, Keyed(new_keys(shape[0], where)) if noise is None else noise)
            else:
                plan, net = plan_for(fused, _networks.parametrization_of(sde, continuous)), _networks.network_of(model, sde, continuous)
                key = new_keys(shape[0], where) if noise is None else None
                latents = randn(shape, key, device=where) if noise is None else first_draw(noise, shape, where)  # type: ignore[arg-type]
                x = run(plan, net, latents, key=key, noise=noise, progress=False)
            return inverse_scaler(x), sde.N * (n_steps + 1)

    def _unfused(model: Model, where: torch.device, noise: Noise) -> Tensor:
        x = x_mean = prior_sample(sde, shape, where, noise)
        for t in torch.linspace(sde.T, eps, sde.N, device=where):
            vec_t = t.repeat(shape[0])
            x, x_mean = shared_corrector_update_fn(x, vec_t, sde, model, corrector, continuous, snr, n_steps, noise=noise)
            x, x_mean = shared_predictor_update_fn(x, vec_t, sde, model, predictor, probability_flow, continuous, noise=noise)
        return x_mean if denoise else x

    return pc_sampler


def _name(cls: Any) -> str:
    return getattr(cls, "__name__", "none" if cls is None else type(cls).__name__)


def get_ode_sampler(
    sde: sde_lib.SDE, shape: Sequence[int], inverse_scaler: Callable, denoise: bool = False, rtol: float = 1e-5, atol: float = 1e-5,
    method: str = "RK45", eps: float = 1e-3, device: torch.device | str = "cuda", *, noise: Noise | None = None,
) -> Callable[..., tuple[Tensor, int]]:  # fmt: skip
    """A sampler by the probability-flow ODE, ode_sampler(model, z=None, *, noise=None) -> (samples, network calls).

    Args:
        sde, shape, inverse_scaler, eps, device, noise: as for `get_pc_sampler`.
        denoise: end with a step of reverse diffusion without its noise.
        rtol, atol: tolerances.
        method: "RK45" runs on the device (`fastdiff.ODESolver`); others of scipy.integrate.solve_ivp run in SciPy.
    """

    def ode_sampler(model: Model, z: Tensor | None = None, *, noise: Noise | None = noise) -> tuple[Tensor, int]:
        where = _networks.device_of(model, device)
        draw = Keyed(new_keys(shape[0], where)) if noise is None else noise
        with torch.no_grad():
            x = prior_sample(sde, shape, where, draw) if z is None else z.to(where)
            solve = _on_the_device if method == "RK45" and _networks.fusible(sde) else _in_scipy
            x, nfe = solve(sde, model, x, eps, rtol, atol, method)
            if denoise:
                last = _drawing(ReverseDiffusionPredictor(sde, mutils.get_score_fn(sde, model, continuous=True)), draw)
                x = last.update_fn(x, torch.full((len(x),), eps, device=x.device))[1]
            return inverse_scaler(x), nfe

    return ode_sampler


def shared_predictor_update_fn(
    x: Tensor, t: Tensor, sde: sde_lib.SDE, model: Model, predictor: Any, probability_flow: bool, continuous: bool, *,
    noise: Noise | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One update of a predictor class on a model: (the next state, the same without its noise)."""
    score_fn = mutils.get_score_fn(sde, model, train=False, continuous=continuous)
    return _drawing((predictor or NonePredictor)(sde, score_fn, probability_flow), noise).update_fn(x, t)


def shared_corrector_update_fn(
    x: Tensor, t: Tensor, sde: sde_lib.SDE, model: Model, corrector: Any, continuous: bool, snr: float, n_steps: int, *,
    noise: Noise | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One update of a corrector class on a model: (the next state, the same without its noise)."""
    score_fn = mutils.get_score_fn(sde, model, train=False, continuous=continuous)
    return _drawing((corrector or NoneCorrector)(sde, score_fn, snr, n_steps), noise).update_fn(x, t)


def as_sampler(
    sde: Any, predictor: Any, corrector: Any, snr: float, n_steps: int, probability_flow: bool, denoise: bool, eps: float
) -> PCSampler | None:
    """The sampler that these arguments mean; None for classes of the user's own."""
    if predictor not in _PREDICTOR_NAMES or corrector not in _CORRECTOR_NAMES or not _networks.fusible(sde):
        return None
    predictor, corrector = _PREDICTOR_NAMES[predictor], _CORRECTOR_NAMES[corrector]
    if predictor == "ancestral_sampling" and isinstance(sde, sde_lib.subVPSDE):
        return None  # the class says why not
    if corrector != "none" and not (snr > 0 and n_steps > 0):
        return None  # the class does nothing, and draws its noise
    correct = {} if corrector == "none" else {"snr": float(snr), "corrector_steps": n_steps}
    return PCSampler(
        sde.process, steps=sde.N, predictor=predictor, corrector=corrector, eps=float(eps), denoise=bool(denoise),
        probability_flow=bool(probability_flow), **correct,  # type: ignore[arg-type]
    )  # fmt: skip


def prior_sample(sde: sde_lib.SDE, shape: Sequence[int], device: torch.device, noise: Noise) -> Tensor:
    """A sample of the prior of any SDE; that of one of the user's own draws as it will."""
    if isinstance(sde, sde_lib.VPSDE | sde_lib.subVPSDE | sde_lib.VESDE) and _is_ours(sde.prior_sampling):
        return sde.process.prior_std * first_draw(noise, shape, device)
    return sde.prior_sampling(shape).to(device)


def _is_ours(method: Any) -> bool:
    return getattr(method, "__func__", None) is sde_lib.VPSDE.prior_sampling


def _drawing(step: Any, noise: Noise | None) -> Any:
    if noise is not None:
        step.draw_noise = noise
    return step


@dataclass(frozen=True)
class _Drift:
    """The probability-flow ODE's drift of any SDE, called with (x, t)."""

    sde: sde_lib.SDE
    model: Model

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        score_fn = mutils.get_score_fn(self.sde, self.model, train=False, continuous=True)
        return self.sde.reverse(score_fn, probability_flow=True).sde(x, t)[0]


def _on_the_device(sde: Any, model: Model, x: Tensor, eps: float, rtol: float, atol: float, method: str) -> tuple[Tensor, int]:
    net = _networks.network_of(model, sde, continuous=True)
    flow = Flow(net, _networks.parametrization_of(sde, True), sde.process, net_dtype=torch.float32)
    solver = ODESolver(rtol, atol, control="batch", max_steps=MAX_ATTEMPTS)
    result = integrate(flow, x.double(), sde.T, eps, solver)  # float64 as SciPy's state
    return result.x.float(), int(result.nfe[0])


def _in_scipy(sde: sde_lib.SDE, model: Model, x: Tensor, eps: float, rtol: float, atol: float, method: str) -> tuple[Tensor, int]:
    drift = _Drift(sde, model)

    def slope(t: float, flat: np.ndarray) -> np.ndarray:
        state = mutils.from_flattened_numpy(flat, x.shape).to(x.device, torch.float32)
        return mutils.to_flattened_numpy(drift(state, torch.full((len(state),), t, device=x.device)))

    solution = solve_ivp(slope, (sde.T, eps), mutils.to_flattened_numpy(x), rtol=rtol, atol=atol, method=method)
    return mutils.from_flattened_numpy(solution.y[:, -1].copy(), x.shape).to(x.device, torch.float32), solution.nfev
