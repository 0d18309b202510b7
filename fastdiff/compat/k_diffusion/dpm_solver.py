"""k_diffusion.sampling's DPM-Solver: singlestep methods with fixed steps (dpm_fast) and with a step size controller (dpm_adaptive)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...loop import StepInfo
from ...ops import coef_row, normal, sampler_step
from ...plan import Plan
from ...progress import wanted
from ...samplers import DPMSolverFast
from ...samplers._rows import ancestral_split
from ...samplers.dpm_fast import inner_level, second_weight, third_weight
from ._running import NoiseSampler, advance, begins_step, check_call, show, state_of
from .noise import keys_of

Cache = dict[str, Tensor]


class PIDStepSizeController:
    """A step size that follows the errors of this step and the two before: h <- h*limit(e^-b1 e_1^-b2 e_2^-b3).

    Args:
        h: first step; pcoeff, icoeff, dcoeff: proportional, integral and differential gains; order: of the method.
        accept_safety: factors below it reject the step; eps: added to errors.
    """

    def __init__(
        self, h: float, pcoeff: float, icoeff: float, dcoeff: float, order: float = 1, accept_safety: float = 0.81, eps: float = 1e-8
    ) -> None:  # fmt: skip
        self.h, self.accept_safety, self.eps = h, accept_safety, eps
        self.b1 = (pcoeff + icoeff + dcoeff) / order
        self.b2 = -(pcoeff + 2 * dcoeff) / order
        self.b3 = dcoeff / order
        self.errs: list[float] = []

    def limiter(self, x: float) -> float:
        """A factor between 0.21 and 2.57 that is x near 1."""
        return 1 + math.atan(x - 1)

    def propose_step(self, error: Any) -> bool:
        """Take in the error of a step, 1 being the tolerance; h becomes the next step. Whether the step is good enough."""
        inverse = 1 / (float(error) + self.eps)
        _, last, before = self.errs or [inverse] * 3
        factor = self.limiter(inverse**self.b1 * last**self.b2 * before**self.b3)
        accepted = factor >= self.accept_safety
        self.errs = [inverse, inverse, last] if accepted else [inverse, last, before]
        self.h *= factor
        return accepted


class DPMSolver(nn.Module):
    """DPM-Solver in t = -ln sigma (Lu et al. 2022, arXiv:2206.00927); every step and every eps is one fused launch.

    Args:
        model: called as model(x, sigma, **extra_args), returns the denoised estimate.
        eps_callback: called after each network call; info_callback: given a dictionary at each step.
    """

    def __init__(
        self, model: Callable[..., Tensor], extra_args: Mapping[str, Any] | None = None, eps_callback: Callable[[], Any] | None = None,
        info_callback: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model = model
        self.extra_args = {} if extra_args is None else extra_args
        self.eps_callback = eps_callback
        self.info_callback = info_callback

    def t(self, sigma: Tensor) -> Tensor:
        """-ln sigma."""
        return -sigma.log()

    def sigma(self, t: Tensor) -> Tensor:
        """e^-t."""
        return t.neg().exp()

    def eps(self, eps_cache: Cache, key: str, x: Tensor, t: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Cache]:
        """(eps, cache): eps = (x - D)/sigma at t, from the cache or by a network call."""
        if key in eps_cache:
            return eps_cache[key], eps_cache
        sigma = _level(t)
        denoised = self.model(x, x.new_full((x.shape[0],), sigma), *args, **self.extra_args, **kwargs)
        eps = _fused(x, denoised, a=1 / sigma, b=-1 / sigma, c_D=1.0)
        if self.eps_callback is not None:
            self.eps_callback()
        return eps, {key: eps, **eps_cache}

    def dpm_solver_1_step(self, x: Tensor, t: Any, t_next: Any, eps_cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """(x', cache) of order 1."""
        eps, cache = self.eps(eps_cache or {}, "eps", x, t)
        return _slope(x, _level(t_next) - _level(t), eps), cache

    def dpm_solver_2_step(
        self, x: Tensor, t: Any, t_next: Any, r1: float = 1 / 2, eps_cache: Cache | None = None
    ) -> tuple[Tensor, Cache]:  # fmt: skip
        """(x', cache) of order 2."""
        sigma, to = _level(t), _level(t_next)
        eps, cache = self.eps(eps_cache or {}, "eps", x, t)
        first = inner_level(sigma, to, r1)
        if "eps_r1" not in cache:
            _, cache = self.eps(cache, "eps_r1", _slope(x, first - sigma, eps), -math.log(first))
        k = second_weight(sigma, to, r1)
        return _slope(x, to - sigma - k, eps, k, cache["eps_r1"]), cache

    def dpm_solver_3_step(
        self, x: Tensor, t: Any, t_next: Any, r1: float = 1 / 3, r2: float = 2 / 3, eps_cache: Cache | None = None
    ) -> tuple[Tensor, Cache]:  # fmt: skip
        """(x', cache) of order 3."""
        sigma, to = _level(t), _level(t_next)
        eps, cache = self.eps(eps_cache or {}, "eps", x, t)
        first, second = inner_level(sigma, to, r1), inner_level(sigma, to, r2)
        if "eps_r1" not in cache:
            _, cache = self.eps(cache, "eps_r1", _slope(x, first - sigma, eps), -math.log(first))
        if "eps_r2" not in cache:
            k = third_weight(sigma, second, r1, r2)
            _, cache = self.eps(cache, "eps_r2", _slope(x, second - sigma - k, eps, k, cache["eps_r1"]), -math.log(second))
        k = third_weight(sigma, to, r2)
        return _slope(x, to - sigma - k, eps, k, cache["eps_r2"]), cache

    def dpm_solver_fast(
        self, x: Tensor, t_start: Tensor, t_end: Tensor, nfe: int, eta: float = 0.0, s_noise: float = 1.0,
        noise_sampler: NoiseSampler | None = None,
    ) -> Tensor:  # fmt: skip
        """DPM-Solver-fast with nfe network calls, as one plan."""
        sampler = DPMSolverFast(nfe, _level(t_end), _level(t_start), float(eta), float(s_noise))
        return self._fast(x, t_start, t_end, sampler, noise_sampler, True)

    def _fast(
        self, x: Tensor, t_start: Tensor, t_end: Tensor, sampler: DPMSolverFast, noise_sampler: NoiseSampler | None, disable: bool | None
    ) -> Tensor:
        def counted(x_in: Tensor, sigma: Tensor, **extra_args: Any) -> Tensor:
            denoised = self.model(x_in, sigma, **extra_args)
            if self.eps_callback is not None:
                self.eps_callback()
            return denoised

        def watch(plan: Plan) -> Callable[[StepInfo], None]:
            times = -t_start.new_tensor(sampler.levels).log()

            def see(info: StepInfo) -> None:
                if begins_step(plan, info.call):
                    i = len(sampler.orders) - 1 - plan.rows[info.call].remaining
                    x_now, denoised = info.before.to(x.dtype), info.D.to(x.dtype)
                    show(self.info_callback, {"x": x_now, "i": i, "t": times[i], "t_up": times[i], "denoised": denoised})  # type: ignore[arg-type]

            return see

        levels = sampler.levels
        return advance(
            sampler, self.model if self.eps_callback is None else counted, x, self.extra_args, disable, noise_sampler=noise_sampler,
            spans=list(itertools.pairwise(levels)), like=t_start, watch=None if self.info_callback is None else watch,
        )  # fmt: skip

    @torch.no_grad()
    def dpm_solver_adaptive(
        self, x: Tensor, t_start: Tensor, t_end: Tensor, order: int = 3, rtol: float = 0.05, atol: float = 0.0078, h_init: float = 0.05,
        pcoeff: float = 0.0, icoeff: float = 1.0, dcoeff: float = 0.0, accept_safety: float = 0.81, eta: float = 0.0, s_noise: float = 1.0,
        noise_sampler: NoiseSampler | None = None,
    ) -> tuple[Tensor, dict[str, int]]:  # fmt: skip
        """(x, counts): steps whose length the difference of orders `order` and `order - 1` chooses; the host waits for each error."""
        if order not in (2, 3):
            raise ValueError(f"order: expected 2 or 3, got {order}")
        eta, s_noise = float(eta), float(s_noise)
        s, end = float(t_start), float(t_end)
        forward = end > s
        if not forward and eta:
            raise ValueError(f"eta: expected 0 where sigma rises, got {eta}")
        key = keys_of(None, x) if eta and noise_sampler is None else None
        pid = PIDStepSizeController(abs(h_init) if forward else -abs(h_init), pcoeff, icoeff, dcoeff, 1.5 if eta else order, accept_safety)
        info = {"steps": 0, "nfe": 0, "n_accept": 0, "n_reject": 0}
        if x.numel() == 0:  # there is no error to follow
            return x, info
        before = x
        while s < end - 1e-5 if forward else s > end + 1e-5:
            t = min(end, s + pid.h) if forward else max(end, s + pid.h)
            sigma, to = _level(s), _level(t)
            down = max(_level(end), ancestral_split(sigma, to, eta)[0]) if eta else to
            up = math.sqrt(max(to**2 - down**2, 0.0)) * s_noise
            t_down = -math.log(down) if eta else t
            eps, cache = self.eps({}, "eps", x, s)
            denoised = _slope(x, -sigma, eps) if self.info_callback is not None else None
            if order == 2:
                low, cache = self.dpm_solver_1_step(x, s, t_down, eps_cache=cache)
                high, cache = self.dpm_solver_2_step(x, s, t_down, eps_cache=cache)
            else:
                low, cache = self.dpm_solver_2_step(x, s, t_down, r1=1 / 3, eps_cache=cache)
                high, cache = self.dpm_solver_3_step(x, s, t_down, eps_cache=cache)
            tolerance = torch.maximum(low.abs(), before.abs()).mul_(rtol).clamp_(min=atol)
            error = torch.linalg.vector_norm((low - high).div_(tolerance)) / math.sqrt(x.numel())
            if not torch.isfinite(error):
                raise ValueError(f"model: expected finite values, got an error of {float(error)} at sigma = {sigma:.6g}")
            if pid.propose_step(error):
                before, x = low, high
                if noise_sampler is not None:
                    x = x + noise_sampler(t_start.new_tensor(sigma), t_start.new_tensor(to)) * up
                elif up:
                    x = torch.add(x, normal(x, key, info["n_accept"] + 1), alpha=up)
                s = t
                info["n_accept"] += 1
            else:
                info["n_reject"] += 1
            info["nfe"] += order
            info["steps"] += 1
            if self.info_callback is not None:
                now = t_start.new_tensor(s)
                seen = {"x": x, "i": info["steps"] - 1, "t": now, "t_up": now, "denoised": denoised, "error": error, "h": pid.h}
                self.info_callback({**seen, **info})
        return x, info


def sample_dpm_fast(
    model: Callable[..., Tensor], x: Tensor, sigma_min: float, sigma_max: float, n: int, extra_args: Mapping[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], Any] | None = None, disable: bool | None = None, eta: float = 0.0, s_noise: float = 1.0,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:  # fmt: skip
    """DPM-Solver-fast: n network calls from sigma_max to sigma_min."""
    solver, t_start, t_end = _solver(model, x, sigma_min, sigma_max, extra_args, callback)
    sampler = DPMSolverFast(n, float(sigma_min), float(sigma_max), float(eta), float(s_noise))
    return solver._fast(x, t_start, t_end, sampler, noise_sampler, disable)


def sample_dpm_adaptive(
    model: Callable[..., Tensor], x: Tensor, sigma_min: float, sigma_max: float, extra_args: Mapping[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], Any] | None = None, disable: bool | None = None, order: int = 3, rtol: float = 0.05,
    atol: float = 0.0078, h_init: float = 0.05, pcoeff: float = 0.0, icoeff: float = 1.0, dcoeff: float = 0.0, accept_safety: float = 0.81,
    eta: float = 0.0, s_noise: float = 1.0, noise_sampler: NoiseSampler | None = None, return_info: bool = False,
) -> Any:  # fmt: skip
    """DPM-Solver-12 or -23 with adaptive steps from sigma_max to sigma_min; (x, counts) with return_info."""
    from tqdm import tqdm

    solver, t_start, t_end = _solver(model, x, sigma_min, sigma_max, extra_args, callback)
    if x.dtype != state_of(x).dtype:
        solver.model = lambda x_in, sigma, **extra: model(x_in.to(x.dtype), sigma.to(x.dtype), **extra)
    with tqdm(disable=not wanted(None if disable is None else not disable), desc="sampling", unit="call", leave=False) as bar:
        solver.eps_callback = bar.update
        y, info = solver.dpm_solver_adaptive(
            state_of(x), t_start, t_end, order, rtol, atol, h_init, pcoeff, icoeff, dcoeff, accept_safety, eta, s_noise, noise_sampler
        )  # fmt: skip
    return (y.to(x.dtype), info) if return_info else y.to(x.dtype)


