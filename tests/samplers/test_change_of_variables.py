"""One method in two languages gives the same numbers: VP and sigma-space, epsilon scaling and guidance in a plan and in a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import fastdiff
from fastdiff import (
    DDIM,
    DDPM,
    EDMSDE,
    VESDE,
    VPSDE,
    ClassifierFree,
    Denoiser,
    Discrete,
    DPMSolver2M,
    DPMSolver2S,
    DPMSolver3M,
    EDMSampler,
    EpsilonScaling,
    EulerAncestral,
    Guidance,
    PCSampler,
    Plan,
    Sampler,
    SubVPSDE,
    UniPC,
)
from fastdiff.schedules import edm_sigmas
from tests.samplers.mixture import Mixture, MixtureScore

MEANS, WEIGHTS, STD = torch.randn(4, 48, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1, 0.2, 0.3, 0.4]), 0.25
NET = Mixture(MEANS, WEIGHTS, STD)
SHAPE = (4, 3, 4, 4)
LATENTS = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
KEY = fastdiff.keys(5, SHAPE[0])
close = {"rtol": 1e-10, "atol": 1e-10}


def column(v: Tensor) -> Tensor:
    return v.reshape(-1, 1, 1, 1)


def gradient(x: Tensor, sigma: Tensor, **condition) -> Tensor:
    return torch.tanh(x) / (1 + column(sigma) ** 2)


def towards(x: Tensor, label: Tensor, shift: float | None = None) -> Tensor:
    """A network with a condition."""
    return NET(x, label) + (0 if shift is None else shift * torch.cos(x))


GUIDANCE = Guidance(gradient, weight=1.5, second_order_weight=0.7, window=(0.01, 20.0))
EXTRAS = {
    "plain": {},
    "eps scaling": {"eps_scale": 1.01},
    "eps scaling by step": {"eps_scale": EpsilonScaling(1.002, 0.003)},
    "guidance": {"guidance": GUIDANCE},
    "both": {"eps_scale": 1.01, "guidance": GUIDANCE},
    "classifier-free": {"cfg": ClassifierFree(2.0, {"shift": None}), "condition": {"shift": 0.3}},
    "all": {
        "eps_scale": 1.01, "guidance": Guidance(lambda x, sigma, shift: gradient(x, sigma), 1.5, 0.7), "condition": {"shift": 0.3},
        "cfg": ClassifierFree(2.0, {"shift": None}),
    },
}  # fmt: skip
with_extras = pytest.mark.parametrize("extras", EXTRAS.values(), ids=EXTRAS)


def watch(plan: Plan, net: Callable, latents: Tensor = LATENTS, **arguments) -> tuple[Tensor, list[Tensor]]:
    """(samples, D at each call)."""
    seen: list[Tensor] = []
    if plan.stochastic:
        arguments = {"key": KEY} | arguments
    return fastdiff.run(plan, net, latents, callback=lambda info: seen.append(info.D), **arguments), seen


def same_run(one: tuple[Tensor, list[Tensor]], two: tuple[Tensor, list[Tensor]]) -> None:
    assert len(one[1]) == len(two[1]) > 1
    for call, (a, b) in enumerate(zip(one[1], two[1], strict=True)):
        torch.testing.assert_close(a, b, **close, msg=lambda m, call=call: f"D at call {call}: {m}")
    torch.testing.assert_close(one[0], two[0], **close)
    assert not torch.allclose(one[1][0], one[0], atol=1e-3)  # the run went somewhere


# ---- VP in its own time, and EDM in sigma -----------------------------------------------------------------------------------

SIGMAS = [float(s) for s in edm_sigmas(12, 0.02, 40.0)]
EULER = EDMSampler(steps=12, sigma_min=0.02, sigma_max=40.0, solver="euler")


def from_sigma_max(plan: Plan) -> Plan:
    """With the first state at the first level of the call, as EDM starts (an SDE's prior has the std of its own T)."""
    first = plan.rows[0]
    return replace(plan, prior_scale=first.scale * first.sigma, _tables={}, _derived={})


@with_extras
@pytest.mark.parametrize("sde", [VPSDE(), SubVPSDE(), VESDE(0.01, 50.0)], ids=lambda sde: type(sde).__name__)
def test_ddim_in_time_is_edm_euler_in_sigma(sde, extras):
    """Karras et al. 2022, section 3: the deterministic DDIM of any SDE's marginals takes Euler's steps in sigma."""
    ddim = DDIM(sde, times=[sde.time(sigma) for sigma in SIGMAS]).plan(Denoiser())
    expected = watch(EULER.plan(Denoiser()), towards, **extras)
    same_run(watch(from_sigma_max(ddim), towards, **extras), expected)


@pytest.mark.parametrize("name", ["plain", "eps scaling", "guidance", "both"])
@pytest.mark.parametrize("sde", [VPSDE(), VESDE(0.01, 50.0)], ids=lambda sde: type(sde).__name__)
def test_a_network_of_eps_or_of_the_score_gives_the_denoisers_run(sde, name):
    """The same DDIM on what score_sde's networks return, against EDM's Euler on D."""
    net = MixtureScore(sde, MEANS, WEIGHTS, STD)
    ddim = DDIM(sde, times=[sde.time(sigma) for sigma in SIGMAS]).plan(net.parametrization)
    expected = watch(EULER.plan(Denoiser()), NET, **EXTRAS[name])
    same_run(watch(from_sigma_max(ddim), net, **EXTRAS[name]), expected)


@with_extras
def test_the_probability_flow_of_edms_sde_is_edm_euler(extras):
    pc = PCSampler(EDMSDE(0.02, 40.0), times=[*SIGMAS, 0.0], predictor="euler_maruyama", corrector="none", probability_flow=True)
    assert pc.plan(Denoiser()).difference(EULER.plan(Denoiser())) < 1e-10
    same_run(watch(pc.plan(Denoiser()), towards, **extras), watch(EULER.plan(Denoiser()), towards, **extras))


def test_reverse_diffusion_of_the_ve_sde_is_edm_euler_on_the_ve_schedule():
    """Both take Euler's steps in sigma^2."""
    sde = VESDE(0.02, 40.0)
    edm = EDMSampler(steps=12, sigma_min=0.02, sigma_max=40.0, solver="euler", discretization="ve", schedule="ve").plan(Denoiser())
    times = [max(sde.time(row.sigma), 0.0) for row in edm.rows]  # the last is sigma_min, time 0 of the SDE
    pc = PCSampler(sde, times=times, predictor="reverse_diffusion", corrector="none", probability_flow=True).plan(Denoiser())
    edm = replace(edm, rows=edm.rows[:-1], _tables={}, _derived={})
    assert pc.difference(edm) < 1e-10
    same_run(watch(pc, NET), watch(edm, NET))


IN_SIGMA = {
    "2M": DPMSolver2M(steps=8),
    "2M, heun, eta 1": DPMSolver2M(steps=8, eta=1.0, solver="heun"),
    "3M": DPMSolver3M(steps=8),
    "3M, eta 0.5": DPMSolver3M(steps=8, eta=0.5),
    "2S": DPMSolver2S(steps=8),
    "2S, eta 1": DPMSolver2S(steps=8, eta=1.0),
    "Euler ancestral": EulerAncestral(steps=8),
    "UniPC 2": UniPC(steps=8),
    "UniPC 3": UniPC(steps=8, order=3, variant="bh1"),
}


@with_extras
@pytest.mark.parametrize("name", IN_SIGMA)
def test_vp_scaling_changes_the_state_and_nothing_else(name, extras):
    sampler = IN_SIGMA[name]
    plain, vp = (replace(sampler, scaling=scaling).plan(Denoiser()) for scaling in ("none", "vp"))
    assert vp.difference(plain) > 0.1
    same_run(watch(vp, towards, **extras), watch(plain, towards, **extras))


def test_ddim_with_all_the_noise_is_ddpm_and_euler_ancestral():
    """DDIM with eta = 1, the posterior of DDPM, the exact ancestral predictor and k-diffusion's Euler ancestral."""
    sde = VPSDE()
    times = [sde.time(sigma) for sigma in SIGMAS]
    discrete = Discrete()
    assert DDIM(discrete, steps=40, eta=1.0).plan(Denoiser()).difference(DDPM(discrete, steps=40).plan(Denoiser())) < 1e-12
    ddpm = DDPM(sde, times=times).plan(Denoiser())
    assert DDIM(sde, times=times, eta=1.0).plan(Denoiser()).difference(ddpm) < 1e-12
    assert DDIM(sde, times=times, eta=0.9).plan(Denoiser()).difference(ddpm) > 1e-3
    pc = PCSampler(sde, times=[*times, 0.0], predictor="ancestral_sampling", corrector="none")
    assert pc.plan(Denoiser()).difference(ddpm) < 1e-11
    k_diffusion = EulerAncestral(sigmas=SIGMAS, scaling="vp").plan(Denoiser())
    assert k_diffusion.difference(ddpm) < 1e-11
    same_run(watch(from_sigma_max(ddpm), NET), watch(k_diffusion, NET))


# ---- In the plan, and in the network ------------------------------------------------------------------------------------------

ANY: dict[str, Sampler] = IN_SIGMA | {
    "EDM Heun": EDMSampler(steps=6, sigma_max=40.0),
    "EDM Heun, churn": EDMSampler(steps=6, sigma_max=40.0, S_churn=20),
    "EDM Euler, VP": EDMSampler(steps=8, solver="euler", schedule="vp", scaling="vp"),
    "DDPM": DDPM(Discrete(), steps=8, variance="large"),
    "DDIM": DDIM(Discrete(), steps=8, eta=0.3),
    "PC": PCSampler(VPSDE(0.1, 5.0), steps=6),
    "PC, step of each sample": PCSampler(VPSDE(0.1, 5.0), steps=6, step_size="sample"),
    "PC, VE, annealed": PCSampler(VESDE(0.01, 50.0), steps=6, predictor="ancestral_sampling", corrector="ald"),
    "2M, VP": DPMSolver2M(steps=8, scaling="vp"),
}


class InNetwork:
    """A denoiser that already holds what a plan would fold in, call by call."""

    def __init__(self, plan: Plan, cfg: float = 1.0, lam: Callable[[int], float] = lambda t: 1.0, w: tuple[float, float] = (0.0, 0.0)):
        self.rows, self.cfg, self.lam, self.w = iter(plan.rows), cfg, lam, w

    def __call__(self, x: Tensor, label: Tensor) -> Tensor:
        row = next(self.rows)
        sigma = torch.full((len(x),), row.sigma, dtype=x.dtype)
        D = self.cfg * towards(x, sigma, 0.3) + (1 - self.cfg) * towards(x, sigma) if self.cfg != 1 else towards(x, sigma)
        eps = (x - D) / row.sigma
        D = x - row.sigma * eps / self.lam(row.remaining)
        return D + self.w[row.order - 1] * row.sigma**2 * gradient(x, sigma)


@pytest.mark.parametrize("name", ANY)
@pytest.mark.parametrize(
    ("folded", "held"),
    [
        ({"eps_scale": 1.01}, {"lam": lambda t: 1.01}),
        ({"eps_scale": EpsilonScaling(1.002, 0.003)}, {"lam": lambda t: 1.002 + 0.003 * t}),
        ({"guidance": Guidance(gradient, 1.5, 0.7)}, {"w": (1.5, 0.7)}),
        ({"guidance": Guidance(gradient, 1.5, 0.7), "eps_scale": 1.01}, {"w": (1.5, 0.7), "lam": lambda t: 1.01}),
        ({"cfg": ClassifierFree(2.0, {"shift": None})}, {"cfg": 2.0}),
        (EXTRAS["all"], {"cfg": 2.0, "lam": lambda t: 1.01, "w": (1.5, 0.7)}),
    ],
    ids=["eps scaling", "eps scaling by step", "guidance", "guidance and eps scaling", "classifier-free", "all"],
)  # fmt: skip
def test_what_a_plan_folds_in_is_what_a_network_could_hold(name, folded, held):
    """D_uncond + w*(D - D_uncond), then eps/lambda, then + w*sigma^2*G: for every sampler, also where D is kept for later steps.

    A plan without guidance or scaling and a network that does all of it, called at the plan's noise levels.
    """
    plan = ANY[name].plan(Denoiser())
    folded = dict(folded)
    if "cfg" in folded:
        folded["condition"] = {"shift": 0.3}
    expected = fastdiff.run(plan, InNetwork(plan, **held), LATENTS, key=KEY if plan.stochastic else None)
    got = fastdiff.run(plan, towards, LATENTS, key=KEY if plan.stochastic else None, **folded)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(got, fastdiff.run(plan, towards, LATENTS, key=KEY if plan.stochastic else None), atol=1e-3)


@pytest.mark.parametrize("name", ANY)
def test_remaining_steps_count_down_to_0(name):
    """t of epsilon scaling: N - 1, ..., 0, shared by the calls of one step."""
    remaining = [row.remaining for row in ANY[name].plan(Denoiser()).rows]
    assert remaining == sorted(remaining, reverse=True)
    assert set(remaining) == set(range(ANY[name].steps))


@pytest.mark.parametrize("name", ["2M", "3M", "UniPC 3"])
def test_guidance_outside_its_window_is_not_there(name):
    """Multistep samplers keep D: of the calls within the window with G, of the others without."""
    plan = IN_SIGMA[name].plan(Denoiser())
    low, high = 0.5, 10.0
    assert any(low <= row.sigma <= high for row in plan.rows)

    def net(x, sigma):
        inside = ((sigma >= low) & (sigma <= high)).to(x.dtype)
        return NET(x, sigma) + column(1.5 * inside * sigma**2) * gradient(x, sigma)

    expected = fastdiff.run(plan, net, LATENTS)
    got = fastdiff.run(plan, NET, LATENTS, guidance=Guidance(gradient, 1.5, window=(low, high)))
    torch.testing.assert_close(got, expected, **close)


# ---- Langevin step sizes -------------------------------------------------------------------------------------------------------


def elementwise(x: Tensor, sigma: Tensor) -> Tensor:
    """A denoiser of divisions and products alone: the same bits in any batch, at any place of a vector register."""
    return x / (1 + column(sigma) * column(sigma)) + 0.1 / (1 + x * x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sde", [VPSDE(0.1, 5.0), VESDE(0.01, 50.0)], ids=lambda sde: type(sde).__name__)
def test_a_step_size_of_its_own_makes_a_sample_independent_of_its_batch(sde, dtype):
    """Bit for bit, whatever the split; the batch's step size, as upstream has it, depends on the batch."""
    seeds = [3, 14, 15, 92, 65, 35]

    def samples(step_size: str, chosen: list[int]) -> Tensor:
        sampler = PCSampler(sde, steps=6, step_size=step_size)
        return fastdiff.sample(elementwise, (len(chosen), 3, 5, 7), seeds=chosen, sampler=sampler, state_dtype=dtype)

    whole = samples("sample", seeds)
    assert torch.isfinite(whole).all()
    assert torch.equal(whole, torch.cat([samples("sample", seeds[:1]), samples("sample", seeds[1:3]), samples("sample", seeds[3:])]))
    assert torch.equal(whole.flip(0), samples("sample", seeds[::-1]))
    batch = samples("batch", seeds)
    assert not torch.allclose(batch[:2], samples("batch", seeds[:2]), rtol=1e-4, atol=1e-4)
    assert torch.equal(samples("batch", seeds[:1]), samples("sample", seeds[:1]))  # of one sample they are the same


# ---- Learned variance ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["key", "callable"])
@pytest.mark.parametrize(("v", "variance"), [(-1.0, "small"), (1.0, "large")])
def test_the_ends_of_a_learned_variance(v, variance, noise):
    """v = -1 is the posterior's variance and v = 1 is beta (Nichol and Dhariwal 2021, eq. 15)."""
    schedule = Discrete()

    def net(x, label):
        return torch.cat([NET(x, label), torch.full_like(x, v)], dim=1)

    def arguments():
        if noise == "key":
            return {"key": KEY}
        generator = torch.Generator().manual_seed(2)
        return {"noise": lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)}

    learned = fastdiff.run(DDPM(schedule, steps=10, variance="learned").plan(Denoiser()), net, LATENTS, **arguments())
    expected = fastdiff.run(DDPM(schedule, steps=10, variance=variance).plan(Denoiser()), NET, LATENTS, **arguments())
    torch.testing.assert_close(learned, expected, **close)


def test_a_learned_variance_interpolates_the_logarithm():
    """v = 0, where small and large differ: one step's noise is their geometric mean, and v may differ from element to element."""
    schedule = Discrete()
    times = [999.0, 300.0, 0.0]
    small, large, learned = (DDPM(schedule, times=times, variance=v).plan(Denoiser()) for v in ("small", "large", "learned"))
    v = torch.linspace(-1, 1, 48, dtype=torch.float64).reshape(1, 3, 4, 4).expand(SHAPE)

    def net(x, label):
        return torch.cat([torch.zeros_like(x), v], dim=1)

    def first_state(plan: Plan, net) -> Tensor:
        states = []
        fastdiff.run(plan, net, LATENTS, key=KEY, callback=lambda info: states.append(info.x))
        return states[0]

    def zero(x, label):
        return torch.zeros_like(x)

    quiet = small.rows[0].coef["c_x"] * LATENTS * small.prior_scale
    noises = [first_state(plan, zero) - quiet for plan in (small, large)]
    share = (v + 1) / 2
    expected = noises[0].sign() * noises[0].abs() ** (1 - share) * noises[1].abs() ** share
    torch.testing.assert_close(first_state(learned, net) - quiet, expected, rtol=1e-9, atol=1e-9)
    assert small.rows[0].coef["c_n"] < 0.95 * large.rows[0].coef["c_n"]


def test_a_learned_variance_needs_twice_the_channels():
    plan = DDPM(Discrete(), steps=3, variance="learned").plan(Denoiser())
    with pytest.raises(ValueError, match="net: expected 6 output channels for a learned variance, got 3"):
        fastdiff.run(plan, NET, LATENTS, key=KEY)
