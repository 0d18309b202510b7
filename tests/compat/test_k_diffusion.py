"""fastdiff.compat.k_diffusion against k-diffusion itself: numbers, noise in its order, callbacks, on an exact denoiser."""

from __future__ import annotations

import inspect
import itertools

import pytest
import torch

import fastdiff
from fastdiff.compat import k_diffusion as K
from tests.compat.upstream_k_diffusion import upstream
from tests.samplers.mixture import Mixture
from tests.samplers.test_loop import Count

NET = Mixture(torch.randn(4, 48, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1, 0.2, 0.3, 0.4]), 0.25)
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def model(x, sigma, **extra_args):
    """The exact denoiser, as upstream's: sigma is [B]."""
    assert sigma.shape == (x.shape[0],)
    return NET(x, sigma) + extra_args.get("shift", 0.0)


@pytest.fixture(autouse=True)
def float64_constants():
    """Upstream makes tensors of levels in the default dtype: in float32 they would be what limits the comparison."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def start(sigma: float, dtype: torch.dtype = torch.float64, batch: int = 3) -> torch.Tensor:
    return (torch.randn(batch, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * sigma).to(dtype)


SCHEDULES = {
    "karras": lambda k: k.get_sigmas_karras(8, 0.02, 40.0),
    "exponential": lambda k: k.get_sigmas_exponential(6, 0.05, 10.0),
    "vp": lambda k: k.get_sigmas_vp(6),
    "two levels": lambda k: torch.tensor([5.0, 1.0, 0.0]),
    "not to 0": lambda k: k.get_sigmas_polyexponential(7, 0.1, 20.0, rho=1.3)[:-1],
    "one step": lambda k: torch.tensor([7.0, 0.0]),
}
CHURN = {"s_churn": 3.0, "s_tmin": 0.05, "s_tmax": 30.0, "s_noise": 1.003}
CASES = [
    ("euler", {}), ("euler", CHURN), ("heun", {}), ("heun", CHURN), ("dpm_2", {}), ("dpm_2", CHURN),
    ("lms", {}), ("lms", {"order": 1}), ("lms", {"order": 2}), ("lms", {"order": 3}), ("dpmpp_2m", {}),
    *[(name, {"eta": eta, "s_noise": 1.1}) for eta in (0.0, 0.5, 1.0) for name in (
        "euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde")],
    ("dpmpp_2m_sde", {"solver_type": "heun"}), ("dpmpp_sde", {"r": 0.4}), ("dpmpp_sde", {"r": 0.7, "eta": 0.5}),
]  # fmt: skip
IDS = [name + "".join(f" {k}={v}" for k, v in arguments.items() if k not in ("s_tmin", "s_tmax", "s_noise")) for name, arguments in CASES]


def recorder(x: torch.Tensor):
    """(noise_sampler, its calls): the same noise for two runs, and the levels that it was asked for."""
    generator, asked = torch.Generator().manual_seed(5), []

    def noise_sampler(sigma, sigma_next):
        asked.append((float(sigma), float(sigma_next)))
        return torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)

    return noise_sampler, asked


def both(name, x, sigmas, arguments, **common):
    """(ours, upstream's, our draws, upstream's draws): upstream's churn draws from torch's generator."""
    theirs = getattr(upstream(), f"sample_{name}")
    mine = getattr(K, f"sample_{name}")
    draws, results = [], []
    for function in (mine, theirs):
        noise_sampler, asked = recorder(x)
        more = {"noise_sampler": noise_sampler} if "noise_sampler" in inspect.signature(function).parameters else {}
        original = torch.randn_like
        if function is theirs and not more:
            torch.randn_like = lambda like, noise_sampler=noise_sampler: noise_sampler(0, 0)
        try:
            results.append(function(model, x, sigmas, disable=True, **arguments, **more, **common))
        finally:
            torch.randn_like = original
        draws.append(asked)
    return *results, *draws


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("name", "arguments"), CASES, ids=IDS)
def test_samples(name, arguments, schedule, dtype):
    sigmas = SCHEDULES[schedule](upstream())
    x = start(float(sigmas[0]), dtype)
    kept = x.clone()
    try:
        ours, theirs, asked, asked_there = both(name, x, sigmas.to(dtype), arguments)
    except UnboundLocalError:  # upstream, where the first step is the last
        assert name in ("dpmpp_2m_sde", "dpmpp_3m_sde")
        assert schedule == "one step"
        ours = getattr(K, f"sample_{name}")(model, x, sigmas.to(dtype), **arguments)
        theirs, asked, asked_there = model(x, sigmas[:1].to(dtype).expand(len(x))), [], []
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, theirs, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert torch.equal(x, kept), "the caller's x was changed"
    assert len(asked) == len(asked_there)
    if "eta" in arguments:
        torch.testing.assert_close(torch.tensor(asked), torch.tensor(asked_there), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["euler", "heun", "dpm_2", "lms", "dpmpp_2m", "euler_ancestral", "dpmpp_2s_ancestral", "dpmpp_3m_sde"])
def test_levels_may_rise_where_no_noise_is_added(name):
    sigmas = torch.tensor([0.5, 1.0, 3.0, 8.0, 2.0])
    arguments = {"eta": 0.0} if "ancestral" in name or "sde" in name else {}
    ours, theirs, _, _ = both(name, start(0.5), sigmas, arguments)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_a_repeated_level_costs_a_call_and_changes_nothing():
    sigmas = torch.tensor([8.0, 2.0, 2.0, 0.5, 0.0])
    for name in ("euler", "heun", "dpm_2", "euler_ancestral", "dpmpp_2s_ancestral", "dpm_2_ancestral"):
        ours, theirs, asked, asked_there = both(name, start(8.0), sigmas, {})
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
        assert len(asked) == len(asked_there)
    for name in ("dpmpp_2m", "dpmpp_3m_sde", "lms"):  # upstream divides by the step of length 0
        arguments = {"eta": 0.0} if "sde" in name else {}
        ours, theirs, _, _ = both(name, start(8.0), torch.tensor([8.0, 8.0, 2.0, 0.5, 0.0]), arguments)
        assert not theirs.isfinite().all()
        once = getattr(K, f"sample_{name}")(model, start(8.0), torch.tensor([8.0, 2.0, 0.5, 0.0]), **arguments)
        torch.testing.assert_close(ours, once, rtol=1e-9, atol=1e-9)
        assert getattr(K, f"sample_{name}")(model, start(8.0), sigmas, **arguments).isfinite().all()


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=IDS)
def test_callbacks(name, arguments):
    sigmas = torch.tensor([20.0, 6.0, 2.0, 0.4, 0.0])
    seen: list[list[dict]] = []

    def callback(info):
        seen[-1].append(dict(info))

    def lists():
        seen.append([])
        return callback

    x, extra = start(20.0), {"shift": 0.01}
    theirs, mine = getattr(upstream(), f"sample_{name}"), getattr(K, f"sample_{name}")
    for function in (mine, theirs):
        more = {"noise_sampler": recorder(x)[0]} if "noise_sampler" in inspect.signature(theirs).parameters else {}
        torch.manual_seed(3)
        if function is mine and "s_churn" in inspect.signature(mine).parameters:
            more = {"noise_sampler": K.default_noise_sampler(x)}
        function(model, x, sigmas, extra, lists(), True, **arguments, **more)
    assert len(seen[0]) == len(seen[1]) == 4
    for ours, expected in zip(*seen, strict=True):
        assert set(ours) == set(expected) == {"x", "i", "sigma", "sigma_hat", "denoised"}
        assert ours["i"] == expected["i"]
        for key in ("x", "sigma", "sigma_hat", "denoised"):
            assert isinstance(ours[key], torch.Tensor)
            torch.testing.assert_close(ours[key], expected[key], rtol=1e-9, atol=1e-9)


def test_fewer_than_two_levels_leave_x():
    x = start(3.0)
    for levels in ([], [3.0]):
        assert K.sample_euler(model, x, torch.tensor(levels)) is x
        assert upstream().sample_euler(model, x, torch.tensor(levels), disable=True) is x


# ---- Schedules and small functions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("karras", (10, 0.03, 14.6)), ("karras", (1, 0.03, 14.6)), ("karras", (7, 0.1, 80.0, 5.0)), ("exponential", (9, 0.03, 14.6)),
        ("polyexponential", (9, 0.03, 14.6)), ("polyexponential", (9, 0.03, 14.6, 2.0)), ("vp", (12,)), ("vp", (5, 15.0, 0.2, 1e-2)),
    ],
)  # fmt: skip
def test_schedules_bit_for_bit(name, arguments, dtype):
    torch.set_default_dtype(dtype)
    ours, theirs = (getattr(module, f"get_sigmas_{name}")(*arguments) for module in (K, upstream()))
    assert torch.equal(ours, theirs)
    assert ours.dtype == dtype


def test_small_functions():
    U = upstream()
    x, denoised = start(2.0), start(1.0)
    assert torch.equal(K.append_zero(x[0, 0, 0]), U.append_zero(x[0, 0, 0]))
    for sigma in (torch.tensor(2.0), torch.tensor([1.0, 2.0, 3.0])):
        assert torch.equal(K.to_d(x, sigma, denoised), U.to_d(x, sigma, denoised))
    for a, b, eta in itertools.product((5.0, 1.0), (0.9, 0.1, 0.0), (0.0, 0.5, 1.0, 3.0)):
        for kind in (float, torch.tensor):
            ours, theirs = K.get_ancestral_step(kind(a), kind(b), eta), U.get_ancestral_step(kind(a), kind(b), eta)
            assert [type(v) for v in ours] == [type(v) for v in theirs] or b == 0 or eta == 0
            assert [float(v) for v in ours] == pytest.approx([float(v) for v in theirs], abs=1e-12)
    levels = [10.0, 6.0, 3.0, 1.0, 0.2]
    for order in (1, 2, 3, 4):
        for j in range(order):
            assert K.linear_multistep_coeff(order, levels, 3, j) == pytest.approx(U.linear_multistep_coeff(order, levels, 3, j), rel=1e-9)
    for module in (K, U):
        with pytest.raises(ValueError, match=r"[Oo]rder"):
            module.linear_multistep_coeff(4, levels, 1, 0)


def test_pid_controller():
    controllers = [module.PIDStepSizeController(0.1, 0.3, 0.7, 0.1, 2, 0.8) for module in (K, upstream())]
    for error in (0.5, 3.0, 3.0, 1.5, 0.2, torch.tensor(0.9), 0.0):
        ours, theirs = (controller.propose_step(error) for controller in controllers)
        assert ours == theirs
        assert controllers[0].h == pytest.approx(controllers[1].h, rel=1e-12)
        assert controllers[0].errs == pytest.approx(controllers[1].errs)


# ---- DPM-Solver ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("n", "eta"), [(1, 0.0), (2, 0.0), (3, 0.0), (10, 0.0), (11, 0.5), (12, 1.0), (12, 0.0), (7, 1.0)])
def test_dpm_fast(n, eta, dtype):
    x = start(20.0, dtype)
    results, seen, draws = [], ([], []), []
    for module, infos in zip((K, upstream()), seen, strict=True):
        noise_sampler, asked = recorder(x)
        arguments = {"eta": eta, "s_noise": 1.1, "noise_sampler": noise_sampler}
        results.append(module.sample_dpm_fast(model, x, 0.1, 20.0, n, None, infos.append, True, **arguments))
        draws.append(asked)
    torch.testing.assert_close(*results, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    torch.testing.assert_close(torch.tensor(draws[0]), torch.tensor(draws[1]), rtol=1e-9, atol=1e-9)
    _same_infos(*seen, TOLERANCE[dtype])


def _same_infos(ours: list[dict], theirs: list[dict], tolerance: float) -> None:
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert set(a) == set(b)
        for key in a:
            assert type(a[key]) is type(b[key]), key
            torch.testing.assert_close(a[key], b[key], rtol=tolerance, atol=tolerance, msg=lambda text, key=key: f"{key}: {text}")


def test_dpm_fast_encodes():
    x = start(0.1)
    ours, theirs = (module.sample_dpm_fast(model, x, 20.0, 0.1, 10, disable=True) for module in (K, upstream()))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"order": 2},
        {"eta": 1.0},
        {"order": 2, "eta": 0.5, "s_noise": 1.1},
        {"pcoeff": 0.1, "dcoeff": 0.1, "rtol": 0.01},
        {"h_init": 3.0, "rtol": 0.002},
    ],
    ids=str,
)
def test_dpm_adaptive(arguments, dtype):
    x = start(20.0, dtype)
    results, seen, draws = [], ([], []), []
    for module, infos in zip((K, upstream()), seen, strict=True):
        noise_sampler, asked = recorder(x)
        more = {"noise_sampler": noise_sampler, "return_info": True} | arguments
        results.append(module.sample_dpm_adaptive(model, x, 0.1, 20.0, None, infos.append, True, **more))
        draws.append(asked)
    assert results[0][1] == results[1][1]
    assert results[0][1]["n_reject"] > 0 or "h_init" not in arguments
    torch.testing.assert_close(results[0][0], results[1][0], rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert len(draws[0]) == len(draws[1])
    if dtype == torch.float64:  # in float32 the error is a difference of near numbers, and the steps follow it
        torch.testing.assert_close(torch.tensor(draws[0]), torch.tensor(draws[1]), rtol=1e-9, atol=1e-9)
        _same_infos(*seen, 1e-9)


def test_dpm_adaptive_encodes_and_reports_values_that_are_not_finite():
    x = start(0.1)
    ours, theirs = (module.sample_dpm_adaptive(model, x, 20.0, 0.1, disable=True) for module in (K, upstream()))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="model: expected finite values"):
        K.sample_dpm_adaptive(lambda x, sigma: x * float("nan"), x, 0.1, 20.0)


def test_dpm_solver_steps():
    x, t, following = start(5.0), torch.tensor(-1.6), torch.tensor(-0.5)
    solvers = [module.DPMSolver(model, {"shift": 0.1}) for module in (K, upstream())]
    for name in ("dpm_solver_1_step", "dpm_solver_2_step", "dpm_solver_3_step"):
        (ours, cache), (theirs, expected) = (getattr(solver, name)(x, t, following) for solver in solvers)
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
        assert list(cache) == list(expected)
        for key in cache:
            torch.testing.assert_close(cache[key], expected[key], rtol=1e-9, atol=1e-9)
    ours, theirs = (solver.dpm_solver_fast(x, t, following, 5) for solver in solvers)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    assert float(solvers[0].sigma(solvers[0].t(torch.tensor(3.0)))) == pytest.approx(3.0)


# ---- Likelihood ----------------------------------------------------------------------------------------------------------


def test_log_likelihood():
    """The same probe under the same torch seed; at tight tolerances the two step controls meet."""
    x = start(0.3, batch=2)[:, :, :2, :2]
    net = Mixture(torch.randn(3, 12, generator=torch.Generator().manual_seed(0)), torch.tensor([0.2, 0.3, 0.5]), 0.5)
    results = []
    for module in (K, upstream()):
        torch.manual_seed(4)
        results.append(module.log_likelihood(lambda x, sigma: net(x, sigma), x, 0.05, 20.0, atol=1e-8, rtol=1e-8))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-6, atol=1e-6)
    assert results[0][0].dtype == x.dtype
    assert isinstance(results[0][1]["fevals"], int)
    assert results[0][1]["fevals"] == pytest.approx(results[1][1]["fevals"], rel=0.5)


# ---- Our own noise -------------------------------------------------------------------------------------------------------

STOCHASTIC = ["euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"]


@pytest.mark.parametrize("name", [*STOCHASTIC, "euler", "heun", "dpm_2"])
def test_torch_manual_seed_repeats_a_run(name):
    sample, sigmas, x = getattr(K, f"sample_{name}"), torch.tensor([10.0, 2.0, 0.5, 0.0]), start(10.0)
    arguments = {"s_churn": 2.0} if name not in STOCHASTIC else {}
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        runs.append(sample(model, x, sigmas, **arguments))
    assert torch.equal(runs[0], runs[1])
    assert (runs[0] - runs[2]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["dpmpp_2m_sde", "dpmpp_sde"])
def test_default_noise_is_a_brownian_path(name):
    """More steps with one seed converge to the same samples; with independent noise they would not."""
    net = Mixture(torch.tensor([[-1.0, 0.3], [0.8, -0.6]]), torch.tensor([0.4, 0.6]), 0.5)
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0)) * 20
    sample = getattr(K, f"sample_{name}")
    runs = {}
    for steps, seed in itertools.product((40, 80, 160), (7, 8)):
        sigmas = K.get_sigmas_exponential(steps, 0.05, 20.0)
        runs[steps, seed] = sample(lambda x, sigma, seed: net(x, sigma), x, sigmas, {"seed": seed})
    near = [(runs[steps, 7] - runs[160, 7]).abs().mean() for steps in (40, 80)]
    far = (runs[160, 7] - runs[160, 8]).abs().mean()
    assert near[1] < near[0] < far / 3


def test_our_noise_sampler_runs_inside_the_steps_as_it_does_outside():
    x, sigmas = start(10.0), torch.tensor([10.0, 6.0, 3.0, 1.0, 0.4, 0.0])
    for name in ("dpmpp_2m_sde", "dpmpp_sde", "euler_ancestral", "dpmpp_2s_ancestral"):
        fused = K.BrownianTreeNoiseSampler(x, 0.4, 10.0, seed=3)
        inside = getattr(K, f"sample_{name}")(model, x, sigmas, noise_sampler=fused)
        outside = getattr(K, f"sample_{name}")(model, x, sigmas, noise_sampler=lambda a, b, fused=fused: fused(a, b))
        torch.testing.assert_close(inside, outside, rtol=1e-6, atol=1e-6)


def test_noise_samplers_are_white_and_add_up():
    """Under upstream's interface: normalized increments that do not depend on what else was asked, seeds of each sample, signs."""
    x = torch.empty(200, 3, 8, 8)
    for make in (
        lambda seed: K.BrownianTreeNoiseSampler(x, 0.1, 10.0, seed=seed),
        lambda seed: K.BrownianTreeNoiseSampler(x, 0.1, 10.0, seed=seed, transform=lambda sigma: sigma.log()),
    ):
        noise = make(5)
        z = noise(torch.tensor(8.0), torch.tensor(2.0))
        assert z.shape == x.shape
        assert abs(float(z.mean())) < 5 / x.numel() ** 0.5
        assert float(z.var()) == pytest.approx(1, abs=5 * (2 / x.numel()) ** 0.5)
        assert torch.equal(make(5)(8.0, 2.0), z)
        assert torch.equal(noise(2.0, 8.0), -z)
        later = noise(2.0, 0.5)
        assert abs(float((z * later).mean())) < 5 / x.numel() ** 0.5
    batched = K.BrownianTreeNoiseSampler(x[:2], 0.1, 10.0, seed=[11, 12])(8.0, 2.0)
    alone = K.BrownianTreeNoiseSampler(x[:1], 0.1, 10.0, seed=[12])(8.0, 2.0)
    assert torch.equal(batched[1:], alone)