def _solver(
    model: Any, x: Any, sigma_min: Any, sigma_max: Any, extra_args: Any, callback: Callable[[dict[str, Any]], Any] | None
) -> tuple[DPMSolver, Tensor, Tensor]:
    """The solver and its first and last time; a callback also gets the levels."""
    check_call(model, x, extra_args)
    for name, value in (("sigma_min", sigma_min), ("sigma_max", sigma_max)):
        if not float(value) > 0:
            raise ValueError(f"{name}: expected a number > 0, got {value}")
    solver = DPMSolver(model, extra_args)
    if callback is not None:

        def see(info: dict[str, Any]) -> None:
            states = {name: info[name].to(x.dtype) for name in ("x", "denoised")}  # half types run in float32
            callback({"sigma": solver.sigma(info["t"]), "sigma_hat": solver.sigma(info["t_up"]), **info, **states})

        solver.info_callback = see
    return solver, solver.t(torch.as_tensor(sigma_max)), solver.t(torch.as_tensor(sigma_min))


def _level(t: Any) -> float:
    return math.exp(-float(t))


def _slope(x: Tensor, weight: float, eps: Tensor, second: float = 0.0, eps_k: Tensor | None = None) -> Tensor:
    """x + weight*eps + second*eps_k in one launch."""
    return _fused(x, eps, () if eps_k is None else (eps_k,), b=1.0, c_x=1.0, c_D=weight, c_h1=second)


def _fused(x: Tensor, F: Tensor, history: tuple[Tensor, ...] = (), **coef: float) -> Tensor:
    return sampler_step(x, F, coef_row(**coef).to(x.device), history=history).y