def test_batched_brownian_tree():
    """W(c) - W(a) is the sum of its parts, has variance c - a in the clock t itself, and changes sign with its ends."""
    x = torch.empty(64, 500)
    tree = K.BatchedBrownianTree(x, 0.0, 2.0, seed=1)
    first, second, whole = tree(0.0, 0.5), tree(0.5, 2.0), tree(0.0, 2.0)
    torch.testing.assert_close(first + second, whole, rtol=0, atol=0.01)  # (the grid has 2^20 cells)
    assert float(first.var()) == pytest.approx(0.5, rel=0.05)
    assert float(second.var()) == pytest.approx(1.5, rel=0.05)
    assert torch.equal(tree(0.5, 0.0), -first)
    assert not tree(0.5, 0.5).any()
    backwards = K.BatchedBrownianTree(x, 2.0, 0.0, seed=1)
    assert torch.equal(backwards(0.5, 0.0), first)
    middle = tree(0.0, 1.0)
    assert float((middle * whole).mean()) == pytest.approx(1.0, rel=0.05)  # covariance min(s, t)


def test_dpmpp_sde_takes_more_steps_than_the_path_has_cells_at_first():
    sigmas = torch.linspace(10.0, 9.9, 30)
    assert torch.isfinite(K.sample_dpmpp_sde(model, start(10.0), sigmas)).all()


# ---- Types, plans, errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_keep_a_float32_state(dtype):
    x, sigmas = start(5.0, dtype), torch.tensor([5.0, 2.0, 0.5, 0.0])
    seen = []

    def half(x, sigma):
        assert x.dtype == sigma.dtype == dtype
        return NET(x.float(), sigma.float()).to(dtype)

    for sample in (K.sample_heun, K.sample_lms, lambda *a: K.sample_dpm_adaptive(half, x, 0.5, 5.0, None, seen.append)):
        y = sample(half, x, sigmas, None, seen.append)
        assert y.dtype == dtype
    exact = K.sample_heun(lambda x, sigma: NET(x, sigma), x.double(), sigmas)
    torch.testing.assert_close(K.sample_heun(half, x, sigmas).double(), exact, rtol=0.05, atol=0.05)
    assert {info["denoised"].dtype for info in seen[:3]} == {dtype}


@pytest.mark.parametrize(
    ("name", "calls", "noisy"),
    [
        ("euler", 4, 0),
        ("heun", 7, 0),
        ("dpm_2", 7, 0),
        ("lms", 4, 0),
        ("dpmpp_2m", 4, 0),
        ("euler_ancestral", 4, 0),
        ("dpmpp_2m_sde", 4, 3),
    ],
)
def test_one_launch_for_each_network_call(name, calls, noisy):
    """And nothing that waits for a device; a Brownian increment is a launch of its own."""
    x, sigmas = start(10.0), torch.tensor([10.0, 4.0, 2.0, 0.5, 0.0])
    D = torch.zeros_like(x)
    sample = getattr(K, f"sample_{name}")
    sample(lambda x, sigma: D, x, sigmas)  # the tables are made once
    with Count() as count:
        sample(lambda x, sigma: D, x, sigmas)
    assert count.calls["fastdiff.sampler_step.default"] == calls
    assert count.calls["fastdiff.normal_sum.default"] == noisy
    others = {op for op in count.calls if not op.startswith("fastdiff.")}
    assert others <= {"aten.randint.low_generator", "aten.randint.low", "aten.unbind.int"}, others


def test_plans_are_made_once(monkeypatch):
    made = []
    original = fastdiff.EDMSampler.plan
    monkeypatch.setattr(fastdiff.EDMSampler, "plan", lambda self, net: made.append(self) or original(self, net))
    sigmas = torch.tensor([11.7, 2.3, 0.5, 0.0])
    for _ in range(3):
        K.sample_heun(model, start(11.7), sigmas, s_churn=0.7)
    assert len(made) == 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, s: K.sample_euler("model", x, s), TypeError, "model: expected a callable, got str"),
        (lambda x, s: K.sample_euler(model, x.long(), s), TypeError, "x: expected a floating tensor"),
        (lambda x, s: K.sample_euler(model, x, s.tolist()), TypeError, "sigmas: expected a floating tensor"),
        (lambda x, s: K.sample_euler(model, x, s, [1]), TypeError, "extra_args: expected a dictionary, got list"),
        (lambda x, s: K.sample_euler(model, x, -s), ValueError, "sigmas: expected at least two levels"),
        (lambda x, s: K.sample_dpmpp_2m(model, x, s * float("nan")), ValueError, "sigmas: expected at least two levels"),
        (
            lambda x, s: K.sample_euler_ancestral(model, x, s[:-1].flip(0)),
            ValueError,
            "sigmas: expected at least two levels that never rise",
        ),
        (lambda x, s: K.sample_heun(model, x, s, s_churn=-1.0), ValueError, "s_churn: expected a number >= 0, got -1.0"),
        (lambda x, s: K.sample_lms(model, x, s, order=5), ValueError, "order: expected 1, 2, 3 or 4, got 5"),
        (lambda x, s: K.sample_dpmpp_2m_sde(model, x, s, solver_type="rk"), ValueError, "solver_type: expected 'midpoint' or 'heun'"),
        (lambda x, s: K.sample_dpmpp_sde(model, x, s, r=0.0), ValueError, "r: expected 0 < r <= 1"),
        (lambda x, s: K.sample_dpm_fast(model, x, 0.0, 10.0, 5), ValueError, "sigma_min: expected a number > 0"),
        (lambda x, s: K.sample_dpm_fast(model, x, 10.0, 0.1, 5, eta=1.0), ValueError, "eta: expected 0 where sigma rises"),
        (lambda x, s: K.sample_dpm_adaptive(model, x, 0.1, 10.0, order=4), ValueError, "order: expected 2 or 3, got 4"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(start(10.0), torch.tensor([10.0, 1.0, 0.0]))
